//! Errors as RFC 9457 `application/problem+json`.
//!
//! A handler returns a [`Problem`]; the body is written by [`render`] at the outermost layer, which also turns bare
//! error answers of the framework (unknown path, wrong method, timeout) into problems. So nothing can answer an error in
//! another form.

use axum::Json;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use finaiflow_ledger::command::Rejection;
use finaiflow_ledger::engine::SubmitError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::password::PasswordError;
use crate::store::StoreError;
use crate::tenant::TenantError;

/// Media type of every error body.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Prefix of every problem's `type`.
pub const TYPE_BASE: &str = "https://finaiflow.io/problems/";

/// The kinds of error a client can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The body is not JSON.
    Malformed,
    /// The request does not fit its schema; `errors` names the fields.
    ValidationFailed,
    /// The account's available balance does not cover the amount.
    InsufficientFunds,
    /// The request's currency is not the account's.
    CurrencyMismatch,
    /// A transfer from an account to itself.
    SameAccount,
    /// A balance or limit would be exceeded.
    LimitExceeded,
    /// Neither host nor header names a tenant.
    TenantRequired,
    /// Host and header name different tenants.
    TenantAmbiguous,
    /// The account is frozen or closed.
    AccountNotActive,
    /// The status of the account, or of the transfer, does not allow the change.
    StatusConflict,
    /// The account holds or owes money.
    AccountNotEmpty,
    /// The legs of a journal do not add up to zero.
    Unbalanced,
    /// The journal is of a kind that cannot be undone.
    NotReversible,
    /// The journal was undone before.
    AlreadyReversed,
    /// Nothing is left of the hold.
    HoldSettled,
    /// The hold's time has come.
    HoldExpired,
    /// More than is left of the hold.
    ExceedsHold,
    /// A write without a usable `Idempotency-Key`.
    IdempotencyKeyMissing,
    /// The key was used for another request.
    IdempotencyKeyReused,
    /// No such object for this caller.
    NotFound,
    /// No valid credentials.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// A policy refuses requests from this address.
    IpDenied,
    /// The tenant is suspended.
    TenantSuspended,
    /// No such tenant.
    TenantNotFound,
    /// The address belongs to a user already.
    EmailTaken,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The body is too large.
    PayloadTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// A limit of requests is used up.
    QuotaExceeded,
    /// The server cannot answer now; retrying is safe.
    Overloaded,
    /// A fault of the server.
    Internal,
}

impl Code {
    /// The last segment of the problem's `type`.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        self.row().0
    }

    /// The status the problem is answered with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// What the kind means, the same for each occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::Malformed => ("malformed", S::BAD_REQUEST, "The request body is not valid JSON"),
            Self::ValidationFailed => {
                ("validation-failed", S::UNPROCESSABLE_ENTITY, "The request does not fit its schema")
            }
            Self::InsufficientFunds => {
                ("insufficient-funds", S::UNPROCESSABLE_ENTITY, "The available balance is too low")
            }
            Self::CurrencyMismatch => {
                ("currency-mismatch", S::UNPROCESSABLE_ENTITY, "The currency is not the account's")
            }
            Self::SameAccount => {
                ("same-account", S::UNPROCESSABLE_ENTITY, "Source and destination are the same account")
            }
            Self::LimitExceeded => ("limit-exceeded", S::UNPROCESSABLE_ENTITY, "A limit would be exceeded"),
            Self::TenantRequired => ("tenant-required", S::BAD_REQUEST, "The request names no tenant"),
            Self::TenantAmbiguous => ("tenant-ambiguous", S::BAD_REQUEST, "The request names two tenants"),
            Self::AccountNotActive => ("account-not-active", S::CONFLICT, "The account is not active"),
            Self::StatusConflict => ("status-conflict", S::CONFLICT, "Its status does not allow the change"),
            Self::AccountNotEmpty => ("account-not-empty", S::CONFLICT, "The account holds or owes money"),
            Self::Unbalanced => ("unbalanced", S::UNPROCESSABLE_ENTITY, "The legs do not add up to zero"),
            Self::NotReversible => ("not-reversible", S::CONFLICT, "This cannot be undone"),
            Self::AlreadyReversed => ("already-reversed", S::CONFLICT, "This was undone before"),
            Self::HoldSettled => ("hold-settled", S::CONFLICT, "Nothing is left of the hold"),
            Self::HoldExpired => ("hold-expired", S::CONFLICT, "The time of the hold has come"),
            Self::ExceedsHold => ("exceeds-hold", S::UNPROCESSABLE_ENTITY, "Less than that is left of the hold"),
            Self::IdempotencyKeyMissing => {
                ("idempotency-key-missing", S::BAD_REQUEST, "The request needs an Idempotency-Key")
            }
            Self::IdempotencyKeyReused => {
                ("idempotency-key-reused", S::UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another request")
            }
            Self::NotFound => ("not-found", S::NOT_FOUND, "There is nothing here"),
            Self::Unauthenticated => ("unauthenticated", S::UNAUTHORIZED, "Valid credentials are required"),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "This is not allowed"),
            Self::IpDenied => ("ip-denied", S::FORBIDDEN, "Requests from this address are refused"),
            Self::TenantSuspended => ("tenant-suspended", S::FORBIDDEN, "The tenant is suspended"),
            Self::TenantNotFound => ("tenant-not-found", S::NOT_FOUND, "There is no such tenant"),
            Self::EmailTaken => ("email-taken", S::CONFLICT, "The e-mail address is already registered"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", S::METHOD_NOT_ALLOWED, "The method is not available for this path")
            }
            Self::PayloadTooLarge => ("payload-too-large", S::PAYLOAD_TOO_LARGE, "The request body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "The request body must be application/json")
            }
            Self::QuotaExceeded => ("quota-exceeded", S::TOO_MANY_REQUESTS, "A limit of requests is used up"),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "The server cannot answer now"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "The server failed"),
        }
    }

    /// The kind that a bare error status of the framework stands for.
    fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::PayloadTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => Self::QuotaExceeded,
            StatusCode::SERVICE_UNAVAILABLE => Self::Overloaded,
            status if status.is_client_error() => Self::Malformed,
            _ => Self::Internal,
        }
    }
}

