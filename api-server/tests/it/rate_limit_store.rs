//! Rate limits that replicas share in a real Redis, which is killed, paused and emptied under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use finaiflow_api::clock;
use finaiflow_api::rate_limit::{
    Algorithm, Ask, FailureMode, Limiter, Micros, Outcome, Rate, Row, Share, Source, Store, Verdict,
};
use futures::FutureExt as _;
use futures::future::join_all;

use crate::redis::{PATIENCE, Redis};

pub const SECOND: Micros = 1_000_000;

pub fn gcra(requests: u64, period_seconds: u64, burst: u64) -> Rate {
    Rate::new(Algorithm::Gcra, requests, period_seconds, burst).unwrap()
}

pub fn window(requests: u64, period_seconds: u64) -> Rate {
    Rate::new(Algorithm::FixedWindow, requests, period_seconds, 1).unwrap()
}

pub fn ask<'a>(rate: &'a Rate, key: &'a [u8]) -> Ask<'a> {
    Ask { rate, key, coarse: b"network", tag: "all", cost: 1, failure_mode: FailureMode::LocalFallback }
}

fn now() -> Micros {
    Micros::try_from(clock::system()().unix_timestamp_nanos() / 1_000).unwrap()
}

async fn take(limiter: &Limiter, asks: &[Ask<'_>]) -> Verdict {
    limiter.take(asks, now()).await
}

async fn one(limiter: &Limiter, rate: &Rate, key: &[u8]) -> Row {
    take(limiter, &[ask(rate, key)]).await.rows[0]
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn available(limiter: &Limiter) -> bool {
    limiter.stats().store.unwrap().available
}

fn calls(limiter: &Limiter) -> u64 {
    limiter.stats().store.unwrap().calls
}

/// Replicas that share a store which they have reached, and wait for its answers as they do.
async fn replicas(redis: &Redis, count: u32) -> Arc<Vec<Limiter>> {
    connected(count, || Store::connect(&redis.url(), clock::system()).unwrap()).await
}

/// The same, however slow this machine is.
async fn patient_replicas(redis: &Redis, count: u32) -> Arc<Vec<Limiter>> {
    connected(count, || Store::connect(&redis.url(), clock::system()).unwrap().with_timeout(PATIENCE)).await
}

async fn connected(count: u32, store: impl Fn() -> Store) -> Arc<Vec<Limiter>> {
    let replica = |rank| {
        let limiter = Limiter::with_store(1_000, store());
        limiter.set_share(Share { replicas: count, rank });
        limiter
    };
    let limiters: Vec<Limiter> = (0..count).map(replica).collect();
    until("the replicas reach the store", || limiters.iter().all(available)).await;
    Arc::new(limiters)
}

/// Requests for one key at every replica, as fast as they are answered, until dropped.
struct Load {
    limiters: Arc<Vec<Limiter>>,
    rate: Rate,
    started: Instant,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    stop: AtomicBool,
    asked: AtomicU64,
    admitted: AtomicU64,
    /// In µs.
    slowest: AtomicU64,
}

impl Load {
    fn start(limiters: &Arc<Vec<Limiter>>, rate: Rate) -> Self {
        let load =
            Self { limiters: Arc::clone(limiters), rate, started: Instant::now(), counts: Arc::new(Counts::default()) };
        for worker in 0..limiters.len() * 4 {
            let (limiters, counts) = (Arc::clone(limiters), Arc::clone(&load.counts));
            tokio::spawn(async move {
                let limiter = &limiters[worker % limiters.len()];
                while !counts.stop.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let granted = one(limiter, &rate, b"everybody").await.outcome == Outcome::Granted;
                    counts.slowest.fetch_max(u64::try_from(begin.elapsed().as_micros()).unwrap(), Ordering::Relaxed);
                    counts.admitted.fetch_add(u64::from(granted), Ordering::Relaxed);
                    counts.asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_micros(500)).await;
                }
            });
        }
        load
    }

    fn admitted(&self) -> u64 {
        self.counts.admitted.load(Ordering::Relaxed)
    }

    /// What the rate allows from a fresh start.
    fn allowed(&self) -> u64 {
        let passed = u64::try_from(self.started.elapsed().as_micros()).unwrap();
        self.rate.burst() + (self.rate.requests() * passed).div_ceil(self.rate.period_seconds() * SECOND)
    }

    /// `forgotten`: with the store went what replicas did not know of each other, which is far less than a burst.
    fn check(&self, forgotten: bool) {
        let admitted = self.admitted();
        let slow = self.limiters.iter().any(|limiter| limiter.stats().store.unwrap().errors > 0);
        let unknown = if forgotten || slow { self.rate.burst() / 5 } else { 0 };
        let allowed = self.allowed();
        assert!(admitted <= allowed + unknown, "{admitted} admitted, {allowed} allowed");
    }

    /// Goes on for a while, and never finds more admitted than is allowed.
    async fn watch(&self, millis: u64, forgotten: bool) {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(millis) {
            self.check(forgotten);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_available(&self, wanted: bool) {
        until("the store is lost or found", || {
            self.check(true);
            self.limiters.iter().all(|limiter| available(limiter) == wanted)
        })
        .await;
    }

    fn used(&self) -> f64 {
        ratio(self.admitted(), self.allowed())
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    f64::from(u32::try_from(part).unwrap()) / f64::from(u32::try_from(whole).unwrap())
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_together_admit_what_one_would_with_few_calls() {
    let redis = Redis::start();
    let limiters = patient_replicas(&redis, 3).await;
    let load = Load::start(&limiters, gcra(300, 1, 300));
    load.watch(3_000, false).await;
    let (used, asked) = (load.used(), load.counts.asked.load(Ordering::Relaxed));
    let calls: u64 = limiters.iter().map(calls).sum();
    println!("{used:.4} of what is allowed; {asked} requests, {calls} calls");
    assert!(used > 0.9, "only {used} of what is allowed");
    assert!(calls < asked / 2, "{calls} calls for {asked} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_shared_to_the_last_token() {
    let redis = Redis::start();
    let limiters = patient_replicas(&redis, 3).await;
    // The window of these 31 days does not end in this test, unless it does: then it is made in the next.
    let rate = window(500, 2_678_400);
    let admitted = AtomicU64::new(0);
    let worker = |n: usize| {
        let (limiters, rate, admitted) = (&limiters, &rate, &admitted);
        async move {
            for _ in 0..100 {
                let granted = one(&limiters[n % 3], rate, b"key").await.outcome == Outcome::Granted;
                admitted.fetch_add(u64::from(granted), Ordering::Relaxed);
            }
        }
    };
    join_all((0..9).map(worker)).await;
    // Leased tokens that a replica did not need come back when it asks again.
    let deadline = Instant::now() + PATIENCE;
    while admitted.load(Ordering::Relaxed) < 500 {
        worker(0).await;
        worker(1).await;
        worker(2).await;
        assert!(Instant::now() < deadline, "{admitted:?} of 500 admitted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(admitted.load(Ordering::Relaxed), 500);
    assert_eq!(one(&limiters[0], &rate, b"key").await.outcome, Outcome::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_second_burst_from_a_store_that_forgets() {
    let redis = Redis::start();
    let limiters = patient_replicas(&redis, 3).await;
    let load = Load::start(&limiters, gcra(200, 1, 1_000));
    load.watch(1_000, false).await;
    for _ in 0..5 {
        redis.command::<()>(&["FLUSHALL"]);
        load.watch(300, true).await;
    }
    redis.command::<()>(&["SCRIPT", "FLUSH"]);
    load.watch(300, true).await;
    assert!(load.used() > 0.8, "only {} of what is allowed", load.used());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_store_is_done_without_and_found_again() {
    let mut redis = Redis::start();
    let limiters = replicas(&redis, 3).await;
    let load = Load::start(&limiters, gcra(200, 1, 1_000));
    load.watch(1_000, false).await;
    redis.kill();
    load.until_available(false).await;
    let before = load.admitted();
    load.watch(1_000, true).await;
    assert!(load.admitted() > before, "without the store nothing is admitted");
    redis.restart();
    load.until_available(true).await;
    load.watch(1_000, true).await;
    let before: u64 = limiters.iter().map(calls).sum();
    until("the store is asked again", || limiters.iter().map(calls).sum::<u64>() > before).await;
    load.check(true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_store_holds_nobody_up() {
    let redis = Redis::start();
    let limiters = replicas(&redis, 3).await;
    let load = Load::start(&limiters, gcra(200, 1, 1_000));
    load.watch(1_000, false).await;
    redis.signal("-STOP");
    load.until_available(false).await;
    load.watch(1_000, true).await;
    redis.signal("-CONT");
    load.until_available(true).await;
    load.watch(1_000, true).await;
    // 50 ms, and what this machine adds to it.
    let slowest = load.counts.slowest.load(Ordering::Relaxed);
    assert!(slowest < 2 * SECOND, "a request took {slowest} µs");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_each_ask_goes_its_own_way() {
    let mut redis = Redis::start();
    let limiters = patient_replicas(&redis, 2).await;
    let limiter = &limiters[0];
    let (rate, quota) = (gcra(1, 3_600, 10), window(10, 2_678_400));
    // 6 of 10 are used.
    for _ in 0..6 {
        assert!(take(limiter, &[ask(&rate, b"rate"), ask(&quota, b"quota")]).await.admitted());
    }
    redis.kill();
    let mode = |rate, key: &'static [u8], failure_mode| Ask { failure_mode, ..ask(rate, key) };
    let closed = mode(&rate, b"rate", FailureMode::Closed);
    let deadline = Instant::now() + PATIENCE;
    while available(limiter) {
        take(limiter, &[mode(&rate, b"other", FailureMode::Closed)]).await;
        assert!(Instant::now() < deadline, "the store is not lost");
    }
    let verdict = take(limiter, &[closed]).await;
    assert_eq!((verdict.admitted(), verdict.rows[0].outcome), (false, Outcome::Unavailable));
    for _ in 0..20 {
        let verdict = take(limiter, &[mode(&rate, b"rate", FailureMode::Open)]).await;
        assert_eq!((verdict.admitted(), verdict.rows[0].source), (true, Source::Open));
    }
    // This replica's part is 5, of which 6/10 are used; if one ask is impossible, the others take nothing.
    let both = [ask(&rate, b"rate"), ask(&quota, b"quota")];
    assert!(!take(limiter, &[both[0], both[1], closed]).await.admitted());
    for (n, expected) in [true, true, false, false].into_iter().enumerate() {
        let verdict = take(limiter, &both).await;
        assert_eq!(verdict.admitted(), expected, "request {n}: {verdict:?}");
        assert!(verdict.rows.iter().all(|row| row.source == Source::Fallback));
    }
    // A store that forgot all is told: 6 taken before, 2 since, and this replica's part was no more than that.
    redis.restart();
    until("the store is found again", || available(limiter)).await;
    for (n, expected) in [true, true, false].into_iter().enumerate() {
        let verdict = take(limiter, &both).await;
        assert_eq!(verdict.admitted(), expected, "request {n}: {verdict:?}");
        assert!(verdict.rows.iter().all(|row| row.source == Source::Lease));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_remembered_until_it_is_over() {
    let redis = Redis::start();
    let limiters = patient_replicas(&redis, 1).await;
    let limiter = &limiters[0];
    let rate = gcra(1, 3_600, 3);
    for outcome in [Outcome::Granted, Outcome::Granted, Outcome::Granted, Outcome::Refused] {
        assert_eq!(one(limiter, &rate, b"key").await.outcome, outcome);
    }
    let before = calls(limiter);
    for _ in 0..100 {
        let row = one(limiter, &rate, b"key").await;
        assert_eq!((row.outcome, row.source), (Outcome::Refused, Source::Lease));
        assert!(row.retry_after > 3_500 * SECOND && row.retry_after <= 3_600 * SECOND, "{row:?}");
    }
    assert_eq!(calls(limiter), before);
    // Soon over: then it is asked again.
    let soon = gcra(10, 1, 1);
    assert_eq!(one(limiter, &soon, b"soon").await.outcome, Outcome::Granted);
    until("it is granted again", || {
        one(limiter, &soon, b"soon").now_or_never().is_none_or(|row| row.outcome == Outcome::Granted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_leaves_nothing_behind() {
    let redis = Redis::start();
    let limiters = patient_replicas(&redis, 1).await;
    let limiter = &limiters[0];
    let (rate, other) = (gcra(100, 1, 10_000), gcra(100, 3_600, 1_000));
    // Time stands still, so that leases live.
    let at = now();
    let asks = [ask(&rate, b"rate"), ask(&other, b"other")];
    let left = || limiter.peek(&asks[..1], at).rows[0].remaining;
    // Two are met from a lease of at least three, so that one is left.
    let leased = async || {
        let mut without_a_call = 0;
        for _ in 0..1_000 {
            let before = calls(limiter);
            assert!(limiter.take(&asks[..1], at).await.admitted());
            without_a_call = if calls(limiter) == before { without_a_call + 1 } else { 0 };
            if without_a_call == 2 {
                return;
            }
        }
        panic!("no lease in 1000 requests");
    };
    leased().await;
    redis.signal("-STOP");
    let before = left();
    for _ in 0..3 {
        // The first ask is met by the lease; the second is put to the store, which does not answer.
        let mut request = Box::pin(limiter.take(&asks, at));
        assert!(request.as_mut().now_or_never().is_none(), "it has to ask");
        assert_eq!(left(), before - 1);
        drop(request);
        assert_eq!(left(), before);
    }
    redis.signal("-CONT");
    assert!(limiter.take(&asks, at).await.admitted());
    // Leases are asked for as before, when this one is used up.
    let mut asked = calls(limiter);
    for _ in 0..3 {
        while calls(limiter) == asked {
            assert!(limiter.take(&asks[..1], at).await.admitted());
        }
        asked = calls(limiter);
    }
    leased().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_buckets_vanish_and_names_tell_nothing() {
    let redis = Redis::start();
    let limiters = patient_replicas(&redis, 1).await;
    let rate = gcra(10, 1, 5);
    let secret = Ask { tag: "0123456789abcdef", ..ask(&rate, b"header: a secret") };
    assert!(take(&limiters[0], &[secret, ask(&rate, b"other")]).await.admitted());
    let mut names: Vec<String> = redis.command(&["KEYS", "*"]);
    names.sort();
    assert_eq!(names.len(), 2);
    for (name, tag) in std::iter::zip(names, ["{0123456789abcdef}:", "{all}:"]) {
        let digest = name.strip_prefix("finaiflow:rl:").and_then(|name| name.strip_prefix(tag)).expect("its own tag");
        assert!(digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
    }
    until("idle buckets vanish", || redis.command::<u64>(&["DBSIZE"]) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_does_not_fill_the_store() {
    let redis = Redis::start();
    let limiter =
        Limiter::with_store(50, Store::connect(&redis.url(), clock::system()).unwrap().with_timeout(PATIENCE));
    until("the store is reached", || available(&limiter)).await;
    let rate = gcra(1, 3_600, 5);
    for stranger in 0..2_000_u32 {
        let (key, coarse) = (stranger.to_be_bytes(), (stranger % 1_000).to_be_bytes());
        take(&limiter, &[Ask { coarse: &coarse, ..ask(&rate, &key) }]).await;
    }
    let kept = redis.command::<u64>(&["DBSIZE"]);
    assert!(kept <= 50 + 64, "{kept} buckets in the store");
    assert!(limiter.stats().cells <= 50 + 64, "{:?}", limiter.stats());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_yet_is_waited_for_by_nobody() {
    let mut redis = Redis::start();
    redis.kill();
    let limiter = Limiter::with_store(100, Store::connect(&redis.url(), clock::system()).unwrap());
    let rate = gcra(1, 3_600, 2);
    for outcome in [Outcome::Granted, Outcome::Granted, Outcome::Refused] {
        let row = one(&limiter, &rate, b"key").now_or_never().expect("nobody waits");
        assert_eq!((row.outcome, row.source), (outcome, Source::Fallback));
    }
    redis.restart();
    until("the store is reached", || available(&limiter)).await;
    assert_eq!(one(&limiter, &rate, b"key").await.outcome, Outcome::Refused, "what was granted meanwhile is owed");
    assert_eq!(one(&limiter, &rate, b"other").await.outcome, Outcome::Granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_used_and_not_told() {
    let redis = Redis::start();
    redis.command::<()>(&["CONFIG", "SET", "requirepass", "correct-horse"]);
    let at = format!("127.0.0.1:{}", redis.port);
    let wrong = Store::connect(&format!("redis://:wrong-horse@{at}"), clock::system()).unwrap();
    let right = Store::connect(&format!("redis://:correct-horse@{at}"), clock::system()).unwrap();
    assert!(!format!("{wrong:?} {right:?}").contains("horse"));
    let told = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&told);
    right.on_call(move |_, answered| {
        counter.fetch_add(u64::from(answered), Ordering::Relaxed);
    });
    let (wrong, right) = (Limiter::with_store(100, wrong), Limiter::with_store(100, right));
    until("the store is reached", || available(&right)).await;
    let rate = gcra(1, 3_600, 2);
    assert_eq!(one(&right, &rate, b"key").await.source, Source::Lease);
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(!available(&wrong));
    for url in ["http://user:horse@host", "redis://user:horse@host:horse", "horse", ""] {
        let error = Store::connect(url, clock::system()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("horse"));
    }
}
