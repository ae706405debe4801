//! The FinaiFlow operator: turns Tenants into schemas, roles, keys, Secrets, access and jobs.

pub mod app;
pub mod backoff;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod context;
pub mod error;
pub mod leader;
pub mod observe;
pub mod random;
pub mod story;
pub mod tenant;
