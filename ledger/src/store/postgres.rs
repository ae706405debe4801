//! The ledger in a tenant's schema.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::pool::PoolConnection;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool, Postgres as Database};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Result, Session, Store, StoreError};
use crate::audit;
use crate::batch::{Entry, Journal, JournalKind, StoredAnswer, StoredOutcome, WholeOutcome};
use crate::chain::Hash;
use crate::command::{AccountKind, AccountStatus, AccountType, Command, Hold, Limits, Metadata, Outcome, Transfer};
use crate::id::{AccountId, JournalId, Sequence};
use crate::money::Currency;
use crate::query;
use crate::rules::{AccountState, Decision, Described, Head, Original, Remembered, Spent};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match (&error, code.as_deref()) {
            (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed, _) => Self::Unavailable,
            (_, Some("FF001")) => Self::Fenced,
            (_, Some("23505")) => Self::KeyTaken,
            (_, Some(code)) if blames_the_batch(code) => Self::Refused(error.to_string()),
            (
                sqlx::Error::RowNotFound
                | sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::Decode(_)
                | sqlx::Error::Encode(_),
                _,
            ) => Self::Refused(error.to_string()),
            _ => Self::Interrupted(error.to_string()),
        }
    }
}

/// Whether a SQLSTATE speaks of the rows: data exception, constraint, size limit, or one of the schema's own checks.
fn blames_the_batch(code: &str) -> bool {
    ["22", "23", "54", "FF", "P0"].iter().any(|class| code.starts_with(class))
}

/// A tenant's ledger, reached through the pool of its own login.
#[derive(Debug, Clone)]
pub struct Postgres(PgPool);

impl Postgres {
    /// The ledger that `pool` logs in to.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }
}

impl Store for Postgres {
    type Session = Connected;

    async fn open(&self) -> Result<Connected> {
        Ok(Connected { connection: self.0.acquire().await?, holds_head: false })
    }

    fn can_spare_one(&self) -> bool {
        self.0.options().get_max_connections() > 1
    }
}

/// A connection, in a transaction while it holds the head. The one statement that writes is its own otherwise.
#[derive(Debug)]
pub struct Connected {
    connection: PoolConnection<Database>,
    holds_head: bool,
}

impl Connected {
    async fn read_head(&mut self, query: &'static str) -> Result<Head> {
        let row: HeadRow = sqlx::query_as(query).fetch_one(&mut *self.connection).await?;
        Ok(Head { epoch: row.epoch, sequence: row.sequence, time: row.head_time, hash: Hash(row.hash) })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if self.holds_head {
            self.connection.close_on_drop();
        }
    }
}

impl Session for Connected {
    async fn head(&mut self) -> Result<Head> {
        self.read_head("SELECT epoch, sequence, head_time, hash FROM ledger_head").await
    }

    async fn lock(&mut self) -> Result<Head> {
        self.holds_head = true;
        // Whatever the role's default is: each statement after the lock must see what the last holder committed.
        sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *self.connection).await?;
        self.read_head("SELECT epoch, sequence, head_time, hash FROM lock_head()").await
    }

    async fn accounts(&mut self, ids: &[Sequence], currencies: &[Currency]) -> Result<Vec<(AccountId, AccountState)>> {
        let codes: Vec<_> = currencies.iter().map(|currency| currency.code()).collect();
        let rows: Vec<AccountRow> =
            sqlx::query_as(ACCOUNTS).bind(numbers(ids)).bind(codes).fetch_all(&mut *self.connection).await?;
        Ok(rows.into_iter().map(AccountRow::known).collect())
    }

    async fn holds(&mut self, ids: &[Sequence]) -> Result<Vec<Hold>> {
        Ok(query::holds_with_ids(&mut self.connection, &numbers(ids)).await?)
    }

    async fn originals(&mut self, ids: &[Sequence]) -> Result<Vec<(JournalId, Original)>> {
        let rows: Vec<OriginalRow> =
            sqlx::query_as(ORIGINALS).bind(numbers(ids)).fetch_all(&mut *self.connection).await?;
        let mut originals: Vec<(JournalId, Original)> = Vec::new();
        for row in rows {
            let id = JournalId { epoch: row.epoch, sequence: row.sequence };
            let leg = (AccountId { epoch: row.account_epoch, sequence: row.account_id }, row.posted_delta);
            match originals.last_mut() {
                Some((last, original)) if *last == id => original.legs.push(leg),
                _ => {
                    let OriginalRow { kind, currency, amount, reversed, .. } = row;
                    originals.push((id, Original { kind, currency, amount, legs: vec![leg], reversed }));
                }
            }
        }
        Ok(originals)
    }

    async fn answers(&mut self, keys: &[(Uuid, &str)]) -> Result<Vec<((Uuid, String), Remembered)>> {
        let (principals, keys): (Vec<_>, Vec<_>) = keys.iter().copied().unzip();
        let rows: Vec<AnswerRow> =
            sqlx::query_as(ANSWERS).bind(principals).bind(keys).fetch_all(&mut *self.connection).await?;
        let told: Vec<_> = rows.iter().flat_map(AnswerRow::transfers).collect();
        let transfers =
            if told.is_empty() { HashMap::new() } else { query::booked_transfers(&mut self.connection, &told).await? };
        let known = rows.into_iter().map(|row| row.known(&transfers)).collect::<Option<_>>();
        known.ok_or_else(|| StoreError::Refused("an answer names a transfer that is not there".to_owned()))
    }

    async fn release(&mut self) -> Result<()> {
        if self.holds_head {
            sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await?;
            self.holds_head = false;
        }
        Ok(())
    }

    async fn write(&mut self, from: Head, commands: &[Command], decision: &Decision) -> Result<()> {
        apply_batch(&mut self.connection, from, commands, decision).await?;
        self.release().await
    }
}

