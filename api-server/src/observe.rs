//! The outermost layer: names each request, gives errors their body, and leaves one log line and one count.
//!
//! The line holds no body, header or query value: those may carry secrets.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use data_encoding::HEXLOWER;
use tracing::Instrument;

use crate::app::AppState;
use crate::clock;
use crate::extract::context::{Context, FreshIds, REQUEST_ID};
use crate::problem::{self, Problem};

/// Stands for all paths that are no route, which a client can invent without end.
pub(crate) const UNMATCHED: &str = "unmatched";

/// Of every answer that does not say otherwise.
const DEFAULTS: [(HeaderName, HeaderValue); 4] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// Wraps the whole service.
pub async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let context = Context::read(request.uri(), request.headers(), request.extensions(), &state, fresh_ids(&state));
    let route = request.extensions().get::<MatchedPath>().map_or(UNMATCHED.to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    request.extensions_mut().insert(context.clone());

    let span = tracing::info_span!(
        "request",
        request_id = %context.request_id,
        trace_id = %context.trace_id,
        tenant = context.tenant.as_ref().map_or("", |tenant| tenant.name.as_str()),
    );
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = problem::render(response, &context.trace_id);
    if let Ok(id) = HeaderValue::from_str(&context.request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    for (name, value) in DEFAULTS {
        response.headers_mut().entry(name).or_insert(value);
    }
    if state.draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }

    let elapsed = started.elapsed();
    state.metrics().answered(&route, &method, response.status(), elapsed);
    let _entered = span.entered();
    tracing::info!(
        %method,
        route,
        status = response.status().as_u16(),
        problem = response.extensions().get::<Problem>().map(|problem| problem.code().slug()),
        latency_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        "request answered"
    );
    response
}

/// Random ids; should the generator fail, zeros: a request is not refused for want of a name.
fn fresh_ids(state: &AppState) -> FreshIds {
    FreshIds {
        request_id: clock::new_id(state.now()).unwrap_or_default().to_string(),
        trace_id: HEXLOWER.encode(&clock::random::<16>().unwrap_or_default()),
    }
}
