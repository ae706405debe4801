//! The API against a real PostgreSQL: two tenants in one database, each reached as its own login.
//!
//! The harness checks every answer of every test: errors are problems, and what is answered is documented.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure is the test's failure")]

mod accounts;
mod audit_chain;
mod books;
mod documents;
mod fleet;
mod harness;
mod history;
mod holds;
mod http;
mod idempotency;
mod isolation;
mod logs;
mod money;
mod policies;
mod rate_limit_script;
mod rate_limit_store;
mod rate_limits;
mod rate_limits_callers;
mod rate_limits_redis;
mod redis;
mod registration;
mod replicas;
mod replicas_isolation;
mod replicas_rotation;
mod replicas_sessions;
mod sessions;
mod story;
mod tenants;
mod tenants_bank;
mod tenants_process;
mod tenants_verify;
mod transfers;
