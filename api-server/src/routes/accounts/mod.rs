//! Accounts of the signed-in user; anybody else's are not found.

pub mod account;
pub mod balance;
pub mod deposit;
pub mod get;
pub mod list;
pub mod open;
pub mod transaction;
pub mod transactions;
pub mod withdraw;
