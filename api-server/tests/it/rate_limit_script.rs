//! The script that counts in Redis, at given times: it decides as a replica does by itself, and makes no tokens.

use std::cell::RefCell;

use finaiflow_api::rate_limit::{Algorithm, Ask, Limiter, Micros, Outcome, Rate};
use futures::FutureExt as _;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::rate_limit_store::{SECOND, ask, gcra, window};
use crate::redis::Redis;

/// 2026-01-01.
const START: Micros = 1_767_225_600 * SECOND;

/// Calls of the script itself, at given times.
struct Script {
    connection: ::redis::Connection,
    script: ::redis::Script,
}

/// What one call says: the time, whether admitted, and for each ask whether refused, tokens leased, bucket and base.
struct Said {
    admitted: bool,
    asks: Vec<[u64; 5]>,
}

/// What a call is told besides rate and cost.
#[derive(Clone, Copy, Default)]
struct Told {
    want: u64,
    back: (u64, Micros),
    base: Micros,
    floor: (u64, u64),
    debt: u64,
}

impl Script {
    fn new(redis: &Redis) -> Self {
        let script = ::redis::Script::new(include_str!("../../src/rate_limit/take.lua"));
        Self { connection: redis.connection(), script }
    }

    fn call(&mut self, asks: &[(&Rate, String, u64, Told)], now: Micros) -> Said {
        let mut call = self.script.prepare_invoke();
        call.arg(now);
        for (rate, key, cost, told) in asks {
            let period = rate.period_seconds() * SECOND;
            let parts = |n: u64, by: u64| {
                let units = u128::from(n) * u128::from(period);
                [units / u128::from(by), units % u128::from(by)]
            };
            let of = rate.requests();
            let (kind, scale, [token, token_part], [room, room_part]) = match rate.algorithm() {
                Algorithm::Gcra => ("g", of, parts(1, of), parts(rate.burst(), of)),
                Algorithm::FixedWindow => ("w", period, [1, 0], [u128::from(of), 0]),
            };
            call.key(key).arg(kind).arg(scale);
            for units in [token, token_part, room, room_part] {
                call.arg(u64::try_from(units).unwrap());
            }
            call.arg(*cost).arg(told.want).arg(1).arg(told.back.0).arg(told.back.1);
            call.arg(told.base).arg(told.floor.0).arg(told.floor.1).arg(told.debt);
        }
        let values: Vec<u64> = call.invoke(&mut self.connection).unwrap();
        assert_eq!(values[0], now);
        Said { admitted: values[1] == 1, asks: values[2..].chunks(5).map(|ask| ask.try_into().unwrap()).collect() }
    }
}

fn left(rate: &Rate, [_, _, x, y, _]: [u64; 5], now: Micros) -> Micros {
    match rate.algorithm() {
        Algorithm::Gcra => (x + u64::from(y > 0)).saturating_sub(now),
        Algorithm::FixedWindow if y == 0 => 0,
        Algorithm::FixedWindow => x + rate.period_seconds() * SECOND - now,
    }
}

fn rates() -> impl Strategy<Value = Rate> {
    let requests = prop_oneof![1..20_u64, 1..=1_000_000_000_u64];
    let period = prop_oneof![Just(1), 1..100_u64, 1..=2_678_400_u64];
    let gcra = (requests, period, any::<bool>()).prop_flat_map(|(requests, period, few)| {
        let burst = if few { 1..=requests.min(20) } else { 1..=100 * requests };
        burst.prop_map(move |burst| gcra(requests, period, burst))
    });
    let window = (1..20_u64, 1..100_u64).prop_map(|(requests, period)| window(requests, period));
    prop_oneof![2 => gcra, 1 => window]
}

/// Some thousandths of the time in which a request comes back.
fn pause(rate: &Rate, thousandths: u64) -> Micros {
    rate.period_seconds() * 1_000 * thousandths / rate.requests()
}

/// Pause, step of the clock, keys and costs, edited rate.
type Step = (u64, i64, Vec<(usize, u64)>, u8);

