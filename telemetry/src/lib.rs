//! Logs, metrics and health the same way in every FinaiFlow program.

pub mod health;
pub mod logs;
pub mod metrics;
pub mod server;
