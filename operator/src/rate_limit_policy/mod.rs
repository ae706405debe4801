//! What is true of a RateLimitPolicy: dereference, validate, update the status. Nothing is built or applied, as the API
//! server's replicas enforce policies by themselves; their Leases tell which. Everything that is read is watched.

pub mod controller;
pub mod dereference;
pub mod news;
#[cfg(test)]
mod scenario;
pub mod update_status;
pub mod validate;

use std::sync::Arc;

use finaiflow_crds::{RateLimitPolicy, Tenant};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;

use crate::error::Result;
use crate::observe::Observer;
use crate::random::Random;
use crate::story::Story;
use crate::watch;

/// What every visit needs.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The API server's namespace: policies for all of it count only there.
    pub home: String,
    /// All policies, as watched.
    pub policies: Store<RateLimitPolicy>,
    /// All Tenants, as watched.
    pub tenants: Store<Tenant>,
    /// The Leases of the API server's replicas, as watched.
    pub leases: Store<Lease>,
    /// Publishes what visits tell.
    pub observer: Arc<Observer>,
    /// The time in whole seconds.
    pub now: fn() -> Timestamp,
    /// Spreads visits.
    pub random: Random,
}

impl Context {
    /// Waits until all that is watched is known: before that targets and replicas would seem to be missing.
    pub async fn wait_until_known(&self) {
        watch::known(&self.policies).await;
        watch::known(&self.tenants).await;
        watch::known(&self.leases).await;
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// The status is true.
    Done,
    /// The policy has changed or gone meanwhile; that it has is still to be heard.
    Late,
}

/// Visits a policy once: says what is true of it.
pub async fn visit(ctx: &Context, policy: &RateLimitPolicy, story: &Story) -> Result<Visit> {
    ctx.wait_until_known().await;
    let Some(found) = dereference::dereference(ctx, policy) else { return Ok(Visit::Late) };
    let outcomes = validate::validate(&found, &ctx.home);
    let status = update_status::status(&found, outcomes, (ctx.now)());
    story.step("update_status", update_status::write(&ctx.client, &found.policy, status, story)).await
}
