//! A fresh tenant with an engine on it, and short ways to say things to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use finaiflow_ledger::command::{
    Account, AccountType, AuditContext, Authority, Command, CommandKind, Memo, Metadata, NewTransfer, Outcome,
    Rejection,
};
use finaiflow_ledger::engine::{Clock, Engine, SubmitError};
use finaiflow_ledger::id::{AccountId, JournalId};
use finaiflow_ledger::money::{Amount, Currency};
use finaiflow_ledger::store::Postgres;
use finaiflow_ledger::verify::{self, Report};
use finaiflow_schema::testing::{TenantDb, connect};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};
use time::OffsetDateTime;
use uuid::Uuid;

pub type Submitted = Result<Outcome, SubmitError>;

pub struct Bank {
    pub db: TenantDb,
    pub pool: PgPool,
    pub engine: Engine,
    /// Seconds added to the real time.
    pub clock_offset: Arc<AtomicI64>,
}

impl Bank {
    /// A bank whose engine has a pool of `connections`.
    pub async fn found(connections: u32) -> Self {
        Self::on(TenantDb::create().await, connections)
    }

    pub fn on(db: TenantDb, connections: u32) -> Self {
        let clock_offset = Arc::new(AtomicI64::new(0));
        let pool = pool(&db, connections);
        let engine = Engine::new(Postgres::new(pool.clone()), clock(&clock_offset));
        Self { db, pool, engine, clock_offset }
    }

    /// Another engine on the same tenant with its own pool, like a second replica's.
    pub fn second_engine(&self, connections: u32) -> Engine {
        self.engine_on(pool(&self.db, connections))
    }

    pub fn engine_on(&self, pool: PgPool) -> Engine {
        Engine::new(Postgres::new(pool), clock(&self.clock_offset))
    }

    pub async fn open(&self, principal: Uuid, key: &str, currency: &str) -> Account {
        match self.engine.submit(open(principal, key, currency)).await {
            Ok(Outcome::AccountOpened(account)) => account,
            other => panic!("{other:?}"),
        }
    }

    /// Opens an account with money in it.
    pub async fn funded(&self, principal: Uuid, key: &str, minor_units: i64) -> AccountId {
        let id = self.open(principal, key, "USD").await.id;
        let deposited = self.engine.submit(deposit(principal, &format!("{key}-fund"), id, minor_units)).await;
        assert!(matches!(deposited, Ok(Outcome::Transaction(_))), "{deposited:?}");
        id
    }

    /// The superuser inside the tenant's schema, with the triggers that guard it off.
    pub async fn superuser(&self) -> PgConnection {
        let mut connection = self.db.superuser().await;
        let path = format!("SET search_path TO {}", self.db.names.schema.as_str());
        sqlx::query(AssertSqlSafe(path)).execute(&mut connection).await.unwrap();
        sqlx::query("SET session_replication_role TO replica").execute(&mut connection).await.unwrap();
        connection
    }

    /// What the maintenance role finds.
    pub async fn verify(&self) -> Report {
        verify::run(&mut connect(&self.db.maintenance_url).await).await.unwrap()
    }

    pub async fn head(&self) -> i64 {
        sqlx::query_scalar("SELECT sequence FROM ledger_head").fetch_one(&mut self.superuser().await).await.unwrap()
    }

    /// The journals of movements by their reference.
    pub async fn booked(&self) -> HashMap<String, Vec<i64>> {
        let rows = sqlx::query("SELECT reference, sequence FROM journals WHERE reference IS NOT NULL")
            .fetch_all(&mut self.superuser().await)
            .await
            .unwrap();
        let mut booked: HashMap<String, Vec<i64>> = HashMap::new();
        for row in rows {
            booked.entry(row.get("reference")).or_default().push(row.get("sequence"));
        }
        booked
    }

    pub async fn close(self) {
        self.engine.shutdown().await;
        self.pool.close().await;
        self.db.drop().await;
    }
}

/// Holds the head of the ledger so that no batch gets through.
pub async fn hold(bank: &Bank) -> PgConnection {
    let mut holder = bank.superuser().await;
    sqlx::query("BEGIN").execute(&mut holder).await.unwrap();
    sqlx::query("SELECT FROM ledger_head FOR UPDATE").execute(&mut holder).await.unwrap();
    holder
}

pub async fn release(mut holder: PgConnection) {
    sqlx::query("ROLLBACK").execute(&mut holder).await.unwrap();
    holder.close().await.unwrap();
}

fn pool(db: &TenantDb, connections: u32) -> PgPool {
    pool_of(&db.app_url, connections)
}

pub fn pool_of(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5)).connect_lazy(url).unwrap()
}

pub fn clock(offset: &Arc<AtomicI64>) -> Clock {
    let offset = Arc::clone(offset);
    Arc::new(move || now() + time::Duration::seconds(offset.load(Ordering::Relaxed)))
}

#[expect(clippy::disallowed_methods, reason = "the tests are their own composition root")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub fn user(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub fn currency(code: &str) -> Currency {
    code.parse().unwrap()
}

pub fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).unwrap()
}

/// The key is also the movement's reference, so that journals can be told apart by it.
fn memo(key: &str) -> Memo {
    Memo { description: Some("für Ünïcode – ok".to_owned()), reference: Some(key.to_owned()), ..Memo::default() }
}

pub fn command(principal: Uuid, key: &str, kind: CommandKind) -> Command {
    Command {
        principal,
        authority: Authority::Owner,
        key: key.to_owned(),
        fingerprint: [7; 32],
        salt: [9; 16],
        kind,
        audit: AuditContext { ip: Some("2001:db8::7".parse().unwrap()), request_id: Some(format!("req-{key}").into()) },
    }
}

pub fn open(principal: Uuid, key: &str, code: &str) -> Command {
    let kind = CommandKind::OpenAccount {
        owner: principal,
        account_type: AccountType::Checking,
        currency: currency(code),
        name: "Everyday".to_owned(),
        metadata: Metadata::new(),
    };
    command(principal, key, kind)
}

pub fn deposit(principal: Uuid, key: &str, account: AccountId, minor_units: i64) -> Command {
    let kind =
        CommandKind::Deposit { account, amount: amount(minor_units), currency: currency("USD"), memo: memo(key) };
    command(principal, key, kind)
}

pub fn withdraw(principal: Uuid, key: &str, account: AccountId, minor_units: i64) -> Command {
    let kind =
        CommandKind::Withdraw { account, amount: amount(minor_units), currency: currency("USD"), memo: memo(key) };
    command(principal, key, kind)
}

pub fn transfer(principal: Uuid, key: &str, from: AccountId, to: AccountId, minor_units: i64) -> Command {
    let kind = CommandKind::Transfer(NewTransfer {
        from,
        to,
        amount: amount(minor_units),
        currency: currency("USD"),
        memo: memo(key),
    });
    command(principal, key, kind)
}

pub fn rejected(rejection: Rejection) -> Outcome {
    Outcome::Rejected(rejection)
}

/// The journal of a movement that was booked.
pub fn journal(outcome: &Outcome) -> Option<JournalId> {
    match outcome {
        Outcome::Transaction(transaction) => Some(transaction.id.journal),
        Outcome::Transfer(transfer) => Some(transfer.id.into()),
        _ => None,
    }
}

pub fn json(outcome: &Outcome) -> String {
    serde_json::to_string(outcome).unwrap()
}

/// Small and reproducible; chance of quality is not needed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    pub fn amount(&mut self, below: usize) -> i64 {
        i64::try_from(self.roll(below)).unwrap() + 1
    }
}
