//! `POST /api/v1/auth/refresh`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use time::Duration;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::domain::refresh::RefreshToken;
use crate::extract::{Context, CurrentTenant, JsonBody, Validate};
use crate::openapi::{ANY, BODY, TENANT, TenantHeader, problems};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::auth::tokens::Tokens;
use crate::store::sessions::{self, Refreshed};

/// A refresh token to exchange.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// From login or the refresh before.
    #[schema(format = Password, example = "frt_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    refresh_token: String,
}

impl Validate for Refresh {
    /// None: a text that cannot be a token is an unknown token.
    fn faults(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

problems!(ANY, TENANT, BODY, &[Code::Unauthenticated]);

/// Exchange a refresh token
///
/// Each token is for one exchange. Repeating the exchange within ten seconds (a lost answer, a second tab) gets the
/// same successor; later it means that a copy is in other hands, and the session ends.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", tag = "auth", operation_id = "refresh",
    params(TenantHeader), request_body = Refresh,
    responses(
        (status = 200, description = "The session goes on", body = Tokens, links(
            ("refresh" = (
                operation_id = "refresh",
                request_body = json!({"refresh_token": "$response.body#/refresh_token"})
            ))
        )),
        Problems
    )
)]
pub(crate) async fn refresh(
    State(state): State<AppState>,
    tenant: CurrentTenant,
    context: Context,
    JsonBody(request): JsonBody<Refresh>,
) -> Result<Json<Tokens>, Problem> {
    let refused = || Problem::new(Code::Unauthenticated, "the refresh token is not valid");
    let token = RefreshToken::parse(&request.refresh_token).ok_or_else(refused)?;
    let idle = Duration::days(tenant.settings.refresh_token_days.into());
    let (now, origin) = (state.now(), context.origin());
    match sessions::refresh(&tenant.pool, &tenant.data_key, &token, idle, now, &origin).await? {
        Refreshed::Continued(subject, successor) => Tokens::issue(&state, &tenant, subject, &successor).map(Json),
        Refreshed::Revoked(subject) => {
            tracing::warn!("a refresh token was used again; its session is revoked");
            state.access().forget(&tenant.claim_id.to_string(), subject.session_id).await;
            Err(refused())
        }
        Refreshed::Refused => Err(refused()),
    }
}
