//! Tables for people, a summary for machines.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::lane::{Lane, Work, best};
use crate::plot;
use crate::traffic::Traffic;

/// Lanes that were measured in turns.
pub struct Part {
    pub title: String,
    pub lanes: Vec<Lane>,
}

pub struct Report {
    began: Instant,
    seconds: u64,
    rounds: usize,
    parts: Vec<Part>,
    setup: Map<String, Value>,
    transfers: u32,
}

impl Part {
    pub fn new(title: impl Into<String>, lanes: Vec<Lane>) -> Self {
        Self { title: title.into(), lanes }
    }

    /// Beside pgbench's simple-update in the same rounds.
    pub fn times(&self, lane: &Lane) -> Option<f64> {
        lane.measured().then(|| best(&self.lanes, "simple-update").map(|best| lane.times(best)))?
    }

    fn lane(&self, work: Work) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.work == work && !lane.slow && lane.measured())
    }

    fn print(&self) {
        println!("\n**{}**\n", self.title);
        println!("| | transfers/s | × simple-update | p50 | p99 | p99.9 ms |");
        println!("|---|---|---|---|---|---|");
        for lane in &self.lanes {
            let or_none = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
            let latency = |part| or_none(lane.latency(part).map(|value| format!("{value:.2}")));
            println!(
                "| {} | {} | {} | {} | {} | {} |",
                lane.name,
                or_none(lane.measured().then(|| thousands(lane.per_second()))),
                or_none(self.times(lane).map(|times| format!("{times:.2}"))),
                latency(0),
                latency(1),
                latency(2),
            );
        }
        println!(
            "\n| per transfer | CPU of PostgreSQL | of the API server | of the load | WAL | without page images | commits | flushes | round trips |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for lane in self.lanes.iter().filter(|lane| lane.measured()) {
            println!(
                "| {} | {:.1} µs | {:.1} µs | {:.1} µs | {:.0} B | {:.0} B | {:.4} | {:.4} | {:.3} |",
                lane.name,
                lane.cost(|cost| cost.postgres * 1e6),
                lane.cost(|cost| cost.api * 1e6),
                lane.cost(|cost| cost.load * 1e6),
                lane.cost(|cost| cost.log),
                lane.cost(|cost| cost.log - cost.page_images),
                lane.cost(|cost| cost.commits),
                lane.cost(|cost| cost.flushes),
                lane.cost(|cost| cost.round_trips),
            );
        }
    }
}

impl Report {
    pub fn new(seconds: u64, rounds: usize) -> Self {
        Self { began: Instant::now(), seconds, rounds, parts: Vec::new(), setup: Map::new(), transfers: 0 }
    }

    /// Prints it at once: a run takes long.
    pub fn add(&mut self, part: Part) {
        if !part.lanes.is_empty() {
            part.print();
            self.parts.push(part);
        }
    }

    pub fn setup(&mut self, tenants: usize, time: Duration) {
        println!("\n{tenants} tenants were there after {:.1} s", time.as_secs_f64());
        self.setup.insert(format!("setup_{tenants}_tenants_s"), json!(time.as_secs_f64()));
    }

    /// Those that were acknowledged, once all of them are known to be booked.
    pub fn transfers(&mut self, count: u32) {
        println!("\n{count} transfers acknowledged, each is booked once; every tenant's books balance");
        self.transfers = count;
    }

    /// Writes target/bench/summary.json and the plot, to `FINAIFLOW_BENCH_PLOT` if that is said.
    pub fn publish(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let plot = std::env::var("FINAIFLOW_BENCH_PLOT").unwrap_or("target/bench/ledger.svg".to_owned());
        fs::create_dir_all(root.join("target/bench")).unwrap();
        let summary = serde_json::to_string_pretty(&self.summary()).unwrap();
        fs::write(root.join("target/bench/summary.json"), summary + "\n").unwrap();
        fs::write(root.join(&plot), plot::bars(&self.bars())).unwrap();
        println!("\n{:.0} s in all; see target/bench/summary.json and {plot}", self.began.elapsed().as_secs_f64());
    }

