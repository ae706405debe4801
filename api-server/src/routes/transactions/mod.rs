//! Movements as accounts see them.

pub mod categories;
pub mod filter;
pub mod list;
pub mod transaction;