#[test]
fn the_script_decides_as_a_replica_does() {
    let redis = Redis::start();
    let mut script = Script::new(&redis);
    let mut case = 0;
    let step = (0..3_000_u64, -2_000_000_i64..200_000, vec((0..3_usize, 0..4_u64), 1..4), 0..20_u8);
    let strategy = (vec(rates(), 3), vec(rates(), 3), vec(step, 1..40));
    let compare = |(mut rates, edited, steps): (Vec<Rate>, Vec<Rate>, Vec<Step>)| {
        case += 1;
        let limiter = Limiter::in_memory(1_000);
        let mut now = START;
        for (thousandths, back, costs, edit) in steps {
            now = (now + pause(&rates[0], thousandths)).saturating_add_signed(back.min(0));
            if let Some(rate) = edited.get(usize::from(edit)).filter(|_| edit < 3) {
                // Another algorithm is another key.
                let rates = rates.iter_mut().filter(|old| old.algorithm() == rate.algorithm());
                rates.for_each(|old| *old = *rate);
            }
            let keys: Vec<[u8; 1]> = costs.iter().map(|(n, _)| [u8::try_from(*n).unwrap()]).collect();
            let asks: Vec<Ask<'_>> = std::iter::zip(&costs, &keys)
                .map(|((n, cost), key)| Ask { cost: *cost, ..ask(&rates[*n], key) })
                .collect();
            let verdict = limiter.take(&asks, now).now_or_never().unwrap();
            let told = Told::default();
            let calls: Vec<_> =
                costs.iter().map(|(n, cost)| (&rates[*n], format!("{case}:{n}"), *cost, told)).collect();
            let said = script.call(&calls, now);
            prop_assert_eq!(said.admitted, verdict.admitted());
            for (index, (row, values)) in std::iter::zip(&verdict.rows, &said.asks).enumerate() {
                prop_assert_eq!(values[0] == 1, row.outcome == Outcome::Refused);
                // Of asks for one bucket the script tells what it is in the end.
                if !said.admitted || costs[index + 1..].iter().all(|(n, _)| *n != costs[index].0) {
                    prop_assert_eq!(left(&rates[costs[index].0], *values, now), row.full_after);
                }
            }
        }
        Ok(())
    };
    let compare = RefCell::new(compare);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    runner.run(&strategy, |input| (compare.borrow_mut())(input)).unwrap();
}

/// A replica's lease, in a world where every call is one of a random sequence.
#[derive(Clone, Copy, Default)]
struct Held {
    tokens: u64,
    at: Micros,
    base: Micros,
    full_at: Micros,
    /// What all held when it was granted.
    others: u64,
}

/// Which replica; pause; cost; tokens wanted on top; how many of the old ones are spent before; how many
/// are granted without asking just before; whether all is forgotten.
type LeaseStep = (usize, u64, u64, u64, u64, u64, bool);

#[test]
fn no_token_is_made_by_leasing_and_giving_back() {
    let redis = Redis::start();
    let mut script = Script::new(&redis);
    let mut case = 0;
    let debts = prop_oneof![9 => Just(0), 1 => 0..3_u64];
    let pauses = prop_oneof![4 => 0..3_000_u64, 1 => 0..30_000_u64];
    let step = (0..3_usize, pauses, 1..3_u64, 0..6_u64, 0..6_u64, debts, prop::bool::weighted(0.05));
    let rate = prop_oneof![Just(gcra(7, 1, 10)), Just(gcra(1_000_000_000, 1, 30)), Just(gcra(3, 100, 4))];
    let lease = |(rate, steps): (Rate, Vec<LeaseStep>)| {
        case += 1;
        let key = format!("leases:{case}");
        let (mut now, mut spent, mut held) = (START, Vec::new(), [Held::default(); 3]);
        for (replica, thousandths, cost, want, use_first, alone, forget) in steps {
            now += pause(&rate, thousandths).max(1);
            if forget {
                ::redis::cmd("DEL").arg(&key).exec(&mut script.connection).unwrap();
                // Whoever asks first knows all that was taken; who knows less may be followed by who knows more.
                let full_at = held.iter().map(|held| held.full_at).max().unwrap();
                held[replica].full_at = full_at;
            }
            // Without asking a replica grants what there was when anybody heard of the bucket last.
            let full_after = |tokens: u64| (tokens * rate.period_seconds() * SECOND).div_ceil(rate.requests());
            let known = held.iter().map(|held| held.full_at).max().unwrap().max(now);
            let alone = if known + full_after(alone) <= now + full_after(rate.burst()) { alone } else { 0 };
            let others = held.iter().map(|held| held.tokens).sum();
            let lease = &mut held[replica];
            let used = use_first.min(lease.tokens);
            spent.push((lease.at, used, lease.others));
            let back = (lease.tokens - used, lease.at);
            let floor = (lease.full_at.saturating_sub(now), 0);
            let told = Told { want, back, base: lease.base, floor, debt: full_after(alone) };
            let said = script.call(&[(&rate, key.clone(), cost, told)], now);
            let [_, leased, _, _, base] = said.asks[0];
            prop_assert!(leased <= want);
            spent.push((now, alone + if said.admitted { cost } else { 0 }, others));
            *lease = Held { tokens: leased, at: now, base, full_at: now + left(&rate, said.asks[0], now), others };
        }
        // Tokens count from when the bucket gave them. Those that were out then may come back and be given a second time.
        spent.sort_unstable();
        for (first, (begin, _, out)) in spent.iter().enumerate() {
            let mut sum = 0;
            for (end, tokens, _) in &spent[first..] {
                sum += tokens;
                let back = u128::from(end - begin) * u128::from(rate.requests());
                let allowed = u128::from(rate.burst() + out) + back / u128::from(rate.period_seconds() * SECOND);
                prop_assert!(u128::from(sum) <= allowed, "{} spent in {} µs", sum, end - begin);
            }
        }
        Ok(())
    };
    let lease = RefCell::new(lease);
    let mut runner = TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    runner.run(&(rate, vec(step, 1..60)), |input| (lease.borrow_mut())(input)).unwrap();
}

