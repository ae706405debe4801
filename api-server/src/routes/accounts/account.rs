//! An account in answers.

use finaiflow_ledger::command::{Account, AccountStatus, AccountType};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Currency;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::openapi::values;

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// Opaque id.
    #[schema(value_type = values::AccountId)]
    id: AccountId,
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
    #[schema(example = 10000)]
    available: i64,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            id: account.id,
            account_type: account.account_type,
            currency: account.currency,
            name: account.name,
            status: account.status,
            balance: account.balance,
            available: account.available,
            created_at: account.created_at,
        }
    }
}
