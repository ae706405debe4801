//! What deleting a Tenant does to what it owns outside of itself.

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{ANNOTATION_CLAIM, SecretPurpose, TENANT_FINALIZER};
use finaiflow_crds::tenant::DeletionPolicy;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::dereference::{names, own_claims, secrets};
use super::farewell;
use crate::catalog::{Catalog, Change, Claim, ClaimState, TenantNames};
use crate::config::Server;
use crate::context::Context;
use crate::error::{Attempt, OnServer, Reason, Result};
use crate::finalizer;
use crate::story::{Fact, Story};

/// Gives up what the Tenant has, by its policy, then lets it go. Each step can be repeated after a crash. What it waits
/// for, if it does.
pub async fn delete<C: Catalog>(ctx: &Context<C>, tenant: &Tenant, story: &Story) -> Result<Option<String>> {
    if !finalizer::is_held(tenant, TENANT_FINALIZER) {
        return Ok(None);
    }
    for (server, claim) in own_claims(ctx, tenant).await? {
        let waits = give_up(ctx, tenant, server, &claim, story).await?;
        if waits.is_some() {
            return Ok(waits);
        }
    }
    finalizer::release(&ctx.client, tenant, TENANT_FINALIZER).await?;
    Ok(None)
}

async fn give_up<C: Catalog>(
    ctx: &Context<C>,
    tenant: &Tenant,
    server: &Server,
    claim: &Claim,
    story: &Story,
) -> Result<Option<String>> {
    let names = names(claim)?;
    if retains(ctx, tenant, server, claim).await? {
        if claim.state == ClaimState::Active {
            ctx.catalog.release(&server.name, &names, claim).await.on(&server.name)?;
            story.tell(Fact::Released { claim: names.claim_id, schema: names.schema.to_string() });
        }
        return Ok(None);
    }
    if claim.state != ClaimState::Dropped {
        // A released claim is an earlier Tenant's, or one that was given up already.
        if tenant.spec.deletion_policy == DeletionPolicy::BackupThenDelete
            && was_complete(ctx, tenant, server, &names).await?
        {
            let waits = farewell::take(ctx, tenant, server, &names).await?;
            if waits.is_some() {
                return Ok(waits);
            }
        }
        let dropped = ctx.catalog.drop_tenant(&server.name, &names, claim).await.on(&server.name)?;
        if !dropped.is_empty() {
            story.tell(Fact::Dropped(dropped.iter().map(|Change { object, .. }| object.clone()).collect()));
        }
    }
    match delete_kept_secrets(&ctx.client, tenant, claim).await {
        // In a namespace that is being deleted the operator's rights may go before the Tenant, and the Secrets go too.
        Err(error) if error.reason() == Reason::Forbidden => {
            story.tell(Fact::KeysLeft(error.message(&tenant.namespace().unwrap_or_default())));
            Ok(None)
        }
        done => done.map(|()| None),
    }
}

/// A bank that was never completed has nothing worth keeping: retaining it would only block its names.
async fn retains<C: Catalog>(ctx: &Context<C>, tenant: &Tenant, server: &Server, claim: &Claim) -> Result<bool> {
    if tenant.spec.deletion_policy != DeletionPolicy::Retain || claim.state == ClaimState::Dropped {
        return Ok(false);
    }
    was_complete(ctx, tenant, server, &names(claim)?).await
}

async fn was_complete<C: Catalog>(
    ctx: &Context<C>,
    tenant: &Tenant,
    server: &Server,
    names: &TenantNames,
) -> Result<bool> {
    let known = tenant.status.as_ref().is_some_and(|status| status.schema.is_some());
    Ok(known || ctx.catalog.observe(&server.name, names, None).await.on(&server.name)?.version.is_some())
}

/// Deletes the Secrets that have no owner reference, if they are this claim's. The others go with the Tenant.
async fn delete_kept_secrets(client: &Client, tenant: &Tenant, claim: &Claim) -> Result<()> {
    let namespace = tenant.namespace().unwrap_or_default();
    let found = secrets(client, &namespace, &tenant.name_any()).await?;
    for secret in SecretPurpose::ALL.iter().filter(|purpose| purpose.outlives_tenant()).filter_map(|p| found.get(p)) {
        if secret.annotations().get(ANNOTATION_CLAIM) != Some(&claim.claim_id.to_string()) {
            continue;
        }
        delete_secret(client, &secret.metadata).await?;
    }
    Ok(())
}

/// Deletes a Secret if it is as it was read; one that is gone is fine.
pub async fn delete_secret(client: &Client, found: &ObjectMeta) -> Result<()> {
    let (namespace, name) = (found.namespace.as_deref().unwrap_or_default(), found.name.as_deref().unwrap_or_default());
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let same = Preconditions { uid: found.uid.clone(), resource_version: found.resource_version.clone() };
    let parameters = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match api.delete(name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()).attempt(|| format!("delete secret {name}")),
    }
}
