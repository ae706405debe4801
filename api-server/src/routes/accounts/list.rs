//! `GET /api/v1/accounts`

use axum::Json;
use finaiflow_ledger::query;

use uuid::Uuid;

use crate::domain::id;
use crate::extract::{Caller, Filter, Page, Params, Query};
use crate::openapi::{ANY, CALLER, PageParams, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::accounts::account::AccountView;
use crate::routes::list::List;
use crate::store::StoreError;
use crate::tenant::Role;

/// Whose accounts.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OwnerParams {
    /// For staff: the accounts of this user instead of the own ones.
    #[param(value_type = values::UserId, required = false)]
    owner: Option<Uuid>,
}

impl Filter for OwnerParams {
    fn read(params: &mut Params) -> Self {
        let user = |text: &str| id::decode(id::USER, text).ok_or("must be the id of a user");
        Self { owner: params.take("owner", user) }
    }
}

problems!(ANY, TENANT, CALLER, &[Code::Forbidden, Code::ValidationFailed]);

/// List accounts
///
/// The oldest first.
#[utoipa::path(
    get, path = "/api/v1/accounts", tag = "accounts", operation_id = "list_accounts", security(("bearer" = [])),
    params(TenantHeader, PageParams, OwnerParams),
    responses(
        (status = 200, description = "The accounts", body = List<AccountView>, links(
            ("account" = (operation_id = "get_account", parameters(("id" = "$response.body#/data/0/id"))))
        )),
        Problems
    )
)]
pub(crate) async fn list(
    caller: Caller,
    Query((page, OwnerParams { owner })): Query<(Page, OwnerParams)>,
) -> Result<Json<List<AccountView>>, Problem> {
    let own = caller.subject.user_id;
    let owner = owner.unwrap_or(own);
    if owner != own {
        caller.require(Role::Auditor)?;
    }
    let accounts = query::accounts(&caller.tenant.pool, owner, page.cursor, page.limit).await;
    Ok(Json(accounts.map_err(StoreError::from)?.into()))
}
