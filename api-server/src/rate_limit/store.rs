//! The buckets that all replicas share, in Redis.
//!
//! Every decision is one call of one script (`take.lua`), which reads the time itself. A call that takes longer than
//! [`CALL_TIMEOUT`] has failed. After [`FAILURES`] in a row the store counts as lost: nobody waits for it any more, and a
//! task of its own tries to reach it again.
//!
//! One request may ask for buckets of its tenant and of all tenants, in one call: all of them are on one server, so that a
//! Redis Cluster will not do.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError, Script};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::lease::Wish;
use super::rate::{Algorithm, Micros, State, Terms};
use crate::clock::Clock;

/// How long a request waits for the store, and how quickly it has to answer to be found again.
const CALL_TIMEOUT: Duration = Duration::from_millis(50);
/// How long it may take to open a connection, on which no request waits.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// So many failed calls in a row, and the store counts as lost.
const FAILURES: u32 = 3;
/// Time between attempts to reach it. They are made whenever the clock shows a multiple of it, so that all replicas find
/// the store at the same moment: what each granted without it is charged before one of them takes what is left.
const RETRY: Duration = Duration::from_millis(250);
/// Values of the answer before, and for each ask.
const ANSWER: (usize, usize) = (2, 5);

/// The URL is not one of a Redis: `redis[s]://[user:password@]host[:port][/database]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the URL of the rate limits' store is not a redis:// or rediss:// URL")]
pub struct InvalidUrl;

/// The store gave no usable answer in time. What was asked may have been done or not.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("not connected")]
    Unconnected,
    #[error("no answer in time")]
    Timeout,
    /// Without what the server said: it may repeat what it was sent.
    #[error("{:?}", .0.kind())]
    Redis(#[from] RedisError),
    #[error("an answer in another form")]
    Form,
}

/// What is asked of one bucket.
#[derive(Debug)]
pub(super) struct Request {
    pub key: String,
    /// The whole rate, not this replica's part.
    pub terms: Terms,
    pub cost: u64,
    pub wish: Wish,
}

/// What became of all requests of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The store's time.
    pub now: Micros,
    pub admitted: bool,
    pub parts: Vec<Part>,
}

/// What became of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub refused: bool,
    /// Leased on top of the cost.
    pub extra: u64,
    pub state: State,
    pub base: Micros,
}

impl Request {
    fn arguments(&self) -> [u64; 14] {
        let Self { terms, cost, wish: Wish { want, divisor, back, base, floor, debt, .. }, .. } = self;
        let (scale, token, room) = terms.parts();
        [
            scale,
            token.0,
            token.1,
            room.0,
            room.1,
            *cost,
            *want,
            *divisor,
            back.0,
            back.1,
            base.unwrap_or(0),
            floor.0,
            floor.1,
            *debt,
        ]
    }
}

/// How calls go, for whoever counts them: how long it took, and whether there was an answer.
type OnCall = Box<dyn Fn(Duration, bool) + Send + Sync>;

struct Inner {
    client: Client,
    script: Script,
    /// None while the store is lost. The number tells connections apart.
    connection: RwLock<Option<(u64, MultiplexedConnection)>>,
    /// In a row.
    failures: AtomicU32,
    calls: AtomicU64,
    errors: AtomicU64,
    lost: Notify,
    on_call: OnceLock<OnCall>,
}

/// A Redis that keeps the buckets for all replicas. It need not be there yet, or for ever.
pub struct Store {
    inner: Arc<Inner>,
    task: AbortHandle,
    timeout: Duration,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("available", &self.available()).finish_non_exhaustive()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    /// Begins to connect, and goes on for as long as the store is used. Needs a running tokio.
    pub fn connect(url: &str, clock: Clock) -> Result<Self, InvalidUrl> {
        let address = url.into_connection_info().map_err(|_| InvalidUrl)?;
        let tcp = address.tcp_settings().clone().set_nodelay(true);
        let inner = Arc::new(Inner {
            client: Client::open(address.set_tcp_settings(tcp)).map_err(|_| InvalidUrl)?,
            script: Script::new(include_str!("take.lua")),
            connection: RwLock::new(None),
            failures: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            lost: Notify::new(),
            on_call: OnceLock::new(),
        });
        let task = tokio::spawn(keep_connected(Arc::clone(&inner), clock)).abort_handle();
        Ok(Self { inner, task, timeout: CALL_TIMEOUT })
    }

    /// How long a request waits for an answer, if not 50 ms.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Tells of every call. The first one who asks is told.
    pub fn on_call(&self, hook: impl Fn(Duration, bool) + Send + Sync + 'static) {
        // A second hook is dropped, as documented.
        drop(self.inner.on_call.set(Box::new(hook)));
    }

