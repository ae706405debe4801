//! Conditions of a resource, by the Kubernetes API conventions.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message a condition carries, in bytes; longer ones are cut on a character boundary.
pub const MESSAGE_MAX: usize = 1024;

/// The conditions of our resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The summary: everything the spec asks for is in place and has been served at least once.
    Ready,
    /// Schema, roles, grants and migrations are as declared.
    SchemaReady,
    /// Logins and keys exist and match the Secrets.
    CredentialsReady,
    /// Every live API server replica has applied the Tenant. Gates only the first Ready.
    Serving,
    /// What the newest ledger verification found. Starts Unknown and never gates Ready.
    LedgerVerified,
    /// A Backup of the Tenant meets its recovery point objective, and what it stored was found good. Never gates Ready.
    Protected,
    /// A policy names targets that exist, can be enforced, and is not beaten by an older one.
    Accepted,
    /// Every live API server replica enforces the policy as it is.
    Programmed,
    /// No more data can be lost than the objective allows: a backup that is new enough lies at every destination.
    RPOMet,
    /// The newest drill or verification restored within the objective.
    RTOMet,
    /// The newest verification of every destination that was verified found everything good. Starts Unknown.
    Verified,
    /// Every destination holds what was stored at any.
    Copied,
    /// What a Restore is to bring back is found, whole and readable.
    Planned,
    /// What a Restore was for is done. Unknown until the end, and then never changes.
    Succeeded,
    /// Present while a Restore replaces the data: the API server lets go of the Tenant and answers 503.
    Restoring,
    /// Present while work is under way (kstatus).
    Reconciling,
    /// Present when nothing changes before a person acts (kstatus).
    Stalled,
}

impl ConditionType {
    /// The `type` string.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::SchemaReady => "SchemaReady",
            Self::CredentialsReady => "CredentialsReady",
            Self::Serving => "Serving",
            Self::LedgerVerified => "LedgerVerified",
            Self::Protected => "Protected",
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
            Self::RPOMet => "RPOMet",
            Self::RTOMet => "RTOMet",
            Self::Verified => "Verified",
            Self::Copied => "Copied",
            Self::Planned => "Planned",
            Self::Succeeded => "Succeeded",
            Self::Restoring => "Restoring",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Not known (yet).
    Unknown,
}

impl Truth {
    /// The `status` string.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// Sets one condition. The transition time moves only when the status flips, so that writing the same state
/// twice yields the same object.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    status: Truth,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: k8s_openapi::jiff::Timestamp,
) {
    let since = find(conditions, kind)
        .filter(|old| old.status == status.as_str())
        .map_or(Time(now), |old| old.last_transition_time.clone());
    let new = Condition {
        type_: kind.as_str().to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: cut(message).to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind.as_str()) {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}

/// Takes a condition away (for `Reconciling` and `Stalled`, which are present only when abnormal).
pub fn remove(conditions: &mut Vec<Condition>, kind: ConditionType) {
    conditions.retain(|c| c.type_ != kind.as_str());
}

/// The condition of that type, if present.
#[must_use]
pub fn find(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.as_str())
}

/// True if the condition is present with status `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == Truth::True.as_str())
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_on_a_flip() {
        let mut c = Vec::new();
        set(&mut c, ConditionType::Ready, Truth::False, "Provisioning", "", Some(1), at(1));
        set(&mut c, ConditionType::Ready, Truth::False, "Forbidden", "why", Some(2), at(2));
        assert_eq!(c[0].last_transition_time, Time(at(1)));
        assert_eq!(c[0].reason, "Forbidden");
        set(&mut c, ConditionType::Ready, Truth::True, "Reconciled", "", Some(2), at(3));
        assert_eq!(c[0].last_transition_time, Time(at(3)));
        assert_eq!(c.len(), 1);
    }

    #[test]
    fn long_messages_are_cut_on_a_character() {
        let mut c = Vec::new();
        set(&mut c, ConditionType::Ready, Truth::False, "X", &"ä".repeat(MESSAGE_MAX), None, at(1));
        assert_eq!(c[0].message.len(), MESSAGE_MAX);
        set(&mut c, ConditionType::Ready, Truth::False, "X", &format!("a{}", "ä".repeat(MESSAGE_MAX)), None, at(1));
        assert_eq!(c[0].message.len(), MESSAGE_MAX - 1);
    }
}
