//! What can go wrong, told apart by what the caller can do about it.

use sqlx::error::DatabaseError;

use crate::names::{ClaimId, NameError};

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of this crate. Messages carry object names and PostgreSQL's own primary message, never values or passwords.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached, is starting or stopping, or has no connection left.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// The server refuses writes; usually a standby.
    #[error("database is read-only")]
    ReadOnly,
    /// The login was refused or lacks a right.
    #[error("denied by the database: {0}")]
    Denied(String),
    /// An object of that name exists and is not this claim's. It is neither adopted nor dropped.
    #[error("{object} exists and belongs to {owner}")]
    Foreign {
        /// Kind and name, such as `schema t_acme_01234567`.
        object: String,
        /// What its comment says, or the role that owns it.
        owner: String,
    },
    /// Another operator has taken over leadership since this epoch.
    #[error("fenced: epoch {held} is no longer current, {current} is")]
    Fenced {
        /// The caller's epoch.
        held: i64,
        /// The recorded epoch.
        current: i64,
    },
    /// Another claim holds the name.
    #[error("{0}")]
    Conflict(Conflict),
    /// No such claim is recorded.
    #[error("claim {0} is not recorded")]
    UnknownClaim(ClaimId),
    /// A role that should have been made before does not exist.
    #[error("role {0} does not exist")]
    MissingRole(String),
    /// An applied migration differs from the one this program carries.
    #[error("migration {version} ({name}) differs from the one that was applied")]
    ChecksumMismatch {
        /// The migration's number.
        version: i32,
        /// The migration's name as recorded.
        name: String,
    },
    /// The schema was migrated by a newer program.
    #[error("schema is at version {found}, this program knows {known}")]
    NewerVersion {
        /// The recorded version.
        found: i32,
        /// This program's head version.
        known: i32,
    },
    /// A name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Any other error PostgreSQL reported.
    #[error("{message} (sqlstate {sqlstate})")]
    Database {
        /// Five characters, see PostgreSQL's appendix A.
        sqlstate: String,
        /// The primary message, without detail.
        message: String,
    },
    /// The answer was not what the driver or this crate expects.
    #[error("unexpected answer: {0}")]
    Unexpected(String),
}

/// Two tenants want one name; the one recorded first keeps it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is held by {namespace}/{name}")]
pub struct Conflict {
    /// What is taken, such as `schema t_acme` or `tenant name acme`.
    pub what: String,
    /// Namespace of the Tenant that holds it.
    pub namespace: String,
    /// Name of the Tenant that holds it.
    pub name: String,
}

impl Error {
    /// Whether the same call may succeed later with nothing repaired in between.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::ReadOnly => true,
            // Serialisation failure, deadlock, lock timeout, and two makers of one object at the same moment.
            Self::Database { sqlstate, .. } => {
                matches!(sqlstate.as_str(), "40001" | "40P01" | "55P03" | "42P06" | "42P07" | "42710")
            }
            _ => false,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => classify(error.as_ref()),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            other => Self::Unexpected(other.to_string()),
        }
    }
}

fn classify(error: &dyn DatabaseError) -> Error {
    let sqlstate = error.code().unwrap_or_default().into_owned();
    let message = error.message().to_owned();
    match sqlstate.as_str() {
        // Connection exceptions, shutdown and start-up, too many connections.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" => Error::Unavailable(message),
        code if code.starts_with("08") => Error::Unavailable(message),
        "25006" => Error::ReadOnly,
        "42501" | "28000" | "28P01" => Error::Denied(message),
        _ => Error::Database { sqlstate, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_time_can_heal_is_transient() {
        let database = |sqlstate: &str| Error::Database { sqlstate: sqlstate.into(), message: String::new() };
        assert!(Error::Unavailable(String::new()).is_transient());
        assert!(database("40P01").is_transient());
        assert!(!database("42601").is_transient());
        assert!(!Error::Fenced { held: 1, current: 2 }.is_transient());
        assert!(Error::from(sqlx::Error::PoolTimedOut).is_transient());
    }
}
