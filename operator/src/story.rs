//! What happened in one visit, told afterwards as events and metrics. Steps write it, and never publish anything.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use finaiflow_crds::condition::{self, ConditionType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::catalog::ClaimId;

/// Something worth an event on the visited object. Display is a sentence for people and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The claim was recorded.
    Claimed {
        /// The new identity.
        claim: ClaimId,
        /// The schema it holds.
        schema: String,
        /// On which server.
        server: String,
    },
    /// The claim of an earlier Tenant was taken over.
    Adopted {
        /// The bank's identity.
        claim: ClaimId,
        /// The schema it holds.
        schema: String,
        /// On which server.
        server: String,
        /// `<namespace>/<name>` of the Tenant that had it.
        from: String,
    },
    /// Roles and schema were made.
    Provisioned {
        /// The schema.
        schema: String,
        /// Its owner role.
        owner: String,
    },
    /// The schema was migrated.
    Migrated {
        /// From this version; None for an empty schema.
        from: Option<i32>,
        /// To this one.
        to: i32,
    },
    /// Secrets were made.
    CredentialsCreated(Vec<String>),
    /// Something had been changed or removed by somebody else and is as declared again.
    DriftCorrected(Vec<String>),
    /// Something follows a changed spec or configuration.
    Updated(Vec<String>),
    /// The schema of a bank that was running had disappeared.
    SchemaLost(String),
    /// The signing keys were lost and are new.
    SigningKeysReplaced(String),
    /// The tenant is ready for the first time or again.
    Ready(String),
    /// The tenant is no longer, or not yet, ready, for a reason that is new.
    NotReady {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
    /// The ledger was found in order, after it was not known or wrong.
    LedgerVerified(String),
    /// The ledger was found wrong.
    LedgerImbalance(String),
    /// The ledger could not be verified.
    VerificationFailed(String),
    /// The Tenant was deleted and its data kept.
    Released {
        /// The claim that was given up.
        claim: ClaimId,
        /// The schema that stays.
        schema: String,
    },
    /// The Tenant was deleted with its data.
    Dropped(Vec<String>),
    /// The keys of dropped data could not be deleted.
    KeysLeft(String),
    /// A policy is attached to its targets.
    Accepted(String),
    /// Nothing of a policy counts, because of others that are more or less specific.
    Overridden(String),
    /// Every replica enforces a policy.
    Programmed(String),
    /// Something came of the jobs of a Backup or a Restore.
    Backup {
        /// In one word.
        reason: &'static str,
        /// Whether somebody should look.
        warning: bool,
        /// For people.
        message: String,
    },
}

impl Fact {
    /// The event's reason.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Claimed { .. } => "Claimed",
            Self::Adopted { .. } => "Adopted",
            Self::Provisioned { .. } => "Provisioned",
            Self::Migrated { .. } => "Migrated",
            Self::CredentialsCreated(_) => "CredentialsCreated",
            Self::DriftCorrected(_) => "DriftCorrected",
            Self::Updated(_) => "Updated",
            Self::SchemaLost(_) => "SchemaLost",
            Self::SigningKeysReplaced(_) => "SigningKeysReplaced",
            Self::Ready(_) => "Ready",
            Self::NotReady { reason, .. } if reason.ends_with("Conflict") => "Conflict",
            Self::NotReady { reason, .. } => reason,
            Self::LedgerVerified(_) => "LedgerVerified",
            Self::LedgerImbalance(_) => "LedgerImbalance",
            Self::VerificationFailed(_) => "VerificationFailed",
            Self::Released { .. } => "Released",
            Self::Dropped(_) => "Dropped",
            Self::KeysLeft(_) => "KeysLeft",
            Self::Accepted(_) => "Accepted",
            Self::Overridden(_) => "Overridden",
            Self::Programmed(_) => "Programmed",
            Self::Backup { reason, .. } => reason,
        }
    }

    /// Whether somebody should look.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::SchemaLost(_)
                | Self::SigningKeysReplaced(_)
                | Self::NotReady { .. }
                | Self::LedgerImbalance(_)
                | Self::VerificationFailed(_)
                | Self::KeysLeft(_)
                | Self::Backup { warning: true, .. }
        )
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed { claim, schema, server } => {
                write!(f, "Recorded claim {claim}, which holds schema {schema} on server {server}.")
            }
            Self::Adopted { claim, schema, server, from } => {
                write!(f, "Took over claim {claim} of Tenant {from}, which holds schema {schema} on server {server}.")
            }
            Self::Provisioned { schema, owner } => write!(f, "Made schema {schema}, owned by role {owner}."),
            Self::Migrated { from: Some(from), to } => write!(f, "Migrated the schema from version {from} to {to}."),
            Self::Migrated { from: None, to } => write!(f, "Migrated the empty schema to version {to}."),
            Self::CredentialsCreated(secrets) => write!(f, "Made {}.", list(secrets)),
            Self::DriftCorrected(what) => write!(f, "Not as declared, put right: {}.", list(what)),
            Self::Updated(what) => write!(f, "Followed a change: {}.", list(what)),
            Self::SchemaLost(schema) => {
                write!(f, "Schema {schema} had disappeared and is new and empty; restore its data from a backup.")
            }
            Self::SigningKeysReplaced(secret) => {
                write!(f, "Secret {secret} was lost and is new; access tokens signed before are void.")
            }
            Self::NotReady { message, .. } => write!(f, "Not ready: {message}."),
            Self::Ready(message)
            | Self::LedgerVerified(message)
            | Self::LedgerImbalance(message)
            | Self::VerificationFailed(message)
            | Self::Accepted(message)
            | Self::Overridden(message)
            | Self::Programmed(message)
            | Self::Backup { message, .. } => write!(f, "{message}."),
            Self::Released { claim, schema } => {
                write!(f, "Closed the logins and released claim {claim}; schema {schema} is retained, ")?;
                f.write_str("and so are the keys while the namespace exists.")
            }
            Self::Dropped(what) => write!(f, "Dropped {}.", list(what)),
            Self::KeysLeft(why) => write!(f, "The bank is dropped, but Secrets with its keys are left: {why}."),
        }
    }
}

