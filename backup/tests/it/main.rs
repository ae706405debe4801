//! Destinations as they are: a directory, and an S3 server that fails in every way a server can.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bucket;
mod directory;
mod harness;
mod server;
mod server_faults;
