//! Movements as accounts see them.

use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Cursor, MemoRow, Page, Scope, account_id, before, page, sequence, span};
use crate::command::{MovementStatus, Transaction, TransactionType};
use crate::id::{AccountId, JournalId, Leg, Sequence, TransactionId, TransferId};
use crate::money::Currency;

/// Which movements are asked for; what is none does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// Booked then or later.
    pub from: Option<OffsetDateTime>,
    /// Booked before.
    pub to: Option<OffsetDateTime>,
    /// Of this type.
    pub transaction_type: Option<TransactionType>,
    /// Of exactly this category.
    pub category: Option<String>,
    /// At least that many minor units, whichever way they went.
    pub min_amount: Option<i64>,
    /// At most that many minor units, whichever way they went.
    pub max_amount: Option<i64>,
    /// Part of the description or the reference, in either case.
    pub text: Option<String>,
}

#[derive(FromRow)]
struct TransactionRow {
    account_epoch: i32,
    account_id: i64,
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    #[sqlx(try_from = "i16")]
    leg: Leg,
    #[sqlx(rename = "type")]
    transaction_type: TransactionType,
    transfer_epoch: Option<i32>,
    transfer_sequence: Option<i64>,
    posted_delta: i64,
    posted_after: i64,
    #[sqlx(try_from = "String")]
    currency: Currency,
    #[sqlx(flatten)]
    memo: MemoRow,
    booked_at: OffsetDateTime,
    is_reversed: bool,
}

impl TransactionRow {
    /// Where it is among all movements: what comes later in the ledger is higher.
    fn place(&self) -> i64 {
        i64::from(self.sequence) * 64 + i64::from(i16::from(self.leg))
    }

    fn known(self) -> Result<Transaction, sqlx::Error> {
        let journal = JournalId { epoch: self.epoch, sequence: self.sequence };
        let transfer = self.transfer_epoch.zip(self.transfer_sequence).map(|(epoch, stored)| {
            Ok::<_, sqlx::Error>(TransferId { epoch: epoch.cast_unsigned(), sequence: sequence(stored)? })
        });
        Ok(Transaction {
            id: TransactionId { journal, leg: self.leg },
            account_id: account_id(self.account_epoch, self.account_id)?,
            transaction_type: self.transaction_type,
            amount: self.posted_delta,
            currency: self.currency,
            balance_after: self.posted_after,
            memo: self.memo.into(),
            status: if self.is_reversed { MovementStatus::Reversed } else { MovementStatus::Completed },
            created_at: self.booked_at,
            transfer_id: transfer.transpose()?,
        })
    }
}

// Each account gives its newest rows by its own index, and the newest of all are taken: no page reads more of an account
// than it may show, unless the filter refuses it.
const TRANSACTIONS: &str = concat!(
    span!("least($3::timestamptz, (SELECT booked_at FROM journals WHERE sequence = $4::bigint / 64))"),
    "SELECT a.epoch AS account_epoch, a.id AS account_id, t.*
    FROM span JOIN accounts a ON a.id = span.account_id CROSS JOIN LATERAL (
        SELECT * FROM (
            SELECT j.epoch, j.sequence, e.leg, e.seq, e.posted_delta, e.posted_after, j.currency, j.description, j.category,
                j.reference, j.metadata, j.value_date, j.booked_at,
                CASE
                    WHEN j.kind = 'hold_captured' AND pending.id IS NULL THEN 'capture'
                    WHEN j.kind IN ('transfer', 'hold_captured') AND e.leg = 0 THEN 'transfer_out'
                    WHEN j.kind IN ('transfer', 'hold_captured') THEN 'transfer_in'
                    ELSE j.kind
                END AS type,
                CASE j.kind WHEN 'transfer' THEN j.epoch ELSE pending.epoch END AS transfer_epoch,
                CASE j.kind WHEN 'transfer' THEN j.sequence ELSE pending.id END AS transfer_sequence,
                EXISTS (SELECT FROM journals r WHERE r.kind = 'reversal' AND r.refers_to = j.sequence) AS is_reversed
            FROM entries e JOIN journals j USING (sequence)
            LEFT JOIN holds pending
                ON j.kind = 'hold_captured' AND pending.id = j.refers_to AND pending.destination_id IS NOT NULL
            WHERE e.account_id = a.id AND e.seq > span.after AND e.seq <= span.upto AND e.posted_delta <> 0
              AND ($4 IS NULL OR e.sequence * 64 + e.leg < $4)
              AND ($5::text IS NULL OR j.category = $5)
              AND ($6::bigint IS NULL OR abs(e.posted_delta) >= $6)
              AND ($7::bigint IS NULL OR abs(e.posted_delta) <= $7)
              AND ($8::text IS NULL OR strpos(lower(j.description), lower($8)) > 0
                  OR strpos(lower(j.reference), lower($8)) > 0)
        ) AS movement
        WHERE $9::text IS NULL OR type = $9
        ORDER BY seq DESC LIMIT $10
    ) AS t
    ORDER BY t.sequence DESC, t.leg DESC LIMIT $10"
);

