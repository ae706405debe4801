//! What PostgreSQL, the API server and the load cost, counted where it is spent.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use sqlx::{Connection, PgConnection};

use crate::kit::process::{Program, tree_cpu};

/// Names the file of e2e/cluster/probe.c.
const PROBE: &str = "FINAIFLOW_TEST_PROBE";

/// Looks at counters.
pub struct Meter {
    superuser: PgConnection,
    postmaster: u32,
    probe: fs::File,
}

/// The counters at one moment.
pub struct Sample {
    at: Instant,
    postgres: f64,
    api: f64,
    load: f64,
    /// Bytes of write-ahead log.
    log: i64,
    flushes: i64,
    round_trips: i64,
}

/// What happened between two samples: CPU seconds, bytes and counts, of everybody.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cost {
    pub postgres: f64,
    pub api: f64,
    pub load: f64,
    pub log: f64,
    /// Of which images of pages that changed for the first time since a checkpoint.
    pub page_images: f64,
    pub flushes: f64,
    pub commits: f64,
    pub round_trips: f64,
}

impl Meter {
    pub async fn connect(url: &str) -> Self {
        let mut superuser = PgConnection::connect(url).await.unwrap();
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut superuser).await.unwrap();
        sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_walinspect").execute(&mut superuser).await.unwrap();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let postmaster = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        let path = std::env::var(PROBE).unwrap_or_else(|_| panic!("{PROBE} is not set: run `make bench-ledger`"));
        let probe = fs::File::options().read(true).write(true).open(path).unwrap();
        Self { superuser, postmaster, probe }
    }

    pub async fn sample(&mut self, api: Option<&Program>) -> Sample {
        Sample {
            log: self.log().await,
            at: Instant::now(),
            postgres: tree_cpu(self.postmaster),
            api: api.map_or(0.0, Program::cpu),
            // Programs that have ended, too: pgbench is one.
            load: tree_cpu(std::process::id()) - api.map_or(0.0, Program::cpu),
            flushes: self.counter(1),
            round_trips: self.counter(2),
        }
    }

    /// What it has cost since `before`, and the seconds.
    pub async fn since(&mut self, before: &Sample, api: Option<&Program>) -> (Cost, f64) {
        let after = self.sample(api).await;
        let (page_images, commits) = self.records(before.log, after.log).await;
        let cost = Cost {
            postgres: after.postgres - before.postgres,
            api: after.api - before.api,
            load: after.load - before.load,
            log: (after.log - before.log) as f64,
            page_images,
            flushes: (after.flushes - before.flushes) as f64,
            commits,
            round_trips: (after.round_trips - before.round_trips) as f64,
        };
        (cost, (after.at - before.at).as_secs_f64())
    }

    /// Makes each flush take this much longer.
    pub fn slow_down(&self, microseconds: i64) {
        self.probe.write_all_at(&microseconds.to_ne_bytes(), 0).unwrap();
    }

    /// Ends what would be written some time, so that it is not in the next round.
    pub async fn checkpoint(&mut self) {
        sqlx::query("CHECKPOINT").execute(&mut self.superuser).await.unwrap();
    }

    async fn log(&mut self) -> i64 {
        let position = "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint";
        sqlx::query_scalar(position).fetch_one(&mut self.superuser).await.unwrap()
    }

    /// Bytes of page images and the number of commits in a part of the log.
    async fn records(&mut self, from: i64, to: i64) -> (f64, f64) {
        if from == to {
            return (0.0, 0.0);
        }
        let records = r#"SELECT coalesce(sum(fpi_size), 0)::float8,
                coalesce(sum(count) FILTER (WHERE "resource_manager/record_type" = 'Transaction/COMMIT'), 0)::float8
            FROM pg_get_wal_stats('0/0'::pg_lsn + $1::numeric, '0/0'::pg_lsn + $2::numeric, true)"#;
        let positions = sqlx::query_as(records).bind(from.to_string()).bind(to.to_string());
        positions.fetch_one(&mut self.superuser).await.unwrap()
    }

    fn counter(&self, place: u64) -> i64 {
        let mut bytes = [0; 8];
        self.probe.read_exact_at(&mut bytes, place * 8).unwrap();
        i64::from_ne_bytes(bytes)
    }
}
