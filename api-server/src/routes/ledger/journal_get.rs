//! `GET /api/v1/journals/{id}`

use axum::Json;
use finaiflow_ledger::id::JournalId;
use finaiflow_ledger::query;

use crate::extract::{Caller, PathId};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::ledger::journal::JournalView;
use crate::store::StoreError;
use crate::tenant::Role;

problems!(ANY, TENANT, CALLER, &[Code::Forbidden, Code::NotFound]);

/// Read a journal
///
/// Of any kind: every deposit, transfer, hold and change of an account is one. A transaction, transfer, hold or account
/// is named by its journal: its id with the prefix `jrn_` (a transaction's without the last two characters). For staff.
#[utoipa::path(
    get, path = "/api/v1/journals/{id}", tag = "ledger", operation_id = "get_journal", security(("bearer" = [])),
    params(TenantHeader, ("id" = values::JournalId, Path, description = "Id of a journal")),
    responses((status = 200, description = "The journal", body = JournalView), Problems)
)]
pub(crate) async fn get(caller: Caller, PathId(id): PathId<JournalId>) -> Result<Json<JournalView>, Problem> {
    caller.require(Role::Auditor)?;
    let journal = query::journal(&caller.tenant.pool, id).await.map_err(StoreError::from)?;
    journal.map(|journal| Json(journal.into())).ok_or_else(|| Code::NotFound.into())
}
