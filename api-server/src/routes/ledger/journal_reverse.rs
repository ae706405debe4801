//! `POST /api/v1/journals/{id}/reverse`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::JournalId;

use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::ledger::journal::JournalView;
use crate::routes::ledger::reversal::Reversal;
use crate::routes::movement;
use crate::tenant::Role;

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::Forbidden, Code::NotFound, Code::NotReversible, Code::AlreadyReversed, Code::InsufficientFunds],
    &[Code::AccountNotActive, Code::LimitExceeded],
);

/// Reverse a journal
///
/// Books it again with all signs changed, once. For tellers.
#[utoipa::path(
    post, path = "/api/v1/journals/{id}/reverse", tag = "ledger", operation_id = "reverse_journal",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::JournalId, Path, description = "Id of a journal that moved money")),
    request_body = Option<Reversal>,
    responses((status = 201, description = "The journal that undoes it", body = JournalView), Problems)
)]
pub(crate) async fn reverse(
    caller: Caller,
    PathId(journal): PathId<JournalId>,
    key: IdempotencyKey,
    body: Option<JsonBody<Reversal>>,
) -> Result<(StatusCode, Json<JournalView>), Problem> {
    caller.require(Role::Teller)?;
    let mut request = body.map_or_else(Reversal::default, |JsonBody(reversal)| reversal);
    let path = format!("/api/v1/journals/{journal}/reverse");
    let fingerprint = movement::identify(&caller, ("POST", &path), &request)?;
    let kind = CommandKind::Reverse { journal, memo: request.take_memo() };
    match movement::carry_out(&caller, key, fingerprint, kind).await? {
        Outcome::Journal(record) => Ok((StatusCode::CREATED, Json(JournalView::of(caller.subject.user_id, record)))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
