//! `POST /api/v1/transfers/{id}/complete`

use axum::Json;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::TransferId;
use finaiflow_ledger::money::Amount;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::json::optional_amount;
use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::movement;
use crate::routes::transfers::transfer::TransferView;

/// How much of a pending transfer moves.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// Minor units; all of it if not given. The rest is released.
    #[serde(default, deserialize_with = "optional_amount")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 2000)]
    amount: Option<Amount>,
}

impl Validate for Completion {
    fn faults(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::Forbidden, Code::NotFound, Code::StatusConflict, Code::HoldSettled, Code::HoldExpired, Code::ExceedsHold],
    &[Code::AccountNotActive, Code::LimitExceeded],
);

/// Complete a pending transfer
///
/// The money that was set aside moves. By the owner of the account it comes from.
#[utoipa::path(
    post, path = "/api/v1/transfers/{id}/complete", tag = "transfers", operation_id = "complete_transfer",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::TransferId, Path, description = "Id of a pending transfer")),
    request_body = Option<Completion>,
    responses((status = 200, description = "The money has moved", body = TransferView), Problems)
)]
pub(crate) async fn complete(
    caller: Caller,
    PathId(id): PathId<TransferId>,
    key: IdempotencyKey,
    body: Option<JsonBody<Completion>>,
) -> Result<Json<TransferView>, Problem> {
    let request = body.map_or_else(Completion::default, |JsonBody(completion)| completion);
    let state = super::known(&caller, id).await?;
    // The statements of both sides tell what the transfer was asked for with.
    let (hold, memo) = (super::pending(&state)?, state.transfer.memo);
    let kind = CommandKind::CaptureHold { hold, amount: request.amount, keep_rest: false, memo };
    let path = format!("/api/v1/transfers/{id}/complete");
    match movement::submit(&caller, key, ("POST", &path), &request, kind).await.map_err(super::seen)? {
        Outcome::Hold(hold) => TransferView::of_hold(hold).map(Json).ok_or_else(|| Code::NotFound.into()),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
