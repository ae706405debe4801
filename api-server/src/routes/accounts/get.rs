//! `GET /api/v1/accounts/{id}`

use axum::Json;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::query;

use crate::extract::{Caller, PathId};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::accounts::account::AccountView;
use crate::store::StoreError;

problems!(ANY, TENANT, CALLER, &[Code::NotFound]);

/// Read an account
#[utoipa::path(
    get, path = "/api/v1/accounts/{id}", tag = "accounts", operation_id = "get_account", security(("bearer" = [])),
    params(TenantHeader, ("id" = values::AccountId, Path, description = "Id of an own account")),
    responses((status = 200, description = "The account", body = AccountView), Problems)
)]
pub(crate) async fn get(caller: Caller, PathId(id): PathId<AccountId>) -> Result<Json<AccountView>, Problem> {
    let account = query::account(&caller.tenant.pool, caller.scope(), id).await.map_err(StoreError::from)?;
    account.map(|account| Json(account.into())).ok_or_else(|| Code::NotFound.into())
}
