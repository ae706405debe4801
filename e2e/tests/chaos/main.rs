//! The same banks while what they run on is killed, rolled, scaled and flooded.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking; seed and disturbances must be seen to be repeated"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod bank;
mod books;
mod customer;
mod disturb;
mod drain;
mod many;
mod random;

/// Only one test at a time: what one kills another needs.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
