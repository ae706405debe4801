//! The `finaiflow-backup` program: what the jobs of a Backup and a Restore run.

mod commands;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match commands::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Also to standard error: the log may be what failed.
            tracing::error!(%error, "failed");
            let _ = writeln!(std::io::stderr(), "finaiflow-backup: {error}");
            ExitCode::FAILURE
        }
    }
}
