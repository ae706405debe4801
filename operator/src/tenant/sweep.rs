//! What was left behind: claims of Tenants that went without their finalizer, and what outlived a dropped bank.
//!
//! Nothing that could be somebody's data is ever dropped here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{ANNOTATION_CLAIM, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use super::controller::Operator;
use super::delete::delete_secret;
use super::dereference::names;
use crate::catalog::{Catalog, Change, Claim, ClaimId, ClaimState};
use crate::config::Server;
use crate::context::Context;
use crate::error::{Attempt, Error, OnServer, Result};
use crate::watch;

const EVERY: Duration = Duration::from_mins(10);
const PAGE: u32 = 500;

/// Something that was left behind, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Orphan {
    /// A claim whose Tenant is gone was released: logins closed, data and keys kept.
    Claim(Claim),
    /// A Secret with a key of a dropped bank was deleted.
    Secret {
        /// Where it was.
        namespace: String,
        /// What it was called.
        name: String,
        /// The bank.
        claim: ClaimId,
    },
    /// A role of a dropped bank that owned nothing was dropped.
    Role {
        /// On which server.
        server: String,
        /// What was done.
        change: Change,
    },
}

impl Orphan {
    /// The word in metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Claim(_) => "Claim",
            Self::Secret { .. } => "Secret",
            Self::Role { .. } => "Role",
        }
    }
}

impl fmt::Display for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(Claim { claim_id, namespace, name, schema_name, last_uid, .. }) => write!(
                f,
                "Tenant {namespace}/{name} (uid {last_uid}) was removed without its finalizer: closed the logins and \
                 released claim {claim_id}; schema {schema_name} is retained"
            ),
            Self::Secret { namespace, name, claim } => {
                write!(f, "deleted Secret {namespace}/{name}, a key of claim {claim} that was dropped with its data")
            }
            Self::Role { server, change } => write!(f, "server {server}: {change}, whose claim was dropped"),
        }
    }
}

/// What a sweep did and what it could not do.
#[derive(Debug, Default)]
pub struct Swept {
    /// What was left behind.
    pub orphans: Vec<Orphan>,
    /// One part's failure does not stop the others.
    pub failures: Vec<Error>,
}

impl Swept {
    fn failed(error: Error) -> Self {
        Self { failures: vec![error], ..Self::default() }
    }

    fn add(&mut self, part: Result<Vec<Orphan>>) {
        match part {
            Ok(orphans) => self.orphans.extend(orphans),
            Err(error) => self.failures.push(error),
        }
    }
}

/// Sweeps at once and then periodically; yields the names that became free.
pub fn periodically<C: Catalog>(operator: Arc<Operator<C>>) -> impl Stream<Item = ObjectRef<Tenant>> + Send {
    let ticks = stream::unfold(tokio::time::interval(EVERY), |mut ticks| async move {
        ticks.tick().await;
        Some(((), ticks))
    });
    let once = move |()| {
        let operator = Arc::clone(&operator);
        async move {
            let swept = tokio::time::timeout(EVERY, sweep(&operator.ctx)).await;
            let swept = swept.unwrap_or_else(|_| Swept::failed(Error::Timeout(EVERY.as_secs())));
            for failure in &swept.failures {
                operator.give_way(failure);
                tracing::warn!(error = %failure, "a part of the sweep failed");
            }
            for orphan in &swept.orphans {
                operator.observer.orphan(orphan).await;
            }
            tracing::debug!(orphans = swept.orphans.len(), failures = swept.failures.len(), "swept");
            stream::iter(swept.orphans.into_iter().filter_map(freed))
        }
    };
    ticks.then(once).flatten()
}

/// A Tenant that is there by now may take the claim back.
fn freed(orphan: Orphan) -> Option<ObjectRef<Tenant>> {
    match orphan {
        Orphan::Claim(claim) => Some(ObjectRef::new(&claim.name).within(&claim.namespace)),
        _ => None,
    }
}

/// Looks for everything that was left behind.
pub async fn sweep<C: Catalog>(ctx: &Context<C>) -> Swept {
    // Before the Tenants are known each of them would seem to be gone. Their writer lives as long as the program.
    watch::known(&ctx.tenants).await;
    let mut swept = Swept::default();
    for server in ctx.config.servers() {
        match ctx.catalog.active_claims(&server.name, &ctx.installation).await.on(&server.name) {
            Ok(claims) => {
                for claim in claims {
                    swept.add(release(ctx, server, claim).await);
                }
            }
            Err(error) => swept.failures.push(error),
        }
        swept.add(roles(ctx, server).await);
    }
    for namespace in &ctx.config.tenant_namespaces {
        swept.add(secrets(ctx, namespace).await);
    }
    swept
}

