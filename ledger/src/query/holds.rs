//! Money set aside.

use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;

use super::{Cursor, MemoRow, Page, Scope, account_id, page};
use crate::command::{Hold, HoldStatus};
use crate::id::{AccountId, HoldId, Sequence};
use crate::money::Currency;

#[derive(FromRow)]
struct HoldRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    id: Sequence,
    account_epoch: i32,
    account_id: i64,
    destination_epoch: Option<i32>,
    destination_id: Option<i64>,
    amount: i64,
    remaining: i64,
    captured: i64,
    #[sqlx(try_from = "String")]
    currency: Currency,
    status: HoldStatus,
    #[sqlx(flatten)]
    memo: MemoRow,
    created_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
}

impl HoldRow {
    fn known(self) -> Result<Hold, sqlx::Error> {
        let destination = self.destination_epoch.zip(self.destination_id).map(|(epoch, id)| account_id(epoch, id));
        Ok(Hold {
            id: HoldId { epoch: self.epoch, sequence: self.id },
            account_id: account_id(self.account_epoch, self.account_id)?,
            destination_id: destination.transpose()?,
            amount: self.amount,
            remaining: self.remaining,
            captured: self.captured,
            currency: self.currency,
            status: self.status,
            memo: self.memo.into(),
            created_at: self.created_at,
            expires_at: self.expires_at,
        })
    }
}

macro_rules! holds {
    ($which:literal) => {
        concat!(
            "SELECT h.epoch, h.id, a.epoch AS account_epoch, h.account_id, d.epoch AS destination_epoch, h.destination_id,
                h.amount, h.remaining, h.captured, j.currency, h.status, j.description, j.category, j.reference,
                j.metadata, j.value_date, h.created_at, h.expires_at
            FROM holds h JOIN journals j ON j.sequence = h.id JOIN accounts a ON a.id = h.account_id
            LEFT JOIN accounts d ON d.id = h.destination_id
            WHERE ",
            $which
        )
    };
}

/// A hold on an account in scope.
pub async fn hold(pool: &PgPool, scope: impl Into<Scope>, id: HoldId) -> Result<Option<Hold>, sqlx::Error> {
    let row: Option<HoldRow> =
        sqlx::query_as(holds!("h.id = $1 AND h.epoch = $2 AND ($3::uuid IS NULL OR a.owner_id = $3)"))
            .bind(i64::from(id.sequence))
            .bind(id.epoch.cast_signed())
            .bind(scope.into().owner())
            .fetch_optional(pool)
            .await?;
    row.map(HoldRow::known).transpose()
}

/// The holds with these ids, whosoever.
pub(crate) async fn holds_with_ids(conn: &mut PgConnection, ids: &[i64]) -> Result<Vec<Hold>, sqlx::Error> {
    let rows: Vec<HoldRow> = sqlx::query_as(holds!("h.id = ANY($1)")).bind(ids).fetch_all(conn).await?;
    rows.into_iter().map(HoldRow::known).collect()
}

/// The holds on an account, newest first.
pub async fn holds(
    pool: &PgPool,
    scope: impl Into<Scope>,
    account: AccountId,
    cursor: Option<Cursor>,
    limit: u16,
) -> Result<Option<Page<Hold>>, sqlx::Error> {
    if super::account(pool, scope, account).await?.is_none() {
        return Ok(None);
    }
    let of_account = holds!("h.account_id = $1 AND h.id < $2 ORDER BY h.id DESC LIMIT $3");
    let rows: Vec<HoldRow> = sqlx::query_as(of_account)
        .bind(i64::from(account.sequence))
        .bind(cursor.map_or(i64::MAX, |cursor| cursor.0))
        .bind(i64::from(limit) + 1)
        .fetch_all(pool)
        .await?;
    let (rows, next) = page(rows, limit, |row| row.id.into());
    Ok(Some(Page { data: rows.into_iter().map(HoldRow::known).collect::<Result<_, _>>()?, next }))
}

/// At most `limit` holds whose time has come by `now`, and of which something is left.
pub async fn due_holds(pool: &PgPool, now: OffsetDateTime, limit: u16) -> Result<Vec<HoldId>, sqlx::Error> {
    let due = "SELECT epoch, id FROM holds WHERE status = 'held' AND expires_at <= $1 ORDER BY expires_at LIMIT $2";
    let rows: Vec<(i32, i64)> = sqlx::query_as(due).bind(now).bind(i64::from(limit)).fetch_all(pool).await?;
    let id = |(epoch, id): (i32, i64)| Ok(HoldId { epoch: epoch.cast_unsigned(), sequence: super::sequence(id)? });
    rows.into_iter().map(id).collect()
}

/// When the next hold is due, if any is.
pub async fn next_expiry(pool: &PgPool) -> Result<Option<OffsetDateTime>, sqlx::Error> {
    sqlx::query_scalar("SELECT min(expires_at) FROM holds WHERE status = 'held'").fetch_one(pool).await
}
