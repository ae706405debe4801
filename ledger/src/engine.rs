//! Group commit: one task per tenant gathers what callers submit and commits it together.
//!
//! While a batch commits, the next one gathers by itself, so there is no timer: a lone command is committed at once,
//! and under load hundreds share one transaction. Nothing here is needed for correctness: two engines on one tenant
//! take turns on the head of the ledger.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::PgPool;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};

use crate::command::{Command, Outcome};
use crate::rules::Answer;
use crate::store::{self, StoreError};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// Commands that may wait for their batch; more are refused.
pub const QUEUE_LENGTH: usize = 4096;

/// The most commands one batch takes.
pub const MAX_BATCH: usize = 500;

/// Pauses between attempts at a batch whose transaction broke off.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// The most time all attempts at a batch take together.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The key belongs to another request of the same principal.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// Too many commands are waiting; nothing was done.
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
}

/// Handle to the engine of one tenant. Clones share it; it stops when the last one is gone or shut down.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    committer: Committer,
    queue: OnceLock<mpsc::Sender<Request>>,
    stop: watch::Sender<bool>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("started", &self.0.queue.get().is_some()).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine whose task starts with the first command: most tenants are idle most of the time. It takes a
    /// connection from `pool` for the time of a batch and holds none in between.
    #[must_use]
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        let (queue, stop) = (OnceLock::new(), watch::Sender::new(false));
        Self(Arc::new(Shared { committer: Committer { pool, clock }, queue, stop }))
    }

    fn queue(&self) -> &mpsc::Sender<Request> {
        let Shared { committer, queue, stop } = &*self.0;
        queue.get_or_init(|| {
            let (queue, requests) = mpsc::channel(QUEUE_LENGTH);
            tokio::spawn(committer.clone().run(requests, stop.subscribe()));
            queue
        })
    }

    /// Has `command` carried out and answers once that is committed. The command is carried out even if the caller
    /// stops waiting.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        if *self.0.stop.borrow() {
            return Err(SubmitError::Unavailable);
        }
        let (reply, answer) = oneshot::channel();
        self.queue().try_send(Request { command, reply }).map_err(|refused| match refused {
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

#[derive(Clone)]
struct Committer {
    pool: PgPool,
    clock: Clock,
}

impl Committer {
    async fn run(self, mut requests: mpsc::Receiver<Request>, mut stop: watch::Receiver<bool>) {
        let mut gathered = Vec::with_capacity(MAX_BATCH);
        loop {
            let count = tokio::select! {
                Ok(_) = stop.wait_for(|stop| *stop), if !requests.is_closed() => {
                    requests.close();
                    continue;
                }
                count = requests.recv_many(&mut gathered, MAX_BATCH) => count,
            };
            if count == 0 {
                return;
            }
            let (commands, replies): (Vec<_>, Vec<_>) =
                gathered.drain(..).map(|request| (request.command, request.reply)).unzip();
            for (reply, result) in replies.into_iter().zip(self.settle(&commands).await) {
                // A caller that has gone away learns the outcome when it comes back with its key.
                let _ = reply.send(result);
            }
        }
    }

    /// Commits `commands`, in halves where the database refuses them together: one bad command fails alone.
    async fn settle(&self, commands: &[Command]) -> Vec<Result<Outcome, SubmitError>> {
        let mut results = Vec::with_capacity(commands.len());
        let mut slices = vec![commands];
        while let Some(slice) = slices.pop() {
            match self.commit(slice).await {
                Ok(answers) => results.extend(answers.into_iter().map(answered)),
                Err(StoreError::Refused(_)) if slice.len() > 1 => {
                    let (first, second) = slice.split_at(slice.len() / 2);
                    slices.extend([second, first]);
                }
                Err(StoreError::Refused(cause)) => {
                    tracing::error!(%cause, "the database refused a ledger command that the rules accept");
                    results.push(Err(SubmitError::Corrupt(cause.to_string())));
                }
                Err(cause) => {
                    tracing::error!(%cause, "gave up on a ledger batch");
                    results.resize(commands.len(), Err(SubmitError::Unavailable));
                    break;
                }
            }
        }
        results
    }

    async fn commit(&self, commands: &[Command]) -> Result<Vec<Answer>, StoreError> {
        let attempts = async {
            for pause in PAUSES {
                match store::commit(&self.pool, commands, (self.clock)()).await {
                    Err(StoreError::Interrupted(cause)) => {
                        tracing::warn!(%cause, "a ledger batch was interrupted and is tried again");
                        tokio::time::sleep(self.jittered(pause)).await;
                    }
                    settled => return settled,
                }
            }
            store::commit(&self.pool, commands, (self.clock)()).await
        };
        tokio::time::timeout(DEADLINE, attempts).await.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Half to one and a half times `pause`. The clock's nanoseconds are chance enough to keep replicas apart.
    fn jittered(&self, pause: Duration) -> Duration {
        pause / 2 + pause * ((self.clock)().nanosecond() % 1000) / 1000
    }
}

fn answered(answer: Answer) -> Result<Outcome, SubmitError> {
    match answer {
        Answer::Decided(outcome) | Answer::Replayed(outcome) => Ok(outcome),
        Answer::KeyReused => Err(SubmitError::KeyReused),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::command::{AccountType, AuditContext, CommandKind};

    /// An engine whose database does not exist.
    fn unreachable() -> Engine {
        let nowhere = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1);
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(300)).connect_lazy_with(nowhere);
        Engine::new(pool, Arc::new(|| datetime!(2026-01-01 00:00 UTC)))
    }

    fn command(number: u128) -> Command {
        Command {
            principal: Uuid::from_u128(number),
            key: "key".to_owned(),
            fingerprint: [0; 32],
            kind: CommandKind::OpenAccount {
                owner: Uuid::from_u128(number),
                account_type: AccountType::Checking,
                currency: "USD".parse().unwrap(),
                name: "Any".to_owned(),
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
