//! A PostgreSQL of its own, with its disk flushed as in production, and two client processes with an engine each. All
//! of them are killed with SIGKILL, in turns and under load, and started again. Clients write down what they ask and
//! hear; afterwards all of it has to be so, in one order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use finaiflow_ledger::command::{Command, CommandKind, Memo, NewTransfer, Outcome};
use finaiflow_ledger::engine::{Engine, SubmitError};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::query;
use finaiflow_ledger::store::Postgres;
use finaiflow_schema::testing::TenantDb;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::harness::{
    Bank, Dice, amount, clock, command, currency, deposit, journal, json, now, pool_of, transfer, user, withdraw,
};
use crate::history::{self, Operation};

const ACCOUNTS: usize = 6;
const CALLERS: u64 = 8;
/// Answers that have to be heard between one kill and the next.
const PROGRESS: usize = 120;
const PATIENCE: Duration = Duration::from_mins(1);

/// What a client process writes down, one line each. Times are microseconds of the machine's clock.
#[derive(Serialize, Deserialize)]
enum Line {
    Asked { key: String, at: u64 },
    Answered { key: String, at: u64, outcome: Box<Outcome> },
    Read { account: AccountId, asked: u64, at: u64, balance: i64, held: i64 },
}

fn micros() -> u64 {
    u64::try_from(now().unix_timestamp_nanos() / 1_000).unwrap()
}

/// Whose the account of this number is.
fn owner(number: usize) -> Uuid {
    user(number as u128 + 1)
}

