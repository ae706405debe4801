//! `GET /api/v1/transfers/{id}`

use axum::Json;
use finaiflow_ledger::id::TransferId;

use crate::extract::{Caller, PathId};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::transfers::transfer::TransferView;

problems!(ANY, TENANT, CALLER, &[Code::NotFound]);

/// Read a transfer
///
/// For those whose accounts it names.
#[utoipa::path(
    get, path = "/api/v1/transfers/{id}", tag = "transfers", operation_id = "get_transfer", security(("bearer" = [])),
    params(TenantHeader, ("id" = values::TransferId, Path, description = "Id of a transfer")),
    responses((status = 200, description = "The transfer", body = TransferView), Problems)
)]
pub(crate) async fn get(caller: Caller, PathId(id): PathId<TransferId>) -> Result<Json<TransferView>, Problem> {
    super::known(&caller, id).await.map(|state| Json(state.into()))
}
