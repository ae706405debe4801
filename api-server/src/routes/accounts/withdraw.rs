//! `POST /api/v1/accounts/{id}/withdraw`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::AccountId;

use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::movement;
use crate::routes::transactions::transaction::{NewTransaction, TransactionView};

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::NotFound, Code::InsufficientFunds, Code::CurrencyMismatch, Code::LimitExceeded, Code::AccountNotActive],
);

/// Withdraw money
///
/// From an own account, as far as its available balance goes.
#[utoipa::path(
    post, path = "/api/v1/accounts/{id}/withdraw", tag = "accounts", operation_id = "withdraw",
    security(("bearer" = [])),
    params(
        TenantHeader, KeyHeader,
        ("id" = values::AccountId, Path, description = "Id of an own account"),
    ),
    request_body = NewTransaction,
    responses(
        (status = 201, description = "The money is booked", body = TransactionView, links(
            ("balance" = (operation_id = "get_balance", parameters(("id" = "$response.body#/account_id")))),
            ("transactions" = (operation_id = "list_transactions", parameters(("id" = "$response.body#/account_id"))))
        )),
        Problems
    )
)]
pub(crate) async fn withdraw(
    caller: Caller,
    PathId(account): PathId<AccountId>,
    key: IdempotencyKey,
    JsonBody(mut request): JsonBody<NewTransaction>,
) -> Result<(StatusCode, Json<TransactionView>), Problem> {
    let path = format!("/api/v1/accounts/{account}/withdraw");
    let fingerprint = movement::identify(&caller, ("POST", &path), &request)?;
    let (amount, currency, memo) = (request.amount, request.currency, request.take_memo());
    let kind = CommandKind::Withdraw { account, amount, currency, memo };
    match movement::carry_out(&caller, key, fingerprint, kind).await? {
        Outcome::Transaction(transaction) => Ok((StatusCode::CREATED, Json(transaction.into()))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
