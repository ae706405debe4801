//! `GET /openapi.json`, `/docs` (Swagger UI), `/redoc`: the API's description, every asset from here.

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::Html;
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::AppState;
use crate::openapi::openapi_json;

/// Both pages build their styles at run time; everything else comes from this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Without search, which would need a worker made from a blob.
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
const REDOC_SCRIPT: &str = include_str!("../../assets/redoc/redoc.standalone.js");
/// The only thing it would fetch from elsewhere: a picture beside its credit, which it leaves out if there is none.
const REDOC_LOGO: &str = "https://cdn.redoc.ly/redoc/logo-mini.svg";

/// The pages and what they load.
pub(crate) fn pages() -> Router<AppState> {
    let document = openapi_json();
    let json = move || async move { ([(CONTENT_TYPE, "application/json")], document) };
    let redoc = Bytes::from(REDOC_SCRIPT.replace(REDOC_LOGO, "data:,"));
    let redoc =
        move || async move { ([(CONTENT_TYPE, "text/javascript"), (CACHE_CONTROL, "public, max-age=86400")], redoc) };
    // The other layout offers to show other servers' documents and has a validator elsewhere fetch ours.
    let swagger = SwaggerUi::new("/docs").config(Config::from("/openapi.json").use_base_layout());
    Router::from(swagger)
        .route("/openapi.json", get(json))
        .route("/redoc", get(|| async { Html(REDOC_PAGE) }))
        .route("/redoc/redoc.standalone.js", get(redoc))
        .layer(SetResponseHeaderLayer::overriding(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)))
}
