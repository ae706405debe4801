//! `POST /api/v1/auth/login`

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use serde::Deserialize;
use time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::AppState;
use crate::clock;
use crate::domain::access_token::Subject;
use crate::domain::email;
use crate::domain::password::Password;
use crate::domain::refresh::{Lifetime, RefreshToken};
use crate::extract::{Context, CurrentTenant, JsonBody, Validate};
use crate::openapi::{ANY, BODY, TENANT, TenantHeader, problems};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::auth::tokens::Tokens;
use crate::store::audit::Origin;
use crate::store::sessions::{self, NewSession};
use crate::store::users;
use crate::tenant::Tenant;

const MAX_USER_AGENT: usize = 512;

/// Credentials of a user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Address used at registration; case does not matter.
    #[schema(example = "ada@example.com")]
    email: String,
    /// The password.
    #[schema(value_type = String, format = Password, example = "correct horse battery")]
    password: Password,
}

impl Validate for Login {
    /// None: an address that nobody could register is simply unknown, like any other.
    fn faults(&self) -> Vec<FieldError> {
        Vec::new()
    }
}

problems!(ANY, TENANT, BODY, &[Code::Unauthenticated]);

/// Log in
///
/// Begins a session. An unknown address and a wrong password are answered alike.
#[utoipa::path(
    post, path = "/api/v1/auth/login", tag = "auth", operation_id = "login",
    params(TenantHeader), request_body = Login,
    responses(
        (status = 200, description = "A session has begun", body = Tokens, links(
            ("refresh" = (
                operation_id = "refresh",
                request_body = json!({"refresh_token": "$response.body#/refresh_token"})
            ))
        )),
        Problems
    )
)]
pub(crate) async fn login(
    State(state): State<AppState>,
    tenant: CurrentTenant,
    context: Context,
    headers: HeaderMap,
    JsonBody(request): JsonBody<Login>,
) -> Result<Json<Tokens>, Problem> {
    let found = match email::fault(&request.email) {
        None => users::credentials(&tenant.pool, &email::normalize(&request.email)).await?,
        Some(_) => None,
    };
    let (user, active, stored) =
        found.map_or((None, false, None), |found| (Some(found.id), found.active, Some(found.password_hash)));
    let matches = state.hasher().verify(request.password, stored).await?;
    let origin = context.origin();
    state.metrics().login(matches && active);
    match user {
        Some(user) if matches && active => begin(&state, &tenant, user, &headers, &origin).await.map(Json),
        user => {
            sessions::refuse_login(&tenant.pool, user, state.now(), &origin).await?;
            Err(Problem::new(Code::Unauthenticated, "the e-mail address or the password is wrong"))
        }
    }
}

async fn begin(
    state: &AppState,
    tenant: &Tenant,
    user_id: Uuid,
    headers: &HeaderMap,
    origin: &Origin,
) -> Result<Tokens, Problem> {
    let now = state.now();
    let refresh = RefreshToken::first(clock::random()?);
    let subject = Subject { user_id, session_id: clock::new_id(now)? };
    let user_agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    let session = NewSession {
        subject,
        lifetime: Lifetime::begin(now, Duration::days(tenant.settings.refresh_token_days.into())),
        token_digest: refresh.digest(),
        user_agent: user_agent.map(|agent| &agent[..agent.len().min(MAX_USER_AGENT)]),
    };
    sessions::open(&tenant.pool, &session, now, origin).await?;
    Tokens::issue(state, tenant, subject, &refresh)
}
