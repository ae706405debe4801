//! FinaiFlow's Kubernetes resources as Rust types: what a manifest may say, what a status reports, and every
//! name that more than one program spells. Free of a cluster client.

#[cfg(test)]
mod cases;
pub mod condition;
pub mod lease;
pub mod manifest;
pub mod names;
pub mod rate_limit_policy;
pub mod tenant;

pub use rate_limit_policy::{RateLimitPolicy, RateLimitPolicySpec, RateLimitPolicyStatus};
pub use tenant::{Tenant, TenantSpec, TenantStatus};
