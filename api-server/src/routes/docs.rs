//! `GET /openapi.json`, `/docs` (Swagger UI), `/redoc`: the API's description, every asset from here.

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::AppState;
use crate::openapi::openapi_json;

/// Both pages build their styles at run time; everything else comes from this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Without search, which would need a worker made from a blob. ReDoc's credit names a logo elsewhere, which the policy
/// keeps from being fetched.
const REDOC_PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>FinaiFlow API</title>
    <link rel="icon" href="data:,">
    <style>body { margin: 0 }</style>
  </head>
  <body>
    <redoc spec-url="/openapi.json" disable-search="true"></redoc>
    <script src="/redoc/redoc.standalone.js"></script>
  </body>
</html>
"#;

/// ReDoc 2.5.4 from the npm package `redoc` (MIT, see the licence beside it).
const REDOC_SCRIPT: &[u8] = include_bytes!("../../assets/redoc/redoc.standalone.js");

/// The pages and what they load.
pub(crate) fn pages() -> Router<AppState> {
    let document = openapi_json();
    let json = move || async move { ([(CONTENT_TYPE, "application/json")], document) };
    let swagger = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    Router::from(swagger)
        .route("/openapi.json", get(json))
        .route("/redoc", get(|| async { Html(REDOC_PAGE) }))
        .route("/redoc/redoc.standalone.js", get(redoc_script))
        .layer(SetResponseHeaderLayer::overriding(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)))
}

async fn redoc_script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript"), (CACHE_CONTROL, "public, max-age=86400")], REDOC_SCRIPT)
}
