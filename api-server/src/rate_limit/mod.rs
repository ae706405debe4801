//! Decides whether a request may pass: rates, what was taken under them, and how replicas share them.
//!
//! A request asks for several things at once ([`Ask`]), and either gets all of them or takes nothing. `rate` is the
//! arithmetic of one rate, `cells` the bounded memory of what was taken, `limiter` the decision.

mod cells;
mod limiter;
#[cfg(test)]
mod properties;
mod rate;

pub use limiter::{Ask, FailureMode, Limiter, Outcome, Row, Share, Source, Stats, Verdict};
pub use rate::{Algorithm, COST_MAX, InvalidRate, Micros, Rate};
