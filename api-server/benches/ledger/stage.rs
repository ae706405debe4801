//! One PostgreSQL, one API server, tenants, and a round of whatever is to be measured.

use std::path::PathBuf;
use std::time::Duration;

use finaiflow_ledger::engine::Engine;
use finaiflow_schema::testing::DATABASE_URL;
use futures::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::{Builder, Runtime};

use crate::books;
use crate::house::{House, ISSUER};
use crate::kit::figures::per_mille;
use crate::kit::process::Program;
use crate::lane::{Lane, Round, Work};
use crate::load::Load;
use crate::meter::Meter;
use crate::peers::{self, Cala};
use crate::tenants_bank::{Bank, kubeconfig};
use crate::traffic::Traffic;

/// Accounts of one tenant alone, and of all where there are many.
pub const ACCOUNTS: usize = 10_240;
/// Who own them, each with a session.
const USERS: usize = 256;
const SLOW_FLUSH: i64 = 2000;
const WARM_UP: Duration = Duration::from_millis(500);
/// Tenants that are made at once.
const PROVISIONERS: usize = 4;

pub struct Stage {
    /// Everything over HTTP is done by one thread.
    thread: Runtime,
    /// Callers of the library have as many as the API server.
    threads: Runtime,
    meter: Meter,
    server: String,
    cala: Option<PathBuf>,
    houses: Vec<House>,
    api: Option<Program>,
    /// A tenant that the API server does not know of.
    library: Library,
    seconds: u64,
}

struct Library {
    house: House,
    group: [Engine; 1],
    alone: Vec<Engine>,
}

impl Stage {
    /// One tenant, and what the peers need.
    pub fn set(seconds: u64) -> Self {
        let thread = Builder::new_current_thread().enable_all().build().unwrap();
        let threads = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let url = std::env::var(DATABASE_URL).unwrap_or_else(|_| panic!("run `make bench-ledger`"));
        let (server, _) = url.rsplit_once('/').unwrap();
        let (meter, house, neighbour) = thread.block_on(async {
            let mut superuser = PgConnection::connect(&url).await.unwrap();
            for database in ["pgbench", "cala"] {
                let create = AssertSqlSafe(format!("CREATE DATABASE {database}"));
                sqlx::query(create).execute(&mut superuser).await.unwrap();
            }
            let bank = Bank::create().await;
            let neighbour = bank.create_neighbour().await;
            let house = House::furnish(bank, ACCOUNTS, USERS).await;
            (Meter::connect(&url).await, house, House::furnish(neighbour, ACCOUNTS, USERS).await)
        });
        let library = threads.block_on(async {
            let engine = |connections| books::engine(&neighbour.bank.tenant.app_url, connections);
            let alone = (0..16).map(|_| engine(1)).collect();
            Library { group: [engine(2)], alone, house: neighbour }
        });
        let (server, cala) = (server.to_owned(), peers::cala());
        peers::fill_pgbench(&format!("{server}/pgbench"));
        if let Some(program) = &cala {
            peers::open_cala(program, &format!("{server}/cala"), ACCOUNTS);
        }
        thread.block_on(house.bank.complete());
        Self { thread, threads, meter, server, cala, houses: vec![house], api: None, library, seconds }
    }

    /// So many tenants in all. The API server starts anew, as it gives each tenant its part of the connections.
    pub fn serve(&mut self, tenants: usize, accounts: usize) {
        self.api = None;
        let Self { thread, houses, .. } = self;
        self.api = Some(thread.block_on(async {
            while houses.len() < tenants {
                let more = (tenants - houses.len()).min(PROVISIONERS);
                let first = &houses[0].bank;
                let furnish = |_| async move {
                    let house = House::furnish(first.create_neighbour().await, accounts, 1).await;
                    house.bank.complete().await;
                    house
                };
                let furnished = join_all((0..more).map(furnish)).await;
                houses.extend(furnished);
            }
            let settings = [
                ("RUST_LOG", "info"),
                ("RATE_LIMIT_REQUESTS", "1000000000"),
                ("FINAIFLOW_ISSUER_BASE_URL", ISSUER),
                ("FINAIFLOW_REPLICAS", "1"),
                ("FINAIFLOW_CONNECTION_BUDGET", "400"),
            ];
            Program::api(&kubeconfig(), &first_namespace(houses), &settings).await
        }));
    }

