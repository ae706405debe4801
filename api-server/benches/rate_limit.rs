//! What four limits cost a request in memory, beside the `governor` crate doing the same four one after the other (it has
//! no way to take all or nothing). Means by criterion; then the spread of single decisions, which a mean does not show.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark reports, and fails loudly")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use finaiflow_api::rate_limit::{Algorithm, Ask, FailureMode, Limiter, Micros, Rate};
use futures::FutureExt as _;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

const KEYS: usize = 10_000;
const SAMPLES: usize = 400_000;

/// As long as a digest and an address.
type Key = [u8; 48];

/// Four rates as a policy has them: tenant, user, address, and a quota per day. None of them ever refuses here.
struct Ours {
    limiter: Limiter,
    rates: [Rate; 4],
    keys: Vec<[Key; 4]>,
    started: Instant,
}

impl Ours {
    fn new(keys: usize) -> Self {
        let gcra = |requests| Rate::new(Algorithm::Gcra, requests, 1, requests).unwrap();
        let key = |kind: &str, n| {
            let mut key = [0; 48];
            let text = format!("a digest of policy, limit, rate: {kind} {n}");
            key[..text.len()].copy_from_slice(text.as_bytes());
            key
        };
        Self {
            limiter: Limiter::in_memory(200_000),
            rates: [
                gcra(1_000_000_000),
                gcra(900_000_000),
                gcra(800_000_000),
                Rate::new(Algorithm::FixedWindow, 1_000_000_000, 86_400, 1).unwrap(),
            ],
            keys: (0..keys).map(|n| ["tenant", "user", "address", "day"].map(|kind| key(kind, n))).collect(),
            started: Instant::now(),
        }
    }

    fn decide(&self, n: usize) -> bool {
        let keys = &self.keys[n % self.keys.len()];
        let asks: [Ask<'_>; 4] = std::array::from_fn(|i| Ask {
            rate: &self.rates[i],
            key: &keys[i],
            coarse: b"network",
            tag: "all",
            cost: 1,
            failure_mode: FailureMode::LocalFallback,
        });
        let now = 1_767_225_600_000_000 + Micros::try_from(self.started.elapsed().as_micros()).unwrap();
        self.limiter.take(&asks, now).now_or_never().unwrap().admitted()
    }
}

/// The same four with `governor`, whose keys are the same bytes.
struct Theirs {
    limiters: [DefaultKeyedRateLimiter<Key>; 4],
    keys: Vec<[Key; 4]>,
}

impl Theirs {
    fn new(keys: usize) -> Self {
        let quota = Quota::per_second(NonZeroU32::new(1_000_000_000).unwrap());
        Self { limiters: std::array::from_fn(|_| RateLimiter::keyed(quota)), keys: Ours::new(keys).keys }
    }

    fn decide(&self, n: usize) -> bool {
        let keys = &self.keys[n % self.keys.len()];
        std::iter::zip(&self.limiters, keys).all(|(limiter, key)| limiter.check_key(key).is_ok())
    }
}

/// Keys in an order that no cache foresees.
fn scattered(n: usize) -> usize {
    n.wrapping_mul(7_919)
}

fn means(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("four limits");
    group.sample_size(30).measurement_time(Duration::from_secs(3));
    for keys in [1, KEYS] {
        let (ours, theirs) = (Ours::new(keys), Theirs::new(keys));
        let mut n = 0;
        let mut next = || {
            n += 1;
            scattered(n)
        };
        group.bench_function(format!("finaiflow, {keys} keys"), |bencher| bencher.iter(|| ours.decide(next())));
        group.bench_function(format!("governor, {keys} keys"), |bencher| bencher.iter(|| theirs.decide(next())));
    }
    group.finish();
}

/// Times single decisions, while another thread makes the same ones if `contended`.
fn spread(name: &str, contended: bool, decide: impl Fn(usize) -> bool + Sync) {
    let done = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        if contended {
            scope.spawn(|| {
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    n += 1;
                    black_box(decide(scattered(n)));
                }
            });
        }
        let times: Vec<Duration> = (0..SAMPLES)
            .map(|n| {
                let start = Instant::now();
                assert!(black_box(decide(scattered(n))));
                start.elapsed()
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        times
    });
    times.sort_unstable();
    let at = |share: usize| times[(SAMPLES - 1) * share / 1_000].as_nanos();
    println!("{name:<32} p50 {:>6} ns   p99 {:>6} ns   p99.9 {:>6} ns", at(500), at(990), at(999));
}

fn spreads() {
    println!("\none decision on four limits, the clock's own cost included");
    for keys in [1, KEYS] {
        for (contended, threads) in [(false, "1 thread"), (true, "2 threads")] {
            let (ours, theirs) = (Ours::new(keys), Theirs::new(keys));
            spread(&format!("finaiflow, {keys} keys, {threads}"), contended, |n| ours.decide(n));
            spread(&format!("governor, {keys} keys, {threads}"), contended, |n| theirs.decide(n));
        }
    }
}

criterion_group!(benches, means);

fn main() {
    benches();
    spreads();
}
