//! Step 3: writes down, as whole objects, what shall be. Pure: one file per kind, one function per object.

mod cron_job;
mod network_policy;
mod rbac;
mod secrets;
pub mod signing_keys;

pub use secrets::database_url;

use std::collections::BTreeMap;

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY, SecretPurpose};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt};

use super::dereference::{Children, FailedJob};
use super::hosts::Hosts;
use super::validate::{ClaimPlan, Valid};
use crate::catalog::{Credential, Ledger, Limits, Observed, TenantNames};
use crate::config::{Config, Server};
use crate::error::Result;
use crate::random::Random;

/// Key of the password in database Secrets.
pub const PASSWORD: &str = "password";
/// Key of the key encryption key.
pub const KEK: &str = "kek";
/// Key of the signing keys' document.
pub const KEYS_JSON: &str = "keys.json";

/// Everything that shall be, before anything of it is.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The tenant's server.
    pub server: Server,
    /// Its names in PostgreSQL.
    pub names: TenantNames,
    /// What to do about its claim.
    pub claim: ClaimPlan,
    /// What it may use of the server.
    pub limits: Limits,
    /// Its Secrets, in the order in which they are made.
    pub secrets: Vec<PreparedSecret>,
    /// The passwords in them.
    pub credentials: Vec<Credential>,
    /// Lets the API server read exactly this tenant's Secrets.
    pub role: Role,
    /// Binds it.
    pub role_binding: RoleBinding,
    /// Around the tenant's pods.
    pub network_policy: NetworkPolicy,
    /// Verifies the ledger.
    pub cron_job: CronJob,
    /// Which hosts the tenant gets.
    pub hosts: Hosts,
    /// What was there before.
    pub before: Before,
}

/// A Secret that shall be.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedSecret {
    /// What it is for.
    pub purpose: SecretPurpose,
    /// Counts its contents.
    pub generation: i32,
    /// True if the contents are new.
    pub renewed: bool,
    /// The object.
    pub object: Secret,
}

/// What was there before anything is applied.
#[derive(Debug, Clone)]
pub struct Before {
    /// In PostgreSQL.
    pub version: Option<i32>,
    /// What is known of the ledger.
    pub ledger: Ledger,
    /// The newest verification's failure to run.
    pub failed_job: Option<FailedJob>,
    /// The live Secrets.
    pub secrets: BTreeMap<SecretPurpose, Secret>,
    /// The live Role.
    pub role: Option<Role>,
    /// The live RoleBinding.
    pub role_binding: Option<RoleBinding>,
    /// The live NetworkPolicy.
    pub network_policy: Option<NetworkPolicy>,
    /// The live CronJob.
    pub cron_job: Option<CronJob>,
}

/// Writes down what shall be. `now` and `random` go into new keys and passwords only.
pub fn build(tenant: &Tenant, valid: Valid, config: &Config, now: Timestamp, random: Random) -> Result<Prepared> {
    let Valid { server, names, claim, limits, secrets: plans, hosts, before, children } = valid;
    let secrets = secrets::build(tenant, &names, &server, &plans, now, random)?;
    let Observed { version, logins: _, ledger } = before;
    let Children { secrets: live, role, role_binding, network_policy, cron_job, failed_job } = children;
    Ok(Prepared {
        credentials: secrets::credentials(&secrets),
        secrets,
        role: rbac::role(tenant),
        role_binding: rbac::role_binding(tenant, &config.api_server),
        network_policy: network_policy::build(tenant, &server.tenant_endpoint),
        cron_job: cron_job::build(tenant, &names, &config.ledger_verification),
        hosts,
        before: Before { version, ledger, failed_job, secrets: live, role, role_binding, network_policy, cron_job },
        server,
        names,
        claim,
        limits,
    })
}

/// Name, labels and owner of a child. Nothing is copied from the Tenant's own labels or annotations.
fn metadata(tenant: &Tenant, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: tenant.namespace(),
        labels: Some(labels(tenant)),
        owner_references: tenant.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn labels(tenant: &Tenant) -> BTreeMap<String, String> {
    [(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned()), (LABEL_TENANT.to_owned(), tenant.name_any())].into()
}

#[cfg(test)]
pub(in crate::tenant) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::catalog::ClaimId;
    use crate::config::tests::EXAMPLE;

    pub fn tenant(spec: &Value) -> Tenant {
        let tenant = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "namespace": "banks", "uid": "u-1", "generation": 1,
                "labels": {"team": "x"}, "annotations": {"note": "y"}},
            "spec": spec,
        });
        serde_json::from_value(tenant).unwrap()
    }

    pub fn names() -> TenantNames {
        TenantNames::derive(&ClaimId::from_random(0x0123_4567_89ab_cdef), "acme", None).unwrap()
    }

    pub fn config() -> Config {
        Config::parse(EXAMPLE).unwrap()
    }

    pub fn owned(name: &str) -> Value {
        json!({
            "name": name, "namespace": "banks",
            "labels": {"app.kubernetes.io/managed-by": "finaiflow-operator", "finaiflow.io/tenant": "acme"},
            "ownerReferences": [{"apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant", "name": "acme",
                "uid": "u-1", "controller": true}],
        })
    }
}
