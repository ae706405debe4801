//! A restore that was cut off after its end, before it could say so.

use finaiflow_ledger::batch::ForkDetail;
use finaiflow_ledger::chain::{Anchor, Hash};
use finaiflow_schema::become_owner;
use finaiflow_schema::names::TenantNames;
use sqlx::{Connection as _, FromRow, PgConnection};
use time::OffsetDateTime;

use super::{Plan, Restored};
use crate::rows;

#[derive(FromRow)]
struct ForkRow {
    epoch: i32,
    sequence: i64,
    hash: [u8; 32],
    detail: String,
    restored_at: Option<OffsetDateTime>,
}

// The ledger ends with the fork, and no row that is logged was changed: a restore leaves no changes behind.
const FORK: &str = "
    SELECT head.epoch, head.sequence, head.hash, fork.detail::text AS detail,
        (SELECT max(booked_at) FROM journals WHERE sequence < fork.sequence) AS restored_at
    FROM ledger_head AS head JOIN journals AS fork USING (sequence)
    WHERE fork.kind = 'ledger_forked' AND NOT EXISTS (SELECT FROM _changes)";

/// What the same plan has restored here, if that is what is here and nothing was done since.
pub(super) async fn restored(
    conn: &mut PgConnection,
    names: &TenantNames,
    plan: &Plan<'_>,
) -> rows::Result<Option<Restored>> {
    let mut tx = conn.begin().await?;
    become_owner(&mut tx, names).await?;
    let row: Option<ForkRow> = sqlx::query_as(FORK).fetch_optional(&mut *tx).await?;
    tx.rollback().await?;
    let Some(ForkRow { epoch, sequence, hash, detail, restored_at }) = row else { return Ok(None) };
    let Ok(ForkDetail { restored: head, .. }) = serde_json::from_str(&detail) else { return Ok(None) };
    let (last, ahead) = (plan.last(), plan.ahead().is_some());
    let same =
        (head.epoch, head.sequence) == (last.ledger.epoch, plan.sequence()) && (ahead || head.hash == last.ledger.hash);
    let sequence = sequence.try_into().map_err(|_| rows::Error::Misfit("the ledger's head".to_owned()))?;
    Ok(same.then_some(Restored {
        recovery_point: restored_at.filter(|_| ahead).unwrap_or(last.created_at),
        head,
        goes_on: Anchor { epoch: epoch.unsigned_abs(), sequence, hash: Hash(hash) },
    }))
}
