//! A Backup becomes Secrets, volumes and the jobs that take, prove and prune: dereference, validate, build, apply, update
//! the status. All of them are in the operator's own namespace, where nobody reaches them who can only reach the
//! Tenant's. What is true of a Backup is what its jobs say of the destinations, and the clock.

pub mod apply;
pub mod build;
pub mod controller;
pub mod delete;
pub mod dereference;
pub mod keys;
pub mod metrics;
pub mod news;
pub mod report;
#[cfg(test)]
mod scenario;
pub mod settings;
pub mod update_status;
pub mod validate;

use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::names::BACKUP_FINALIZER;
use finaiflow_crds::{Backup, Tenant};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;

use self::dereference::Found;
use self::settings::Settings;
use self::update_status::Standing;
use crate::error::{Error, Result};
use crate::finalizer;
use crate::random::Random;
use crate::story::Story;
use crate::watch;

/// What every visit needs.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// The operator's namespace, where the jobs are.
    pub home: String,
    /// What the platform team says about backups; None: there are none.
    pub settings: Option<Settings>,
    /// All Backups, as watched.
    pub backups: Store<Backup>,
    /// All Tenants, as watched.
    pub tenants: Store<Tenant>,
    /// The jobs of all Backups, as watched.
    pub jobs: Store<Job>,
    /// Their pods, as watched.
    pub pods: Store<Pod>,
    /// The time in whole seconds.
    pub now: fn() -> Timestamp,
    /// Randomness for keys, and to spread visits.
    pub random: Random,
}

impl Context {
    /// Waits until all that is watched is known: before that Tenants and older Backups would seem to be missing.
    pub async fn wait_until_known(&self) {
        watch::known(&self.backups).await;
        watch::known(&self.tenants).await;
        watch::known(&self.jobs).await;
        watch::known(&self.pods).await;
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Everything is as declared.
    Done {
        /// After this time something stops to be true by itself.
        until: Option<Duration>,
    },
    /// Everything that can be is as declared; something of the Tenant is still to come.
    Waiting,
    /// The Backup has changed or gone meanwhile; that it has is still to be heard.
    Late,
    /// The Backup is gone.
    Gone,
}

/// Visits a Backup once: makes what its spec asks for, and says what is true; or takes its jobs away if it is being
/// deleted.
pub async fn visit(ctx: &Context, watched: &Backup, story: &Story) -> Result<Visit> {
    ctx.wait_until_known().await;
    let Some(backup) = dereference::current(ctx, watched) else { return Ok(Visit::Late) };
    if backup.metadata.deletion_timestamp.is_some() {
        return story.step("delete", delete::delete(ctx, &backup)).await;
    }
    let mut found = story.step("dereference", Box::pin(dereference::dereference(ctx, backup))).await?;
    let outcome = Box::pin(make(ctx, &mut found, story)).await;
    match &outcome {
        Err(error) if !error.reason().is_terminal() => {}
        _ => {
            let until = conclude(ctx, &found, outcome.as_ref(), story).await?;
            let Some(until) = until else { return Ok(Visit::Late) };
            if let Ok(Standing::Acting | Standing::TenantGone) = outcome {
                return Ok(Visit::Done { until: until.of });
            }
        }
    }
    outcome.map(|_| Visit::Waiting)
}

/// Writes into the status why a visit failed, and what is true all the same.
pub async fn report(ctx: &Context, watched: &Backup, error: &Error, story: &Story) -> Result<()> {
    let Some(backup) = dereference::current(ctx, watched) else { return Ok(()) };
    let found = Found::without_objects(ctx, backup);
    conclude(ctx, &found, Err(error), story).await.map(|_| ())
}

async fn make(ctx: &Context, found: &mut Found, story: &Story) -> Result<Standing> {
    let (valid, standing) = match validate::validate(found, ctx.settings.as_ref())? {
        validate::Outcome::Waits(why) => return Ok(Standing::Waiting(why)),
        validate::Outcome::Acts(valid) if found.tenant.is_some() => (valid, Standing::Acting),
        validate::Outcome::Acts(valid) => (valid, Standing::TenantGone),
    };
    found.backup = Arc::new(finalizer::hold(&ctx.client, (*found.backup).clone(), BACKUP_FINALIZER).await?);
    if let Some(first) = update_status::first(found) {
        let written = update_status::write(&ctx.client, &found.backup, first, story).await?;
        let Some(written) = written else { return Ok(Standing::Waiting("it has changed meanwhile".to_owned())) };
        found.backup = written;
    }
    let prepared = build::build(found, &valid, (ctx.now)(), ctx.random)?;
    story.step("apply", apply::apply(&ctx.client, prepared, story)).await?;
    Ok(standing)
}

/// How long what a status says stays true by itself.
struct Until {
    of: Option<Duration>,
}

/// Writes what is true; None if the Backup has changed meanwhile.
async fn conclude(
    ctx: &Context,
    found: &Found,
    outcome: std::result::Result<&Standing, &Error>,
    story: &Story,
) -> Result<Option<Until>> {
    let now = (ctx.now)();
    let status = update_status::status(found, outcome, now);
    let of = update_status::until(&found.backup, &status, now);
    let written = update_status::write(&ctx.client, &found.backup, status, story);
    let written = story.step("update_status", written).await?;
    Ok(written.map(|_| Until { of }))
}
