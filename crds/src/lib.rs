//! FinaiFlow's Kubernetes resources as Rust types: what a manifest may say, what a status reports, and every
//! name that more than one program spells. Free of a cluster client.

pub mod backup;
#[cfg(test)]
mod cases;
pub mod condition;
pub mod cron;
pub mod lease;
pub mod manifest;
pub mod names;
pub mod rate_limit_policy;
pub mod restore;
pub mod tenant;

pub use backup::{Backup, BackupSpec, BackupStatus};
pub use rate_limit_policy::{RateLimitPolicy, RateLimitPolicySpec, RateLimitPolicyStatus};
pub use restore::{Restore, RestoreSpec, RestoreStatus};
pub use tenant::{Tenant, TenantSpec, TenantStatus};
