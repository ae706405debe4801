//! FinaiFlow's Kubernetes resources as Rust types: what a manifest may say, what a status reports, and every
//! name that more than one program spells. Free of a cluster client.

pub mod condition;
pub mod manifest;
pub mod names;
pub mod tenant;

pub use tenant::{Tenant, TenantSpec, TenantStatus};
