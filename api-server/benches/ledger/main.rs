//! The ledger beside PostgreSQL's own benchmark and another ledger, all on one PostgreSQL with its default durability:
//! from a transaction for each transfer to many tenants over HTTP. Prints the tables of docs/PERFORMANCE.md, writes
//! target/bench/summary.json and a plot, and fails if a transfer was lost or booked twice. Needs e2e/cluster/light.sh.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports numbers far below 2^52, and fails loudly"
)]

mod books;
mod house;
#[path = "../kit/mod.rs"]
#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod kit;
mod lane;
mod load;
mod meter;
mod peers;
mod plot;
mod report;
mod stage;
mod traffic;

// The integration tests' way to make a bank.
#[path = "../../tests/it/fleet.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod fleet;
#[path = "../../tests/it/harness.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod harness;
#[path = "../../tests/it/tenants_bank.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod tenants_bank;

use std::time::Instant;

use kit::process::setting;
use lane::{Lane, Work, best};
use report::{Part, Report};
use stage::{ACCOUNTS, Stage};
use traffic::Traffic::{Hot, Uniform, Zipf};

fn main() {
    let seconds = setting("FINAIFLOW_BENCH_SECONDS", 3);
    let rounds = setting("FINAIFLOW_BENCH_ROUNDS", 3);
    let tenants = setting("FINAIFLOW_BENCH_TENANTS", 1000);
    let mut report = Report::new(seconds, rounds);
    let mut stage = Stage::set(seconds);
    stage.serve(1, ACCOUNTS);

    let mut lanes = chosen(one_tenant());
    measure(&mut stage, &mut lanes, rounds);
    let compared = best(&lanes, SIMPLE).map(|lane| Lane::new("pgbench simple-update", lane.work));
    report.add(Part::new("One tenant", lanes));

    let beside = |connections: &[usize]| {
        let compared = compared.iter().map(|lane| Lane::new(&lane.name, lane.work));
        let http = connections.iter().map(|&connections| {
            let work = Work::Closed { traffic: Uniform, connections };
            Lane::new(format!("HTTP, {connections} connections"), work)
        });
        chosen(compared.chain(http).collect())
    };
    let mut lanes = beside(&[256]);
    stage.checkpoint();
    measure(&mut stage, &mut lanes, 1);
    report.add(Part::new("One tenant, right after a checkpoint", lanes));

    for tenants in [100, 1000].into_iter().filter(|number| *number <= tenants) {
        let began = Instant::now();
        stage.serve(tenants, ACCOUNTS / 100);
        report.setup(tenants, began.elapsed());
        let mut lanes = beside(&[256, 2560]);
        measure(&mut stage, &mut lanes, rounds);
        report.add(Part::new(format!("{tenants} tenants"), lanes));
    }
    report.transfers(stage.strike());
    report.publish();
}

const SIMPLE: &str = "simple-update";

/// Everything that needs one tenant only, in the order of a round.
fn one_tenant() -> Vec<Lane> {
    let pgbench = |script, protocol, connections| Work::Pgbench { script, protocol, connections };
    let closed = |traffic, connections| Work::Closed { traffic, connections };
    let mut lanes = Vec::new();
    for (script, short) in [("tpcb-like", "TPC-B-like"), (SIMPLE, SIMPLE)] {
        for connections in [1, 8, 16, 64] {
            let name = format!("pgbench {short}, {connections} connections");
            lanes.push(Lane::new(name, pgbench(script, "simple", connections)));
        }
    }
    for connections in [8, 16] {
        let name = format!("pgbench {SIMPLE}, prepared, {connections} connections");
        lanes.push(Lane::new(name, pgbench(SIMPLE, "prepared", connections)));
    }
    for (callers, batch) in [(8, 1), (16, 1), (4, 50)] {
        let name = format!("cala-ledger, {batch} in a transaction, {callers} callers");
        lanes.push(Lane::new(name, Work::Cala { callers, batch }));
    }
    lanes.push(Lane::new("library, 1 in a transaction, 16 engines", Work::Alone { engines: 16 }));
    for callers in [1, 16, 64, 256, 1000] {
        lanes.push(Lane::new(format!("library, group commit, {callers} callers"), Work::Group { callers }));
    }
    for connections in [1, 16, 64, 256] {
        lanes.push(Lane::new(format!("HTTP, {connections} connections"), closed(Uniform, connections)));
    }
    lanes.push(Lane::new("HTTP, zipf, 256 connections", closed(Zipf, 256)));
    lanes.push(Lane::new("HTTP, one hot account, 256 connections", closed(Hot, 256)));
    lanes.push(Lane::new("HTTP, 50 in a request, 16 connections", Work::Bulk { connections: 16 }));
    for (connections, part) in [(1, 0.3), (256, 0.7)] {
        let name = format!("HTTP, {connections} connections, open loop at {part}");
        lanes.push(Lane::new(name, Work::OpenLoop { connections, part }));
    }
    for connections in [16, 64] {
        let name = format!("slow disk: pgbench {SIMPLE}, {connections} connections");
        lanes.push(Lane::slow(name, pgbench(SIMPLE, "simple", connections)));
    }
    lanes.push(Lane::slow("slow disk: HTTP, 256 connections", closed(Uniform, 256)));
    lanes.push(Lane::slow("slow disk: HTTP, one hot account, 256 connections", closed(Hot, 256)));
    lanes
}

/// Those whose names hold what `FINAIFLOW_BENCH_ONLY` says.
fn chosen(mut lanes: Vec<Lane>) -> Vec<Lane> {
    let only = std::env::var("FINAIFLOW_BENCH_ONLY").unwrap_or_default();
    lanes.retain(|lane| lane.name.contains(&only));
    lanes
}

fn measure(stage: &mut Stage, lanes: &mut [Lane], rounds: usize) {
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        stage.round(lanes);
    }
}