async fn of_accounts(
    pool: &PgPool,
    accounts: Vec<i64>,
    filter: &TransactionFilter,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Page<Transaction>, sqlx::Error> {
    let rows: Vec<TransactionRow> = sqlx::query_as(TRANSACTIONS)
        .bind(accounts)
        .bind(before(filter.from))
        .bind(before(filter.to))
        .bind(cursor.map(|cursor| cursor.0))
        .bind(&filter.category)
        .bind(filter.min_amount)
        .bind(filter.max_amount)
        .bind(&filter.text)
        .bind(filter.transaction_type)
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let (rows, next) = page(rows, limit, TransactionRow::place);
    Ok(Page { data: rows.into_iter().map(TransactionRow::known).collect::<Result<_, _>>()?, next })
}

const THE_ACCOUNT: &str =
    "SELECT id FROM accounts WHERE ($1::uuid IS NULL OR owner_id = $1) AND id = $2 AND epoch = $3";

/// The movements of an account, newest first.
pub async fn transactions(
    pool: &PgPool,
    scope: impl Into<Scope>,
    account: AccountId,
    filter: &TransactionFilter,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Option<Page<Transaction>>, sqlx::Error> {
    let found: Vec<i64> = sqlx::query_scalar(THE_ACCOUNT)
        .bind(scope.into().owner())
        .bind(i64::from(account.sequence))
        .bind(account.epoch.cast_signed())
        .fetch_all(pool)
        .await?;
    if found.is_empty() { Ok(None) } else { of_accounts(pool, found, filter, cursor, limit).await.map(Some) }
}

/// The movements of all accounts of `owner`, newest first.
pub async fn own_transactions(
    pool: &PgPool,
    owner: Uuid,
    filter: &TransactionFilter,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Page<Transaction>, sqlx::Error> {
    let own = sqlx::query_scalar("SELECT id FROM accounts WHERE owner_id = $1").bind(owner).fetch_all(pool).await?;
    of_accounts(pool, own, filter, cursor, limit).await
}

/// A category and how many movements are in it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Category {
    /// As it was given.
    pub category: String,
    /// Movements of this category.
    pub transactions: i64,
}

const CATEGORIES: &str = "
    SELECT j.category, count(*) AS transactions
    FROM accounts a JOIN entries e ON e.account_id = a.id JOIN journals j USING (sequence)
    WHERE a.owner_id = $1 AND e.posted_delta <> 0 AND j.category IS NOT NULL
    GROUP BY j.category ORDER BY transactions DESC, j.category LIMIT $2";

/// The categories of `owner`'s movements, the most used first.
pub async fn categories(pool: &PgPool, owner: Uuid, limit: u16) -> Result<Vec<Category>, sqlx::Error> {
    sqlx::query_as(CATEGORIES).bind(owner).bind(i64::from(limit)).fetch_all(pool).await
}
