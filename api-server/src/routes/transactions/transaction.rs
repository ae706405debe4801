//! A movement of an account: the request that books one, and how it is shown.

use finaiflow_ledger::command::{MovementStatus, Transaction, TransactionType};
use finaiflow_ledger::id::{AccountId, TransactionId, TransferId};
use finaiflow_ledger::money::{Amount, Currency};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::extract::Validate;
use crate::extract::json::amount;
use crate::openapi::values;
use crate::problem::FieldError;
use crate::routes::memo::{MemoView, with_memo};

with_memo! {
    /// Money that enters or leaves the bank.
    pub struct NewTransaction {
        /// Minor units.
        #[serde(deserialize_with = "amount")]
        #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 10000)]
        pub(crate) amount: Amount,
        /// Must be the account's.
        #[schema(value_type = values::Currency)]
        pub(crate) currency: Currency,
    }
}

impl Validate for NewTransaction {
    fn faults(&self) -> Vec<FieldError> {
        self.memo_faults()
    }
}

/// A movement as one account sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transaction)]
pub struct TransactionView {
    /// Opaque id.
    #[schema(value_type = values::TransactionId)]
    id: TransactionId,
    /// The account.
    #[schema(value_type = values::AccountId)]
    account_id: AccountId,
    /// What it is from the account's point of view.
    #[serde(rename = "type")]
    #[schema(value_type = values::TransactionType)]
    transaction_type: TransactionType,
    /// Minor units: positive when the account gained.
    #[schema(example = 10000)]
    amount: i64,
    /// The account's.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// Booked balance right after it, in minor units.
    #[schema(example = 10000)]
    balance_after: i64,
    /// The caller's own words.
    #[serde(flatten)]
    memo: MemoView,
    /// How far it has come.
    #[schema(value_type = values::MovementStatus)]
    status: MovementStatus,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// The transfer it is a side of, if it is.
    #[schema(value_type = Option<values::TransferId>, required = true)]
    transfer_id: Option<TransferId>,
}

impl From<Transaction> for TransactionView {
    fn from(transaction: Transaction) -> Self {
        Self {
            id: transaction.id,
            account_id: transaction.account_id,
            transaction_type: transaction.transaction_type,
            amount: transaction.amount,
            currency: transaction.currency,
            balance_after: transaction.balance_after,
            memo: MemoView::new(transaction.memo, transaction.created_at),
            status: transaction.status,
            created_at: transaction.created_at,
            transfer_id: transaction.transfer_id,
        }
    }
}
