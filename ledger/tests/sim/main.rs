//! The engine against a model of its store: a few replicas, a network that loses and delays, engines that die, a
//! ledger that is restored under them. One seed decides everything, in virtual time and on one thread.
//!
//! `FINAIFLOW_SIM_SEED=n` runs that seed alone and prints what happened; `FINAIFLOW_SIM_SEEDS=n` says how many to run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and prints its seed"
)]

mod auditor;
mod bank;
mod dice;
mod history;
mod lies;
mod model;
mod store;
mod workload;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bank::simulate;
use crate::lies::Lie;

const SEEDS: u64 = 10_000;

/// The seeds in which a lie has to be found.
const SEEDS_OF_A_LIE: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Whatever has to happen in a run of all seeds: faults, answers and journals.
const EXPECTED: &[&str] = &[
    "answered past the deadline",
    "bulk in part",
    "bulk refused",
    "carried out",
    "clock set",
    "committed",
    "connection broken",
    "connection refused",
    "engine killed",
    "engine stopped",
    "fenced",
    "given up",
    "key reused",
    "key taken",
    "landed late",
    "landed past the deadline",
    "lost before commit",
    "overloaded",
    "replayed",
    "reply lost after commit",
    "restored",
    "slow",
    "stalled past the deadline",
    "unavailable",
    "account_changed",
    "account_opened",
    "deposit",
    "hold_captured",
    "hold_expired",
    "hold_placed",
    "hold_voided",
    "journal",
    "reversal",
    "transfer",
    "withdrawal",
    "AccountNotActive",
    "AccountNotEmpty",
    "AlreadyReversed",
    "CurrencyMismatch",
    "ExceedsHold",
    "Forbidden",
    "HoldExpired",
    "HoldSettled",
    "InsufficientFunds",
    "NotFound",
    "NotReversible",
    "SameAccount",
    "SpendingLimitExceeded",
    "StatusConflict",
    "Unbalanced",
];

fn add(all: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (what, count) in more {
        *all.entry(what).or_default() += count;
    }
}

#[test]
fn every_seed_keeps_the_books() {
    if let Some(seed) = number("FINAIFLOW_SIM_SEED") {
        let report = simulate(seed, Lie::Truthful, true);
        report.trace.iter().for_each(|line| println!("{line}"));
        assert_eq!(report.violation, None, "seed {seed}");
        return;
    }
    let (next, seeds) = (AtomicU64::new(0), number("FINAIFLOW_SIM_SEEDS").unwrap_or(SEEDS));
    let work = || {
        let mut counts = BTreeMap::<String, u64>::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return counts;
            }
            let report = simulate(seed, Lie::Truthful, false);
            assert_eq!(report.violation, None, "replay with FINAIFLOW_SIM_SEED={seed}");
            add(&mut counts, report.seen);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut seen = BTreeMap::<String, u64>::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            add(&mut seen, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    println!("{seeds} seeds: {seen:#?}");
    let missing: Vec<_> = EXPECTED.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(seeds < SEEDS || missing.is_empty(), "{missing:?} never happened: {seen:?}");
}

#[test]
fn a_seed_is_a_simulation() {
    let seeds = number("FINAIFLOW_SIM_SEEDS").unwrap_or(100).min(2_000);
    for seed in 0..seeds {
        let [first, again] = [(); 2].map(|()| simulate(seed, Lie::Truthful, true));
        let differs = first.trace.iter().zip(&again.trace).find(|(first, again)| first != again);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((first.witness, first.seen), (again.witness, again.seen), "seed {seed}");
    }
}

/// What the auditor says of the first seed in which it finds `lie` out.
fn found_out(lie: Lie) -> String {
    let found = (0..SEEDS_OF_A_LIE).find_map(|seed| simulate(seed, lie, false).violation.map(|found| (seed, found)));
    let (seed, found) = found.unwrap_or_else(|| panic!("{lie:?} is not found out in {SEEDS_OF_A_LIE} seeds"));
    println!("{lie:?} in seed {seed}: {found}");
    found
}

#[test]
fn dropping_the_fence_is_found_out() {
    found_out(Lie::FenceDropped);
}

#[test]
fn dropping_the_version_check_too_is_found_out() {
    found_out(Lie::FenceAndVersionDropped);
}

#[test]
fn ignoring_the_epoch_is_found_out() {
    let found = found_out(Lie::EpochIgnored);
    assert!(found.contains("of epoch"), "{found}");
}

#[test]
fn writing_a_key_twice_is_found_out() {
    found_out(Lie::KeysNotUnique);
}

#[test]
fn skipping_the_fingerprint_is_found_out() {
    found_out(Lie::FingerprintSkipped);
}

#[test]
fn answering_before_the_commit_is_found_out() {
    let found = found_out(Lie::AnsweredEarly);
    assert!(found.contains("it was answered"), "{found}");
}

#[test]
fn losing_a_commit_is_found_out() {
    let found = found_out(Lie::Lost);
    assert!(found.contains("it was answered"), "{found}");
}

#[test]
fn reusing_a_sequence_is_found_out() {
    found_out(Lie::SequenceReused);
}

#[test]
fn reading_what_was_there_before_is_found_out() {
    let found = found_out(Lie::StaleReads);
    assert!(found.contains("in no order"), "{found}");
}
