//! An account in answers, and what changes one.

use axum::Json;
use finaiflow_ledger::command::{
    Account, AccountChange, AccountStatus, AccountType, CommandKind, Limits, Metadata, Outcome,
};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Currency;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::id;
use crate::extract::{Caller, IdempotencyKey};
use crate::openapi::values;
use crate::problem::Problem;
use crate::routes::movement;

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// Opaque id.
    #[schema(value_type = values::AccountId)]
    id: AccountId,
    /// The user whose money it holds.
    #[schema(value_type = values::UserId)]
    owner_id: String,
    /// What it is for.
    #[serde(rename = "type")]
    #[schema(value_type = values::AccountType)]
    account_type: AccountType,
    /// The only currency it holds.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// The owner's name for it.
    #[schema(value_type = values::AccountName)]
    name: String,
    /// Whether it takes part in movements.
    #[schema(value_type = values::AccountStatus)]
    status: AccountStatus,
    /// Booked balance in minor units.
    #[schema(example = 10000)]
    balance: i64,
    /// Booked balance without what is held, in minor units.
    #[schema(example = 9000)]
    available: i64,
    /// What is held, in minor units.
    #[schema(example = 1000)]
    held: i64,
    /// What it may do.
    limits: LimitsView,
    /// The owner's own names and values.
    #[schema(value_type = values::Metadata)]
    metadata: Metadata,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// What an account may do, in minor units of its currency. A cap that is `null` is none.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountLimits)]
pub struct LimitsView {
    /// What is available never falls below it by a movement; below zero it is an overdraft.
    #[schema(example = 0)]
    minimum_balance: i64,
    /// The most one withdrawal, transfer or hold takes.
    #[schema(required = true, example = 500_000)]
    per_transaction: Option<i64>,
    /// The most they take together on one UTC day.
    #[schema(required = true, example = 1_000_000)]
    daily: Option<i64>,
    /// The most they take together in one UTC month.
    #[schema(required = true)]
    monthly: Option<i64>,
}

impl From<Limits> for LimitsView {
    fn from(Limits { minimum_balance, per_transaction, daily, monthly }: Limits) -> Self {
        Self { minimum_balance, per_transaction, daily, monthly }
    }
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            owner_id: id::encode(id::USER, account.owner),
            account_type: account.account_type,
            currency: account.currency,
            name: account.name,
            status: account.status,
            balance: account.balance,
            available: account.available,
            held: account.balance.saturating_sub(account.available),
            limits: account.limits.into(),
            metadata: account.metadata,
            created_at: account.created_at,
        }
    }
}

/// Has an account changed; `action` is the last segment of the path, empty for the account itself.
pub(crate) async fn change(
    caller: &Caller,
    key: IdempotencyKey,
    (method, account, action): (&str, AccountId, &str),
    body: &impl Serialize,
    change: AccountChange,
) -> Result<Json<AccountView>, Problem> {
    let path = format!("/api/v1/accounts/{account}{action}");
    let kind = CommandKind::ChangeAccount { account, change };
    match movement::submit(caller, key, (method, &path), body, kind).await? {
        Outcome::AccountChanged(account) => Ok(Json(account.into())),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
