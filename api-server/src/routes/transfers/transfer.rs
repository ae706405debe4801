//! A transfer in answers.

use finaiflow_ledger::command::{Hold, HoldStatus, MovementStatus, Transfer};
use finaiflow_ledger::id::{AccountId, TransferId};
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::TransferState;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::openapi::values;
use crate::routes::memo::MemoView;

/// A transfer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transfer)]
pub struct TransferView {
    /// Opaque id.
    #[schema(value_type = values::TransferId)]
    id: TransferId,
    /// How far it has come.
    #[schema(value_type = values::MovementStatus)]
    status: MovementStatus,
    /// The account debited.
    #[schema(value_type = values::AccountId)]
    from_account_id: AccountId,
    /// The account credited.
    #[schema(value_type = values::AccountId)]
    to_account_id: AccountId,
    /// Minor units. Of one that was pending and is completed, what has moved.
    #[schema(example = 2500)]
    amount: i64,
    /// Of both accounts.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// The caller's own words.
    #[serde(flatten)]
    memo: MemoView,
    /// When it was booked or, if it was pending, asked for.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When a pending one is canceled by itself; `null`: it waits for ever.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required = true)]
    expires_at: Option<OffsetDateTime>,
}

impl TransferView {
    fn new(transfer: Transfer, expires_at: Option<OffsetDateTime>) -> Self {
        Self {
            id: transfer.id,
            status: transfer.status,
            from_account_id: transfer.from_account_id,
            to_account_id: transfer.to_account_id,
            amount: transfer.amount.minor_units(),
            currency: transfer.currency,
            memo: MemoView::new(transfer.memo, transfer.created_at),
            created_at: transfer.created_at,
            expires_at,
        }
    }

    /// The hold as the transfer that it is; none if it has no destination.
    pub(crate) fn of_hold(hold: Hold) -> Option<Self> {
        let (status, amount) = match hold.status {
            HoldStatus::Held => (MovementStatus::Pending, hold.amount),
            HoldStatus::Captured => (MovementStatus::Completed, hold.captured),
            HoldStatus::Voided | HoldStatus::Expired => (MovementStatus::Canceled, hold.amount),
        };
        Some(Self {
            id: hold.id.into(),
            status,
            from_account_id: hold.account_id,
            to_account_id: hold.destination_id?,
            amount,
            currency: hold.currency,
            memo: MemoView::new(hold.memo, hold.created_at),
            created_at: hold.created_at,
            expires_at: hold.expires_at,
        })
    }
}

impl From<Transfer> for TransferView {
    fn from(transfer: Transfer) -> Self {
        Self::new(transfer, None)
    }
}

impl From<TransferState> for TransferView {
    fn from(state: TransferState) -> Self {
        Self::new(state.transfer, state.expires_at)
    }
}
