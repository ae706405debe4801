//! The endpoints, one file each: request and response types, who may call, OpenAPI text, handler, error mapping.

pub mod accounts;
pub mod audit_chain;
pub mod auth;
pub mod docs;
pub mod health;
pub mod holds;
pub mod info;
pub mod jwks;
pub mod ledger;
pub mod list;
mod memo;
pub mod metrics;
pub mod movement;
pub mod transactions;
pub mod transfers;

use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
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
        .routes(routes!(accounts::get::get, accounts::change::change))
        .routes(routes!(accounts::balance::balance))
        .routes(routes!(accounts::transactions::transactions))
        .routes(routes!(accounts::holds::holds))
        .routes(routes!(accounts::deposit::deposit))
        .routes(routes!(accounts::withdraw::withdraw))
        .routes(routes!(accounts::freeze::freeze))
        .routes(routes!(accounts::unfreeze::unfreeze))
        .routes(routes!(accounts::close::close))
        .routes(routes!(accounts::limit::limit))
        .routes(routes!(transactions::list::list))
        .routes(routes!(transactions::categories::categories))
        .routes(routes!(transfers::new::transfer))
        .routes(routes!(transfers::bulk::bulk).layer(DefaultBodyLimit::max(transfers::bulk::MAX_BODY)))
        .routes(routes!(transfers::get::get))
        .routes(routes!(transfers::complete::complete))
        .routes(routes!(transfers::cancel::cancel))
        .routes(routes!(transfers::reverse::reverse))
        .routes(routes!(holds::new::place))
        .routes(routes!(holds::get::get))
        .routes(routes!(holds::capture::capture))
        .routes(routes!(holds::void::void))
        .routes(routes!(ledger::journal_post::post))
        .routes(routes!(ledger::journal_get::get))
        .routes(routes!(ledger::journal_reverse::reverse))
        .routes(routes!(ledger::accounts::accounts, ledger::open::open))
        .routes(routes!(ledger::trial_balance::trial_balance))
        .routes(routes!(audit_chain::head::head))
        .routes(routes!(audit_chain::verify::verify))
        .routes(routes!(audit_chain::export::export))
        .routes(routes!(info::info))
        .routes(routes!(jwks::jwks))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::health))
        .routes(routes!(metrics::metrics))
}
