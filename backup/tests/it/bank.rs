//! A bank at work, and its backups.

use std::sync::Arc;

use finaiflow_backup::manifest::chain::Chains;
use finaiflow_backup::manifest::{Kind, SignedManifest, SigningKey, Tenant};
use finaiflow_backup::seal::{Identities, Secrets};
use finaiflow_backup::take;
use finaiflow_backup::vault::{Patience, Vault};
use finaiflow_ledger::command::{
    AccountType, AuditContext, Authority, Command, CommandKind, Memo, Metadata, NewTransfer, Outcome,
};
use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Amount;
use finaiflow_ledger::store::Postgres;
use finaiflow_ledger::verify;
use finaiflow_schema::migrate::migrate;
use finaiflow_schema::provision::{drop_tenant, ensure_grants, ensure_roles_and_schema};
use finaiflow_schema::testing::{LIMITS, TenantDb, connect};
use sqlx::{PgConnection, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::Directory;

pub const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

pub struct Bank {
    pub db: TenantDb,
    pub pool: PgPool,
    pub engine: Engine,
    pub accounts: Vec<AccountId>,
}

pub fn owner() -> Uuid {
    Uuid::from_u128(7)
}

pub fn command(key: String, kind: CommandKind) -> Command {
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

pub fn vault(directory: &Directory, bank: &Bank) -> Vault {
    Vault::open(&directory.settings(), Patience::default(), bank.db.claim_id).unwrap()
}

pub async fn backed_up(bank: &Bank, vault: &Vault) -> SignedManifest {
    taken(bank, vault, Kind::Full, None).await.unwrap()
}

pub async fn taken(
    bank: &Bank,
    vault: &Vault,
    kind: Kind,
    parent: Option<&SignedManifest>,
) -> Result<SignedManifest, take::Error> {
    let identities = Identities::parse(IDENTITY).unwrap();
    let order = take::Order {
        kind,
        parent,
        claim: bank.db.claim_id,
        tenant: Tenant { namespace: "banks".to_owned(), name: "acme".to_owned() },
        recipients: &identities.recipients(),
        signing_key: &signing_key(),
        kek: Some(b"kek"),
        name: u32::from_be_bytes(random()),
        secrets: Secrets { key: random(), nonce_prefix: random() },
    };
    let (mut conn, mut other) = (connect(&bank.db.backup_url).await, connect(&bank.db.backup_url).await);
    take::take(&mut conn, &mut other, vault, &order).await
}

pub fn chains<'a>(artefacts: impl IntoIterator<Item = &'a SignedManifest>) -> Chains {
    Chains::of(artefacts.into_iter().map(|signed| (signed.manifest().id, Ok(signed.clone()))))
}

/// Makes the tenant anew, as the operator does it.
pub async fn emptied(target: &TenantDb) -> PgConnection {
    let mut admin = target.admin().await;
    drop_tenant(&mut admin, &target.names).await.unwrap();
    ensure_roles_and_schema(&mut admin, &target.names, &LIMITS).await.unwrap();
    migrate(&mut admin, &target.names).await.unwrap();
    ensure_grants(&mut admin, &target.names).await.unwrap();
    admin
}
