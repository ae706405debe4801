//! `POST /api/v1/auth/logout`

use axum::extract::State;
use axum::http::StatusCode;

use crate::app::AppState;
use crate::extract::Caller;
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems};
use crate::problem::Problem;
use crate::store::sessions;

problems!(ANY, TENANT, CALLER);

/// Log out
///
/// Ends the session of the access token; its tokens are refused from now on, on every replica within a second.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", tag = "auth", operation_id = "logout", security(("bearer" = [])),
    params(TenantHeader), responses((status = 204, description = "The session has ended"), Problems)
)]
pub(crate) async fn logout(State(state): State<AppState>, caller: Caller) -> Result<StatusCode, Problem> {
    sessions::log_out(&caller.tenant.pool, caller.subject, state.now(), &caller.origin).await?;
    state.access().forget(&caller.tenant.claim_id.to_string(), caller.subject.session_id).await;
    Ok(StatusCode::NO_CONTENT)
}
