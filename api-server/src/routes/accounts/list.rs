//! `GET /api/v1/accounts`

use axum::Json;
use finaiflow_ledger::query;

use crate::extract::{Caller, Page};
use crate::openapi::{ANY, CALLER, PageParams, TENANT, TenantHeader, problems};
use crate::problem::{Code, Problem};
use crate::routes::accounts::account::AccountView;
use crate::routes::list::List;
use crate::store::StoreError;

problems!(ANY, TENANT, CALLER, &[Code::ValidationFailed]);

/// List accounts
///
/// The oldest first.
#[utoipa::path(
    get, path = "/api/v1/accounts", tag = "accounts", operation_id = "list_accounts", security(("bearer" = [])),
    params(TenantHeader, PageParams),
    responses(
        (status = 200, description = "The accounts", body = List<AccountView>, links(
            ("account" = (operation_id = "get_account", parameters(("id" = "$response.body#/data/0/id"))))
        )),
        Problems
    )
)]
pub(crate) async fn list(caller: Caller, page: Page) -> Result<Json<List<AccountView>>, Problem> {
    let pool = &caller.tenant.pool;
    let accounts = query::accounts(pool, caller.subject.user_id, page.cursor, page.limit).await;
    Ok(Json(accounts.map_err(StoreError::from)?.into()))
}
