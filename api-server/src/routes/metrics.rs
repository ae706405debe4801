//! `GET /metrics`

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::app::AppState;
use crate::openapi::problems;
use crate::problem::{Code, Problem};

problems!(&[Code::Internal]);

/// Read the server's metrics
///
/// For Prometheus; not meant to be reachable from outside the cluster.
#[utoipa::path(
    get, path = "/metrics", tag = "system", operation_id = "metrics",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"), Problems)
)]
pub(crate) async fn metrics(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    state.guard().measure();
    let text = state.telemetry().render().map_err(Problem::internal)?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
