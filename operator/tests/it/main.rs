//! The operator's program on a real PostgreSQL and a real API server, with exactly the rights that are shipped.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a test that fails shows how it came to that")]

mod adoption;
mod backups;
mod between;
mod conflicts;
mod crash_points;
mod deletion;
mod drift;
mod faults;
mod lane;
mod leadership;
mod lifecycle;
mod rate_limits;
mod restores;
mod story;
mod truth;
mod world;
