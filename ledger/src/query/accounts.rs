//! Accounts, what is in them and what was, and both sides of the books.

use sqlx::types::Json;
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Cursor, Page, Scope, page, span};
use crate::command::{Account, AccountKind, AccountStatus, AccountType, Limits, Metadata};
use crate::id::{AccountId, Sequence};
use crate::money::Currency;

/// What is in an account, in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balance {
    /// The account.
    pub account_id: AccountId,
    /// Its currency.
    pub currency: Currency,
    /// Booked balance.
    pub balance: i64,
    /// Booked balance without what is held.
    pub available: i64,
    /// What is held.
    pub held: i64,
    /// Number of the account's entries that made it so.
    pub version: i64,
    /// When it was so.
    pub as_of: OffsetDateTime,
}

/// The two sides of the books in one currency, in minor units. They are equal unless the ledger is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialBalance {
    /// The currency.
    pub currency: Currency,
    /// Sum of the balances below zero, as a positive number.
    pub debits: i64,
    /// Sum of the balances above zero.
    pub credits: i64,
}

/// An account of the bank itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerAccount {
    /// Public id, `acc_…`.
    pub id: AccountId,
    /// What it is for.
    pub kind: AccountKind,
    /// The only currency it holds.
    pub currency: Currency,
    /// For people.
    pub name: String,
    /// Booked balance in minor units, below zero where debits prevail.
    pub balance: i64,
}

#[derive(FromRow)]
struct AccountRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    id: Sequence,
    owner_id: Uuid,
    #[sqlx(rename = "type")]
    account_type: AccountType,
    #[sqlx(try_from = "String")]
    currency: Currency,
    name: String,
    status: AccountStatus,
    minimum_balance: i64,
    per_transaction_limit: Option<i64>,
    daily_limit: Option<i64>,
    monthly_limit: Option<i64>,
    metadata: Option<Json<Metadata>>,
    created_at: OffsetDateTime,
    posted: i64,
    held: i64,
}

impl From<AccountRow> for Account {
    fn from(row: AccountRow) -> Self {
        Self {
            id: AccountId { epoch: row.epoch, sequence: row.id },
            owner: row.owner_id,
            account_type: row.account_type,
            currency: row.currency,
            name: row.name,
            status: row.status,
            balance: row.posted,
            available: row.posted.saturating_sub(row.held),
            limits: Limits {
                minimum_balance: row.minimum_balance,
                per_transaction: row.per_transaction_limit,
                daily: row.daily_limit,
                monthly: row.monthly_limit,
            },
            metadata: row.metadata.map(|metadata| metadata.0).unwrap_or_default(),
            created_at: row.created_at,
        }
    }
}

macro_rules! accounts {
    ($which:literal) => {
        concat!(
            "SELECT epoch, id, owner_id, type, currency, name, status, minimum_balance, per_transaction_limit, daily_limit,
                monthly_limit, metadata, created_at, posted, held
            FROM accounts JOIN account_balances ON account_id = id
            WHERE kind = 'customer' AND ",
            $which
        )
    };
}

/// A customer account.
pub async fn account(pool: &PgPool, scope: impl Into<Scope>, id: AccountId) -> Result<Option<Account>, sqlx::Error> {
    let row: Option<AccountRow> =
        sqlx::query_as(accounts!("id = $1 AND epoch = $2 AND ($3::uuid IS NULL OR owner_id = $3)"))
            .bind(i64::from(id.sequence))
            .bind(id.epoch.cast_signed())
            .bind(scope.into().owner())
            .fetch_optional(pool)
            .await?;
    Ok(row.map(Account::from))
}

