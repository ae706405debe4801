//! `PATCH /api/v1/accounts/{id}`

use axum::Json;
use finaiflow_ledger::command::{AccountChange, Metadata};
use finaiflow_ledger::id::AccountId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::accounts::account::{self, AccountView};
use crate::routes::accounts::open::name_faults;
use crate::routes::movement::metadata_faults;

/// What an account is to be called; what is not given stays as it is.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountUpdate {
    /// The owner's name for it.
    #[schema(value_type = Option<values::AccountName>)]
    name: Option<String>,
    /// All of the owner's names and values: what is not among them goes.
    #[schema(value_type = Option<values::Metadata>)]
    metadata: Option<Metadata>,
}

impl Validate for AccountUpdate {
    fn faults(&self) -> Vec<FieldError> {
        let name = self.name.as_deref().map(name_faults).unwrap_or_default();
        name.into_iter().chain(self.metadata.as_ref().map(metadata_faults).unwrap_or_default()).collect()
    }
}

problems!(ANY, TENANT, CALLER, BODY, KEYED, &[Code::NotFound, Code::StatusConflict]);

/// Rename an account
///
/// Or change the owner's own data of it. A closed account stays as it is.
#[utoipa::path(
    patch, path = "/api/v1/accounts/{id}", tag = "accounts", operation_id = "change_account",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::AccountId, Path, description = "Id of an own account")),
    request_body = AccountUpdate,
    responses((status = 200, description = "The account as it is now", body = AccountView), Problems)
)]
pub(crate) async fn change(
    caller: Caller,
    PathId(account): PathId<AccountId>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<AccountUpdate>,
) -> Result<Json<AccountView>, Problem> {
    let name = request.name.as_deref().map(|name| name.trim().to_owned());
    let change = AccountChange::Describe { name, metadata: request.metadata.clone() };
    account::change(&caller, key, ("PATCH", account, ""), &request, change).await
}
