//! `POST /api/v1/holds/{id}/void`

use axum::Json;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::HoldId;

use crate::extract::{Caller, IdempotencyKey, PathId};
use crate::openapi::{ANY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::holds::hold::HoldView;
use crate::routes::movement;

problems!(ANY, TENANT, CALLER, KEYED, &[Code::Forbidden, Code::NotFound, Code::HoldSettled]);

/// Void a hold
///
/// What is left of it is available again. For tellers; a pending transfer also for the owner of the account.
#[utoipa::path(
    post, path = "/api/v1/holds/{id}/void", tag = "holds", operation_id = "void_hold", security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::HoldId, Path, description = "Id of a hold")),
    responses((status = 200, description = "The hold as it is now", body = HoldView), Problems)
)]
pub(crate) async fn void(
    caller: Caller,
    PathId(id): PathId<HoldId>,
    key: IdempotencyKey,
) -> Result<Json<HoldView>, Problem> {
    super::known(&caller, id).await?;
    let (path, kind) = (format!("/api/v1/holds/{id}/void"), CommandKind::VoidHold { hold: id });
    match movement::submit(&caller, key, ("POST", &path), &(), kind).await.map_err(super::seen)? {
        Outcome::Hold(hold) => Ok(Json(hold.into())),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
