//! `GET /api/v1/accounts/{id}/transactions`

use axum::Json;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::query;

use crate::extract::{Caller, Page, PathId, Query};
use crate::openapi::{ANY, CALLER, PageParams, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::list::List;
use crate::routes::transactions::filter::TransactionParams;
use crate::routes::transactions::transaction::TransactionView;
use crate::store::StoreError;

problems!(ANY, TENANT, CALLER, &[Code::NotFound, Code::ValidationFailed]);

/// List movements
///
/// The newest first.
#[utoipa::path(
    get, path = "/api/v1/accounts/{id}/transactions", tag = "accounts", operation_id = "list_transactions",
    security(("bearer" = [])),
    params(
        TenantHeader, PageParams, TransactionParams,
        ("id" = values::AccountId, Path, description = "Id of an own account"),
    ),
    responses((status = 200, description = "The movements", body = List<TransactionView>), Problems)
)]
pub(crate) async fn transactions(
    caller: Caller,
    PathId(id): PathId<AccountId>,
    Query((page, filter)): Query<(Page, TransactionParams)>,
) -> Result<Json<List<TransactionView>>, Problem> {
    let (pool, filter) = (&caller.tenant.pool, filter.into());
    let found = query::transactions(pool, caller.scope(), id, &filter, page.cursor, page.limit).await;
    found.map_err(StoreError::from)?.map(|page| Json(page.into())).ok_or_else(|| Code::NotFound.into())
}