/// The accounts of `owner`, oldest first.
pub async fn accounts(
    pool: &PgPool,
    owner: Uuid,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Page<Account>, sqlx::Error> {
    let rows: Vec<AccountRow> = sqlx::query_as(accounts!("owner_id = $1 AND id > $2 ORDER BY id LIMIT $3"))
        .bind(owner)
        .bind(cursor.map_or(0, |cursor| cursor.0))
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let (rows, next) = page(rows, limit, |row| row.id.into());
    Ok(Page { data: rows.into_iter().map(Account::from).collect(), next })
}

#[derive(FromRow)]
struct BalanceRow {
    #[sqlx(try_from = "String")]
    currency: Currency,
    posted: i64,
    held: i64,
    version: i64,
    as_of: OffsetDateTime,
}

impl BalanceRow {
    fn of(self, account_id: AccountId) -> Balance {
        Balance {
            account_id,
            currency: self.currency,
            balance: self.posted,
            available: self.posted.saturating_sub(self.held),
            held: self.held,
            version: self.version,
            as_of: self.as_of,
        }
    }
}

const BALANCE: &str = "
    SELECT currency, posted, held, version, statement_timestamp() AS as_of
    FROM accounts JOIN account_balances ON account_id = id
    WHERE ($1::uuid IS NULL OR owner_id = $1) AND id = $2 AND epoch = $3";

/// What is in an account.
pub async fn balance(pool: &PgPool, scope: impl Into<Scope>, id: AccountId) -> Result<Option<Balance>, sqlx::Error> {
    let row: Option<BalanceRow> = sqlx::query_as(BALANCE)
        .bind(scope.into().owner())
        .bind(i64::from(id.sequence))
        .bind(id.epoch.cast_signed())
        .fetch_optional(pool)
        .await?;
    Ok(row.map(|row| row.of(id)))
}

const BALANCE_AT: &str = concat!(
    span!("$3::timestamptz"),
    "SELECT currency, coalesce(posted_after, 0) AS posted, coalesce(held_after, 0) AS held, upto AS version,
        least($3, statement_timestamp()) AS as_of
    FROM span JOIN accounts ON id = account_id LEFT JOIN entries e ON e.account_id = id AND seq = upto
    WHERE ($4::uuid IS NULL OR owner_id = $4) AND epoch = $5 AND created_at <= $3"
);

/// What was in an account after the last entry booked at or before `time`; none if the account was not there yet.
pub async fn balance_at(
    pool: &PgPool,
    scope: impl Into<Scope>,
    id: AccountId,
    time: OffsetDateTime,
) -> Result<Option<Balance>, sqlx::Error> {
    let row: Option<BalanceRow> = sqlx::query_as(BALANCE_AT)
        .bind([i64::from(id.sequence)])
        .bind(None::<OffsetDateTime>)
        .bind(time)
        .bind(scope.into().owner())
        .bind(id.epoch.cast_signed())
        .fetch_optional(pool)
        .await?;
    Ok(row.map(|row| row.of(id)))
}

#[derive(FromRow)]
struct LedgerAccountRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    id: Sequence,
    kind: AccountKind,
    #[sqlx(try_from = "String")]
    currency: Currency,
    name: String,
    posted: i64,
}

impl From<LedgerAccountRow> for LedgerAccount {
    fn from(LedgerAccountRow { epoch, id, kind, currency, name, posted }: LedgerAccountRow) -> Self {
        Self { id: AccountId { epoch, sequence: id }, kind, currency, name, balance: posted }
    }
}

const LEDGER_ACCOUNTS: &str = "
    SELECT epoch, id, kind, currency, name, posted
    FROM accounts JOIN account_balances ON account_id = id
    WHERE kind <> 'customer' AND id > $1 ORDER BY id LIMIT $2";

/// The bank's own accounts, oldest first.
pub async fn ledger_accounts(
    pool: &PgPool,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Page<LedgerAccount>, sqlx::Error> {
    let rows: Vec<LedgerAccountRow> = sqlx::query_as(LEDGER_ACCOUNTS)
        .bind(cursor.map_or(0, |cursor| cursor.0))
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let (rows, next) = page(rows, limit, |row| row.id.into());
    Ok(Page { data: rows.into_iter().map(LedgerAccount::from).collect(), next })
}

#[derive(FromRow)]
struct TrialBalanceRow {
    #[sqlx(try_from = "String")]
    currency: Currency,
    debits: i64,
    credits: i64,
}

const TRIAL_BALANCE: &str = "
    SELECT currency, sum(greatest(-posted, 0))::bigint AS debits, sum(greatest(posted, 0))::bigint AS credits
    FROM accounts JOIN account_balances ON account_id = id
    GROUP BY currency ORDER BY currency";

/// Both sides of the books, by currency.
pub async fn trial_balance(pool: &PgPool) -> Result<Vec<TrialBalance>, sqlx::Error> {
    let rows: Vec<TrialBalanceRow> = sqlx::query_as(TRIAL_BALANCE).fetch_all(pool).await?;
    let balance =
        |row: TrialBalanceRow| TrialBalance { currency: row.currency, debits: row.debits, credits: row.credits };
    Ok(rows.into_iter().map(balance).collect())
}
