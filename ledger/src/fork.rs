//! A restored ledger goes on as one of its own.

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::batch::{ForkDetail, JournalKind};
use crate::chain::{self, Anchor, Hash, Link};
use crate::id::Sequence;

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    hash: [u8; 32],
    now: OffsetDateTime,
    currency: Option<String>,
}

// Of all that it says, a journal has to be in some currency.
const HEAD: &str = "
    SELECT epoch, sequence, hash, greatest(clock_timestamp(), head_time + interval '1 microsecond') AS now,
        (SELECT currency::text FROM journals ORDER BY sequence DESC LIMIT 1) AS currency
    FROM ledger_head FOR UPDATE";

const JOURNAL: &str = "
    INSERT INTO journals (sequence, epoch, kind, booked_at, actor, currency, amount, detail, hash)
    VALUES ($1, $2, $3, $4, $5, $6, 0, $7::json, $8)";

/// Begins a new epoch after a restore: its first journal says which head was restored and which, if one is known, was given up,
/// and stands above both, so that no id names two things. To be called in the transaction that restores, as the owner.
///
/// A ledger without journals has nothing to link to; it gets another epoch only.
pub async fn fork(connection: &mut PgConnection, abandoned: Option<Anchor>) -> Result<Anchor, sqlx::Error> {
    let head: HeadRow = sqlx::query_as(HEAD).fetch_one(&mut *connection).await?;
    let restored = Anchor { epoch: head.epoch, sequence: head.sequence, hash: Hash(head.hash) };
    let abandoned = abandoned.unwrap_or(restored);
    let out_of_range = || sqlx::Error::Decode("no epoch or sequence is left after this one".into());
    let epoch = abandoned.epoch.max(restored.epoch).checked_add(1).and_then(|epoch| i32::try_from(epoch).ok());
    let epoch = epoch.ok_or_else(out_of_range)?;
    // One that was given up at an earlier place than the restored one says nothing of where to go on.
    let abandoned = if abandoned.sequence < restored.sequence { restored } else { abandoned };
    let mut next = Anchor { epoch: epoch.unsigned_abs(), ..restored };
    if let Some(currency) = head.currency {
        let booked_at = head.now;
        let detail = serde_json::to_string(&ForkDetail { abandoned, restored });
        let detail = detail.map_err(|error| sqlx::Error::Encode(error.into()))?;
        next.sequence = abandoned.sequence.next().ok_or_else(out_of_range)?;
        let link = Link {
            epoch: next.epoch,
            sequence: next.sequence,
            booked_at,
            kind: JournalKind::LedgerForked.as_str(),
            actor: Uuid::nil(),
            currency: &currency,
            amount: 0,
            refers_to: None,
            value_date: None,
            detail: Some(&detail),
            commitment: None,
        };
        next.hash = chain::hash(restored.hash, &link, [].into_iter());
        sqlx::query(JOURNAL)
            .bind(i64::from(next.sequence))
            .bind(epoch)
            .bind(link.kind)
            .bind(booked_at)
            .bind(link.actor)
            .bind(&currency)
            .bind(&detail)
            .bind(next.hash.0)
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query("UPDATE ledger_head SET epoch = $1, sequence = $2, hash = $3, head_time = $4")
        .bind(epoch)
        .bind(i64::from(next.sequence))
        .bind(next.hash.0)
        .bind(head.now)
        .execute(connection)
        .await?;
    Ok(next)
}
