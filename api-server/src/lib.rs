//! The API server of FinaiFlow: each tenant's financial endpoints over HTTP.
//!
//! A request meets, from the outside in: [`observe`] (names it, logs it, writes error bodies), the layers of [`app`], of
//! which [`rate_limit`] decides whether it is answered at all, the extractors of [`extract`] (tenant, user, idempotency
//! key, body) and one handler of [`routes`]. Rules are in [`domain`], SQL in [`store`] and in `finaiflow-ledger`.

pub mod app;
pub mod clock;
pub mod config;
pub mod domain;
pub mod extract;
pub mod metrics;
pub mod observe;
pub mod openapi;
pub mod problem;
pub mod rate_limit;
pub mod routes;
pub mod store;
pub mod sweep;
pub mod tenant;
pub mod tenants;
pub mod verify;

pub use openapi::openapi_json;
