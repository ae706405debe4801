//! SQL of identity, sessions and their audit trail; the ledger's own SQL is in `finaiflow-ledger`.
//!
//! Statements name tables without a schema: the tenant's login role has its own search path and no right elsewhere.
//! A function that decides something writes and commits it before it returns, so an answer of 4xx cannot undo a
//! security write: what went wrong for the client is a variant of the outcome, not an error.

pub mod audit;
pub mod idempotency;
pub mod sessions;
pub mod users;

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A failed statement or connection.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The next refresh token could not be derived.
    #[error("key derivation failed")]
    Derivation(#[from] aws_lc_rs::error::Unspecified),
}

impl StoreError {
    /// Whether the same request may well succeed in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls};
        match self {
            Self::Database(Io(_) | Tls(_) | PoolTimedOut | PoolClosed) => true,
            Self::Database(Database(error)) => error.code().is_some_and(|code| is_transient_state(&code)),
            Self::Database(_) | Self::Derivation(_) => false,
        }
    }
}

/// Connection, authorisation (a password being rotated), rollback, resource and operator-intervention classes.
fn is_transient_state(code: &str) -> bool {
    ["08", "28", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_transient_and_a_wrong_statement_is_not() {
        assert!(StoreError::Database(sqlx::Error::PoolTimedOut).is_transient());
        assert!(!StoreError::Database(sqlx::Error::RowNotFound).is_transient());
        for (code, transient) in [("57P01", true), ("53300", true), ("28P01", true), ("42P01", false), ("23505", false)]
        {
            assert_eq!(is_transient_state(code), transient, "{code}");
        }
    }
}
