//! `POST /api/v1/transfers`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, Memo, MovementStatus, NewTransfer as Asked, Outcome, Transfer};
use finaiflow_ledger::id::{AccountId, TransferId};
use finaiflow_ledger::money::{Amount, Currency};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::extract::json::amount;
use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::movement::{self, memo_faults};

/// A movement between two accounts.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// An own account.
    #[schema(value_type = values::AccountId)]
    from_account_id: String,
    /// Any account of the tenant.
    #[schema(value_type = values::AccountId)]
    to_account_id: String,
    /// Minor units.
    #[serde(deserialize_with = "amount")]
    #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 2500)]
    amount: Amount,
    /// Must be the currency of both accounts.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// For the statement.
    #[schema(value_type = Option<values::Description>)]
    description: Option<String>,
    /// For budgets and reports.
    #[schema(value_type = Option<values::Category>)]
    category: Option<String>,
    /// The caller's own number.
    #[schema(value_type = Option<values::Reference>)]
    reference: Option<String>,
}

impl NewTransfer {
    fn memo(&self) -> Memo {
        Memo {
            description: self.description.clone(),
            category: self.category.clone(),
            reference: self.reference.clone(),
            ..Memo::default()
        }
    }
}

impl Validate for NewTransfer {
    fn faults(&self) -> Vec<FieldError> {
        memo_faults(&self.memo())
    }
}

/// A booked transfer.
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
    /// Minor units.
    #[schema(value_type = i64, example = 2500)]
    amount: Amount,
    /// Of both accounts.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// As given.
    #[schema(value_type = Option<values::Description>, required = true)]
    description: Option<String>,
    /// As given.
    #[schema(value_type = Option<values::Category>, required = true)]
    category: Option<String>,
    /// As given.
    #[schema(value_type = Option<values::Reference>, required = true)]
    reference: Option<String>,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<Transfer> for TransferView {
    fn from(transfer: Transfer) -> Self {
        Self {
            id: transfer.id,
            status: transfer.status,
            from_account_id: transfer.from_account_id,
            to_account_id: transfer.to_account_id,
            amount: transfer.amount,
            currency: transfer.currency,
            description: transfer.memo.description,
            category: transfer.memo.category,
            reference: transfer.memo.reference,
            created_at: transfer.created_at,
        }
    }
}

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::NotFound, Code::InsufficientFunds, Code::CurrencyMismatch, Code::SameAccount, Code::LimitExceeded],
    &[Code::AccountNotActive],
);

/// Transfer money
///
/// From an own account to any account of the tenant, at once and for good.
#[utoipa::path(
    post, path = "/api/v1/transfers", tag = "transfers", operation_id = "transfer", security(("bearer" = [])),
    params(TenantHeader, KeyHeader), request_body = NewTransfer,
    responses(
        (status = 201, description = "The money has moved", body = TransferView, links(
            ("balance" = (operation_id = "get_balance", parameters(("id" = "$response.body#/from_account_id"))))
        )),
        Problems
    )
)]
pub(crate) async fn transfer(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<NewTransfer>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let account = |text: &str| text.parse::<AccountId>().map_err(|_| Problem::from(Code::NotFound));
    let kind = CommandKind::Transfer(Asked {
        from: account(&request.from_account_id)?,
        to: account(&request.to_account_id)?,
        amount: request.amount,
        currency: request.currency,
        memo: request.memo(),
    });
    match movement::submit(&caller, key, "/api/v1/transfers", &request, kind).await? {
        Outcome::Transfer(transfer) => Ok((StatusCode::CREATED, Json(transfer.into()))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
