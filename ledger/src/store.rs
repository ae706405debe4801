//! One batch as one transaction: lock the head, load what the commands name, decide, write, commit.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::audit;
use crate::batch::AccountKind;
use crate::command::{AccountStatus, Command, CommandKind, Outcome};
use crate::id::{AccountId, Sequence};
use crate::money::Currency;
use crate::rules::{self, AccountState, Answer, Decision, Head, Remembered, State};

/// Why a batch was not committed, or is not known to be.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// The database refused what the rules accepted, or holds what they cannot read. The same batch would fail again.
    #[error("refused by the database: {0}")]
    Refused(#[source] sqlx::Error),
    /// The transaction broke off; it may have been committed. Running the batch again is safe: answers that were
    /// stored are replayed, and the head stays locked until the broken transaction is settled.
    #[error("interrupted: {0}")]
    Interrupted(#[source] sqlx::Error),
    /// No connection, or no answer, in the time there was.
    #[error("no database connection in time")]
    Unavailable,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => Self::Unavailable,
            sqlx::Error::Database(cause) if cause.code().is_some_and(|code| blames_the_batch(&code)) => {
                Self::Refused(error)
            }
            sqlx::Error::RowNotFound
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_) => Self::Refused(error),
            _ => Self::Interrupted(error),
        }
    }
}

/// Whether a SQLSTATE speaks of the rows: data exception, constraint, size limit, or one of the schema's own checks.
/// `FF001` is the schema's word for a head that has moved, which a fresh look resolves.
fn blames_the_batch(code: &str) -> bool {
    code != "FF001" && ["22", "23", "54", "FF", "P0"].iter().any(|class| code.starts_with(class))
}

/// Decides `commands` on the ledger as it is and commits the result. Answers are valid once this returns.
pub(crate) async fn commit(
    pool: &PgPool,
    commands: &[Command],
    now: OffsetDateTime,
) -> Result<Vec<Answer>, StoreError> {
    // Whatever the role's default is: each statement after the lock must see what the last holder committed.
    let mut transaction = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let head = lock_head(&mut transaction).await?;
    let state = load(&mut transaction, head, commands).await?;
    let decision = rules::apply(state, commands, now);
    if !decision.batch.is_empty() {
        write(&mut transaction, head.sequence, &decision).await?;
    }
    let events = audit::events(commands, &decision);
    if !events.is_empty() {
        sqlx::query(INSERT_AUDIT).bind(Json(events)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(decision.answers)
}

const INSERT_AUDIT: &str = "
    INSERT INTO audit_events (at, actor, event, outcome, subject, ip, request_id, detail)
    SELECT at, actor, event, outcome, subject, ip, request_id, detail
    FROM jsonb_to_recordset($1) AS event(
        at timestamptz, actor uuid, event text, outcome text, subject text, ip inet, request_id text, detail jsonb)";

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    head_time: OffsetDateTime,
}

async fn lock_head(connection: &mut PgConnection) -> Result<Head, sqlx::Error> {
    let row: HeadRow =
        sqlx::query_as("SELECT epoch, sequence, head_time FROM lock_head()").fetch_one(connection).await?;
    Ok(Head { epoch: row.epoch, sequence: row.sequence, time: row.head_time })
}

#[derive(FromRow)]
struct AccountRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    id: Sequence,
    kind: AccountKind,
    owner_id: Option<Uuid>,
    #[sqlx(try_from = "String")]
    currency: Currency,
    status: AccountStatus,
    minimum_balance: Option<i64>,
    posted: i64,
    held: i64,
    version: i64,
}

// A left join: an account without a balance is damage to report, not an account that does not exist.
const LOAD_ACCOUNTS: &str = "
    SELECT epoch, id, kind, owner_id, currency, status, minimum_balance, posted, held, version
    FROM accounts LEFT JOIN account_balances ON account_id = id
    WHERE id = ANY($1) OR (kind = 'settlement' AND currency = ANY($2::bpchar[]))";

#[derive(FromRow)]
struct AnswerRow {
    principal: Uuid,
    key: String,
    fingerprint: [u8; 32],
    outcome: Json<Outcome>,
    expires_at: OffsetDateTime,
}

const LOAD_ANSWERS: &str = "
    SELECT principal, key, fingerprint, outcome, expires_at
    FROM unnest($1::uuid[], $2::text[]) AS asked(principal, key) JOIN idempotency_keys USING (principal, key)";

async fn load(connection: &mut PgConnection, head: Head, commands: &[Command]) -> Result<State, sqlx::Error> {
    let (ids, currencies) = named(commands);
    let accounts: Vec<AccountRow> =
        sqlx::query_as(LOAD_ACCOUNTS).bind(ids).bind(currencies).fetch_all(&mut *connection).await?;
    let (principals, keys): (Vec<_>, Vec<_>) =
        commands.iter().map(|command| (command.principal, command.key.as_str())).unzip();
    let answers: Vec<AnswerRow> =
        sqlx::query_as(LOAD_ANSWERS).bind(principals).bind(keys).fetch_all(connection).await?;
    let mut state = State { head, accounts: HashMap::new(), settlements: HashMap::new(), answers: HashMap::new() };
    for row in accounts {
        let id = AccountId { epoch: row.epoch, sequence: row.id };
        if row.kind == AccountKind::Settlement {
            state.settlements.insert(row.currency, id);
        }
        state.accounts.insert(id, row.into());
    }
    for row in answers {
        let remembered =
            Remembered { fingerprint: row.fingerprint, outcome: row.outcome.0, expires_at: row.expires_at };
        state.answers.insert((row.principal, row.key), remembered);
    }
    Ok(state)
}

impl From<AccountRow> for AccountState {
    fn from(row: AccountRow) -> Self {
        Self {
            kind: row.kind,
            owner: row.owner_id,
            currency: row.currency,
            status: row.status,
            minimum: row.minimum_balance,
            posted: row.posted,
            held: row.held,
            version: row.version,
        }
    }
}

/// The accounts that commands name, and the currencies whose settlement account they touch.
fn named(commands: &[Command]) -> (Vec<i64>, Vec<&'static str>) {
    let (mut ids, mut currencies) = (Vec::new(), Vec::new());
    for command in commands {
        match &command.kind {
            CommandKind::OpenAccount { .. } => {}
            CommandKind::Deposit { account, currency, .. } | CommandKind::Withdraw { account, currency, .. } => {
                ids.push(account.sequence.into());
                currencies.push(currency.code());
            }
            CommandKind::Transfer { from, to, .. } => ids.extend([i64::from(from.sequence), to.sequence.into()]),
        }
    }
    currencies.sort_unstable();
    currencies.dedup();
    (ids, currencies)
}

async fn write(connection: &mut PgConnection, from: Sequence, decision: &Decision) -> Result<(), sqlx::Error> {
    let head = decision.state.head;
    sqlx::query("SELECT apply_batch($1, $2, $3, $4, $5)")
        .bind(head.epoch.cast_signed())
        .bind(i64::from(from))
        .bind(i64::from(head.sequence))
        .bind(decision.time)
        .bind(Json(&decision.batch))
        .execute(connection)
        .await?;
    Ok(())
}
