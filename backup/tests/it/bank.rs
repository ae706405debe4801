//! A bank at work.

use std::sync::Arc;

use finaiflow_backup::manifest::SigningKey;
use finaiflow_ledger::command::{
    AccountType, AuditContext, Authority, Command, CommandKind, Memo, Metadata, NewTransfer, Outcome,
};
use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Amount;
use finaiflow_ledger::store::Postgres;
use finaiflow_ledger::verify;
use finaiflow_schema::testing::{TenantDb, connect};
use sqlx::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

pub const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

pub struct Bank {
    pub db: TenantDb,
    pub pool: PgPool,
    engine: Engine,
    pub accounts: Vec<AccountId>,
}

fn owner() -> Uuid {
    Uuid::from_u128(7)
}

fn command(key: String, kind: CommandKind) -> Command {
    Command {
        principal: owner(),
        authority: Authority::Owner,
        key,
        fingerprint: [7; 32],
        salt: [9; 16],
        kind,
        audit: AuditContext::default(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests are their own composition root")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

impl Bank {
    pub fn on(db: TenantDb, accounts: Vec<AccountId>) -> Self {
        let pool = PgPool::connect_lazy(&db.app_url).unwrap();
        let engine = Engine::new(Postgres::new(pool.clone()), Arc::new(now));
        Self { db, pool, engine, accounts }
    }

    /// With a customer, accounts, money, holds and words that COPY has to escape.
    pub async fn founded() -> Self {
        let mut bank = Self::on(TenantDb::create().await, Vec::new());
        sqlx::query(
            "INSERT INTO users (id, email, email_normalized, name, password_hash, status, created_at, updated_at)
             VALUES ($1, 'Ada@x', 'ada@x', E'Ad\\a\tL\n\\N', 'hash', 'active', now(), now())",
        )
        .bind(owner())
        .execute(&bank.pool)
        .await
        .unwrap();
        for number in 0..4 {
            let kind = CommandKind::OpenAccount {
                owner: owner(),
                account_type: AccountType::Checking,
                currency: "USD".parse().unwrap(),
                name: format!("Girokonto \\ {number}\tünïcode\n"),
                metadata: Metadata::new(),
            };
            let Ok(Outcome::AccountOpened(account)) = bank.engine.submit(command(format!("open {number}"), kind)).await
            else {
                panic!("not opened")
            };
            bank.accounts.push(account.id);
            let kind = CommandKind::Deposit {
                account: account.id,
                amount: Amount::try_from(100_000).unwrap(),
                currency: "USD".parse().unwrap(),
                memo: Memo::default(),
            };
            bank.engine.submit(command(format!("fund {number}"), kind)).await.unwrap();
        }
        let hold = CommandKind::PlaceHold {
            account: bank.accounts[0],
            destination: Some(bank.accounts[1]),
            amount: Amount::try_from(300).unwrap(),
            currency: "USD".parse().unwrap(),
            memo: Memo::default(),
            expires_at: None,
        };
        bank.engine.submit(command("hold".to_owned(), hold)).await.unwrap();
        bank
    }

    pub async fn transfer(&self, key: String, from: usize, to: usize) -> Outcome {
        let kind = CommandKind::Transfer(NewTransfer {
            from: self.accounts[from],
            to: self.accounts[to],
            amount: Amount::try_from(1).unwrap(),
            currency: "USD".parse().unwrap(),
            memo: Memo { description: Some("für \\ dich\t\n".to_owned()), ..Memo::default() },
        });
        self.engine.submit(command(key, kind)).await.unwrap()
    }

    pub async fn is_sound(&self) {
        let report = verify::run(&mut connect(&self.db.maintenance_url).await).await.unwrap();
        assert_eq!(report.findings, []);
    }

    pub async fn close(self) {
        self.engine.shutdown().await;
        self.pool.close().await;
        self.db.drop().await;
    }
}

pub fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[1; 32]).unwrap()
}

pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}
