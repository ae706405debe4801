//! Destinations as they are: a directory, and an S3 server that fails in every way a server can; and banks that are backed up
//! to them and restored.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bank;
mod bucket;
mod directory;
mod faults;
mod gateway;
mod harness;
mod killed;
mod locks;
mod majors;
mod points;
mod postgres;
mod program;
mod program_faults;
mod pruning;
mod restoring;
mod round_trip;
mod server;
mod server_faults;
mod standby;
mod steps;