#[test]
fn what_came_back_by_itself_is_not_taken_back() {
    let redis = Redis::start();
    let mut script = Script::new(&redis);
    let rate = gcra(1, 1, 10);
    let mut call = |key: &str, cost, told, second: Micros| {
        let now = START + second * SECOND;
        let said = script.call(&[(&rate, key.to_owned(), cost, told)], now);
        (said.asks[0][1], left(&rate, said.asks[0], now) / SECOND)
    };
    let lease = |want| Told { want, ..Told::default() };
    let back = |tokens| Told { back: (tokens, START), base: START, ..Told::default() };
    // Idle in between.
    assert_eq!(call("idle", 1, lease(5), 0), (5, 6));
    assert_eq!(call("idle", 9, Told::default(), 6), (0, 9));
    assert_eq!(call("idle", 0, back(5), 6), (0, 9));
    // Idle by what another gave back.
    assert_eq!(call("back", 1, lease(5), 0), (5, 6));
    assert_eq!(call("back", 0, lease(3), 0), (3, 9));
    assert_eq!(call("back", 2, back(5), 4), (0, 2));
    assert_eq!(call("back", 0, back(3), 4), (0, 2));
    // Never idle.
    assert_eq!(call("busy", 1, lease(5), 0), (5, 6));
    assert_eq!(call("busy", 0, back(5), 0), (0, 1));
}

#[test]
fn a_window_is_counted_and_told_like_the_rest() {
    let redis = Redis::start();
    let mut script = Script::new(&redis);
    let rate = window(10, 60);
    let mut call = |cost, told, second: Micros| {
        let said = script.call(&[(&rate, "window".to_owned(), cost, told)], START + second * SECOND);
        let [refused, leased, _, count, base] = said.asks[0];
        (refused == 1, leased, count, base)
    };
    let base = START + SECOND;
    let back = |tokens, second, base| Told { back: (tokens, START + second * SECOND), base, ..Told::default() };
    let told =
        |base, second, count, debt| Told { base, floor: (START + second * SECOND, count), debt, ..Told::default() };
    assert_eq!(call(1, Told { want: 4, ..Told::default() }, 1), (false, 4, 5, base));
    assert_eq!(call(1, back(3, 1, base), 2), (false, 0, 3, base));
    assert_eq!(call(8, Told::default(), 2), (true, 0, 3, base));
    // Who knows the bucket by this base knows no more than it; a debt is paid all the same, even by who is refused.
    assert_eq!(call(1, told(base, 0, 7, 0), 3), (false, 0, 4, base));
    assert_eq!(call(9, told(base, 0, 7, 2), 3), (true, 0, 6, base));
    assert_eq!(call(0, told(base - 1, 0, 7, 1), 3), (false, 0, 8, base));
    // In the next window none of it counts.
    let next = START + 61 * SECOND;
    assert_eq!(call(0, told(base, 0, 7, 1), 61), (false, 0, 0, next));
    assert_eq!(call(1, back(3, 3, base), 61), (false, 0, 1, next));
    // A lost one is as full as is told, and what was leased from it stays spent.
    let lost = Told { back: (3, START + 121 * SECOND), ..told(base, 120, 7, 0) };
    assert_eq!(call(0, lost, 122), (false, 0, 7, START + 122 * SECOND));
}
