//! `GET /livez`, `/readyz`, `/health`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::openapi::problems;
use crate::problem::{Code, Problem};

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a server that is not answers 503.
    #[schema(example = "ok")]
    status: &'static str,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

problems!(&[Code::Overloaded]);

/// Is the process alive?
#[utoipa::path(
    get, path = "/livez", tag = "system", operation_id = "livez",
    responses((status = 200, description = "The process answers", body = String, example = json!("ok")))
)]
pub(crate) async fn livez() -> &'static str {
    "ok"
}

/// May traffic be sent here?
#[utoipa::path(
    get, path = "/readyz", tag = "system", operation_id = "readyz",
    responses((status = 200, description = "It may", body = String, example = json!("ok")), Problems)
)]
pub(crate) async fn readyz(State(state): State<AppState>) -> Result<&'static str, Problem> {
    ready(&state).map(|()| "ok")
}

/// How is the server?
#[utoipa::path(
    get, path = "/health", tag = "system", operation_id = "health",
    responses((status = 200, description = "It is ready", body = Health), Problems)
)]
pub(crate) async fn health(State(state): State<AppState>) -> Result<Json<Health>, Problem> {
    ready(&state).map(|()| Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") }))
}

fn ready(state: &AppState) -> Result<(), Problem> {
    state.not_ready().map_or(Ok(()), |reason| Err(Problem::new(Code::Overloaded, reason)))
}