/// One field that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// RFC 6901 pointer into the request body, or `/<name>` of a query parameter.
    #[schema(example = "/amount")]
    pub pointer: String,
    /// What is wrong with it.
    #[schema(example = "must be an integer from 1 to 9007199254740991")]
    pub detail: String,
}

impl FieldError {
    /// An error at `pointer`.
    pub fn new(pointer: &str, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.to_owned(), detail: detail.into() }
    }
}

/// An error answer in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: Option<String>,
    errors: Vec<FieldError>,
    violated: Vec<String>,
    /// Seconds after which the request may succeed.
    retry_after: Option<u64>,
}

/// The body of an error answer (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// URI that identifies the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "https://finaiflow.io/problems/validation-failed")]
    kind: String,
    /// What the kind means, the same for each occurrence.
    #[schema(example = "The request does not fit its schema")]
    title: &'static str,
    /// The HTTP status.
    #[schema(example = 422)]
    status: u16,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The fields that do not fit, for `validation-failed`; the transfer of a bulk that was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// The limits that are used up, for `quota-exceeded` (draft-ietf-httpapi-ratelimit-headers).
    #[serde(rename = "violated-policies", skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!([]))]
    violated: Vec<String>,
    /// Finds this request in the logs.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: String,
}

impl Problem {
    /// A problem with an explanation of this occurrence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::from(code) }
    }

    /// `validation-failed` with the fields at fault.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::from(Code::ValidationFailed) }
    }

    /// `validation-failed` of a single field.
    pub fn invalid_field(pointer: &str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(pointer, detail)])
    }

    /// The same problem, of one part of the request.
    #[must_use]
    pub fn at(mut self, pointer: &str) -> Self {
        let detail = self.detail.clone().unwrap_or_else(|| self.code.title().to_owned());
        self.errors.push(FieldError::new(pointer, detail));
        self
    }

    /// `quota-exceeded`: the limits that are used up, and for how many seconds.
    #[must_use]
    pub fn quota(violated: Vec<String>, retry_after: u64) -> Self {
        let detail = format!("try again in {retry_after} s");
        Self { detail: Some(detail), violated, retry_after: Some(retry_after), ..Self::from(Code::QuotaExceeded) }
    }

    /// `internal`: the cause goes to the log, the client learns nothing but the trace id.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "request failed");
        Self::from(Code::Internal)
    }

    /// The kind of the problem.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The body as a client sees it.
    #[must_use]
    pub fn body(&self, trace_id: &str) -> ProblemBody {
        ProblemBody {
            kind: format!("{TYPE_BASE}{}", self.code.slug()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            errors: self.errors.clone(),
            violated: self.violated.clone(),
            trace_id: trace_id.to_owned(),
        }
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self { code, detail: None, errors: Vec::new(), violated: Vec::new(), retry_after: None }
    }
}

