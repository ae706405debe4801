//! Accounts: the signed-in user's own, and all of them for staff; anybody else's are not found.

pub mod account;
pub mod balance;
pub mod change;
pub mod close;
pub mod deposit;
pub mod freeze;
pub mod get;
pub mod holds;
pub mod limit;
pub mod list;
pub mod open;
pub mod reason;
pub mod transactions;
pub mod unfreeze;
pub mod withdraw;
