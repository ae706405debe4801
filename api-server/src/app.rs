//! The server as a whole: what handlers share, and the router with its layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use finaiflow_telemetry::metrics::Metrics as Telemetry;
use time::OffsetDateTime;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::timeout::TimeoutLayer;

use crate::clock::{self, Clock};
use crate::domain::access_token::Issuer;
use crate::domain::password::{Hasher, PasswordError};
use crate::extract::access_cache::AccessCache;
use crate::extract::context::{Context, REQUEST_ID, TENANT_ID, TRACEPARENT};
use crate::extract::idempotency_key::IDEMPOTENCY_KEY;
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};
use crate::rate_limit::headers::{LEGACY_LIMIT, LEGACY_REMAINING, LEGACY_RESET, RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::rate_limit::{Guard, enforce};
use crate::tenant::{Directory, Tenant};
use crate::{observe, routes};

/// Longest a request may take; then the client is told to try again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest request body, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long a browser may remember a CORS preflight.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// Why the server could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A metric is registered already.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The password hasher does not work.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The system gives no randomness.
    #[error("no randomness")]
    Random(#[from] aws_lc_rs::error::Unspecified),
}

/// What handlers share; clones are cheap.
#[derive(Clone)]
pub struct AppState(Arc<Shared>);

struct Shared {
    directory: Arc<Directory>,
    clock: Clock,
    issuer_base_url: String,
    hasher: Hasher,
    access: AccessCache,
    guard: Arc<Guard>,
    metrics: Metrics,
    telemetry: Telemetry,
    draining: AtomicBool,
}

impl AppState {
    /// Puts the server together. Tokens name `<issuer_base_url>/tenants/<tenant>` as their issuer.
    pub fn new(
        directory: Arc<Directory>,
        issuer_base_url: &str,
        clock: Clock,
        guard: Arc<Guard>,
        telemetry: Telemetry,
    ) -> Result<Self, AppError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Shared {
            directory,
            clock,
            issuer_base_url: issuer_base_url.trim_end_matches('/').to_owned(),
            hasher: Hasher::new(cores, clock::random()?)?,
            access: AccessCache::default(),
            guard,
            metrics: Metrics::register(telemetry.registry())?,
            telemetry,
            draining: AtomicBool::new(false),
        })))
    }

    /// Makes `/readyz` fail, so that no new connections are sent here while open requests finish, and has each answer
    /// close its connection, so that none is idle when connections are closed: a request may be under way on it.
    pub fn begin_drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether the server is about to stop.
    pub(crate) fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Why the server is not ready, if it is not.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        if self.draining() {
            Some("the server is shutting down")
        } else {
            let loaded = [
                (self.0.directory.ready(), "the tenants are not loaded yet"),
                (self.0.guard.ready(), "the rate limit policies are not loaded yet"),
            ];
            loaded.into_iter().find_map(|(loaded, reason)| (!loaded).then_some(reason))
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.0.clock)()
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.0.hasher
    }

    pub(crate) fn access(&self) -> &AccessCache {
        &self.0.access
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.0.guard
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// Who issues the tenant's access tokens.
    pub(crate) fn issuer(&self, tenant: &Tenant) -> Issuer {
        Issuer {
            url: format!("{}/tenants/{}", self.0.issuer_base_url, tenant.name),
            claim_id: tenant.claim_id.to_string(),
            lifetime: time::Duration::minutes(tenant.settings.access_token_minutes.into()),
        }
    }
}

/// The complete service.
pub fn router(state: AppState) -> Router {
    let (api, _) = routes::api().split_for_parts();
    layered(api.merge(routes::docs::pages()), state)
}

/// The outermost layer is [`observe::observe`]: it sees every answer, those of other layers too.
fn layered(routes: Router<AppState>, state: AppState) -> Router {
    let panicked = |_panic| -> Response { Problem::internal("a handler panicked").into_response() };
    // One stack, outermost first: the router boxes each layer it is given by itself.
    let layers = (
        from_fn_with_state(state.clone(), observe::observe),
        cors(),
        TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT),
        CatchPanicLayer::custom(panicked),
        from_fn_with_state(state.clone(), enforce::enforce),
        DefaultBodyLimit::max(MAX_BODY),
    );
    routes.fallback(|| async { Problem::from(Code::NotFound) }).layer(layers).with_state(state)
}

/// Origins are allowed per tenant and exactly; a request that names no tenant has none.
fn cors() -> CorsLayer {
    let allowed = |origin: &HeaderValue, parts: &Parts| {
        let Some(Ok(tenant)) = parts.extensions.get::<Context>().map(|context| &context.tenant) else { return false };
        tenant.settings.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IDEMPOTENCY_KEY, TENANT_ID, REQUEST_ID, TRACEPARENT])
        .expose_headers([
            REQUEST_ID,
            RETRY_AFTER,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
            LEGACY_LIMIT,
            LEGACY_REMAINING,
            LEGACY_RESET,
        ])
        .max_age(PREFLIGHT_AGE)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    fn state() -> AppState {
        let directory = Arc::new(Directory::new(None));
        let telemetry = Telemetry::new();
        let guard = Arc::new(Guard::off(telemetry.registry()).unwrap());
        AppState::new(directory, "https://issuer.test/", clock::system(), guard, telemetry).unwrap()
    }

    async fn ask(path: &str) -> (StatusCode, axum::http::HeaderMap, Value) {
        let broken = Router::new()
            .route("/panic", get(|| async { assert!(std::hint::black_box(false), "the vault code is 1234") }))
            .route("/slow", get(|| async { tokio::time::sleep(REQUEST_TIMEOUT * 2).await }));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let (parts, body) = layered(broken, state()).oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_says_nothing_but_a_trace_id() {
        let (status, headers, body) = ask("/panic").await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(body["type"], "https://finaiflow.io/problems/internal");
        assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
        assert_eq!(body["trace_id"].as_str().unwrap().len(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_is_told_to_try_again() {
        let (status, headers, body) = ask("/slow").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(headers[RETRY_AFTER], "1");
        assert_eq!(body["type"], "https://finaiflow.io/problems/overloaded");
    }

    #[test]
    fn readiness_follows_the_directory_and_the_drain() {
        let state = state();
        assert!(state.not_ready().is_some());
        state.directory().mark_synced();
        assert_eq!(state.not_ready(), Some("the rate limit policies are not loaded yet"));
        state.guard().replace([]);
        assert_eq!(state.not_ready(), None);
        state.begin_drain();
        assert!(state.not_ready().is_some());
    }
}
