//! The ledger of one tenant: double entry over PostgreSQL.
//!
//! [`rules`] decides commands with no I/O at all; [`engine`] gathers the commands of a tenant into batches, and one
//! batch is one transaction. [`query`] reads, and [`verify`] proves that what is stored is what the rules allow.
//!
//! All SQL relies on the search path of the login role, so a connection can only ever reach its own tenant.

mod audit;
pub mod batch;
pub mod chain;
pub mod command;
pub mod engine;
mod fork;
pub mod id;
pub mod money;
mod outcome;
pub mod query;
pub mod rules;
pub mod store;
mod text;
pub mod verify;

pub use fork::fork;
