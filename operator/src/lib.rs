//! The FinaiFlow operator: turns Tenants into schemas, roles, keys, Secrets, access and jobs, and says
//! what is true of RateLimitPolicies, and Backups into the jobs that take and prove them.

pub mod app;
pub mod backoff;
pub mod backup;
pub mod catalog;
pub mod clock;
pub mod config;
pub mod context;
pub mod error;
pub mod finalizer;
pub mod job;
pub mod leader;
pub mod observe;
pub mod random;
pub mod rate_limit_policy;
pub mod replica;
pub mod restore;
pub mod story;
pub mod tenant;
pub mod watch;
