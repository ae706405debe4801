//! `GET /api/v1/auth/profile`

use axum::Json;

use crate::extract::Caller;
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems};
use crate::problem::{Code, Problem};
use crate::routes::auth::user::UserView;
use crate::store::users;

problems!(ANY, TENANT, CALLER);

/// Read the signed-in user
#[utoipa::path(
    get, path = "/api/v1/auth/profile", tag = "auth", operation_id = "profile", security(("bearer" = [])),
    params(TenantHeader), responses((status = 200, description = "The user", body = UserView), Problems)
)]
pub(crate) async fn profile(caller: Caller) -> Result<Json<UserView>, Problem> {
    let user = users::find(&caller.tenant.pool, caller.subject.user_id).await?;
    user.map(|user| Json(user.into())).ok_or_else(|| Code::Unauthenticated.into())
}
