//! Step 1: gathers what a policy points to and competes with, from what is watched.

use std::collections::BTreeSet;
use std::sync::Arc;

use finaiflow_crds::rate_limit_policy::{TargetKind, digest};
use finaiflow_crds::{RateLimitPolicy, Tenant};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::Context;
use super::validate::target;
use crate::replica::{self, Replica};

/// A policy and its surroundings, all as of one time.
#[derive(Debug)]
pub struct Found {
    /// The policy.
    pub policy: Arc<RateLimitPolicy>,
    /// Every policy that may be for one of its targets, itself among them.
    pub rivals: Vec<Arc<RateLimitPolicy>>,
    /// The Tenants that it is for.
    pub tenants: Vec<Arc<Tenant>>,
    /// The replicas that are alive.
    pub replicas: Vec<Replica>,
    /// The digest of all policies.
    pub digest: String,
}

/// Gathers; None if the policy is gone.
#[must_use]
pub fn dereference(ctx: &Context, policy: &RateLimitPolicy) -> Option<Found> {
    let policies = ctx.policies.state();
    let policy = Arc::clone(policies.iter().find(|known| known.uid() == policy.uid())?);
    let digest = digest(policies.iter().map(Arc::as_ref));
    let near = |rival: &Arc<RateLimitPolicy>| {
        let namespace = rival.metadata.namespace.as_deref();
        namespace == policy.metadata.namespace.as_deref() || namespace == Some(&ctx.home)
    };
    Some(Found {
        rivals: policies.iter().filter(|rival| near(rival)).map(Arc::clone).collect(),
        tenants: tenants(ctx, &policy),
        replicas: replica::alive(&ctx.leases.state(), (ctx.now)()),
        digest,
        policy,
    })
}

fn tenants(ctx: &Context, policy: &RateLimitPolicy) -> Vec<Arc<Tenant>> {
    let namespace = policy.namespace().unwrap_or_default();
    if let Some(selector) = &policy.spec.target_selector {
        return ctx.tenants.state_filter(|tenant| {
            tenant.metadata.namespace.as_deref() == Some(&namespace) && target(tenant).has(selector)
        });
    }
    let references = policy.spec.target_refs.iter().filter(|reference| reference.kind == TargetKind::Tenant);
    let names: BTreeSet<_> = references.map(|reference| reference.name.as_str()).collect();
    names.into_iter().filter_map(|name| ctx.tenants.get(&ObjectRef::new(name).within(&namespace))).collect()
}