/// What is asked under a key follows from the key, so that it can be asked again by whoever finds it.
fn asked(key: &str, accounts: &[AccountId]) -> Command {
    let seed = key.bytes().fold(17_u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let mut dice = Dice::new(seed);
    let (own, other) = (dice.roll(ACCOUNTS), dice.roll(ACCOUNTS));
    let (principal, account, to) = (owner(own), accounts[own], accounts[other]);
    // Large and uneven, so that no two balances are alike.
    let minor_units = dice.amount(1_000_000);
    match dice.roll(10) {
        0..3 => deposit(principal, key, account, 2 * minor_units),
        3..5 => withdraw(principal, key, account, minor_units),
        5..8 => transfer(principal, key, account, to, minor_units),
        8 => {
            let leg = |number: i64| NewTransfer {
                from: account,
                to,
                amount: amount(minor_units + number),
                currency: currency("USD"),
                memo: Memo { reference: Some(format!("{key}/{number}")), ..Memo::default() },
            };
            command(principal, key, CommandKind::Bulk { transfers: (0..3).map(leg).collect(), atomic: true })
        }
        _ => {
            let kind = CommandKind::PlaceHold {
                account,
                destination: None,
                amount: amount(1 + minor_units / 50),
                currency: currency("USD"),
                memo: Memo { reference: Some(key.to_owned()), ..Memo::default() },
                expires_at: None,
            };
            command(principal, key, kind)
        }
    }
}

struct Client {
    engine: Engine,
    pool: PgPool,
    accounts: Vec<AccountId>,
    log: Mutex<File>,
}

impl Client {
    fn note(&self, line: &Line) {
        let mut text = serde_json::to_string(line).unwrap();
        text.push('\n');
        self.log.lock().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Asks until there is an answer, with reads in between.
    async fn call(&self, name: &str, caller: u64) {
        let mut dice = Dice::new(caller);
        for turn in 0_u64.. {
            let key = format!("{name}.{caller}.{turn}");
            let command = asked(&key, &self.accounts);
            self.note(&Line::Asked { key: key.clone(), at: micros() });
            loop {
                match self.engine.submit(command.clone()).await {
                    Ok(outcome) => {
                        self.note(&Line::Answered { key, at: micros(), outcome: Box::new(outcome) });
                        break;
                    }
                    Err(SubmitError::Unavailable) => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(other) => panic!("{key}: {other}"),
                }
            }
            let (number, asked) = (dice.roll(ACCOUNTS), micros());
            let account = self.accounts[number];
            // While the server is down nothing is read.
            if let Ok(Some(seen)) = query::balance(&self.pool, owner(number), account).await {
                self.note(&Line::Read { account, asked, at: micros(), balance: seen.balance, held: seen.held });
            }
        }
    }
}

/// The body of a client process. It ends by being killed, or when whoever started it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as a process of the test below"]
async fn client() {
    let setting = |name: &str| std::env::var(format!("FINAIFLOW_CRASH_{name}")).unwrap();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let pool = pool_of(&setting("URL"), 4);
    let client = Arc::new(Client {
        engine: Engine::new(Postgres::new(pool.clone()), clock(&Arc::default())),
        pool,
        accounts: setting("ACCOUNTS").split(',').map(|id| id.parse().unwrap()).collect(),
        log: Mutex::new(File::create(setting("LOG")).unwrap()),
    });
    let name = setting("NAME");
    let callers = (0..CALLERS).map(|caller| {
        let (client, name) = (Arc::clone(&client), name.clone());
        tokio::spawn(async move { client.call(&name, caller).await })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

/// A PostgreSQL that nobody else uses.
struct Server {
    directory: PathBuf,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("finaiflow-crash.{}", std::process::id()));
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let server = Self { directory, port };
        server.script(
            r#"mkdir -m 711 "$directory" "$directory/pg"; pg_own "$directory/pg"
            pg initdb -D "$directory/pg" --username=postgres --encoding=UTF8 --locale=C --auth=trust --no-sync
            printf '%s\n' 'local all all trust' 'host all postgres 127.0.0.1/32 trust' \
                'host all all 127.0.0.1/32 scram-sha-256' >"$directory/pg/pg_hba.conf""#,
        );
        server.up();
        server
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs `script` with the helpers that every local PostgreSQL of this project is started by.
    fn script(&self, script: &str) {
        assert!(self.run(script), "see {}", self.directory.display());
    }

    fn run(&self, script: &str) -> bool {
        let helpers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster/postgres.sh");
        let mut bash = Process::new("bash");
        bash.args(["-c", &format!("set -euo pipefail; . \"$helpers\"; {script}")]);
        bash.env("helpers", helpers).env("directory", &self.directory).env("port", self.port.to_string());
        bash.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Starts it, once what was killed before has left its memory.
    fn up(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.run(r#"pg_start "$directory/pg" "$port" "-c max_connections=60""#) {
            assert!(Instant::now() < deadline, "PostgreSQL does not start, see {}", self.directory.display());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The postmaster and all its children at once, as when the power fails.
    fn kill(&self) {
        self.script(
            r#"postmaster=$(head -n1 "$directory/pg/postmaster.pid"); kill -9 "$postmaster" $(pgrep -P "$postmaster")"#,
        );
    }

    /// One process that serves a client: the postmaster ends all others and recovers.
    async fn kill_backend(&self) {
        let mut superuser = finaiflow_schema::testing::connect(&self.url()).await;
        let pid =
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'postgres' LIMIT 1";
        let pid: i32 = sqlx::query_scalar(pid).fetch_one(&mut superuser).await.unwrap();
        self.script(&format!("kill -9 {pid}"));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run(r#"pg_stop "$directory/pg" immediate || true; rm -rf "$directory""#);
    }
}

/// The client processes that live, and what those that lived have left.
struct Clients {
    url: String,
    accounts: String,
    directory: PathBuf,
    living: Vec<Child>,
    logs: Vec<PathBuf>,
}

impl Clients {
    fn spawn(&mut self) -> Child {
        let name = format!("p{}", self.logs.len());
        let log = self.directory.join(&name);
        let mut process = Process::new(std::env::current_exe().unwrap());
        process.args(["crash::client", "--exact", "--ignored", "--nocapture"]);
        process.env("FINAIFLOW_CRASH_URL", &self.url).env("FINAIFLOW_CRASH_ACCOUNTS", &self.accounts);
        process.env("FINAIFLOW_CRASH_NAME", name).env("FINAIFLOW_CRASH_LOG", &log);
        self.logs.push(log);
        process.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Another takes the place of one that is killed.
    fn replace(&mut self, number: usize) {
        let fresh = self.spawn();
        let mut old = std::mem::replace(&mut self.living[number], fresh);
        old.kill().unwrap();
        old.wait().unwrap();
    }

    fn lines(&self) -> Vec<Line> {
        let text = |log| std::fs::read_to_string(log).unwrap_or_default();
        let lines = |text: String| text.lines().map_while(|line| serde_json::from_str(line).ok()).collect::<Vec<_>>();
        self.logs.iter().flat_map(|log| lines(text(log))).collect()
    }

    /// Waits until much more was answered.
    async fn progress(&mut self) {
        let answered =
            |clients: &Self| clients.lines().iter().filter(|line| matches!(line, Line::Answered { .. })).count();
        let (enough, deadline) = (answered(self) + PROGRESS, Instant::now() + PATIENCE);
        while answered(self) < enough {
            for child in &mut self.living {
                assert_eq!(child.try_wait().unwrap(), None, "a client has ended by itself");
            }
            assert!(Instant::now() < deadline, "nothing is answered any more");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.living {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_done_twice_when_everything_is_killed() {
    let server = Server::start();
    let bank = Bank::on(TenantDb::create_on(&server.url()).await, 4);
    let mut accounts = Vec::new();
    for number in 0..ACCOUNTS {
        accounts.push(bank.open(owner(number), "open", "USD").await.id);
    }
    let ids: Vec<_> = accounts.iter().map(ToString::to_string).collect();
    let (url, directory) = (bank.db.app_url.clone(), server.directory.clone());
    let mut clients = Clients { url, accounts: ids.join(","), directory, living: Vec::new(), logs: Vec::new() };
    for _ in 0..2 {
        let child = clients.spawn();
        clients.living.push(child);
    }
    clients.progress().await;
    for round in 0..2 {
        server.kill();
        server.up();
        clients.progress().await;
        clients.replace(round);
        clients.progress().await;
        server.kill_backend().await;
        clients.progress().await;
    }
    server.kill();
    for child in &mut clients.living {
        child.kill().unwrap();
    }
    server.up();
    judge(&bank, &accounts, &clients.lines()).await;
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:?}");
    bank.engine.shutdown().await;
    bank.pool.close().await;
}

/// What clients asked and heard, against what is booked.
async fn judge(bank: &Bank, accounts: &[AccountId], lines: &[Line]) {
    let mut writes: BTreeMap<&str, Operation> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    for line in lines {
        match line {
            Line::Asked { key, at } => {
                let operation = Operation { name: key.clone(), asked: Some(*at), ..Operation::default() };
                assert!(writes.insert(key, operation).is_none(), "{key} is asked by two");
            }
            Line::Answered { key, at, outcome } => {
                writes.get_mut(key.as_str()).unwrap().answered = Some(*at);
                outcomes.insert(key.as_str(), &**outcome);
            }
            Line::Read { .. } => {}
        }
    }
    let booked = bank.booked().await;
    let of = |key: &str| -> BTreeSet<i64> {
        let parts = (0..3).map(|part| format!("{key}/{part}")).chain([key.to_owned()]);
        let found: Vec<i64> = parts.flat_map(|reference| booked.get(&reference).cloned().unwrap_or_default()).collect();
        let once: BTreeSet<i64> = found.iter().copied().collect();
        assert!(once.len() == found.len() && matches!(found.len(), 0 | 1 | 3), "{key} is booked in {found:?}");
        once
    };
    let mut acknowledged = 0;
    for (key, outcome) in &outcomes {
        let expected: BTreeSet<i64> = match outcome {
            Outcome::Bulk(transfers) => transfers.iter().flatten().map(|done| done.id.sequence.into()).collect(),
            Outcome::Hold(hold) => [hold.id.sequence.into()].into(),
            other => journal(other).map(|journal| journal.sequence.into()).into_iter().collect(),
        };
        assert_eq!(of(key), expected, "{key}: {outcome:?}");
        acknowledged += expected.len();
    }
    // What nobody heard of was done or not; either is right, once.
    writes.keys().filter(|key| !outcomes.contains_key(**key)).for_each(|key| drop(of(key)));
    assert!(acknowledged > PROGRESS, "{acknowledged} journals are too few to prove anything");
    // Asked again, each is answered as it was.
    let again = outcomes.keys().copied().map(|key| (key, asked(key, accounts)));
    for (key, command) in again {
        let outcome = bank.engine.submit(command).await.unwrap();
        assert_eq!(json(&outcome), json(outcomes[key]), "{key}");
    }
    let entries = entries(bank).await;
    for entry in &entries {
        let reference = entry.reference.as_deref().unwrap_or("opening");
        if let Some(operation) = writes.get_mut(reference.split('/').next().unwrap()) {
            operation.writes.push((entry.account, entry.version));
        }
    }
    let reads = lines.iter().enumerate().filter_map(|(number, line)| read(number, line, &entries));
    let history: Vec<_> = reads.chain(writes.into_values()).collect();
    let told = history.iter().filter(|operation| !operation.reads.is_empty()).count();
    let all = lines.iter().filter(|line| matches!(line, Line::Read { .. })).count();
    assert!(told * 10 > all * 9, "only {told} of {all} reads tell which version they saw");
    assert_eq!(history::check(&history), Ok(()));
}

struct Entry {
    reference: Option<String>,
    account: i64,
    version: i64,
    balance: i64,
    held: i64,
}

async fn entries(bank: &Bank) -> Vec<Entry> {
    let sql = "SELECT reference, account_id, seq, posted_after, held_after FROM entries JOIN journals USING (sequence)";
    let rows = sqlx::query(sql).fetch_all(&mut bank.superuser().await).await.unwrap();
    let entry = |row: sqlx::postgres::PgRow| Entry {
        reference: row.get("reference"),
        account: row.get("account_id"),
        version: row.get("seq"),
        balance: row.get("posted_after"),
        held: row.get("held_after"),
    };
    rows.into_iter().map(entry).collect()
}

/// A read of the one version that it can have seen; none where two look alike.
fn read(number: usize, line: &Line, entries: &[Entry]) -> Option<Operation> {
    let Line::Read { account, asked, at, balance, held } = line else { return None };
    let id = i64::from(account.sequence);
    let alike = |entry: &&Entry| (entry.account, entry.balance, entry.held) == (id, *balance, *held);
    let mut versions: Vec<_> = entries.iter().filter(alike).map(|entry| entry.version).collect();
    if (*balance, *held) == (0, 0) {
        versions.push(0);
    }
    assert!(!versions.is_empty(), "account {id} never had {balance} with {held} held");
    let [version] = versions[..] else { return None };
    let name = format!("read {number}");
    let reads = vec![(id, version)];
    Some(Operation { name, asked: Some(*asked), answered: Some(*at), reads, writes: Vec::new() })
}