fn numbers(sequences: &[Sequence]) -> Vec<i64> {
    sequences.iter().map(|sequence| i64::from(*sequence)).collect()
}

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    head_time: OffsetDateTime,
    hash: [u8; 32],
}

#[derive(FromRow)]
struct AccountRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    id: Sequence,
    kind: AccountKind,
    account_type: Option<AccountType>,
    owner_id: Option<Uuid>,
    #[sqlx(try_from = "String")]
    currency: Currency,
    name: String,
    status: AccountStatus,
    minimum_balance: Option<i64>,
    per_transaction_limit: Option<i64>,
    daily_limit: Option<i64>,
    monthly_limit: Option<i64>,
    metadata: Option<Json<Metadata>>,
    created_at: OffsetDateTime,
    posted: i64,
    held: i64,
    version: i64,
    spent_day: i64,
    spent_month: i64,
    updated_at: OffsetDateTime,
}

// A left join: an account without a balance is damage to report, not an account that does not exist.
const ACCOUNTS: &str = "
    SELECT epoch, id, kind, CASE kind WHEN 'customer' THEN type END AS account_type, owner_id, currency, name, status,
        minimum_balance, per_transaction_limit, daily_limit, monthly_limit, metadata, created_at,
        posted, held, version, spent_day, spent_month, updated_at
    FROM accounts LEFT JOIN account_balances ON account_id = id
    WHERE id = ANY($1) OR (kind = 'settlement' AND currency = ANY($2::bpchar[]))";

impl AccountRow {
    fn known(self) -> (AccountId, AccountState) {
        let limits = self.minimum_balance.map(|minimum_balance| Limits {
            minimum_balance,
            per_transaction: self.per_transaction_limit,
            daily: self.daily_limit,
            monthly: self.monthly_limit,
        });
        let described = Described {
            name: self.name,
            metadata: self.metadata.map(|metadata| metadata.0).unwrap_or_default(),
            created_at: self.created_at,
        };
        let state = AccountState {
            kind: self.kind,
            owner: self.owner_id,
            account_type: self.account_type,
            currency: self.currency,
            status: self.status,
            limits,
            posted: self.posted,
            held: self.held,
            version: self.version,
            spent: Spent { on: self.updated_at.date(), day: self.spent_day, month: self.spent_month },
            described: Arc::new(described),
        };
        (AccountId { epoch: self.epoch, sequence: self.id }, state)
    }
}

#[derive(FromRow)]
struct OriginalRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    kind: JournalKind,
    #[sqlx(try_from = "String")]
    currency: Currency,
    amount: i64,
    reversed: bool,
    #[sqlx(try_from = "i32")]
    account_epoch: u32,
    #[sqlx(try_from = "i64")]
    account_id: Sequence,
    posted_delta: i64,
}

const ORIGINALS: &str = "
    SELECT j.epoch, j.sequence, j.kind, j.currency, j.amount, a.epoch AS account_epoch, e.account_id, e.posted_delta,
        EXISTS (SELECT FROM journals r WHERE r.kind = 'reversal' AND r.refers_to = j.sequence) AS reversed
    FROM journals j JOIN entries e ON e.sequence = j.sequence JOIN accounts a ON a.id = e.account_id
    WHERE j.sequence = ANY($1) ORDER BY j.sequence, e.leg";

#[derive(FromRow)]
struct AnswerRow {
    principal: Uuid,
    key: String,
    fingerprint: [u8; 32],
    sequence: Option<i64>,
    outcome: Option<Json<WholeOutcome>>,
    expires_at: OffsetDateTime,
}

const ANSWERS: &str = "
    SELECT principal, key, fingerprint, sequence, outcome, expires_at
    FROM unnest($1::uuid[], $2::text[]) AS asked(principal, key) JOIN idempotency_keys USING (principal, key)";