    /// Whether calls are made at all.
    pub(super) fn available(&self) -> bool {
        self.inner.connection.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Calls made, and how many of them failed.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.inner.calls.load(Ordering::Relaxed), self.inner.errors.load(Ordering::Relaxed))
    }

    /// Takes from all buckets or from none.
    pub(super) async fn take(&self, requests: &[Request]) -> Result<Answer, Lost> {
        let connection = self.inner.connection.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (number, mut connection) = connection.ok_or(Lost::Unconnected)?;
        let started = Instant::now();
        let answer = match timeout(self.timeout, self.inner.call(&mut connection, requests)).await {
            Ok(answer) => answer,
            Err(_) => Err(Lost::Timeout),
        };
        self.inner.called(number, started.elapsed(), answer.as_ref().err());
        answer
    }
}

impl Inner {
    async fn call(&self, connection: &mut MultiplexedConnection, requests: &[Request]) -> Result<Answer, Lost> {
        let mut call = self.script.prepare_invoke();
        call.arg("");
        for request in requests {
            call.key(&request.key);
            call.arg(match request.terms.algorithm() {
                Algorithm::Gcra => "g",
                Algorithm::FixedWindow => "w",
            });
            for value in request.arguments() {
                call.arg(value);
            }
        }
        answer(requests, &call.invoke_async::<Vec<u64>>(connection).await?).ok_or(Lost::Form)
    }

    fn called(&self, number: u64, took: Duration, error: Option<&Lost>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = self.on_call.get() {
            hook(took, error.is_none());
        }
        let Some(error) = error else {
            self.failures.store(0, Ordering::Relaxed);
            return;
        };
        self.errors.fetch_add(1, Ordering::Relaxed);
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES {
            return;
        }
        let mut connection = self.connection.write().unwrap_or_else(PoisonError::into_inner);
        // Calls that waited for an older connection say nothing about this one.
        if connection.take_if(|(current, _)| *current == number).is_some() {
            tracing::warn!(%error, "the rate limits' store is lost");
            self.lost.notify_one();
        }
    }

    /// A connection on which the script is known, and so one that works.
    async fn open(&self) -> Result<MultiplexedConnection, Lost> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        match timeout(CALL_TIMEOUT, self.script.load_async(&mut connection)).await {
            Ok(loaded) => loaded.map(|_| connection).map_err(Lost::from),
            Err(_) => Err(Lost::Timeout),
        }
    }
}

async fn keep_connected(inner: Arc<Inner>, clock: Clock) {
    for number in 0.. {
        match inner.open().await {
            Ok(connection) => {
                tracing::info!("the rate limits' store answers");
                inner.failures.store(0, Ordering::Relaxed);
                *inner.connection.write().unwrap_or_else(PoisonError::into_inner) = Some((number, connection));
                inner.lost.notified().await;
            }
            Err(error) if number == 0 => tracing::warn!(%error, "the rate limits' store does not answer"),
            Err(error) => tracing::debug!(%error, "the rate limits' store still does not answer"),
        }
        sleep(until_attempt(clock())).await;
    }
}

fn until_attempt(now: OffsetDateTime) -> Duration {
    let past = now.unix_timestamp_nanos().rem_euclid(RETRY.as_nanos().cast_signed());
    RETRY.saturating_sub(Duration::from_nanos(u64::try_from(past).unwrap_or_default()))
}

fn answer(requests: &[Request], values: &[u64]) -> Option<Answer> {
    let (head, rest) = values.split_at_checked(ANSWER.0)?;
    if rest.len() != requests.len() * ANSWER.1 {
        return None;
    }
    let part = |(request, values): (&Request, &[u64])| {
        let [refused, extra, x, y, base] = *values else { return None };
        Some(Part { refused: refused == 1, extra, state: request.terms.state(x, y), base })
    };
    let parts = std::iter::zip(requests, rest.chunks(ANSWER.1)).map(part).collect::<Option<_>>()?;
    Some(Answer { now: head[0], admitted: head[1] == 1, parts })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn attempts_are_made_when_the_clock_shows_a_multiple() {
        let now = datetime!(2026-01-01 00:00:10.1 UTC);
        assert_eq!(until_attempt(now), Duration::from_millis(150));
        assert_eq!(until_attempt(now + until_attempt(now)), RETRY);
        assert_eq!(until_attempt(datetime!(1969-12-31 23:59:59.9 UTC)), Duration::from_millis(100));
    }
}
