//! `POST /api/v1/accounts/{id}/close`

use axum::Json;
use finaiflow_ledger::command::AccountChange;
use finaiflow_ledger::id::AccountId;

use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::accounts::account::{self, AccountView};
use crate::routes::accounts::reason::Reason;

problems!(ANY, TENANT, CALLER, BODY, KEYED, &[Code::NotFound, Code::StatusConflict, Code::AccountNotEmpty]);

/// Close an account
///
/// For good; it must be empty. A frozen account is closed by tellers only.
#[utoipa::path(
    post, path = "/api/v1/accounts/{id}/close", tag = "accounts", operation_id = "close_account",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::AccountId, Path, description = "Id of an account")),
    request_body = Option<Reason>,
    responses((status = 200, description = "The account as it is now", body = AccountView), Problems)
)]
pub(crate) async fn close(
    caller: Caller,
    PathId(account): PathId<AccountId>,
    key: IdempotencyKey,
    body: Option<JsonBody<Reason>>,
) -> Result<Json<AccountView>, Problem> {
    let request = body.map_or_else(Reason::default, |JsonBody(reason)| reason);
    let change = AccountChange::Close { reason: request.reason.clone() };
    account::change(&caller, key, ("POST", account, "/close"), &request, change).await
}