impl AnswerRow {
    /// The journals that tell the rest of the answer.
    fn transfers(&self) -> Vec<i64> {
        match &self.outcome {
            Some(Json(WholeOutcome::Bulk { first, refused })) => {
                let booked = refused.iter().filter(|refused| refused.is_none());
                booked.zip(i64::from(*first)..).map(|(_, sequence)| sequence).collect()
            }
            Some(Json(WholeOutcome::Outcome(_))) => Vec::new(),
            None => self.sequence.into_iter().collect(),
        }
    }

    /// None: the journal that tells the answer is not there.
    fn known(self, transfers: &HashMap<i64, Transfer>) -> Option<((Uuid, String), Remembered)> {
        let told = self.transfers();
        let mut told = told.iter().map(|sequence| transfers.get(sequence).cloned());
        let outcome = match self.outcome {
            Some(Json(WholeOutcome::Bulk { refused, .. })) => {
                let transfer = |refused| match refused {
                    Some(rejection) => Some(Err(rejection)),
                    None => told.next().flatten().map(Ok),
                };
                Outcome::Bulk(refused.into_iter().map(transfer).collect::<Option<_>>()?)
            }
            Some(Json(WholeOutcome::Outcome(outcome))) => *outcome,
            None => Outcome::Transfer(told.next().flatten()?),
        };
        let Self { fingerprint, expires_at, .. } = self;
        Some(((self.principal, self.key), Remembered { fingerprint, outcome, expires_at }))
    }
}

/// A column of `rows`: one array of `apply_batch`.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// What is stored as JSON always has that form: no map of it has other keys than texts.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

const APPLY_BATCH: &str = "SELECT apply_batch($1, $2, $3,
    $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
    $19, $20, $21, $22, $23, $24, $25, $26, $27, $28,
    $29, $30, $31, $32, $33,
    $34, $35, $36, $37, $38, $39, $40)";

async fn apply_batch(
    connection: &mut PgConnection,
    from: Head,
    commands: &[Command],
    decision: &Decision,
) -> std::result::Result<(), sqlx::Error> {
    let (journals, entries, answers) = (&decision.batch.journals, &decision.batch.entries, &decision.batch.answers);
    let events = audit::events(commands, decision);
    let written = sqlx::query(APPLY_BATCH)
        .bind(from.epoch.cast_signed())
        .bind(i64::from(from.sequence))
        .bind(decision.time)
        .bind(column(journals, |row: &Journal| row.kind.as_str()))
        .bind(column(journals, |row| row.actor))
        .bind(column(journals, |row| row.currency.code()))
        .bind(column(journals, |row| row.amount))
        .bind(column(journals, |row| row.refers_to.map(i64::from)))
        .bind(column(journals, |row| row.memo.value_date))
        .bind(column(journals, |row| row.memo.description.as_deref()))
        .bind(column(journals, |row| row.memo.category.as_deref()))
        .bind(column(journals, |row| row.memo.reference.as_deref()))
        .bind(column(journals, |row| (!row.memo.metadata.is_empty()).then(|| json(&row.memo.metadata))))
        .bind(column(journals, |row| row.detail.as_deref()))
        .bind(column(journals, |row| row.salt.as_ref().map(<[u8; 16]>::as_slice)))
        .bind(column(journals, |row| row.hash.0.as_slice()))
        .bind(column(journals, |row| row.origin.ip.map(|ip| ip.to_string())))
        .bind(column(journals, |row| row.origin.request_id.as_deref()))
        .bind(column(entries, |row: &Entry| i64::from(row.sequence)))
        .bind(column(entries, |row| i16::from(row.leg)))
        .bind(column(entries, |row| i64::from(row.account.sequence)))
        .bind(column(entries, |row| row.seq))
        .bind(column(entries, |row| row.posted_delta))
        .bind(column(entries, |row| row.held_delta))
        .bind(column(entries, |row| row.posted_after))
        .bind(column(entries, |row| row.held_after))
        .bind(column(entries, |row| row.spent_day))
        .bind(column(entries, |row| row.spent_month))
        .bind(column(answers, |row: &StoredAnswer| row.principal))
        .bind(column(answers, |row| row.key.as_str()))
        .bind(column(answers, |row| row.fingerprint.as_slice()))
        .bind(column(answers, |row| match row.outcome {
            StoredOutcome::Transfer(sequence) => Some(i64::from(sequence)),
            StoredOutcome::Whole(_) => None,
        }))
        .bind(column(answers, |row| match &row.outcome {
            StoredOutcome::Transfer(_) => None,
            StoredOutcome::Whole(outcome) => Some(json(outcome)),
        }))
        .bind(column(&events, |event| event.actor))
        .bind(column(&events, |event| event.event))
        .bind(column(&events, |event| event.outcome))
        .bind(column(&events, |event| event.subject.as_deref()))
        .bind(column(&events, |event| event.ip.map(|ip| ip.to_string())))
        .bind(column(&events, |event| event.request_id))
        .bind(column(&events, |event| event.detail.to_string()));
    written.execute(connection).await.map(drop)
}
