//! Step 1: reads everything a Tenant points to. Writes nothing.

use std::collections::BTreeMap;

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{
    ADOPTION_GUARD, LABEL_TENANT, SecretPurpose, TENANT_FINALIZER, api_access_name, ledger_verification_name,
    network_policy_name,
};
use futures::future::join_all;
use futures::{join, try_join};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::holder::{self, Holder};
use super::validate;
use crate::catalog::{Catalog, Claim, ClaimId, Observed, TenantNames};
use crate::config::{Config, Server};
use crate::context::Context;
use crate::error::{Attempt, Error, OnServer, Reason, Result, grant_hint};
use crate::finalizer;

/// What is there before a visit changes anything.
#[derive(Debug, Clone)]
pub struct Found {
    /// The server that has the tenant, or will.
    pub server: Server,
    /// The tenant's claim and its names, if it was recorded before.
    pub claimed: Option<(TenantNames, Holder)>,
    /// What PostgreSQL has of it.
    pub observed: Observed,
    /// What Kubernetes has of it.
    pub children: Children,
}

/// The Tenant's objects in Kubernetes.
#[derive(Debug, Clone, Default)]
pub struct Children {
    /// Secrets by purpose, whoever made them.
    pub secrets: BTreeMap<SecretPurpose, Secret>,
    /// The API server's access.
    pub role: Option<Role>,
    /// The API server's access.
    pub role_binding: Option<RoleBinding>,
    /// Around the jobs.
    pub network_policy: Option<NetworkPolicy>,
    /// The ledger verification.
    pub cron_job: Option<CronJob>,
    /// The newest verification's failure to run.
    pub failed_job: Option<FailedJob>,
}

/// A verification job that did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedJob {
    /// When it failed.
    pub at: Timestamp,
    /// Why, from its condition.
    pub why: String,
}

/// The Tenant as it is now, or None if it is gone. The watched copy may be older than this operator's own writes.
pub async fn current<C: Catalog>(ctx: &Context<C>, watched: &Tenant) -> Result<Option<Tenant>> {
    if !finalizer::is_held(watched, TENANT_FINALIZER) {
        // Nothing was written yet.
        return Ok(Some(watched.clone()));
    }
    let tenants: Api<Tenant> = Api::namespaced(ctx.client.clone(), &watched.namespace().unwrap_or_default());
    let found = tenants.get_opt(&watched.name_any()).await.attempt(|| "read the Tenant".to_owned())?;
    Ok(found.filter(|tenant| tenant.uid() == watched.uid()))
}

/// Reads what the Tenant points to.
pub async fn dereference<C: Catalog>(ctx: &Context<C>, tenant: &Tenant) -> Result<Found> {
    let namespace = tenant.namespace().unwrap_or_default();
    if !ctx.config.serves_namespace(&namespace) {
        let message =
            format!("the operator may not manage Secrets in namespace {namespace}; {}", grant_hint(&namespace));
        return Err(Error::refused(Reason::Forbidden, message));
    }
    let class = &tenant.spec.database_class_name;
    if ctx.config.class(class).is_none() {
        let offered: Vec<_> = ctx.config.database_classes.iter().map(|class| class.name.as_str()).collect();
        let message = format!("there is no database class {class}; the classes are {}", offered.join(", "));
        return Err(Error::refused(Reason::ClassNotFound, message));
    }
    let (server, claimed) = match holder(ctx, tenant).await? {
        Some((server, holder)) => (server.clone(), Some((names(holder.claim())?, holder))),
        None => (least_loaded(ctx, class).await?.clone(), None),
    };
    let names = claimed.as_ref().map(|(names, _)| names);
    // Before the finalizer nothing of ours can be there but what an earlier Tenant left, and what is there of others'
    // is found when Secrets are created.
    let has_children = finalizer::is_held(tenant, TENANT_FINALIZER) || claimed.is_some();
    let anchor =
        tenant.status.as_ref().and_then(|status| status.ledger.as_ref()).filter(|ledger| ledger.hash.is_some());
    let anchor = anchor.map(|ledger| ledger.sequence);
    let (observed, children) = try_join!(observe(ctx, &server, names, anchor), children(ctx, tenant, has_children))?;
    Ok(Found { server, claimed, observed, children })
}

