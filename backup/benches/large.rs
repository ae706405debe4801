//! What backups of a bank cost as its ledger grows: time, bytes and peak memory of the program, for a full backup, an
//! increment after a thousand transfers, and a verification that restores both. Prints a table.
//! Needs e2e/cluster/light.sh; FINAIFLOW_BENCH_ENTRIES says how many entries the larger ledger has.
#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports numbers, and fails loudly"
)]

// The integration tests' way to make a bank, and to run the program.
#[path = "../tests/it/bank.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod bank;
#[path = "../tests/it/harness.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod harness;
#[path = "../tests/it/program.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod program;
#[path = "../tests/it/pruning.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod pruning;

use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use finaiflow_schema::names::quote;
use finaiflow_schema::testing::TenantDb;
use futures::future::join_all;
use sqlx::AssertSqlSafe;

use crate::bank::{Bank, IDENTITY};
use crate::program::Job;

/// Of the increment.
const CHANGES: usize = 1_000;
/// Requests at a time: what the engine takes into one batch.
const AT_ONCE: usize = 500;

fn main() {
    let entries = std::env::var("FINAIFLOW_BENCH_ENTRIES").map_or(1_000_000, |entries| entries.parse().unwrap());
    println!("| entries | run | seconds | MiB stored | MiB of memory at most |\n|---|---|---|---|---|");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for entries in [entries / 10, entries] {
        runtime.block_on(measure(entries));
    }
}

async fn measure(entries: usize) {
    let job = Job::new(&format!("large-{entries}"), &["local"]).await;
    transfers(&job.bank, "first", entries / 2).await;
    let stored = |kind: &str| {
        let report = row(entries, kind, &job, job.start(&["take", kind]));
        report.artifact.unwrap_or_else(|| panic!("{kind}: {:?}", report.error))
    };
    an_hour_passes(&job.bank).await;
    stored("full");
    transfers(&job.bank, "then", CHANGES).await;
    stored("incremental");
    stored("segment");

    let scratch = TenantDb::create().await;
    let identity = job.directory("identity");
    fs::write(&identity, IDENTITY).unwrap();
    let mut verify = job.command(env!("CARGO_BIN_EXE_finaiflow-backup"), &["verify"]);
    verify.env_remove("DATABASE_URL").env("FINAIFLOW_IDENTITY", identity);
    verify.env("SCRATCH_DATABASE_URL", &scratch.superuser_url);
    let report = row(entries, "verify, restored", &job, verify.spawn().unwrap());
    let verified = report.destinations[0].last_verification.as_ref();
    assert!(verified.is_some_and(|verified| verified.passed), "{report:?}");
    scratch.drop().await;
    job.bank.close().await;
}

async fn transfers(bank: &Bank, prefix: &str, number: usize) {
    for batch in (0..number).step_by(AT_ONCE) {
        let keys = (batch..number.min(batch + AT_ONCE))
            .map(|number| bank.transfer(format!("{prefix} {number}"), number % 4, (number + 1) % 4));
        join_all(keys).await;
    }
}

/// An increment holds the answers of the last ten minutes again, so a ledger that was written in a minute would be all of
/// them. The server has tidied up since, too.
async fn an_hour_passes(bank: &Bank) {
    let keys = format!("{}.idempotency_keys", quote(&bank.db.names.schema));
    let age = format!(
        "UPDATE {keys} SET expires_at = expires_at - interval '1 hour', created_at = created_at - interval '1 hour'"
    );
    let mut superuser = bank.db.superuser().await;
    for statement in [age.as_str(), "VACUUM (FULL, ANALYZE)", "CHECKPOINT"] {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut superuser).await.unwrap();
    }
}

/// Waits for a run, and prints what it took.
fn row(entries: usize, run: &str, job: &Job, mut child: Child) -> finaiflow_crds::backup::Report {
    let (began, mut memory) = (Instant::now(), 0);
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
        memory = peak.unwrap_or(0).max(memory);
        sleep(Duration::from_millis(5));
    }
    let took = began.elapsed();
    let ran = job.ended(child);
    assert!(ran.passed, "{ran:?}");
    let report = ran.report.unwrap();
    let artifacts = report.destinations.iter().flat_map(|at| [&at.last_full, &at.last_incremental, &at.last_segment]);
    let bytes = artifacts.flatten().find(|known| Some(&known.id) == report.artifact.as_ref()).map(|known| known.bytes);
    let stored = bytes.map_or("–".to_owned(), |bytes| format!("{:.2}", mebibytes(bytes / 1024)));
    println!("| {entries} | {run} | {:.1} | {stored} | {:.0} |", took.as_secs_f64(), mebibytes(memory));
    report
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn mebibytes(kibibytes: i64) -> f64 {
    kibibytes as f64 / 1024.0
}
