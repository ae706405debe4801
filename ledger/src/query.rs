//! Reads of a customer's own accounts, and the trial balance.
//!
//! A foreign account is answered like one that does not exist.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::batch::JournalKind;
use crate::command::{
    Account, AccountStatus, AccountType, Limits, Memo, Metadata, MovementStatus, Transaction, TransactionType, Transfer,
};
use crate::id::{self, AccountId, IdError, JournalId, Leg, Sequence, TransactionId, TransferId};
use crate::money::Currency;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Where the next page starts, if there is more.
    pub next: Option<Cursor>,
}

/// The last row of a page, opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        id::write(f, "", &self.0.to_be_bytes())
    }
}

impl FromStr for Cursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        id::read("", text).map(|bytes| Self(i64::from_be_bytes(bytes)))
    }
}

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
    as_of: OffsetDateTime,
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

const ONE_ACCOUNT: &str = "
    SELECT epoch, id, owner_id, type, currency, name, status, minimum_balance, per_transaction_limit, daily_limit,
        monthly_limit, metadata, created_at, posted, held, statement_timestamp() AS as_of
    FROM accounts JOIN account_balances ON account_id = id
    WHERE owner_id = $1 AND id = $2 AND epoch = $3";

async fn account_row(pool: &PgPool, principal: Uuid, id: AccountId) -> Result<Option<AccountRow>, sqlx::Error> {
    sqlx::query_as(ONE_ACCOUNT)
        .bind(principal)
        .bind(i64::from(id.sequence))
        .bind(id.epoch.cast_signed())
        .fetch_optional(pool)
        .await
}

/// An account of `principal`.
pub async fn account(pool: &PgPool, principal: Uuid, id: AccountId) -> Result<Option<Account>, sqlx::Error> {
    Ok(account_row(pool, principal, id).await?.map(Account::from))
}

/// The balance of an account of `principal`.
pub async fn balance(pool: &PgPool, principal: Uuid, id: AccountId) -> Result<Option<Balance>, sqlx::Error> {
    let row = account_row(pool, principal, id).await?;
    Ok(row.map(|row| Balance {
        account_id: id,
        currency: row.currency,
        balance: row.posted,
        available: row.posted.saturating_sub(row.held),
        held: row.held,
        as_of: row.as_of,
    }))
}

const ACCOUNTS: &str = "
    SELECT epoch, id, owner_id, type, currency, name, status, minimum_balance, per_transaction_limit, daily_limit,
        monthly_limit, metadata, created_at, posted, held, statement_timestamp() AS as_of
    FROM accounts JOIN account_balances ON account_id = id
    WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3";

/// The accounts of `principal`, oldest first.
pub async fn accounts(
    pool: &PgPool,
    principal: Uuid,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Page<Account>, sqlx::Error> {
    let rows: Vec<AccountRow> = sqlx::query_as(ACCOUNTS)
        .bind(principal)
        .bind(cursor.map_or(0, |cursor| cursor.0))
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let (rows, next) = page(rows, limit, |row| row.id.into());
    Ok(Page { data: rows.into_iter().map(Account::from).collect(), next })
}

#[derive(FromRow)]
struct TransactionRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    #[sqlx(try_from = "i16")]
    leg: Leg,
    seq: i64,
    kind: JournalKind,
    posted_delta: i64,
    posted_after: i64,
    #[sqlx(try_from = "String")]
    currency: Currency,
    #[sqlx(flatten)]
    memo: MemoRow,
    booked_at: OffsetDateTime,
}

/// The words of a journal.
#[derive(FromRow)]
pub(crate) struct MemoRow {
    description: Option<String>,
    category: Option<String>,
    reference: Option<String>,
    metadata: Option<Json<Metadata>>,
    value_date: Option<Date>,
}

impl From<MemoRow> for Memo {
    fn from(row: MemoRow) -> Self {
        Self {
            description: row.description,
            category: row.category,
            reference: row.reference,
            metadata: row.metadata.map(|metadata| metadata.0).unwrap_or_default(),
            value_date: row.value_date,
        }
    }
}

const TRANSACTIONS: &str = "
    SELECT epoch, sequence, leg, seq, kind, posted_delta, posted_after, currency, description, category, reference,
        metadata, value_date, booked_at
    FROM entries JOIN journals USING (sequence)
    WHERE account_id = $1 AND seq < $2 AND posted_delta <> 0 ORDER BY seq DESC LIMIT $3";