/// The Tenant's claim, or the one it takes over, and the server that records it.
async fn holder<'a, C: Catalog>(ctx: &'a Context<C>, tenant: &Tenant) -> Result<Option<(&'a Server, Holder)>> {
    let adopted = tenant.spec.adopt_claim.as_deref().map(str::parse).transpose();
    let adopted =
        adopted.map_err(|error| Error::refused(Reason::AdoptionRefused, format!("spec.adoptClaim: {error}")))?;
    let found = claims(ctx, tenant, adopted).await?;
    let holder = holder::find(tenant, &ctx.installation, &ctx.config, &found).map_err(Error::Refused)?;
    let is_held = |known: &str| holder.as_ref().is_some_and(|(_, holder)| holder.claim().claim_id.to_string() == known);
    if let Some(lost) = status_claim(tenant).filter(|known| !is_held(known)) {
        return Err(claim_lost(lost));
    }
    if adopted.is_some() && matches!(holder, Some((_, Holder::Adopts(_)))) {
        check_guard(&ctx.client).await?;
    }
    Ok(holder)
}

/// A claim is handed over by its identity only while the API server asks who may do that.
async fn check_guard(client: &Client) -> Result<()> {
    if is_guarded(client, ADOPTION_GUARD).await? {
        return Ok(());
    }
    let message = format!(
        "spec.adoptClaim is not followed without the ValidatingAdmissionPolicy {ADOPTION_GUARD} and its binding, which \
         say who may set it; they come with the chart finaiflow-crds"
    );
    Err(Error::refused(Reason::AdoptionRefused, message))
}

/// Whether the ValidatingAdmissionPolicy of that name, and its binding, are there.
pub async fn is_guarded(client: &Client, guard: &str) -> Result<bool> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let read = || format!("read the admission policy {guard}");
    let policy = policies.get_metadata_opt(guard).await.attempt(read)?;
    let binding = bindings.get_metadata_opt(guard).await.attempt(read)?;
    Ok(policy.is_some() && binding.is_some())
}

/// Every claim of the Tenant's name on the servers that may have its bank, and the one of that identity.
async fn claims<'a, C: Catalog>(
    ctx: &'a Context<C>,
    tenant: &Tenant,
    also: Option<ClaimId>,
) -> Result<Vec<(&'a Server, Claim)>> {
    let mut found = Vec::new();
    for server in servers_of(&ctx.config, tenant)? {
        let claims = ctx.catalog.claims(&server.name, &ctx.installation, &tenant.name_any(), also).await;
        found.extend(claims.on(&server.name)?.into_iter().map(|claim| (server, claim)));
    }
    Ok(found)
}

/// The claims a Tenant made on any server, whatever their state, by UID. One that its status names must be among them.
pub async fn own_claims<'a, C: Catalog>(ctx: &'a Context<C>, tenant: &Tenant) -> Result<Vec<(&'a Server, Claim)>> {
    let uid = tenant.uid().unwrap_or_default();
    let mut own = claims(ctx, tenant, None).await?;
    own.retain(|(_, claim)| claim.last_uid == uid && Some(&claim.namespace) == tenant.namespace().as_ref());
    match status_claim(tenant) {
        Some(lost) if own.is_empty() => Err(claim_lost(lost)),
        _ => Ok(own),
    }
}

/// The server in the status; before there is one, every server: names are unique in the installation.
fn servers_of<'a>(config: &'a Config, tenant: &Tenant) -> Result<Vec<&'a Server>> {
    let Some(database) = tenant.status.as_ref().and_then(|status| status.database.as_ref()) else {
        return Ok(config.servers().collect());
    };
    let server = config.servers().find(|server| server.name == database.instance);
    server.map(|server| vec![server]).ok_or_else(|| {
        let message = format!("server {} that has this tenant is not configured", database.instance);
        Error::refused(Reason::ClassNotFound, message)
    })
}

