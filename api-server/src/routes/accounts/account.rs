//! An account in answers.

use finaiflow_ledger::command::{Account, AccountStatus, AccountType};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Currency;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// Opaque id.
    #[schema(value_type = String, example = "acc_aaaaaaiaaaaaaaab")]
    id: AccountId,
    /// `checking`, `savings`, `business` or `investment`.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "checking")]
    account_type: AccountType,
    /// The only currency it holds, as ISO 4217 code.
    #[schema(value_type = String, example = "USD")]
    currency: Currency,
    /// The owner's name for it.
    #[schema(example = "Everyday")]
    name: String,
    /// `active`, `frozen` or `closed`.
    #[schema(value_type = String, example = "active")]
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
