//! `GET /api/v1/accounts/{id}/holds`

use axum::Json;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::query;

use crate::extract::{Caller, Page, PathId, Query};
use crate::openapi::{ANY, CALLER, PageParams, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::holds::hold::HoldView;
use crate::routes::list::List;
use crate::store::StoreError;

problems!(ANY, TENANT, CALLER, &[Code::NotFound, Code::ValidationFailed]);

/// List holds
///
/// The newest first; those that are settled too.
#[utoipa::path(
    get, path = "/api/v1/accounts/{id}/holds", tag = "accounts", operation_id = "list_holds",
    security(("bearer" = [])),
    params(TenantHeader, PageParams, ("id" = values::AccountId, Path, description = "Id of an own account")),
    responses((status = 200, description = "The holds", body = List<HoldView>), Problems)
)]
pub(crate) async fn holds(
    caller: Caller,
    PathId(id): PathId<AccountId>,
    Query(page): Query<Page>,
) -> Result<Json<List<HoldView>>, Problem> {
    let found = query::holds(&caller.tenant.pool, caller.scope(), id, page.cursor, page.limit).await;
    found.map_err(StoreError::from)?.map(|page| Json(page.into())).ok_or_else(|| Code::NotFound.into())
}
