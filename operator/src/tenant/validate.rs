//! Step 2: decides, from what was found, what shall be. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use finaiflow_crds::Tenant;
use finaiflow_crds::names::SecretPurpose;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use super::dereference::{Children, FailedJob, Found};
use super::holder::Holder;
use super::hosts::{self, Hosts};
use super::secret_plan::{self, SecretPlan};
use crate::catalog::{Claim, ClaimId, Limits, NewClaim, Observed, TenantNames};
use crate::config::{Config, Server};
use crate::error::{Error, Reason, Result};
use crate::random::Random;

/// What a Tenant shall become.
#[derive(Debug, Clone)]
pub struct Valid {
    /// Its server.
    pub server: Server,
    /// Its names in PostgreSQL.
    pub names: TenantNames,
    /// What to do about its claim.
    pub claim: ClaimPlan,
    /// What it may use of the server.
    pub limits: Limits,
    /// What to do about each Secret.
    pub secrets: BTreeMap<SecretPurpose, SecretPlan>,
    /// Which hosts it gets.
    pub hosts: Hosts,
    /// What PostgreSQL had of it before.
    pub before: Observed,
    /// What Kubernetes had of it before.
    pub children: Children,
}

/// What is to be done about the Tenant's claim.
#[derive(Debug, Clone)]
pub enum ClaimPlan {
    /// It is recorded.
    Keep,
    /// It is new.
    Record(NewClaim),
    /// It is another Tenant's, who gave it up.
    Adopt {
        /// The claim as it was read.
        held: Claim,
        /// The Tenant that shall have it.
        by: NewClaim,
    },
}

/// The server with the most room, by tenants there; None if all are full.
#[must_use]
pub fn least_loaded<'a>(loads: &[(i64, &'a Server)]) -> Option<&'a Server> {
    let open = loads.iter().filter(|(tenants, server)| *tenants < server.capacity);
    open.min_by_key(|(tenants, _)| *tenants).map(|(_, server)| *server)
}

/// Why the newest of the jobs failed to run, if it did.
#[must_use]
pub fn failure_of_newest(jobs: &[Job]) -> Option<FailedJob> {
    let newest = jobs.iter().max_by_key(|job| job.creation_timestamp())?;
    let conditions = newest.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed" && condition.status == "True")?;
    let why = failed.message.as_deref().or(failed.reason.as_deref()).unwrap_or("no reason given");
    Some(FailedJob { at: failed.last_transition_time.as_ref()?.0, why: format!("job {}: {why}", newest.name_any()) })
}

/// What a decision depends on besides the Tenant and what was found of it.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The platform team's choices.
    pub config: &'a Config,
    /// Which cluster this is.
    pub installation: &'a str,
    /// All Tenants.
    pub tenants: &'a [Arc<Tenant>],
    /// For a new identity.
    pub random: Random,
}

/// Decides what a Tenant shall become. Draws an identity if it has and takes over none.
pub fn validate(tenant: &Tenant, found: Found, setting: Setting<'_>) -> Result<Valid> {
    let holder = || new_claim(tenant, setting.installation);
    let (names, claim) = match found.claimed {
        Some((names, Holder::Tenant(_))) => (names, ClaimPlan::Keep),
        Some((names, Holder::Adopts(held))) => (names, ClaimPlan::Adopt { held, by: holder() }),
        None => (new_names(tenant, setting.random)?, ClaimPlan::Record(holder())),
    };
    let mut live = found.children.secrets.clone();
    let mut secrets = BTreeMap::new();
    for purpose in SecretPurpose::ALL {
        let plan = secret_plan::plan(tenant, &names, &found.observed, purpose, live.remove(&purpose));
        secrets.insert(purpose, plan.map_err(Error::Refused)?);
    }
    Ok(Valid {
        limits: limits(tenant),
        hosts: hosts::grant(tenant, setting.tenants, setting.config),
        server: found.server,
        before: found.observed,
        children: found.children,
        names,
        claim,
        secrets,
    })
}

fn new_claim(tenant: &Tenant, installation: &str) -> NewClaim {
    NewClaim {
        installation: installation.to_owned(),
        namespace: tenant.namespace().unwrap_or_default(),
        name: tenant.name_any(),
        uid: tenant.uid().unwrap_or_default(),
    }
}

fn new_names(tenant: &Tenant, random: Random) -> Result<TenantNames> {
    let id = ClaimId::from_random(u64::from_ne_bytes(random.bytes()?));
    TenantNames::derive(&id, &tenant.name_any(), tenant.spec.schema_name.as_deref())
        .map_err(|error| Error::refused(Reason::InvalidName, error.to_string()))
}

/// What the Tenant may use of its server.
#[must_use]
pub fn limits(tenant: &Tenant) -> Limits {
    // Bounded by the resource's own rules.
    let positive = |value: i32| u32::try_from(value).unwrap_or_default();
    Limits {
        connections: positive(tenant.spec.limits.connections),
        statement_timeout_seconds: positive(tenant.spec.limits.statement_timeout_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::tests::config;
    use super::*;

    #[test]
    fn a_new_tenant_goes_where_there_is_most_room() {
        let config = config();
        let servers: Vec<_> = [("a", 10), ("b", 5), ("c", 100)]
            .map(|(name, capacity)| {
                let server = config.database_classes[0].servers[0].clone();
                Server { name: name.to_owned(), capacity, ..server }
            })
            .into();
        let pick = |loads: [i64; 3]| {
            let loads: Vec<_> = loads.into_iter().zip(&servers).collect();
            least_loaded(&loads).map(|server| server.name.as_str())
        };
        assert_eq!(pick([3, 2, 4]), Some("b"));
        assert_eq!(pick([3, 5, 4]), Some("a"), "b is full");
        assert_eq!(pick([10, 5, 99]), Some("c"));
        assert_eq!(pick([10, 5, 100]), None);
        assert_eq!(pick([2, 2, 2]), Some("a"), "the first of equals");
    }
}