fn list(items: &[String]) -> String {
    items.join(", ")
}

/// A condition, if its status or reason is new.
#[must_use]
pub fn news<'a>(old: &[Condition], new: &'a [Condition], kind: ConditionType) -> Option<&'a Condition> {
    let (old, new) = (condition::find(old, kind), condition::find(new, kind)?);
    let same = old.is_some_and(|old| old.status == new.status && old.reason == new.reason);
    (!same).then_some(new)
}

/// What happened in one visit.
#[derive(Debug, Default)]
pub struct Story {
    told: Mutex<Told>,
}

/// A story's contents.
#[derive(Debug, Default)]
pub struct Told {
    /// In the order in which they happened.
    pub facts: Vec<Fact>,
    /// How long each step took.
    pub steps: Vec<(&'static str, Duration)>,
}

impl Story {
    /// Adds a fact.
    pub fn tell(&self, fact: Fact) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).facts.push(fact);
    }

    /// Runs a step and notes how long it took. Steps within a step count towards both.
    pub async fn step<T>(&self, name: &'static str, step: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let result = step.await;
        self.told.lock().unwrap_or_else(PoisonError::into_inner).steps.push((name, started.elapsed()));
        result
    }

    /// Everything told so far, which starts over.
    pub fn take(&self) -> Told {
        std::mem::take(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_sentences() {
        let claim = ClaimId::from_random(1);
        let facts = [
            Fact::Claimed { claim, schema: "t_a".to_owned(), server: "primary".to_owned() },
            Fact::Migrated { from: Some(2), to: 3 },
            Fact::DriftCorrected(vec!["role x".to_owned(), "role y".to_owned()]),
            Fact::Released { claim, schema: "t_a".to_owned() },
        ];
        assert_eq!(
            facts.map(|fact| fact.to_string()),
            [
                "Recorded claim 0000000000000001, which holds schema t_a on server primary.",
                "Migrated the schema from version 2 to 3.",
                "Not as declared, put right: role x, role y.",
                "Closed the logins and released claim 0000000000000001; schema t_a is retained, and so are the keys \
                 while the namespace exists.",
            ]
        );
    }

    #[test]
    fn every_conflict_is_one_kind_of_event() {
        let not_ready = |reason: &str| Fact::NotReady { reason: reason.to_owned(), message: String::new() };
        assert_eq!(not_ready("SchemaConflict").reason(), "Conflict");
        assert_eq!(not_ready("KeyLost").reason(), "KeyLost");
        assert!(not_ready("KeyLost").is_warning() && !Fact::Ready(String::new()).is_warning());
    }
}
