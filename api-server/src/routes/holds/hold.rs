//! A hold in answers.

use finaiflow_ledger::command::{Hold, HoldStatus};
use finaiflow_ledger::id::{AccountId, HoldId};
use finaiflow_ledger::money::Currency;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::openapi::values;
use crate::routes::memo::MemoView;

/// Money set aside. Amounts are minor units of `currency`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hold)]
pub struct HoldView {
    /// Opaque id.
    #[schema(value_type = values::HoldId)]
    id: HoldId,
    /// The account.
    #[schema(value_type = values::AccountId)]
    account_id: AccountId,
    /// Where captured money goes if it is a pending transfer; else it leaves the bank.
    #[schema(value_type = Option<values::AccountId>, required = true)]
    destination_id: Option<AccountId>,
    /// How far it has come.
    #[schema(value_type = values::HoldStatus)]
    status: HoldStatus,
    /// What was set aside at first.
    #[schema(example = 1000)]
    amount: i64,
    /// What is still set aside.
    #[schema(example = 1000)]
    remaining: i64,
    /// What was taken.
    #[schema(example = 0)]
    captured: i64,
    /// The account's.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// The caller's own words.
    #[serde(flatten)]
    memo: MemoView,
    /// When it was placed.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When what is left of it is released; `null`: never by itself.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required = true)]
    expires_at: Option<OffsetDateTime>,
}

impl From<Hold> for HoldView {
    fn from(hold: Hold) -> Self {
        Self {
            id: hold.id,
            account_id: hold.account_id,
            destination_id: hold.destination_id,
            status: hold.status,
            amount: hold.amount,
            remaining: hold.remaining,
            captured: hold.captured,
            currency: hold.currency,
            memo: MemoView::new(hold.memo, hold.created_at),
            created_at: hold.created_at,
            expires_at: hold.expires_at,
        }
    }
}