/// Releases a claim if its Tenant is gone. UIDs are never used again: one that is not there now stays gone.
async fn release<C: Catalog>(ctx: &Context<C>, server: &Server, claim: Claim) -> Result<Vec<Orphan>> {
    let is_it = |tenant: &Tenant| tenant.uid().as_ref() == Some(&claim.last_uid);
    let key = ObjectRef::<Tenant>::new(&claim.name).within(&claim.namespace);
    if ctx.tenants.get(&key).is_some_and(|tenant| is_it(&tenant)) {
        return Ok(Vec::new());
    }
    let tenants: Api<Tenant> = Api::namespaced(ctx.client.clone(), &claim.namespace);
    match tenants.get(&claim.name).await {
        Ok(tenant) if is_it(&tenant) => return Ok(Vec::new()),
        Err(error) if !says_gone(&error, &claim.name) => {
            return Err(error).attempt(|| format!("read Tenant {}/{}", claim.namespace, claim.name));
        }
        _ => {}
    }
    ctx.catalog.release(&server.name, &names(&claim)?, &claim).await.on(&server.name)?;
    Ok(vec![Orphan::Claim(claim)])
}

/// Whether there is no object of that name. A cluster that has lost the definition of its kind says 404 too.
fn says_gone(error: &kube::Error, name: &str) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.is_not_found() && status.details.as_ref().is_some_and(|details| details.name == name)
}

async fn roles<C: Catalog>(ctx: &Context<C>, server: &Server) -> Result<Vec<Orphan>> {
    let changes = ctx.catalog.drop_orphan_roles(&server.name).await.on(&server.name)?;
    Ok(changes.into_iter().map(|change| Orphan::Role { server: server.name.clone(), change }).collect())
}

/// Deletes the Secrets that outlived their bank: ours, owned by nobody, of a claim that is recorded as dropped.
async fn secrets<C: Catalog>(ctx: &Context<C>, namespace: &str) -> Result<Vec<Orphan>> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let mut page = ListParams::default().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_TENANT}")).limit(PAGE);
    let mut orphans = Vec::new();
    loop {
        let found = api.list_metadata(&page).await.attempt(|| "list Secrets".to_owned())?;
        for secret in found.items {
            let Some(claim) = kept_for(&secret.metadata) else { continue };
            if !is_current(ctx, &secret.metadata, claim) && is_dropped(ctx, claim).await? {
                let metadata = ObjectMeta { namespace: Some(namespace.to_owned()), ..secret.metadata };
                delete_secret(&ctx.client, &metadata).await?;
                let name = metadata.name.unwrap_or_default();
                orphans.push(Orphan::Secret { namespace: namespace.to_owned(), name, claim });
            }
        }
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(orphans),
        }
    }
}

/// The claim of a Secret that has no owner, by its annotation.
fn kept_for(secret: &ObjectMeta) -> Option<ClaimId> {
    let is_owned = secret.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
    secret.annotations.as_ref()?.get(ANNOTATION_CLAIM)?.parse().ok().filter(|_| !is_owned)
}

/// Whether a Tenant of today says that it has the claim; saves asking PostgreSQL.
fn is_current<C>(ctx: &Context<C>, secret: &ObjectMeta, claim: ClaimId) -> bool {
    let tenant = secret.labels.as_ref().and_then(|labels| labels.get(LABEL_TENANT));
    let key = |name: &String| ObjectRef::<Tenant>::new(name).within(secret.namespace.as_deref().unwrap_or_default());
    let tenant = tenant.and_then(|name| ctx.tenants.get(&key(name)));
    tenant.is_some_and(|tenant| {
        tenant.status.as_ref().and_then(|status| status.claim_id.as_deref()) == Some(&*claim.to_string())
    })
}

/// Whether some server records the claim as dropped, and none otherwise.
async fn is_dropped<C: Catalog>(ctx: &Context<C>, claim: ClaimId) -> Result<bool> {
    let mut states = Vec::new();
    for server in ctx.config.servers() {
        let found = ctx.catalog.find_claim(&server.name, &claim).await.on(&server.name)?;
        states.extend(found.map(|claim| claim.state));
    }
    Ok(!states.is_empty() && states.iter().all(|state| *state == ClaimState::Dropped))
}
