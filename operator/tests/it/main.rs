//! The operator's program on a real PostgreSQL and a real API server, with exactly the rights that are shipped.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod conflicts;
mod deletion;
mod drift;
mod leadership;
mod lifecycle;
mod story;
mod world;
