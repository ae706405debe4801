//! The books of the bank, for staff.

pub mod accounts;
pub mod journal;
pub mod journal_get;
pub mod journal_post;
pub mod journal_reverse;
pub mod open;
pub mod reversal;
pub mod trial_balance;
