//! Why a visit to a Tenant failed, and what that means for its conditions.

use finaiflow_crds::condition::ConditionType;

use crate::catalog;
use crate::random::RandomError;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a visit to a Tenant failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing changes before a person acts.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// Every server of the class is full.
    #[error("every server of database class {0} is at its capacity")]
    ClassFull(String),
    /// PostgreSQL failed or refused.
    #[error("server {server}: {source}")]
    Catalog {
        /// The server's name in the configuration.
        server: String,
        /// What happened.
        source: catalog::Error,
    },
    /// The Kubernetes API failed or refused.
    #[error("{action}: {source}")]
    Kubernetes {
        /// What was attempted, such as `write secret acme.database`.
        action: String,
        /// What happened.
        source: Box<kube::Error>,
    },
    /// The last backup of a bank that is to be dropped is not stored, or not good.
    #[error("the last backup failed: {0}")]
    LastBackup(String),
    /// An object of ours cannot be written as JSON.
    #[error("serialise: {0}")]
    Serialise(#[from] serde_json::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The whole visit, or sweep, took too long.
    #[error("it took longer than {0} s")]
    Timeout(u64),
}

/// Something that only a person can resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, in one word for the condition.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// The word for a failure in conditions, events and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The configuration has no such database class.
    ClassNotFound,
    /// Every server of the class is full.
    ClassFull,
    /// The operator lacks a right in the namespace.
    Forbidden,
    /// Another Tenant has the name.
    NameConflict,
    /// The schema is somebody else's.
    SchemaConflict,
    /// A Secret of the tenant's names is not the tenant's.
    SecretConflict,
    /// An earlier Tenant of the name was deleted and its data retained.
    ClaimReleased,
    /// The claim in `spec.adoptClaim`, or the one that was left under this name, cannot be taken over.
    AdoptionRefused,
    /// The status names a claim that the server does not know.
    ClaimLost,
    /// The data key is gone; a new one could not read what exists.
    KeyLost,
    /// A name derived from the spec cannot be used.
    InvalidName,
    /// The schema was migrated by another version of the program.
    MigrationRefused,
    /// The configuration offers no backups, or not to where the Backup wants them.
    NotOffered,
    /// An older Backup acts for the bank.
    NotActing,
    /// The Tenant of the name is another bank than the one that was backed up.
    OtherBank,
    /// A schedule never runs, or too rarely for the objectives.
    InvalidSchedule,
    /// A volume of the bank's names is not the bank's.
    VolumeConflict,
    /// A bank that is to be backed up before it is dropped has no Backup.
    NoBackup,
    /// The last backup of such a bank failed; it is taken anew.
    LastBackupFailed,
    /// PostgreSQL cannot be used at the moment.
    DatabaseUnavailable,
    /// PostgreSQL reported an error.
    DatabaseError,
    /// The Kubernetes API failed.
    KubernetesError,
    /// The operator itself failed.
    InternalError,
    /// The visit took too long.
    Timeout,
}

impl Reason {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClassNotFound => "ClassNotFound",
            Self::ClassFull => "ClassFull",
            Self::Forbidden => "Forbidden",
            Self::NameConflict => "NameConflict",
            Self::SchemaConflict => "SchemaConflict",
            Self::SecretConflict => "SecretConflict",
            Self::ClaimReleased => "ClaimReleased",
            Self::AdoptionRefused => "AdoptionRefused",
            Self::ClaimLost => "ClaimLost",
            Self::KeyLost => "KeyLost",
            Self::InvalidName => "InvalidName",
            Self::MigrationRefused => "MigrationRefused",
            Self::NotOffered => "NotOffered",
            Self::NotActing => "NotActing",
            Self::OtherBank => "OtherBank",
            Self::InvalidSchedule => "InvalidSchedule",
            Self::VolumeConflict => "VolumeConflict",
            Self::NoBackup => "NoBackup",
            Self::LastBackupFailed => "LastBackupFailed",
            Self::DatabaseUnavailable => "DatabaseUnavailable",
            Self::DatabaseError => "DatabaseError",
            Self::KubernetesError => "KubernetesError",
            Self::InternalError => "InternalError",
            Self::Timeout => "Timeout",
        }
    }

    /// True if nothing changes before a person acts: the condition is `Stalled`.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::ClassNotFound
            | Self::Forbidden
            | Self::NameConflict
            | Self::SchemaConflict
            | Self::SecretConflict
            | Self::ClaimReleased
            | Self::AdoptionRefused
            | Self::ClaimLost
            | Self::KeyLost
            | Self::InvalidName
            | Self::MigrationRefused
            | Self::NotOffered
            | Self::NotActing
            | Self::OtherBank
            | Self::InvalidSchedule
            | Self::VolumeConflict
            | Self::NoBackup => true,
            Self::ClassFull
            | Self::LastBackupFailed
            | Self::DatabaseUnavailable
            | Self::DatabaseError
            | Self::KubernetesError
            | Self::InternalError
            | Self::Timeout => false,
        }
    }

    /// The condition that is False because of it, besides Ready. Failures that may pass leave what was true.
    #[must_use]
    pub const fn falsifies(self) -> Option<ConditionType> {
        match self {
            Self::SchemaConflict
            | Self::MigrationRefused
            | Self::ClaimLost
            | Self::ClaimReleased
            | Self::AdoptionRefused => Some(ConditionType::SchemaReady),
            Self::SecretConflict | Self::KeyLost => Some(ConditionType::CredentialsReady),
            _ => None,
        }
    }
}

