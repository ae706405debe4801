//! The ledger as a library: all that the benchmark knows of its commands is here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use finaiflow_api::clock;
use finaiflow_ledger::command::{
    AccountType, AuditContext, Authority, Command, CommandKind, Memo, Metadata, NewTransfer, Outcome,
};
use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::{Amount, Currency};
use finaiflow_ledger::store::Postgres;
use futures::future::join_all;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::traffic::{Dice, Traffic};

/// The currency of everything here.
pub const CURRENCY: &str = "USD";
/// In each account at first, in minor units; each transfer moves one.
const FUNDS: i64 = 1_000_000_000;
/// Commands under way at once while accounts are opened.
const WINDOW: usize = 500;

/// The accounts of a tenant: the n-th belongs to user n modulo `users`.
pub struct Books {
    pub accounts: Vec<AccountId>,
    pub users: usize,
    /// Transfers so far; all of them were acknowledged, or the benchmark has failed.
    transfers: AtomicU32,
}

impl Books {
    /// Opens accounts with money in them.
    pub async fn open(engine: &Engine, accounts: usize, users: usize) -> Self {
        let numbers: Vec<_> = (0..accounts).collect();
        let mut opened = Vec::with_capacity(accounts);
        for window in numbers.chunks(WINDOW) {
            let fund = async |&number: &usize| {
                let owner = user(number % users);
                let id = match submit(engine, command(owner, format!("open-{number}"), account(owner))).await {
                    Outcome::AccountOpened(account) => account.id,
                    other => panic!("{other:?}"),
                };
                let deposit = CommandKind::Deposit {
                    account: id,
                    amount: amount(FUNDS),
                    currency: currency(),
                    memo: Memo::default(),
                };
                submit(engine, command(owner, format!("fund-{number}"), deposit)).await;
                id
            };
            opened.extend(join_all(window.iter().map(fund)).await);
        }
        Self { accounts: opened, users, transfers: AtomicU32::new(0) }
    }

    /// Numbers of the next `count` transfers, of which the first is returned.
    pub fn take_numbers(&self, count: u32) -> u32 {
        self.transfers.fetch_add(count, Ordering::Relaxed)
    }

    /// Takes back what [`Self::take_numbers`] gave last, if nothing became of it.
    pub fn return_numbers(&self, count: u32) {
        self.transfers.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn transfers(&self) -> u32 {
        self.transfers.load(Ordering::Relaxed)
    }
}

/// What callers in this process measured.
pub struct Calls {
    pub elapsed: f64,
    /// Microseconds, in order.
    pub latencies: Vec<u32>,
}

/// Callers who submit one transfer after the other, the n-th to engine n modulo their number.
pub async fn call(engines: &[Engine], books: &Arc<Books>, callers: usize, time: Duration) -> Calls {
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (engine, books) = (engines[caller % engines.len()].clone(), Arc::clone(books));
        tasks.spawn(async move {
            let (mut dice, mut latencies) = (Dice::new(caller), Vec::new());
            while began.elapsed() < time {
                let (from, to) = dice.pair(Traffic::Uniform, books.accounts.len());
                let asked = Instant::now();
                let outcome = submit(&engine, transfer(&books, from, to)).await;
                latencies.push(asked.elapsed().as_micros() as u32);
                assert!(matches!(outcome, Outcome::Transfer(_)), "{outcome:?}");
            }
            latencies
        });
    }
    let mut latencies = tasks.join_all().await.concat();
    let elapsed = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Calls { elapsed, latencies }
}

/// An engine on a tenant's login with a pool of its own.
pub fn engine(url: &str, connections: u32) -> Engine {
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_mins(1));
    Engine::new(Postgres::new(pool.test_before_acquire(false).connect_lazy(url).unwrap()), clock::system())
}

/// The n-th user of any tenant.
pub fn user(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

/// Idempotency key and reference of a transfer.
pub fn key(number: u32) -> String {
    format!("b{number:09}")
}

async fn submit(engine: &Engine, command: Command) -> Outcome {
    engine.submit(command).await.unwrap()
}

fn transfer(books: &Books, from: usize, to: usize) -> Command {
    let key = key(books.take_numbers(1));
    let memo = Memo { reference: Some(key.clone()), ..Memo::default() };
    let (source, destination) = (books.accounts[from], books.accounts[to]);
    let kind = CommandKind::Transfer(NewTransfer {
        from: source,
        to: destination,
        amount: amount(1),
        currency: currency(),
        memo,
    });
    command(user(from % books.users), key, kind)
}

fn account(owner: Uuid) -> CommandKind {
    let account_type = AccountType::Checking;
    let (name, metadata) = ("Everyday".to_owned(), Metadata::new());
    CommandKind::OpenAccount { owner, account_type, currency: currency(), name, metadata }
}

fn command(principal: Uuid, key: String, kind: CommandKind) -> Command {
    // As long as those of requests over HTTP.
    let audit =
        AuditContext { ip: Some([127, 0, 0, 1].into()), request_id: Some(Uuid::from_u128(7).to_string().into()) };
    Command { principal, authority: Authority::Owner, key, fingerprint: [7; 32], salt: [7; 16], kind, audit }
}

fn amount(minor_units: i64) -> Amount {
    minor_units.try_into().unwrap()
}

fn currency() -> Currency {
    CURRENCY.parse().unwrap()
}