/// The movements of an account of `principal`, newest first.
pub async fn transactions(
    pool: &PgPool,
    principal: Uuid,
    account: AccountId,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Option<Page<Transaction>>, sqlx::Error> {
    if account_row(pool, principal, account).await?.is_none() {
        return Ok(None);
    }
    let rows: Vec<TransactionRow> = sqlx::query_as(TRANSACTIONS)
        .bind(i64::from(account.sequence))
        .bind(cursor.map_or(i64::MAX, |cursor| cursor.0))
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let (rows, next) = page(rows, limit, |row| row.seq);
    let data = rows.into_iter().map(|row| row.seen_by(account)).collect::<Result<_, _>>()?;
    Ok(Some(Page { data, next }))
}

impl TransactionRow {
    fn seen_by(self, account_id: AccountId) -> Result<Transaction, sqlx::Error> {
        let journal = JournalId { epoch: self.epoch, sequence: self.sequence };
        let (transaction_type, transfer_id) = match (self.kind, self.leg) {
            (JournalKind::Deposit, _) => (TransactionType::Deposit, None),
            (JournalKind::Withdrawal, _) => (TransactionType::Withdrawal, None),
            (JournalKind::Transfer, Leg::SOURCE) => (TransactionType::TransferOut, Some(journal.into())),
            (JournalKind::Transfer, _) => (TransactionType::TransferIn, Some(journal.into())),
            (JournalKind::HoldCaptured, _) => (TransactionType::Capture, None),
            (JournalKind::Journal, _) => (TransactionType::Journal, None),
            (JournalKind::Reversal, _) => (TransactionType::Reversal, None),
            _ => return Err(sqlx::Error::Decode("a journal that moves nothing has entries".into())),
        };
        Ok(Transaction {
            id: TransactionId { journal, leg: self.leg },
            account_id,
            transaction_type,
            amount: self.posted_delta,
            currency: self.currency,
            balance_after: self.posted_after,
            memo: self.memo.into(),
            status: MovementStatus::Completed,
            created_at: self.booked_at,
            transfer_id,
        })
    }
}

/// Cuts off the row that was fetched only to see whether there is more.
fn page<T>(mut rows: Vec<T>, limit: u16, place: impl Fn(&T) -> i64) -> (Vec<T>, Option<Cursor>) {
    let more = rows.len() > usize::from(limit);
    rows.truncate(usize::from(limit));
    let next = rows.last().filter(|_| more).map(|row| Cursor(place(row)));
    (rows, next)
}

#[derive(FromRow)]
struct TransferRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    #[sqlx(try_from = "i32")]
    from_epoch: u32,
    #[sqlx(try_from = "i64")]
    from_id: Sequence,
    #[sqlx(try_from = "i32")]
    to_epoch: u32,
    #[sqlx(try_from = "i64")]
    to_id: Sequence,
    amount: i64,
    #[sqlx(try_from = "String")]
    currency: Currency,
    #[sqlx(flatten)]
    memo: MemoRow,
    booked_at: OffsetDateTime,
}

const BOOKED_TRANSFERS: &str = "
    SELECT j.epoch, j.sequence, source.epoch AS from_epoch, source.id AS from_id, destination.epoch AS to_epoch,
        destination.id AS to_id, j.amount, j.currency, j.description, j.category, j.reference, j.metadata, j.value_date,
        j.booked_at
    FROM journals j
    JOIN entries debit ON debit.sequence = j.sequence AND debit.leg = 0
    JOIN entries credit ON credit.sequence = j.sequence AND credit.leg = 1
    JOIN accounts source ON source.id = debit.account_id
    JOIN accounts destination ON destination.id = credit.account_id
    WHERE j.sequence = ANY($1) AND j.kind = 'transfer'";

/// Transfers as they were answered when they were booked, by the sequences of their journals.
pub(crate) async fn booked_transfers(
    connection: &mut PgConnection,
    sequences: &[i64],
) -> Result<HashMap<i64, Transfer>, sqlx::Error> {
    let rows: Vec<TransferRow> = sqlx::query_as(BOOKED_TRANSFERS).bind(sequences).fetch_all(connection).await?;
    let transfer = |row: TransferRow| {
        let transfer = Transfer {
            id: TransferId { epoch: row.epoch, sequence: row.sequence },
            status: MovementStatus::Completed,
            from_account_id: AccountId { epoch: row.from_epoch, sequence: row.from_id },
            to_account_id: AccountId { epoch: row.to_epoch, sequence: row.to_id },
            amount: row.amount.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
            currency: row.currency,
            memo: row.memo.into(),
            created_at: row.booked_at,
        };
        Ok((row.sequence.into(), transfer))
    };
    rows.into_iter().map(transfer).collect()
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
