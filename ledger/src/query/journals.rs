//! Journals as the books have them; for staff.

use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{MemoRow, account_id, sequence};
use crate::batch::JournalKind;
use crate::command::Memo;
use crate::id::{AccountId, JournalId};
use crate::money::Currency;

/// A journal with its legs, in minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedJournal {
    /// Public id, `jrn_…`.
    pub id: JournalId,
    /// What it records.
    pub kind: JournalKind,
    /// The user who asked; nil for the bank itself.
    pub actor: Uuid,
    /// The journal it undoes, or that of the hold it settles.
    pub refers_to: Option<JournalId>,
    /// Whether another journal has undone it.
    pub reversed: bool,
    /// What moved or was set aside.
    pub amount: i64,
    /// The currency of all accounts.
    pub currency: Currency,
    /// What it did to accounts, in order.
    pub legs: Vec<BookedLeg>,
    /// The caller's own words.
    pub memo: Memo,
    /// When it was booked.
    pub created_at: OffsetDateTime,
}

/// What a journal did to one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookedLeg {
    /// The account.
    pub account: AccountId,
    /// What it gained; below zero: lost.
    pub amount: i64,
    /// What was set aside; below zero: released.
    pub held: i64,
}

#[derive(FromRow)]
struct JournalRow {
    kind: JournalKind,
    actor: Uuid,
    refers_to_epoch: Option<i32>,
    refers_to: Option<i64>,
    is_reversed: bool,
    amount: i64,
    #[sqlx(try_from = "String")]
    currency: Currency,
    #[sqlx(flatten)]
    memo: MemoRow,
    booked_at: OffsetDateTime,
}

const JOURNAL: &str = "
    SELECT j.kind, j.actor, o.epoch AS refers_to_epoch, o.sequence AS refers_to, j.amount, j.currency, j.description,
        j.category, j.reference, j.metadata, j.value_date, j.booked_at,
        EXISTS (SELECT FROM journals r WHERE r.kind = 'reversal' AND r.refers_to = j.sequence) AS is_reversed
    FROM journals j LEFT JOIN journals o ON o.sequence = j.refers_to
    WHERE j.sequence = $1 AND j.epoch = $2";

const LEGS: &str = "
    SELECT a.epoch, a.id, e.posted_delta, e.held_delta
    FROM entries e JOIN accounts a ON a.id = e.account_id
    WHERE e.sequence = $1 ORDER BY e.leg";

/// A journal of any kind.
pub async fn journal(pool: &PgPool, id: JournalId) -> Result<Option<BookedJournal>, sqlx::Error> {
    let place = i64::from(id.sequence);
    let row: Option<JournalRow> =
        sqlx::query_as(JOURNAL).bind(place).bind(id.epoch.cast_signed()).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    // Neither changes once it is written, so that two looks see the same.
    let legs: Vec<(i32, i64, i64, i64)> = sqlx::query_as(LEGS).bind(place).fetch_all(pool).await?;
    let leg =
        |(epoch, id, amount, held)| Ok::<_, sqlx::Error>(BookedLeg { account: account_id(epoch, id)?, amount, held });
    let refers_to = row.refers_to_epoch.zip(row.refers_to).map(|(epoch, place)| {
        Ok::<_, sqlx::Error>(JournalId { epoch: epoch.cast_unsigned(), sequence: sequence(place)? })
    });
    Ok(Some(BookedJournal {
        id,
        kind: row.kind,
        actor: row.actor,
        refers_to: refers_to.transpose()?,
        reversed: row.is_reversed,
        amount: row.amount,
        currency: row.currency,
        legs: legs.into_iter().map(leg).collect::<Result<_, _>>()?,
        memo: row.memo.into(),
        created_at: row.booked_at,
    }))
}
