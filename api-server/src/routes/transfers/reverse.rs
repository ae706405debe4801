//! `POST /api/v1/transfers/{id}/reverse`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, MovementStatus, Outcome};
use finaiflow_ledger::id::TransferId;

use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::ledger::reversal::Reversal;
use crate::routes::movement;
use crate::routes::transfers::transfer::TransferView;

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::Forbidden, Code::NotFound, Code::NotReversible, Code::AlreadyReversed, Code::InsufficientFunds],
    &[Code::AccountNotActive, Code::LimitExceeded],
);

/// Give a transfer back
///
/// All of it, once; by the owner of the account that received it, or by tellers.
#[utoipa::path(
    post, path = "/api/v1/transfers/{id}/reverse", tag = "transfers", operation_id = "reverse_transfer",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::TransferId, Path, description = "Id of a completed transfer")),
    request_body = Option<Reversal>,
    responses((status = 201, description = "The money is back", body = TransferView), Problems)
)]
pub(crate) async fn reverse(
    caller: Caller,
    PathId(id): PathId<TransferId>,
    key: IdempotencyKey,
    body: Option<JsonBody<Reversal>>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let mut request = body.map_or_else(Reversal::default, |JsonBody(reversal)| reversal);
    let mut state = super::known(&caller, id).await?;
    let journal = state.booked_by.ok_or_else(|| {
        Problem::new(Code::NotReversible, "the transfer has not moved, or in parts that are to be reversed one by one")
    })?;
    let fingerprint = movement::identify(&caller, ("POST", &format!("/api/v1/transfers/{id}/reverse")), &request)?;
    let kind = CommandKind::Reverse { journal, memo: request.take_memo() };
    match movement::carry_out(&caller, key, fingerprint, kind).await.map_err(super::seen)? {
        Outcome::Journal(_) => {
            state.transfer.status = MovementStatus::Reversed;
            Ok((StatusCode::CREATED, Json(state.into())))
        }
        outcome => Err(movement::unexpected(&outcome)),
    }
}
