//! `GET /api/v1/transactions`

use axum::Json;
use finaiflow_ledger::query;

use crate::extract::{Caller, Page, Query};
use crate::openapi::{ANY, CALLER, PageParams, TENANT, TenantHeader, problems};
use crate::problem::{Code, Problem};
use crate::routes::list::List;
use crate::routes::transactions::filter::TransactionParams;
use crate::routes::transactions::transaction::TransactionView;
use crate::store::StoreError;

problems!(ANY, TENANT, CALLER, &[Code::ValidationFailed]);

/// List movements of all own accounts
///
/// The newest first. A transfer between two of them is seen from both sides.
#[utoipa::path(
    get, path = "/api/v1/transactions", tag = "transactions", operation_id = "list_all_transactions",
    security(("bearer" = [])),
    params(TenantHeader, PageParams, TransactionParams),
    responses((status = 200, description = "The movements", body = List<TransactionView>), Problems)
)]
pub(crate) async fn list(
    caller: Caller,
    Query((page, filter)): Query<(Page, TransactionParams)>,
) -> Result<Json<List<TransactionView>>, Problem> {
    let (pool, owner, filter) = (&caller.tenant.pool, caller.subject.user_id, filter.into());
    let found = query::own_transactions(pool, owner, &filter, page.cursor, page.limit).await;
    Ok(Json(found.map_err(StoreError::from)?.into()))
}
