//! `POST /api/v1/transfers/{id}/cancel`

use axum::Json;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::TransferId;

use crate::extract::{Caller, IdempotencyKey, PathId};
use crate::openapi::{ANY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::movement;
use crate::routes::transfers::transfer::TransferView;

problems!(ANY, TENANT, CALLER, KEYED, &[Code::Forbidden, Code::NotFound, Code::StatusConflict, Code::HoldSettled]);

/// Cancel a pending transfer
///
/// The money that was set aside is free again. By the owner of the account it would have come from.
#[utoipa::path(
    post, path = "/api/v1/transfers/{id}/cancel", tag = "transfers", operation_id = "cancel_transfer",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::TransferId, Path, description = "Id of a pending transfer")),
    responses((status = 200, description = "The transfer is given up", body = TransferView), Problems)
)]
pub(crate) async fn cancel(
    caller: Caller,
    PathId(id): PathId<TransferId>,
    key: IdempotencyKey,
) -> Result<Json<TransferView>, Problem> {
    let hold = super::pending(&super::known(&caller, id).await?)?;
    let path = format!("/api/v1/transfers/{id}/cancel");
    match movement::submit(&caller, key, ("POST", &path), &(), CommandKind::VoidHold { hold })
        .await
        .map_err(super::seen)?
    {
        Outcome::Hold(hold) => TransferView::of_hold(hold).map(Json).ok_or_else(|| Code::NotFound.into()),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
