//! What is measured, and what was.

use serde_json::{Value, json};

use crate::kit::figures::median;
use crate::meter::Cost;
use crate::traffic::Traffic;

/// One way to make transfers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// PostgreSQL's own, one transaction after the other on each of the connections.
    Pgbench { script: &'static str, protocol: &'static str, connections: usize },
    /// cala-ledger in a process of its own.
    Cala { callers: usize, batch: usize },
    /// Our library: each caller has an engine and a connection to itself, so that each transfer is a transaction.
    Alone { engines: usize },
    /// Our library: callers of one engine, which gathers what they submit.
    Group { callers: usize },
    /// HTTP: each connection sends the next request when the last is answered.
    Closed { traffic: Traffic, connections: usize },
    /// HTTP: requests at fixed times, at this part of what the closed loop of as many connections reached.
    OpenLoop { connections: usize, part: f64 },
    /// HTTP: many transfers in a request.
    Bulk { connections: usize },
}

/// A row of the report.
pub struct Lane {
    pub name: String,
    pub work: Work,
    /// Whether each flush takes two milliseconds more.
    pub slow: bool,
    pub rounds: Vec<Round>,
}

/// One measurement of it.
#[derive(Clone, Copy)]
pub struct Round {
    pub transfers: f64,
    pub seconds: f64,
    /// Milliseconds that 50 %, 99 % and 99.9 % of the calls took at most, where they were counted one by one.
    pub latency: Option<[f64; 3]>,
    pub cost: Cost,
    /// Requests that were told to come again.
    pub refused: u32,
}

impl Round {
    pub fn per_second(&self) -> f64 {
        self.transfers / self.seconds
    }
}

impl Lane {
    pub fn new(name: impl Into<String>, work: Work) -> Self {
        Self { name: name.into(), work, slow: false, rounds: Vec::new() }
    }

    pub fn slow(name: impl Into<String>, work: Work) -> Self {
        Self { slow: true, ..Self::new(name, work) }
    }

    /// Whether it is one of pgbench's scripts in the form that others are compared with.
    pub fn is(&self, script: &str) -> bool {
        matches!(self.work, Work::Pgbench { script: own, protocol: "simple", .. } if own == script)
    }

    pub fn measured(&self) -> bool {
        !self.rounds.is_empty()
    }

    pub fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }

    pub fn per_second(&self) -> f64 {
        self.median(Round::per_second)
    }

    /// Per transfer.
    pub fn cost(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        self.median(|round| of(&round.cost) / round.transfers)
    }

    /// Milliseconds: 0 for 50 %, 1 for 99 %, 2 for 99.9 %.
    pub fn latency(&self, part: usize) -> Option<f64> {
        let told = self.measured() && self.rounds.iter().all(|round| round.latency.is_some());
        told.then(|| self.median(|round| round.latency.unwrap_or_default()[part]))
    }

    /// How many times as fast as `other`: rounds that follow each other are compared, since what else the machine does
    /// is much the same for both.
    pub fn times(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own.per_second() / other.per_second()))
    }

    pub fn json(&self) -> Value {
        let rounds: Vec<_> = self.rounds.iter().map(Round::per_second).collect();
        let refused: u32 = self.rounds.iter().map(|round| round.refused).sum();
        json!({
            "name": self.name, "tps": self.measured().then(|| self.per_second()), "rounds_tps": rounds, "refused": refused,
            "p50_ms": self.latency(0), "p99_ms": self.latency(1), "p999_ms": self.latency(2),
            "pg_cpu_us": self.cost(|cost| cost.postgres * 1e6), "api_cpu_us": self.cost(|cost| cost.api * 1e6),
            "load_cpu_us": self.cost(|cost| cost.load * 1e6), "wal_bytes": self.cost(|cost| cost.log),
            "wal_bytes_without_page_images": self.cost(|cost| cost.log - cost.page_images),
            "flushes": self.cost(|cost| cost.flushes), "commits": self.cost(|cost| cost.commits),
            "round_trips": self.cost(|cost| cost.round_trips),
        })
    }
}

/// The fastest of those that are one of pgbench's scripts.
pub fn best<'a>(lanes: &'a [Lane], script: &str) -> Option<&'a Lane> {
    let lanes = lanes.iter().filter(|lane| lane.is(script) && !lane.slow);
    lanes.max_by(|a, b| a.per_second().total_cmp(&b.per_second()))
}
