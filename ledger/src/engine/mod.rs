//! Group commit: one task per tenant gathers what callers submit and commits it together.
//!
//! While a batch commits, the next one gathers by itself, so there is no timer: a lone command is committed at once,
//! and under load hundreds share one transaction. Nothing here is needed for correctness: two engines on one tenant
//! take turns on the head of the ledger.

mod committer;
mod waiting;

use std::fmt;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};

use self::committer::Committer;
use self::waiting::{Slot, Waiting};
use crate::command::{Command, Outcome};
use crate::store::Store;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// Commands that may wait for their batch; more are refused.
pub const QUEUE_LENGTH: usize = 4096;

/// The most commands one batch takes.
pub const MAX_BATCH: usize = 500;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The key belongs to another request of the same principal.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Too many commands are waiting, in all or for this account; nothing was done.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The database could not be reached, or did not confirm. Safe to submit again with the same key.
    #[error("the ledger is not available")]
    Unavailable,
    /// The database refuses this very command although the rules allow it, or its stored rows make no sense.
    #[error("the ledger refused the command: {0}")]
    Corrupt(String),
}

struct Request {
    command: Command,
    reply: oneshot::Sender<Result<Outcome, SubmitError>>,
    /// Its place in the queue, free again when it is answered.
    slot: Slot,
}

/// Handle to the engine of one tenant. Clones share it; it stops when the last one is gone or shut down.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    start: Box<dyn Fn(mpsc::Receiver<Request>, watch::Receiver<bool>) + Send + Sync>,
    queue: OnceLock<mpsc::Sender<Request>>,
    waiting: Arc<Waiting>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("started", &self.0.queue.get().is_some()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine whose task starts with the first command: most tenants are idle most of the time. It holds a session
    /// of `store` while it has work, and for a second more.
    #[must_use]
    pub fn new(store: impl Store, clock: Clock) -> Self {
        let start = move |requests, stop| {
            tokio::spawn(Committer::new(store.clone(), Arc::clone(&clock)).run(requests, stop));
        };
        Self(Arc::new(Shared {
            start: Box::new(start),
            queue: OnceLock::new(),
            waiting: Arc::default(),
            stop: watch::Sender::new(false),
        }))
    }

    fn queue(&self) -> &mpsc::Sender<Request> {
        let Shared { start, queue, stop, .. } = &*self.0;
        queue.get_or_init(|| {
            let (queue, requests) = mpsc::channel(QUEUE_LENGTH);
            start(requests, stop.subscribe());
            queue
        })
    }

    /// Has `command` carried out and answers once that is committed. The command is carried out even if the caller
    /// stops waiting.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        if *self.0.stop.borrow() {
            return Err(SubmitError::Unavailable);
        }
        let slot = Waiting::enter(&self.0.waiting, &command.kind).ok_or(SubmitError::Overloaded)?;
        let (reply, answer) = oneshot::channel();
        self.queue().try_send(Request { command, reply, slot }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => SubmitError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Unavailable,
        })?;
        answer.await.unwrap_or(Err(SubmitError::Unavailable))
    }

    /// Refuses new commands, carries out those that wait, and returns when the engine has stopped.
    pub async fn shutdown(&self) {
        self.0.stop.send_replace(true);
        self.0.stop.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use time::macros::datetime;
    use uuid::Uuid;

    use std::time::Duration;

    use super::*;
    use crate::command::{AccountType, AuditContext, Authority, CommandKind, Metadata};
    use crate::store::Postgres;

    /// An engine whose database does not exist.
    fn unreachable() -> Engine {
        let nowhere = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1);
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(300)).connect_lazy_with(nowhere);
        Engine::new(Postgres::new(pool), Arc::new(|| datetime!(2026-01-01 00:00 UTC)))
    }

    fn command(number: u128) -> Command {
        Command {
            principal: Uuid::from_u128(number),
            authority: Authority::Owner,
            key: "key".to_owned(),
            fingerprint: [0; 32],
            salt: [0; 16],
            kind: CommandKind::OpenAccount {
                owner: Uuid::from_u128(number),
                account_type: AccountType::Checking,
                currency: "USD".parse().unwrap(),
                name: "Any".to_owned(),
                metadata: Metadata::new(),
            },
            audit: AuditContext::default(),
        }
    }

    #[tokio::test]
    async fn without_a_database_callers_are_told_and_the_engine_lives_on() {
        let engine = unreachable();
        assert_eq!(engine.submit(command(1)).await, Err(SubmitError::Unavailable));
        assert_eq!(engine.submit(command(2)).await, Err(SubmitError::Unavailable));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let engine = unreachable();
        let submit = |number| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.submit(command(number)).await })
        };
        let extra = 10;
        let tasks: Vec<_> = (0..(QUEUE_LENGTH + MAX_BATCH + extra) as u128).map(submit).collect();
        let mut overloaded = 0;
        for task in tasks {
            match task.await.unwrap() {
                Err(SubmitError::Overloaded) => overloaded += 1,
                other => assert_eq!(other, Err(SubmitError::Unavailable)),
            }
        }
        assert!(overloaded >= extra, "{overloaded}");
    }

    #[tokio::test]
    async fn shutdown_answers_those_who_wait_and_refuses_the_rest() {
        let engine = unreachable();
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.submit(command(number)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        engine.shutdown().await;
        for task in waiting {
            assert!(task.is_finished() || task.await.unwrap() == Err(SubmitError::Unavailable));
        }
        assert_eq!(engine.submit(command(9)).await, Err(SubmitError::Unavailable));
        engine.shutdown().await;
    }
}
