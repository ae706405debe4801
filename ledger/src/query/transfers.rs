//! Transfers, those that are pending too.

use std::collections::HashMap;

use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;

use super::{MemoRow, Scope, sequence, undecodable};
use crate::command::{HoldStatus, MovementStatus, Transfer};
use crate::id::{AccountId, HoldId, JournalId, Sequence, TransferId};
use crate::money::Currency;

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

impl TransferRow {
    fn known(self, status: MovementStatus) -> Result<Transfer, sqlx::Error> {
        Ok(Transfer {
            id: TransferId { epoch: self.epoch, sequence: self.sequence },
            status,
            from_account_id: AccountId { epoch: self.from_epoch, sequence: self.from_id },
            to_account_id: AccountId { epoch: self.to_epoch, sequence: self.to_id },
            amount: self.amount.try_into().map_err(undecodable)?,
            currency: self.currency,
            memo: self.memo.into(),
            created_at: self.booked_at,
        })
    }
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
    rows.into_iter().map(|row| Ok((row.sequence.into(), row.known(MovementStatus::Completed)?))).collect()
}

/// A transfer as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferState {
    /// The transfer. Of one that was pending and is completed, the amount is what was taken.
    pub transfer: Transfer,
    /// The hold that it was or is, if it did not move at once.
    pub hold: Option<HoldId>,
    /// When what is left of the hold is released.
    pub expires_at: Option<OffsetDateTime>,
    /// The journal that moved the money; none before that, or when it moved in parts.
    pub booked_by: Option<JournalId>,
}

#[derive(FromRow)]
struct StateRow {
    #[sqlx(flatten)]
    transfer: TransferRow,
    hold_status: Option<HoldStatus>,
    expires_at: Option<OffsetDateTime>,
    captures: i64,
    capture_epoch: Option<i32>,
    capture: Option<i64>,
    is_reversed: bool,
}

const TRANSFER: &str = "
    SELECT j.epoch, j.sequence, source.epoch AS from_epoch, source.id AS from_id, destination.epoch AS to_epoch,
        destination.id AS to_id, CASE WHEN h.status = 'captured' THEN h.captured ELSE j.amount END AS amount, j.currency,
        j.description, j.category, j.reference, j.metadata, j.value_date, j.booked_at, h.status AS hold_status,
        h.expires_at, taken.captures, taken.epoch AS capture_epoch, taken.sequence AS capture,
        EXISTS (SELECT FROM journals r
            WHERE r.kind = 'reversal' AND r.refers_to = coalesce(taken.sequence, j.sequence)) AS is_reversed
    FROM journals j
    LEFT JOIN holds h ON h.id = j.sequence
    CROSS JOIN LATERAL (SELECT count(*) AS captures, min(epoch) AS epoch, min(sequence) AS sequence
        FROM journals WHERE kind = 'hold_captured' AND refers_to = h.id) AS taken
    JOIN accounts source
        ON source.id = coalesce(h.account_id, (SELECT account_id FROM entries WHERE sequence = j.sequence AND leg = 0))
    JOIN accounts destination ON destination.id = CASE
        WHEN h.id IS NOT NULL THEN h.destination_id
        ELSE (SELECT account_id FROM entries WHERE sequence = j.sequence AND leg = 1) END
    WHERE j.sequence = $2 AND j.epoch = $3 AND j.kind IN ('transfer', 'hold_placed')
      AND ($1::uuid IS NULL OR $1 IN (source.owner_id, destination.owner_id))";

/// A transfer from or to an account in scope.
pub async fn transfer(
    pool: &PgPool,
    scope: impl Into<Scope>,
    id: TransferId,
) -> Result<Option<TransferState>, sqlx::Error> {
    let row: Option<StateRow> = sqlx::query_as(TRANSFER)
        .bind(scope.into().owner())
        .bind(i64::from(id.sequence))
        .bind(id.epoch.cast_signed())
        .fetch_optional(pool)
        .await?;
    row.map(|row| row.known(id)).transpose()
}

impl StateRow {
    fn known(self, id: TransferId) -> Result<TransferState, sqlx::Error> {
        let booked = if self.is_reversed { MovementStatus::Reversed } else { MovementStatus::Completed };
        let status = match self.hold_status {
            None | Some(HoldStatus::Captured) => booked,
            Some(HoldStatus::Held) => MovementStatus::Pending,
            Some(HoldStatus::Voided | HoldStatus::Expired) => MovementStatus::Canceled,
        };
        let captured = self.capture_epoch.zip(self.capture).filter(|_| self.captures == 1);
        let captured = captured.map(|(epoch, capture)| {
            Ok::<_, sqlx::Error>(JournalId { epoch: epoch.cast_unsigned(), sequence: sequence(capture)? })
        });
        let hold = self.hold_status.map(|_| HoldId::from(id));
        Ok(TransferState {
            transfer: self.transfer.known(status)?,
            hold,
            expires_at: self.expires_at,
            booked_by: if hold.is_some() { captured.transpose()? } else { Some(id.into()) },
        })
    }
}