impl Error {
    /// A failure that only a person can resolve.
    pub fn refused(reason: Reason, message: impl Into<String>) -> Self {
        Self::Refused(Refusal { reason, message: message.into() })
    }

    /// The word for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::ClassFull(_) => Reason::ClassFull,
            Self::Catalog { source, .. } => catalog_reason(source),
            Self::Kubernetes { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() => Reason::Forbidden,
                _ => Reason::KubernetesError,
            },
            Self::LastBackup(_) => Reason::LastBackupFailed,
            Self::Serialise(_) | Self::Random(_) => Reason::InternalError,
            Self::Timeout(_) => Reason::Timeout,
        }
    }

    /// For people. A missing right is told together with what to change.
    #[must_use]
    pub fn message(&self, namespace: &str) -> String {
        match self {
            Self::Kubernetes { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_forbidden() && status.message.contains(" cannot ") => {
                    format!("{}; {}", status.message, grant_hint(namespace))
                }
                _ => self.to_string(),
            },
            _ => self.to_string(),
        }
    }

    /// True if a newer operator has taken over: this process must end.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        matches!(self, Self::Catalog { source: catalog::Error::Schema(finaiflow_schema::Error::Fenced { .. }), .. })
    }
}

/// How a namespace is opened to the operator.
#[must_use]
pub fn grant_hint(namespace: &str) -> String {
    format!(
        "add {namespace} to tenantNamespaces in the values of the finaiflow chart, \
         which binds the rules the operator needs there"
    )
}

fn catalog_reason(error: &catalog::Error) -> Reason {
    use finaiflow_schema::Error as E;
    let catalog::Error::Schema(error) = error else { return Reason::DatabaseUnavailable };
    match error {
        E::Conflict(conflict) if conflict.what.starts_with("tenant name") => Reason::NameConflict,
        E::Conflict(_) | E::Foreign { .. } => Reason::SchemaConflict,
        E::ChecksumMismatch { .. } | E::NewerVersion { .. } => Reason::MigrationRefused,
        E::Name(_) => Reason::InvalidName,
        E::Unavailable(_) | E::ReadOnly | E::Denied(_) | E::Fenced { .. } => Reason::DatabaseUnavailable,
        error if error.is_transient() => Reason::DatabaseUnavailable,
        _ => Reason::DatabaseError,
    }
}

/// Names what was attempted when the Kubernetes API failed.
pub trait Attempt<T> {
    /// `action` completes "failed to …".
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Attempt<T> for kube::Result<T> {
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Kubernetes { action: action(), source: Box::new(source) })
    }
}

/// Names the server when the catalog failed.
pub trait OnServer<T> {
    /// `server` is its name in the configuration.
    fn on(self, server: &str) -> Result<T>;
}

impl<T> OnServer<T> for catalog::Result<T> {
    fn on(self, server: &str) -> Result<T> {
        self.map_err(|source| Error::Catalog { server: server.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use finaiflow_schema::{Conflict, Error as Schema};

    use super::*;

    fn reason(error: Schema) -> Reason {
        Error::Catalog { server: "primary".to_owned(), source: error.into() }.reason()
    }

    #[test]
    fn what_postgresql_says_decides_who_must_act() {
        let conflict = |what: &str| {
            Schema::Conflict(Conflict { what: what.to_owned(), namespace: "a".to_owned(), name: "b".to_owned() })
        };
        let database = |sqlstate: &str| Schema::Database { sqlstate: sqlstate.to_owned(), message: String::new() };
        for (error, expected) in [
            (conflict("tenant name acme"), Reason::NameConflict),
            (conflict("schema t_acme"), Reason::SchemaConflict),
            (Schema::Foreign { object: "schema x".to_owned(), owner: "y".to_owned() }, Reason::SchemaConflict),
            (Schema::NewerVersion { found: 9, known: 3 }, Reason::MigrationRefused),
            (Schema::Unavailable(String::new()), Reason::DatabaseUnavailable),
            (Schema::ReadOnly, Reason::DatabaseUnavailable),
            (Schema::Denied(String::new()), Reason::DatabaseUnavailable),
            (database("40P01"), Reason::DatabaseUnavailable),
            (database("42601"), Reason::DatabaseError),
        ] {
            assert_eq!(reason(error), expected);
        }
    }

    #[test]
    fn a_newer_operator_is_recognised() {
        let error = |source: Schema| Error::Catalog { server: "primary".to_owned(), source: source.into() };
        assert!(error(Schema::Fenced { held: 1, current: 2 }).is_fenced());
        assert!(!error(Schema::ReadOnly).is_fenced());
    }
}