fn claim_lost(claim: &str) -> Error {
    let message = format!("claim {claim} of this Tenant is not recorded on its server: is it another database?");
    Error::refused(Reason::ClaimLost, message)
}

fn status_claim(tenant: &Tenant) -> Option<&str> {
    tenant.status.as_ref()?.claim_id.as_deref()
}

async fn least_loaded<'a, C: Catalog>(ctx: &'a Context<C>, class: &str) -> Result<&'a Server> {
    let servers = ctx.config.class(class).map(|class| class.servers.as_slice()).unwrap_or_default();
    let mut loads = Vec::with_capacity(servers.len());
    for server in servers {
        loads.push((ctx.catalog.count_active(&server.name).await.on(&server.name)?, server));
    }
    validate::least_loaded(&loads).ok_or_else(|| Error::ClassFull(class.to_owned()))
}

/// The names behind a recorded claim.
pub fn names(claim: &Claim) -> Result<TenantNames> {
    TenantNames::derive(&claim.claim_id, &claim.name, Some(&claim.schema_name))
        .map_err(|error| Error::refused(Reason::InvalidName, error.to_string()))
}

async fn observe<C: Catalog>(
    ctx: &Context<C>,
    server: &Server,
    names: Option<&TenantNames>,
    anchor: Option<i64>,
) -> Result<Observed> {
    match names {
        Some(names) => ctx.catalog.observe(&server.name, names, anchor).await.on(&server.name),
        None => Ok(Observed::default()),
    }
}

async fn children<C: Catalog>(ctx: &Context<C>, tenant: &Tenant, has_any: bool) -> Result<Children> {
    if !has_any {
        return Ok(Children::default());
    }
    let (client, namespace, name) = (&ctx.client, tenant.namespace().unwrap_or_default(), tenant.name_any());
    let (secrets, role, role_binding, network_policy, cron_job, failed_job) = join!(
        secrets(client, &namespace, &name),
        read(client, &namespace, api_access_name(&name)),
        read(client, &namespace, api_access_name(&name)),
        read(client, &namespace, network_policy_name(&name)),
        read(client, &namespace, ledger_verification_name(&name)),
        failed_job(client, &namespace, &name),
    );
    // Of several failures always the same one is told.
    Ok(Children {
        secrets: secrets?,
        role: role?,
        role_binding: role_binding?,
        network_policy: network_policy?,
        cron_job: cron_job?,
        failed_job: failed_job?,
    })
}

/// The Tenant's Secrets by purpose, whoever made them.
pub async fn secrets(client: &Client, namespace: &str, tenant: &str) -> Result<BTreeMap<SecretPurpose, Secret>> {
    let read = SecretPurpose::ALL.map(|purpose| async move {
        Ok::<_, Error>((purpose, read::<Secret>(client, namespace, purpose.secret_name(tenant)).await?))
    });
    let found = join_all(read).await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().filter_map(|(purpose, secret)| Some((purpose, secret?))).collect())
}

/// An object, or None if there is none of the name.
pub async fn read<K>(client: &Client, namespace: &str, name: String) -> Result<Option<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    api.get_opt(&name).await.attempt(|| format!("read {} {name}", K::kind(&())))
}

async fn failed_job(client: &Client, namespace: &str, tenant: &str) -> Result<Option<FailedJob>> {
    let api: Api<Job> = Api::namespaced(client.clone(), namespace);
    let of_tenant = ListParams::default().labels(&format!("{LABEL_TENANT}={tenant}"));
    let jobs = api.list(&of_tenant).await.attempt(|| "list Jobs".to_owned())?;
    Ok(validate::failure_of_newest(&jobs.items))
}
