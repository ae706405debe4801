//! The endpoints, one file each: request and response types, who may call, OpenAPI text, handler, error mapping.

pub mod accounts;
pub mod auth;
pub mod docs;
pub mod health;
pub mod info;
pub mod jwks;
pub mod list;
pub mod metrics;
pub mod movement;
pub mod transfers;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;
use crate::openapi;

/// Every documented endpoint.
pub(crate) fn api() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(auth::register::register))
        .routes(routes!(auth::login::login))
        .routes(routes!(auth::refresh::refresh))
        .routes(routes!(auth::logout::logout))
        .routes(routes!(auth::profile::profile))
        .routes(routes!(accounts::open::open, accounts::list::list))
        .routes(routes!(accounts::get::get))
        .routes(routes!(accounts::balance::balance))
        .routes(routes!(accounts::transactions::transactions))
        .routes(routes!(accounts::deposit::deposit))
        .routes(routes!(accounts::withdraw::withdraw))
        .routes(routes!(transfers::transfer))
        .routes(routes!(info::info))
        .routes(routes!(jwks::jwks))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::health))
        .routes(routes!(metrics::metrics))
}
