//! `GET /api/v1/holds/{id}`

use axum::Json;
use finaiflow_ledger::id::HoldId;

use crate::extract::{Caller, PathId};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::holds::hold::HoldView;

problems!(ANY, TENANT, CALLER, &[Code::NotFound]);

/// Read a hold
#[utoipa::path(
    get, path = "/api/v1/holds/{id}", tag = "holds", operation_id = "get_hold", security(("bearer" = [])),
    params(TenantHeader, ("id" = values::HoldId, Path, description = "Id of a hold on an own account")),
    responses((status = 200, description = "The hold", body = HoldView), Problems)
)]
pub(crate) async fn get(caller: Caller, PathId(id): PathId<HoldId>) -> Result<Json<HoldView>, Problem> {
    super::known(&caller, id).await.map(|hold| Json(hold.into()))
}
