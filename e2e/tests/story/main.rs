//! The story on a real cluster: apply a Tenant, get a bank.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod browser;
mod contract;
mod crash;
mod deletion;
mod isolation;
mod ledger_verification;
mod manifests;
mod money;
mod provisioning;
mod rate_limits;
