//! What deleting a Backup does: its jobs and their Secret go. What is stored, the volumes, and what opens it stay.

use std::sync::Arc;

use finaiflow_crds::Backup;
use finaiflow_crds::names::{ANNOTATION_CLAIM, BACKUP_FINALIZER, backup_secret_name};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use super::dereference::{Found, cron_jobs};
use super::{Context, Visit};
use crate::error::{Attempt, Result};
use crate::finalizer;
use crate::tenant::delete::delete_secret;
use crate::tenant::dereference::read;

/// Takes the jobs away, then lets the Backup go. One that does not act has none.
pub async fn delete(ctx: &Context, backup: &Arc<Backup>) -> Result<Visit> {
    if !finalizer::is_held(&**backup, BACKUP_FINALIZER) {
        return Ok(Visit::Gone);
    }
    let found = Found::without_objects(ctx, Arc::clone(backup));
    if let (Some(claim), None) = (&found.claim, &found.actor) {
        for cron_job in cron_jobs(&ctx.client, &ctx.home, claim).await?.values() {
            if cron_job.annotations().get(ANNOTATION_CLAIM) == Some(claim) {
                delete_cron_job(&ctx.client, cron_job).await?;
            }
        }
        let secret: Option<Secret> = read(&ctx.client, &ctx.home, backup_secret_name(claim)).await?;
        if let Some(secret) = secret.filter(|secret| secret.annotations().get(ANNOTATION_CLAIM) == Some(claim)) {
            delete_secret(&ctx.client, &secret.metadata).await?;
        }
    }
    finalizer::release(&ctx.client, &**backup, BACKUP_FINALIZER).await?;
    Ok(Visit::Gone)
}

/// Deletes a CronJob and its jobs, if it is the one that was read; one that is gone is fine.
pub async fn delete_cron_job(client: &Client, found: &CronJob) -> Result<()> {
    let (namespace, name) = (found.namespace().unwrap_or_default(), found.name_any());
    let api: Api<CronJob> = Api::namespaced(client.clone(), &namespace);
    let same = Preconditions { uid: found.uid(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(same), ..DeleteParams::background() };
    match api.delete(&name, &parameters).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()).attempt(|| format!("delete CronJob {name}")),
    }
}
