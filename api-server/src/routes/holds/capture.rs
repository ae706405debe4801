//! `POST /api/v1/holds/{id}/capture`

use axum::Json;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::HoldId;
use finaiflow_ledger::money::Amount;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::json::optional_amount;
use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::holds::hold::HoldView;
use crate::routes::movement;

/// How much of a hold is taken.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Capture {
    /// Minor units; all that is left of it if not given.
    #[serde(default, deserialize_with = "optional_amount")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 700)]
    amount: Option<Amount>,
    /// Whether what is left after it stays set aside; else it is released.
    #[serde(default)]
    #[schema(required = false, default = false)]
    keep_rest: bool,
}

impl Validate for Capture {
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
    &[Code::Forbidden, Code::NotFound, Code::HoldSettled, Code::HoldExpired, Code::ExceedsHold],
    &[Code::AccountNotActive, Code::LimitExceeded],
);

/// Capture a hold
///
/// The money moves: to the destination of a pending transfer, else out of the bank. For tellers; that of a pending
/// transfer also for the owner of the account.
#[utoipa::path(
    post, path = "/api/v1/holds/{id}/capture", tag = "holds", operation_id = "capture_hold",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::HoldId, Path, description = "Id of a hold")),
    request_body = Option<Capture>,
    responses((status = 200, description = "The hold as it is now", body = HoldView), Problems)
)]
pub(crate) async fn capture(
    caller: Caller,
    PathId(id): PathId<HoldId>,
    key: IdempotencyKey,
    body: Option<JsonBody<Capture>>,
) -> Result<Json<HoldView>, Problem> {
    let request = body.map_or_else(Capture::default, |JsonBody(capture)| capture);
    // Statements tell what the hold was placed with.
    let memo = super::known(&caller, id).await?.memo;
    let kind = CommandKind::CaptureHold { hold: id, amount: request.amount, keep_rest: request.keep_rest, memo };
    let path = format!("/api/v1/holds/{id}/capture");
    match movement::submit(&caller, key, ("POST", &path), &request, kind).await.map_err(super::seen)? {
        Outcome::Hold(hold) => Ok(Json(hold.into())),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
