//! Where a ledger is kept: what the engine asks of it, and PostgreSQL's answer.
//!
//! A [`Session`] reads and then writes one batch. What it read is what the batch is decided on, and the head of the
//! ledger is the witness: whoever commits advances it, so a batch whose head has moved is refused ([`StoreError::Fenced`])
//! and nothing that was read can have changed unnoticed. In a locked session the head does not move at all.

mod postgres;

use std::future::Future;

use thiserror::Error;
use uuid::Uuid;

pub use self::postgres::Postgres;
use crate::command::{Command, Hold};
use crate::id::{AccountId, JournalId, Sequence};
use crate::money::Currency;
use crate::rules::{AccountState, Decision, Head, Original, Remembered};

/// Why a batch was not committed, or is not known to be.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store refused what the rules accepted, or holds what they cannot read. The same batch would fail again.
    #[error("refused by the database: {0}")]
    Refused(String),
    /// Another batch came first; nothing was written.
    #[error("the ledger has moved on")]
    Fenced,
    /// An idempotency key of the batch is in use; nothing was written.
    #[error("an idempotency key is in use")]
    KeyTaken,
    /// The connection broke off; the batch may have been committed. Deciding it again is safe once its answers have
    /// been looked up in a locked session, which waits until the broken one is settled.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// No connection, or no answer, in the time there was.
    #[error("no database connection in time")]
    Unavailable,
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The ledger of one tenant.
pub trait Store: Clone + Send + Sync + 'static {
    /// What is read and written through.
    type Session: Session;

    /// Starts a session.
    fn open(&self) -> impl Future<Output = Result<Self::Session>> + Send;

    /// Whether a session may be kept while nothing is to be done: others need one too.
    fn can_spare_one(&self) -> bool;
}

/// Batch after batch: read, decide, write. What does not exist is left out of an answer. After an error it is of no
/// further use; dropped, it lets go of the head.
pub trait Session: Send {
    /// The end of the ledger. Whatever is read after it is at least as new. Another may overtake this session; then its
    /// batch is refused.
    fn head(&mut self) -> impl Future<Output = Result<Head>> + Send;

    /// Waits for the head and holds it until the session lets go of it.
    fn lock(&mut self) -> impl Future<Output = Result<Head>> + Send;

    /// The accounts with these ids, and the settlement accounts of these currencies.
    fn accounts(
        &mut self,
        ids: &[Sequence],
        currencies: &[Currency],
    ) -> impl Future<Output = Result<Vec<(AccountId, AccountState)>>> + Send;

    /// The holds with these ids.
    fn holds(&mut self, ids: &[Sequence]) -> impl Future<Output = Result<Vec<Hold>>> + Send;

    /// The journals with these ids.
    fn originals(&mut self, ids: &[Sequence]) -> impl Future<Output = Result<Vec<(JournalId, Original)>>> + Send;

    /// What was answered under these keys.
    fn answers(
        &mut self,
        keys: &[(Uuid, &str)],
    ) -> impl Future<Output = Result<Vec<((Uuid, String), Remembered)>>> + Send;

    /// Lets go of the head, if it is held.
    fn release(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Writes what was decided on a ledger that ended at `from`, commits, and lets go of the head.
    fn write(
        &mut self,
        from: Head,
        commands: &[Command],
        decision: &Decision,
    ) -> impl Future<Output = Result<()>> + Send;
}
