//! `POST /api/v1/auth/register`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::AppState;
use crate::clock;
use crate::domain::password::Password;
use crate::domain::{email, fingerprint, text};
use crate::extract::{Context, CurrentTenant, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, OptionalKeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::auth::user::UserView;
use crate::store::idempotency::{self, Recall, Ticket};
use crate::store::users::{self, Registration, User};
use crate::tenant::{EmailVerification, Tenant};

const PATH: &str = "/api/v1/auth/register";
const MAX_NAME: usize = 200;

/// A new user.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Register {
    /// Login name.
    #[schema(value_type = values::Email)]
    email: String,
    /// 8 to 128 characters of any kind.
    #[schema(value_type = String, format = Password, example = "correct horse battery", min_length = 8, max_length = 128)]
    password: Password,
    /// Shown to the user.
    #[schema(value_type = values::PersonName)]
    name: String,
}

impl Validate for Register {
    fn faults(&self) -> Vec<FieldError> {
        let email = email::fault(&self.email).map(|detail| FieldError::new("/email", detail));
        let password = self.password.fault().map(|detail| FieldError::new("/password", detail));
        let name = text::fault(&self.name, MAX_NAME).map(|detail| FieldError::new("/name", detail));
        [email, password, name].into_iter().flatten().collect()
    }
}

problems!(
    ANY,
    TENANT,
    BODY,
    &[Code::Forbidden, Code::EmailTaken, Code::IdempotencyKeyMissing, Code::IdempotencyKeyReused]
);

/// Register a user
///
/// Open to anybody where the tenant does not require verified addresses. With an `Idempotency-Key`, a repetition
/// answers like the first request.
#[utoipa::path(
    post, path = "/api/v1/auth/register", tag = "auth", operation_id = "register",
    params(TenantHeader, OptionalKeyHeader),
    request_body = Register,
    responses(
        (status = 201, description = "The user exists", body = UserView, links(
            ("login" = (
                operation_id = "login",
                request_body = json!({"email": "$request.body#/email", "password": "$request.body#/password"})
            ))
        )),
        Problems
    )
)]
pub(crate) async fn register(
    State(state): State<AppState>,
    tenant: CurrentTenant,
    context: Context,
    key: Option<IdempotencyKey>,
    JsonBody(request): JsonBody<Register>,
) -> Result<(StatusCode, Json<UserView>), Problem> {
    refuse_unverifiable(&tenant)?;
    let normalized = email::normalize(&request.email);
    let ticket = key.map(|key| ticket(&tenant, key, &request, &normalized)).transpose()?;
    if let Some(user) = replay(&tenant, ticket.as_ref()).await? {
        return Ok(created(user));
    }
    let password_hash = state.hasher().hash(request.password, clock::random()?).await?;
    let now = state.now();
    let (email, name) = (request.email.trim().to_owned(), request.name.trim().to_owned());
    let user = User { id: clock::new_id(now)?, email, name, created_at: now };
    let origin = context.origin();
    match users::register(&tenant.pool, &user, &normalized, &password_hash, ticket.as_ref(), &origin).await? {
        Registration::Created => Ok(created(user)),
        // The same request may have won in the meantime.
        Registration::Conflict => {
            replay(&tenant, ticket.as_ref()).await?.map(created).ok_or_else(|| Code::EmailTaken.into())
        }
    }
}

fn created(user: User) -> (StatusCode, Json<UserView>) {
    (StatusCode::CREATED, Json(user.into()))
}

fn refuse_unverifiable(tenant: &Tenant) -> Result<(), Problem> {
    match tenant.settings.email_verification {
        EmailVerification::Optional => Ok(()),
        EmailVerification::Required => Err(Problem::new(
            Code::Forbidden,
            "registration needs a verified e-mail address, and this server has no mail transport to verify it with",
        )),
    }
}

fn ticket(tenant: &Tenant, key: IdempotencyKey, request: &Register, normalized: &str) -> Result<Ticket, Problem> {
    Ok(Ticket {
        principal: fingerprint::registrant(&tenant.data_key, normalized),
        key: key.0,
        fingerprint: fingerprint::request(&tenant.data_key, "POST", PATH, request).map_err(Problem::internal)?,
    })
}

async fn replay(tenant: &Tenant, ticket: Option<&Ticket>) -> Result<Option<User>, Problem> {
    let Some(ticket) = ticket else { return Ok(None) };
    match idempotency::recall(&tenant.pool, ticket).await? {
        Recall::New => Ok(None),
        Recall::Answered(user) => Ok(Some(user)),
        Recall::Reused => Err(Code::IdempotencyKeyReused.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_has_its_rule() {
        let faults = |email: &str, password: &str, name: &str| -> Vec<String> {
            let body = json!({"email": email, "password": password, "name": name});
            let request: Register = serde_json::from_value(body).unwrap();
            request.faults().into_iter().map(|fault| fault.pointer).collect()
        };
        assert!(faults("ada@example.com", "correct horse", "Ada").is_empty());
        assert_eq!(faults("ada", "short", " "), ["/email", "/password", "/name"]);
        assert_eq!(faults("ada@example.com", "correct horse", &"x".repeat(201)), ["/name"]);
    }

    #[test]
    fn debug_output_hides_the_password() {
        let body = json!({"email": "ada@example.com", "password": "hunter2hunter2", "name": "Ada"});
        let request: Register = serde_json::from_value(body).unwrap();
        assert!(!format!("{request:?}").contains("hunter2"));
    }
}
