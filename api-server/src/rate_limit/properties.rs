//! What must hold of every limiter, against a token bucket kept in exact numbers.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SECOND: Micros = 1_000_000;
/// 2026-01-01.
const START: Micros = 1_767_225_600 * SECOND;

fn gcra(requests: u64, period_seconds: u64, burst: u64) -> Rate {
    Rate::new(Algorithm::Gcra, requests, period_seconds, burst).unwrap()
}

fn window(requests: u64, period_seconds: u64) -> Rate {
    Rate::new(Algorithm::FixedWindow, requests, period_seconds, 0).unwrap()
}

fn ask<'a>(rate: &'a Rate, key: &'a [u8], cost: u64) -> Ask<'a> {
    Ask { rate, key, coarse: b"network", tag: "all", cost, failure_mode: FailureMode::LocalFallback }
}

/// In memory there is nothing to wait for.
fn take(limiter: &Limiter, asks: &[Ask<'_>], now: Micros) -> Verdict {
    limiter.take(asks, now).now_or_never().expect("no waiting")
}

fn one(limiter: &Limiter, rate: &Rate, cost: u64, now: Micros) -> Row {
    take(limiter, &[ask(rate, b"key", cost)], now).rows[0]
}

/// Tokens counted in 1/period, so that what comes back in a µs is a whole number.
struct Bucket {
    level: u128,
    at: Micros,
}

impl Bucket {
    fn full(rate: &Rate, at: Micros) -> Self {
        Self { level: Self::token(rate) * u128::from(rate.burst()), at }
    }

    fn token(rate: &Rate) -> u128 {
        u128::from(rate.period_seconds() * SECOND)
    }

    fn refill(&mut self, rate: &Rate, now: Micros) {
        let back = u128::from(now - self.at) * u128::from(rate.requests());
        self.level = (self.level + back).min(Self::full(rate, now).level);
        self.at = now;
    }

    /// The row of an ask, alone or one of several of which some are refused.
    fn row(&self, rate: &Rate, cost: u64, admitted: bool) -> Row {
        let price = Self::token(rate) * u128::from(cost);
        let missing = price.saturating_sub(self.level);
        let left = if admitted { self.level - price } else { self.level };
        let time = |units: u128| Micros::try_from(units.div_ceil(u128::from(rate.requests()))).unwrap();
        Row {
            outcome: if missing == 0 { Outcome::Granted } else { Outcome::Refused },
            remaining: u64::try_from(left / Self::token(rate)).unwrap(),
            retry_after: time(missing),
            full_after: time(Self::full(rate, 0).level - left),
            source: Source::Memory,
        }
    }
}

/// Small, odd and extreme rates alike.
fn rates() -> impl Strategy<Value = Rate> {
    let requests = prop_oneof![1..20_u64, 1..=1_000_000_000_u64];
    let period = prop_oneof![Just(1), 1..100_u64, 1..=2_678_400_u64];
    (requests, period, 0.0..1.0).prop_flat_map(|(requests, period, few)| {
        let burst = if few < 0.7 { 1..=requests.min(20) } else { 1..=100 * requests };
        burst.prop_map(move |burst| gcra(requests, period, burst))
    })
}

/// A rate, and requests that come about as fast as it allows: (pause in thousandths of a token's time, cost).
fn traffic() -> impl Strategy<Value = (Rate, Vec<(u64, u64)>)> {
    (rates(), vec((0..3_000_u64, prop_oneof![3 => Just(1), 1 => 0..5_u64]), 1..60))
}

fn pause(rate: &Rate, thousandths: u64) -> Micros {
    rate.period_seconds() * 1_000 * thousandths / rate.requests()
}

proptest! {
    #[test]
    fn it_is_a_token_bucket((rate, requests) in traffic()) {
        let limiter = Limiter::in_memory(16);
        let (mut now, mut bucket) = (START, Bucket::full(&rate, START));
        for (thousandths, cost) in requests {
            now += pause(&rate, thousandths);
            bucket.refill(&rate, now);
            let admitted = bucket.row(&rate, cost, false).outcome == Outcome::Granted;
            let expected = bucket.row(&rate, cost, admitted);
            prop_assert_eq!(limiter.peek(&[ask(&rate, b"key", cost)], now).rows[0], bucket.row(&rate, cost, false));
            prop_assert_eq!(one(&limiter, &rate, cost, now), expected);
            if admitted {
                bucket.level -= Bucket::token(&rate) * u128::from(cost);
            }
        }
    }

    #[test]
    fn no_window_of_any_length_admits_more((rate, requests) in traffic()) {
        let limiter = Limiter::in_memory(16);
        let mut now = START;
        let mut admitted = Vec::new();
        for (thousandths, cost) in requests {
            now += pause(&rate, thousandths);
            if one(&limiter, &rate, cost, now).outcome == Outcome::Granted {
                admitted.push((now, cost));
            }
        }
        for (first, (begin, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for (end, cost) in &admitted[first..] {
                sum += u128::from(*cost) * Bucket::token(&rate);
                let allowed = Bucket::full(&rate, 0).level + u128::from(end - begin) * u128::from(rate.requests());
                prop_assert!(sum <= allowed, "{} tokens in {} µs", sum / Bucket::token(&rate), end - begin);
            }
        }
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused(rate in rates(), count in 1..200_u64) {
        let limiter = Limiter::in_memory(16);
        let pause = Bucket::token(&rate).div_ceil(u128::from(rate.requests()));
        let mut now = START;
        for _ in 0..count {
            prop_assert_eq!(one(&limiter, &rate, 1, now).outcome, Outcome::Granted);
            now += Micros::try_from(pause).unwrap();
        }
    }

    #[test]
    fn who_retries_in_time_is_admitted_and_not_a_microsecond_sooner((rate, requests) in traffic()) {
        let limiter = Limiter::in_memory(16);
        let mut now = START;
        for (_, cost) in requests {
            let cost = cost.min(rate.burst());
            let row = one(&limiter, &rate, cost, now);
            if row.outcome == Outcome::Refused {
                let early = limiter.peek(&[ask(&rate, b"key", cost)], now + row.retry_after - 1);
                prop_assert_eq!(early.rows[0].retry_after, 1);
                now += row.retry_after;
                prop_assert_eq!(one(&limiter, &rate, cost, now).outcome, Outcome::Granted);
            }
        }
    }

    #[test]
    fn the_refused_leave_no_trace((rate, requests) in traffic()) {
        let (all, admitted_only) = (Limiter::in_memory(16), Limiter::in_memory(16));
        let mut now = START;
        for (thousandths, cost) in requests {
            now += pause(&rate, thousandths);
            let row = one(&all, &rate, cost, now);
            if row.outcome == Outcome::Granted {
                prop_assert_eq!(one(&admitted_only, &rate, cost, now), row);
            }
        }
    }

    #[test]
    fn all_or_nothing(rates in vec(rates(), 1..6), steps in vec((0..3_000_u64, 0..4_u64, 0..4_u64), 1..40)) {
        let limiter = Limiter::in_memory(16);
        let keys: Vec<[u8; 1]> = (0..6).map(|key| [key]).collect();
        let mut now = START;
        let mut buckets: Vec<Bucket> = rates.iter().map(|rate| Bucket::full(rate, now)).collect();
        for (thousandths, cost, other) in steps {
            now += pause(&rates[0], thousandths);
            let costs = [cost, other];
            let asks: Vec<Ask<'_>> =
                rates.iter().enumerate().map(|(n, rate)| ask(rate, &keys[n], costs[n % 2])).collect();
            for (bucket, ask) in std::iter::zip(&mut buckets, &asks) {
                bucket.refill(ask.rate, now);
            }
            let rows = |admitted: bool| -> Vec<Row> {
                let row = |(bucket, ask): (&Bucket, &Ask<'_>)| bucket.row(ask.rate, ask.cost, admitted);
                std::iter::zip(&buckets, &asks).map(row).collect()
            };
            let admitted = Verdict { rows: rows(false) }.admitted();
            let expected = rows(admitted);
            let verdict = take(&limiter, &asks, now);
            prop_assert_eq!(verdict.admitted(), admitted);
            prop_assert_eq!(verdict.rows, expected);
            for (bucket, ask) in std::iter::zip(&mut buckets, &asks).filter(|_| admitted) {
                bucket.level -= Bucket::token(ask.rate) * u128::from(ask.cost);
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_neither_grants_more_nor_locks_out(
        (rate, requests) in traffic(),
        steps in vec(-4_000_000_i64..4_000_000, 60),
    ) {
        let limiter = Limiter::in_memory(16);
        let (mut now, mut forward, mut sum) = (START, 0_u128, 0_u128);
        for ((thousandths, cost), step) in std::iter::zip(requests, steps) {
            let earlier = now;
            now = (now + pause(&rate, thousandths)).saturating_add_signed(step);
            forward += u128::from(now.saturating_sub(earlier));
            let row = one(&limiter, &rate, cost, now);
            if row.outcome == Outcome::Granted {
                sum += u128::from(cost) * Bucket::token(&rate);
            }
            let full = Bucket::full(&rate, 0).level;
            prop_assert!(sum <= full + forward * u128::from(rate.requests()));
            let whole = full.div_ceil(u128::from(rate.requests()));
            prop_assert!(u128::from(row.full_after) <= whole);
        }
    }

    #[test]
    fn an_edited_rate_keeps_what_was_taken(before in rates(), after in rates(), taken in 1..20_u64, wait in 0..SECOND) {
        let limiter = Limiter::in_memory(16);
        let full_after = one(&limiter, &before, taken.min(before.burst()), START).full_after;
        let owed = limiter.peek(&[ask(&after, b"key", 0)], START + wait).rows[0].full_after;
        let most = Bucket::full(&after, 0).level.div_ceil(u128::from(after.requests()));
        let carried = u128::from(full_after.saturating_sub(wait));
        prop_assert_eq!(u128::from(owed), carried.min(most));
    }

    #[test]
    fn parts_add_up_to_the_whole(rate in rates(), quota in 1..1_000_u64, replicas in 1..10_u32, millis in 0..5_000_u64) {
        let quota = window(quota, 3_600);
        let mut admitted = [0_u128; 2];
        for rank in 0..replicas {
            let limiter = Limiter::in_memory(16);
            limiter.set_share(Share { replicas, rank });
            for (n, rate) in [&rate, &quota].into_iter().enumerate() {
                for now in [START, START + millis * 1_000] {
                    let left = limiter.peek(&[ask(rate, &[u8::try_from(n).unwrap()], 0)], now).rows[0].remaining;
                    let left = left.min(COST_MAX);
                    let verdict = take(&limiter, &[ask(rate, &[u8::try_from(n).unwrap()], left)], now);
                    prop_assert!(verdict.admitted());
                    admitted[n] += u128::from(left);
                }
            }
        }
        let back = u128::from(millis * 1_000) * u128::from(rate.requests());
        let allowed = (Bucket::full(&rate, 0).level + back) / Bucket::token(&rate);
        // Less burst than replicas: see `Rate::terms`; here nothing costs more than what is left.
        prop_assert!(admitted[0] <= allowed);
        prop_assert_eq!(admitted[1], u128::from(quota.requests()));
        if millis == 0 && rate.burst() <= COST_MAX {
            prop_assert_eq!(admitted[0], u128::from(rate.burst()));
        }
    }

    #[test]
    fn another_number_of_replicas_keeps_what_was_taken(rate in rates(), taken in 1..20_u64, replicas in 1..10_u32) {
        let limiter = Limiter::in_memory(16);
        let full_after = one(&limiter, &rate, taken.min(rate.burst()), START).full_after;
        limiter.set_share(Share { replicas, rank: replicas - 1 });
        let owed = limiter.peek(&[ask(&rate, b"key", 0)], START).rows[0].full_after;
        let whole = rate.burst() / u64::from(replicas) * u64::from(replicas);
        let most = (u128::from(whole) * Bucket::token(&rate)).div_ceil(u128::from(rate.requests()));
        prop_assert_eq!(u128::from(owed), u128::from(full_after).min(most));
    }

    #[test]
    fn a_quota_holds_from_boundary_to_boundary(
        quota in 1..20_u64,
        period in 1..100_u64,
        requests in vec((0..3_000_u64, 0..4_u64), 1..60),
    ) {
        let rate = window(quota, period);
        let limiter = Limiter::in_memory(16);
        let (mut now, mut current, mut count) = (START, 0, 0);
        for (thousandths, cost) in requests {
            now += pause(&rate, thousandths);
            let (number, end) = (now / (period * SECOND), (now / (period * SECOND) + 1) * period * SECOND);
            if number != current {
                (current, count) = (number, 0);
            }
            let granted = count + cost <= quota;
            count += if granted { cost } else { 0 };
            prop_assert_eq!(one(&limiter, &rate, cost, now), Row {
                outcome: if granted { Outcome::Granted } else { Outcome::Refused },
                remaining: quota - count,
                retry_after: if granted { 0 } else { end - now },
                full_after: if count == 0 { 0 } else { end - now },
                source: Source::Memory,
            });
        }
    }

    #[test]
    fn to_forget_what_is_idle_changes_nothing(batches in vec(vec((0..200_u8, 0..300_000_u64), 1..8), 1..20)) {
        let (small, large) = (Limiter::in_memory(8), Limiter::in_memory(100_000));
        let (rate, quota) = (gcra(10, 1, 3), window(2, 1));
        let mut now = START;
        for batch in batches {
            for (key, step) in batch {
                now += step / 8;
                let rate = if key % 2 == 0 { &rate } else { &quota };
                let key = [key];
                let asks = [ask(rate, &key, 1)];
                prop_assert_eq!(take(&small, &asks, now), take(&large, &asks, now));
            }
            now += 2 * SECOND;
        }
        prop_assert_eq!(small.stats().overflows, 0);
    }
}

#[test]
fn a_later_window_goes_on_when_the_clock_steps_back_over_its_beginning() {
    let limiter = Limiter::in_memory(16);
    let rate = window(3, 60);
    for (now, remaining) in [(START, 2), (START - 1, 1), (START, 0)] {
        assert_eq!(one(&limiter, &rate, 1, now).remaining, remaining);
    }
    assert_eq!(one(&limiter, &rate, 1, START - 1).retry_after, 60 * SECOND + 1);
    // By whole windows: nobody waits for longer than two.
    assert!(one(&limiter, &rate, 1, START - 86_400 * SECOND).retry_after <= 120 * SECOND);
}

#[test]
fn an_edited_quota_keeps_a_count_that_falls_into_its_window() {
    let limiter = Limiter::in_memory(16);
    let noon = START + 12 * 3_600 * SECOND;
    let (hour, day, minute) = (window(10, 3_600), window(10, 86_400), window(10, 60));
    assert_eq!(one(&limiter, &hour, 4, noon).remaining, 6);
    assert_eq!(one(&limiter, &day, 1, noon).remaining, 5);
    assert_eq!(one(&limiter, &minute, 1, noon).remaining, 9, "the day began before this minute");
    assert_eq!(one(&limiter, &window(1, 60), 0, noon + 1).outcome, Outcome::Granted);
    assert_eq!(one(&limiter, &window(1, 60), 1, noon + 1).remaining, 0);
}

#[test]
fn another_algorithm_under_the_same_key_begins_anew() {
    let limiter = Limiter::in_memory(16);
    assert_eq!(one(&limiter, &gcra(10, 60, 10), 10, START).remaining, 0);
    assert_eq!(one(&limiter, &window(10, 60), 1, START).remaining, 9);
    assert_eq!(one(&limiter, &gcra(10, 60, 10), 1, START).remaining, 9);
}

#[test]
fn asks_of_one_request_may_share_a_cell() {
    let limiter = Limiter::in_memory(16);
    let rate = gcra(1, 1, 5);
    let asks = [ask(&rate, b"key", 2), ask(&rate, b"key", 2)];
    assert!(take(&limiter, &asks, START).admitted());
    let verdict = take(&limiter, &asks, START);
    assert!(!verdict.admitted());
    let wait = verdict.rows.iter().map(|row| row.retry_after).max().unwrap();
    assert_eq!(wait, 3 * SECOND);
    assert!(!take(&limiter, &asks, START + wait - 1).admitted());
    assert!(take(&limiter, &asks, START + wait).admitted());
}

#[test]
fn a_replica_without_burst_has_room_for_one_request() {
    let rate = gcra(10, 1, 2);
    for rank in 0..3 {
        let limiter = Limiter::in_memory(16);
        limiter.set_share(Share { replicas: 3, rank });
        assert_eq!(one(&limiter, &rate, 2, START).outcome, Outcome::Granted);
        assert_eq!(one(&limiter, &rate, 2, START).retry_after, 600_000);
        assert_eq!(one(&limiter, &rate, 3, START + SECOND).outcome, Outcome::Refused, "more than the burst never is");
    }
}

#[test]
fn threads_at_one_instant_get_exactly_the_burst() {
    let limiter = Limiter::in_memory(1_000);
    let (rate, other) = (gcra(1_000, 1, 1_000), gcra(5, 1, 500));
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (limiter, admitted, rate, other) = (&limiter, &admitted, &rate, &other);
            scope.spawn(move || {
                for n in 0..400 {
                    // The same two cells, in both orders.
                    let mut asks = [ask(rate, b"one", 1), ask(other, b"two", 1)];
                    if (n + thread) % 2 == 0 {
                        asks.reverse();
                    }
                    if take(limiter, &asks, START).admitted() {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), 500);
    assert_eq!(limiter.peek(&[ask(&rate, b"one", 0)], START).rows[0].remaining, 500);
}

#[test]
fn a_million_strangers_fill_no_memory_and_touch_nobody() {
    const CAPACITY: usize = 64 * 300;
    let limiter = Limiter::in_memory(CAPACITY);
    let rate = gcra(1, 3_600, 5);
    let known = [ask(&rate, b"a client we know", 3)];
    assert_eq!(take(&limiter, &known, START).rows[0].remaining, 2);
    let networks: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_be_bytes).collect();
    let mut admitted = 0_u64;
    for stranger in 0..1_000_000_u32 {
        // 100 seconds, so that sweeps come due.
        let now = START + Micros::from(stranger) * 100;
        let key = stranger.to_be_bytes();
        let coarse = &networks[usize::try_from(stranger % 65_536).unwrap()];
        admitted += u64::from(take(&limiter, &[Ask { coarse, ..ask(&rate, &key, 1) }], now).admitted());
    }
    let stats = limiter.stats();
    let shared = stats.cells - CAPACITY;
    assert!(shared <= 64 * 64, "{shared} shared cells");
    assert!(stats.overflows > 900_000, "{stats:?}");
    assert!(admitted <= (CAPACITY + 5 * shared) as u64, "{admitted} admitted, {shared} shared cells");
    assert_eq!(limiter.peek(&known, START).rows[0].remaining, 2);
}

#[test]
fn a_full_memory_makes_room_once_cells_are_idle() {
    let limiter = Limiter::in_memory(1);
    let rate = gcra(1, 1, 1);
    for (key, now, overflows) in [(1_u8, 0, 0), (2, 500_000, 1), (2, 1_200_000, 2), (2, 1_500_001, 2)] {
        take(&limiter, &[ask(&rate, &[key], 1)], START + now);
        assert_eq!(limiter.stats().overflows, overflows, "key {key} at {now} µs");
    }
    assert_eq!(limiter.stats().evictions, 1);
}

#[test]
fn what_cannot_be_counted_is_no_rate() {
    for (requests, period, burst, expected) in [
        (0, 1, 1, Err(InvalidRate::Requests)),
        (1_000_000_001, 1, 1, Err(InvalidRate::Requests)),
        (1, 0, 1, Err(InvalidRate::Period)),
        (1, 2_678_401, 1, Err(InvalidRate::Period)),
        (1, 1, 0, Err(InvalidRate::Burst)),
        (1, 1, 101, Err(InvalidRate::Burst)),
        (1_000_000_000, 2_678_400, 100_000_000_000, Ok(100_000_000_000)),
    ] {
        assert_eq!(Rate::new(Algorithm::Gcra, requests, period, burst).map(|rate| rate.burst()), expected);
    }
    assert_eq!(window(7, 1).burst(), 7);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let limiter = Limiter::in_memory(16);
    limiter.set_share(Share { replicas: u32::MAX, rank: u32::MAX });
    let rate = gcra(1_000_000_000, 2_678_400, 100_000_000_000);
    for now in [0, START, u64::MAX] {
        for rate in [&rate, &window(1_000_000_000, 2_678_400)] {
            let row = one(&limiter, rate, u64::MAX, now);
            assert!(row.outcome == Outcome::Granted || row.retry_after > 0, "{row:?}");
        }
    }
}

#[test]
fn keys_are_told_apart() {
    let limiter = Limiter::in_memory(100_000);
    let rate = gcra(1, 3_600, 1);
    let keys: HashSet<[u8; 4]> = (0..20_000_u32).map(u32::to_be_bytes).collect();
    assert!(keys.iter().all(|key| take(&limiter, &[ask(&rate, key, 1)], START).admitted()));
    assert_eq!(limiter.stats().cells, keys.len());
}

#[test]
fn what_an_edit_or_a_clock_stepping_back_cuts_off_stays_cut_off() {
    let (tight, wide) = (gcra(12, 86_400, 12), gcra(1_000_000, 1, 1_000_000));
    let limiter = Limiter::in_memory(16);
    while one(&limiter, &tight, 1, START).outcome == Outcome::Granted {}
    let row = one(&limiter, &wide, 1, START);
    assert_eq!((row.outcome, row.retry_after), (Outcome::Refused, 1), "as much of it is used up");
    assert_eq!(one(&limiter, &wide, 1, START + 1).outcome, Outcome::Granted);
    assert_eq!(one(&limiter, &wide, 999_999, START + SECOND).outcome, Outcome::Granted);

    let limiter = Limiter::in_memory(16);
    let rate = gcra(10, 1, 10);
    while one(&limiter, &rate, 1, START).outcome == Outcome::Granted {}
    let earlier = START - 3_600 * SECOND;
    let row = one(&limiter, &rate, 1, earlier);
    assert_eq!((row.outcome, row.retry_after), (Outcome::Refused, SECOND / 10));
    assert_eq!(one(&limiter, &rate, 1, earlier + SECOND / 10).outcome, Outcome::Granted);
}
