//! The ledger against a real PostgreSQL, through the schema's own functions and roles.
//!
//! Needs the server named by `FINAIFLOW_TEST_DATABASE_URL`; `make test-integration` starts one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod crash;
mod damage;
mod engine;
mod faults;
mod harness;
#[path = "../sim/history.rs"]
mod history;
mod load;
mod story;
mod upgrade;
