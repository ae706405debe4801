//! The tenant schema in PostgreSQL, and everything that makes one: names, claims, roles, grants and migrations.
//!
//! Functions take `&mut PgConnection`. Called outside a transaction, each opens its own; called inside one (the
//! operator's fenced transaction, see [`system::lock_claim`]) they join it. Each compares with the catalog first and
//! returns what it really changed, so a second run returns nothing and writes nothing.

mod catalog;
pub mod conformance;
mod error;
pub mod grants;
pub mod migrate;
pub mod names;
mod password;
pub mod provision;
pub mod system;
pub mod tables;
#[cfg(feature = "testing")]
pub mod testing;
pub mod verification;

pub use catalog::{Action, Change, become_owner};
pub use error::{Conflict, Error, Result};
pub use password::Password;