impl From<aws_lc_rs::error::Unspecified> for Problem {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::internal("a cryptographic operation failed")
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "database is not available");
            return Code::Overloaded.into();
        }
        Self::internal(error)
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Code::Overloaded.into(),
            error => Self::internal(error),
        }
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::KeyReused => Code::IdempotencyKeyReused.into(),
            SubmitError::Overloaded => Code::Overloaded.into(),
            SubmitError::Unavailable => Self::new(
                Code::Overloaded,
                "the outcome is not known; repeat the request with the same Idempotency-Key",
            ),
            error @ SubmitError::Corrupt(_) => Self::internal(error),
        }
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        Self::from(match rejection {
            Rejection::InsufficientFunds => Code::InsufficientFunds,
            Rejection::CurrencyMismatch => Code::CurrencyMismatch,
            Rejection::SameAccount => Code::SameAccount,
            Rejection::AccountNotActive => Code::AccountNotActive,
            Rejection::NotFound => Code::NotFound,
            Rejection::LimitExceeded => Code::LimitExceeded,
            Rejection::SpendingLimitExceeded => {
                let detail = "more than the account may move at once, in a day or in a month";
                return Self::new(Code::LimitExceeded, detail);
            }
            Rejection::StatusConflict => Code::StatusConflict,
            Rejection::AccountNotEmpty => Code::AccountNotEmpty,
            Rejection::Unbalanced => Code::Unbalanced,
            Rejection::NotReversible => Code::NotReversible,
            Rejection::AlreadyReversed => Code::AlreadyReversed,
            Rejection::HoldSettled => Code::HoldSettled,
            Rejection::HoldExpired => Code::HoldExpired,
            Rejection::ExceedsHold => Code::ExceedsHold,
            Rejection::Forbidden => Code::Forbidden,
        })
    }
}

impl From<TenantError> for Problem {
    fn from(error: TenantError) -> Self {
        match error {
            TenantError::Required => {
                Self::new(Code::TenantRequired, "use a host of the tenant or name the tenant in the header X-Tenant-ID")
            }
            TenantError::Ambiguous => Code::TenantAmbiguous.into(),
            TenantError::NotFound => Code::TenantNotFound.into(),
            TenantError::Suspended => Code::TenantSuspended.into(),
            TenantError::Unavailable(reason) => {
                tracing::warn!(%reason, "tenant is not served");
                Self::new(Code::Overloaded, "the tenant is not being served at the moment")
            }
        }
    }
}

impl IntoResponse for Problem {
    /// Only the status and the problem itself: [`render`] writes headers and body.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives an error answer its problem body; other answers pass unchanged. Headers set so far (such as `Allow`) stay.
pub fn render(response: Response, trace_id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove().unwrap_or_else(|| Problem::from(Code::of_status(status)));
    let (fresh, body) = Json(problem.body(trace_id)).into_response().into_parts();
    parts.status = problem.code.status();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.extend(fresh.headers);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    hints(&problem, &mut parts.headers);
    parts.extensions.insert(problem);
    Response::from_parts(parts, body)
}

/// Headers that tell a client what to do next.
fn hints(problem: &Problem, headers: &mut HeaderMap) {
    match problem.code {
        Code::Overloaded | Code::QuotaExceeded => {
            headers.insert(RETRY_AFTER, HeaderValue::from(problem.retry_after.unwrap_or(1)))
        }
        Code::Unauthenticated => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        _ => None,
    };
}

#[cfg(test)]
mod tests {
    use axum::http::header::ALLOW;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn rendered(response: Response) -> (StatusCode, HeaderMap, Value) {
        let (parts, body) = render(response, "4bf9").into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn a_problem_has_the_documented_members() {
        let problem = Problem::invalid_field("/amount", "must be positive");
        let (status, headers, body) = rendered(problem.into_response()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(headers[CONTENT_TYPE], MEDIA_TYPE);
        let expected = json!({
            "type": "https://finaiflow.io/problems/validation-failed", "title": Code::ValidationFailed.title(),
            "status": 422, "trace_id": "4bf9", "errors": [{"pointer": "/amount", "detail": "must be positive"}],
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn bare_errors_become_problems_and_keep_their_headers() {
        let bare = (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")], "plain").into_response();
        let (status, headers, body) = rendered(bare).await;
        assert_eq!((status, &headers[ALLOW]), (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET")));
        assert_eq!(body["type"], "https://finaiflow.io/problems/method-not-allowed");
        for (status, slug) in
            [(404, "not-found"), (413, "payload-too-large"), (418, "malformed"), (500, "internal"), (503, "overloaded")]
        {
            let (_, _, body) = rendered(StatusCode::from_u16(status).unwrap().into_response()).await;
            assert_eq!(body["type"], format!("{TYPE_BASE}{slug}"));
        }
    }

    #[tokio::test]
    async fn successes_pass_unchanged() {
        let (status, headers, body) = rendered(Json(json!({"a": 1})).into_response()).await;
        assert_eq!(
            (status, &headers[CONTENT_TYPE], body),
            (StatusCode::OK, &HeaderValue::from_static("application/json"), json!({"a": 1}))
        );
    }

    #[tokio::test]
    async fn clients_are_told_when_to_retry_and_how_to_authenticate() {
        let (_, headers, _) = rendered(Problem::from(Code::Overloaded).into_response()).await;
        assert_eq!(headers[RETRY_AFTER], "1");
        let (_, headers, _) = rendered(Problem::from(Code::Unauthenticated).into_response()).await;
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn the_cause_of_an_internal_error_stays_inside() {
        let body = serde_json::to_string(&Problem::internal("password is hunter2").body("t")).unwrap();
        assert!(!body.contains("hunter2"));
    }
}