    /// Measures each lane once more.
    pub fn round(&mut self, lanes: &mut [Lane]) {
        for number in 0..lanes.len() {
            let Lane { name, work, slow, .. } = &lanes[number];
            eprintln!("  {name}");
            let pace = match work {
                Work::OpenLoop { connections, part } => {
                    let work = Work::Closed { traffic: Traffic::Uniform, connections: *connections };
                    let closed = lanes.iter().find(|lane| lane.work == work && !lane.slow);
                    let Some(round) = closed.and_then(|lane| lane.rounds.last()) else { continue };
                    round.per_second() * part
                }
                _ => 0.0,
            };
            self.meter.slow_down(if *slow { SLOW_FLUSH } else { 0 });
            let round = self.measure(*work, pace);
            self.meter.slow_down(0);
            lanes[number].rounds.extend(round);
        }
    }

    /// Writes what has changed to its files, so that each page changes for the first time again.
    pub fn checkpoint(&mut self) {
        self.thread.block_on(self.meter.checkpoint());
    }

    fn measure(&mut self, work: Work, pace: f64) -> Option<Round> {
        match work {
            Work::Pgbench { script, protocol, connections } => {
                let database = format!("{}/pgbench", self.server);
                let before = self.thread.block_on(self.meter.sample(None));
                let (transfers, seconds) = peers::pgbench(&database, script, protocol, connections, self.seconds);
                let (cost, _) = self.thread.block_on(self.meter.since(&before, None));
                Some(Round { transfers, seconds, latency: None, cost, refused: 0 })
            }
            Work::Cala { callers, batch } => {
                let numbers = [ACCOUNTS, callers, batch, self.seconds as usize];
                let cala = Cala::warm(self.cala.as_ref()?, &format!("{}/cala", self.server), numbers);
                let before = self.thread.block_on(self.meter.sample(None));
                let (transfers, seconds, latency) = cala.measure();
                let (cost, _) = self.thread.block_on(self.meter.since(&before, None));
                Some(Round { transfers, seconds, latency: Some(latency), cost, refused: 0 })
            }
            Work::Alone { engines } => Some(self.call(engines, engines)),
            Work::Group { callers } => Some(self.call(0, callers)),
            Work::Closed { traffic, connections } => self.post(work, traffic, connections, pace),
            Work::OpenLoop { connections, .. } | Work::Bulk { connections } => {
                self.post(work, Traffic::Uniform, connections, pace)
            }
        }
    }

    /// The library: with as many engines that gather nothing, or with one that does.
    fn call(&mut self, alone: usize, callers: usize) -> Round {
        let Library { house, group, alone: engines } = &self.library;
        let engines = if alone > 0 { &engines[..alone] } else { group };
        self.threads.block_on(books::call(engines, &house.books, callers, WARM_UP));
        let before = self.thread.block_on(self.meter.sample(None));
        let calls =
            self.threads.block_on(books::call(engines, &house.books, callers, Duration::from_secs(self.seconds)));
        let (cost, _) = self.thread.block_on(self.meter.since(&before, None));
        let (transfers, latency) = (calls.latencies.len() as f64, Some(milliseconds(&calls.latencies)));
        Round { transfers, seconds: calls.elapsed, latency, cost, refused: 0 }
    }

    /// Over HTTP.
    fn post(&mut self, work: Work, traffic: Traffic, connections: usize, pace: f64) -> Option<Round> {
        let Self { thread, meter, houses, api, .. } = self;
        let (api, time) = (api.as_ref().unwrap(), Duration::from_secs(self.seconds));
        thread.block_on(async {
            let mut load = Load::open(api.port, houses, traffic, connections).await;
            if matches!(work, Work::Bulk { .. }) {
                load = load.in_bulk().await?;
            }
            load.closed(WARM_UP).await;
            let before = meter.sample(Some(api)).await;
            let answers = match work {
                Work::OpenLoop { .. } => load.open_loop(pace, time).await,
                _ => load.closed(time).await,
            };
            let (cost, seconds) = meter.since(&before, Some(api)).await;
            let (transfers, latency) = (answers.transfers.into(), Some(milliseconds(&answers.latencies)));
            Some(Round { transfers, seconds, latency, cost, refused: answers.refused })
        })
    }

    /// Fails if money of any tenant was lost, else tells how many transfers there were.
    pub fn strike(mut self) -> u32 {
        self.api = None;
        let Library { house, group, alone } = self.library;
        self.threads.block_on(join_all(group.iter().chain(&alone).map(Engine::shutdown)));
        self.houses.push(house);
        self.thread.block_on(async {
            let mut transfers = 0;
            for house in &self.houses {
                house.assert_sound().await;
                transfers += house.books.transfers();
            }
            transfers
        })
    }
}

fn first_namespace(houses: &[House]) -> String {
    houses[0].bank.namespace.clone()
}

fn milliseconds(latencies: &[u32]) -> [f64; 3] {
    [500, 990, 999].map(|part| f64::from(per_mille(latencies, part)) / 1e3)
}