    fn part(&self, title: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.title == title)
    }

    /// What the plot shows: a name, and transfers per second in the slowest, the median and the fastest round.
    fn bars(&self) -> Vec<plot::Bar> {
        let Some(one) = self.part("One tenant") else { return Vec::new() };
        let mut bars = Vec::new();
        let mut add = |name: &str, lane: Option<&Lane>| bars.extend(lane.map(|lane| plot::Bar::of(name, lane)));
        add("pgbench TPC-B-like", best(&one.lanes, "tpcb-like"));
        add("pgbench simple-update", best(&one.lanes, "simple-update"));
        add("cala-ledger", self.cala());
        add("library, one in a transaction", one.lane(Work::Alone { engines: 16 }));
        add("library, group commit, 256 callers", one.lane(Work::Group { callers: 256 }));
        let closed = |traffic, connections| Work::Closed { traffic, connections };
        add("HTTP, 256 connections", one.lane(closed(Traffic::Uniform, 256)));
        add("HTTP, zipf", one.lane(closed(Traffic::Zipf, 256)));
        add("HTTP, one hot account", one.lane(closed(Traffic::Hot, 256)));
        add("HTTP, 50 in a request", one.lane(Work::Bulk { connections: 16 }));
        for tenants in [100, 1000] {
            let part = self.part(&format!("{tenants} tenants"));
            add(&format!("HTTP, {tenants} tenants"), part.and_then(|part| part.lane(closed(Traffic::Uniform, 256))));
        }
        bars
    }

    /// With a transaction for each transfer, as fast as it went.
    fn cala(&self) -> Option<&Lane> {
        let lanes = self.part("One tenant")?.lanes.iter();
        let lanes = lanes.filter(|lane| matches!(lane.work, Work::Cala { batch: 1, .. }) && lane.measured());
        lanes.max_by(|a, b| a.per_second().total_cmp(&b.per_second()))
    }

    fn summary(&self) -> Value {
        let mut summary = self.setup.clone();
        let mut tell = |key: &str, value: Option<f64>| summary.insert(key.to_owned(), json!(value));
        let one = self.part("One tenant");
        let lane = |work| one.and_then(|part| part.lane(work));
        let closed = |traffic, connections| Work::Closed { traffic, connections };
        let uniform = lane(closed(Traffic::Uniform, 256));
        let fastest = |script| one.and_then(|part| best(&part.lanes, script)).map(Lane::per_second);
        tell("pgbench_tpcb_tps", fastest("tpcb-like"));
        tell("pgbench_simple_update_tps", fastest("simple-update"));
        tell("cala_tps", self.cala().map(Lane::per_second));
        tell("single_tps", lane(Work::Alone { engines: 16 }).map(Lane::per_second));
        for callers in [1, 16, 64, 256, 1000] {
            tell(&format!("library_{callers}_tps"), lane(Work::Group { callers }).map(Lane::per_second));
        }
        tell("http_uniform_tps", uniform.map(Lane::per_second));
        tell("http_zipf_tps", lane(closed(Traffic::Zipf, 256)).map(Lane::per_second));
        tell("http_hot_tps", lane(closed(Traffic::Hot, 256)).map(Lane::per_second));
        tell("http_bulk50_tps", lane(Work::Bulk { connections: 16 }).map(Lane::per_second));
        for tenants in [100, 1000] {
            let part = self.part(&format!("{tenants} tenants"));
            let lane = |connections| part.and_then(|part| part.lane(closed(Traffic::Uniform, connections)));
            tell(&format!("http_{tenants}_tenants_tps"), lane(256).map(Lane::per_second));
            tell(&format!("http_{tenants}_tenants_2560_tps"), lane(2560).map(Lane::per_second));
        }
        tell("p99_ms_256", lane(Work::OpenLoop { connections: 256, part: 0.7 }).and_then(|lane| lane.latency(1)));
        tell("p99_ms_1", lane(Work::OpenLoop { connections: 1, part: 0.3 }).and_then(|lane| lane.latency(1)));
        tell("pg_cpu_us", uniform.map(|lane| lane.cost(|cost| cost.postgres * 1e6)));
        tell("api_cpu_us", uniform.map(|lane| lane.cost(|cost| cost.api * 1e6)));
        tell("wal_bytes", uniform.map(|lane| lane.cost(|cost| cost.log)));
        tell("wal_bytes_without_page_images", uniform.map(|lane| lane.cost(|cost| cost.log - cost.page_images)));
        let against = |script| {
            let (lane, other) = (uniform?, best(&one?.lanes, script)?);
            Some(lane.times(other))
        };
        tell("http_uniform_vs_simple_update", against("simple-update"));
        tell("http_uniform_vs_tpcb", against("tpcb-like"));
        let parts = self.parts.iter().map(|part| (part.title.clone(), part.lanes.iter().map(Lane::json).collect()));
        summary.insert("lanes".to_owned(), Value::Object(parts.collect()));
        summary.insert("seconds".to_owned(), json!(self.seconds));
        summary.insert("rounds".to_owned(), json!(self.rounds));
        summary.insert("acknowledged_transfers".to_owned(), json!(self.transfers));
        Value::Object(summary)
    }
}

fn thousands(value: f64) -> String {
    let whole = value.round() as u64;
    if whole < 1000 { whole.to_string() } else { format!("{},{:03}", whole / 1000, whole % 1000) }
}
