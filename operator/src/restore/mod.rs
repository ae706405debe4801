//! A Restore becomes a Job that brings a bank's data back, once: dereference, validate, build, apply, update the status.

pub mod apply;
pub mod build;
pub mod controller;
pub mod dereference;
pub mod update_status;
pub mod validate;

use std::sync::Arc;

use finaiflow_crds::{Backup, Restore, Tenant};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;

use self::update_status::Standing;
use self::validate::{Refusal, Step};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::job::Jobs;
use crate::story::Story;
use crate::tenant::controller::Operator;
use crate::watch;

const NEW_SECONDS: i64 = 30;

/// What every visit needs.
pub struct Context<C> {
    /// The Kubernetes API, the PostgreSQL servers, and what is watched.
    pub operator: Arc<Operator<C>>,
    /// The operator's namespace, where jobs run.
    pub namespace: String,
}

impl<C> Context<C> {
    fn client(&self) -> &Client {
        &self.operator.ctx.client
    }

    fn jobs(&self) -> Jobs<'_> {
        Jobs { client: self.client(), home: &self.namespace }
    }

    fn config(&self) -> &Config {
        &self.operator.ctx.config
    }

    fn tenants(&self) -> &Store<Tenant> {
        &self.operator.ctx.tenants
    }

    fn restores(&self) -> &Store<Restore> {
        &self.operator.ctx.restores
    }

    fn backups(&self) -> &Store<Backup> {
        &self.operator.ctx.backups
    }
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// It has ended, or is gone.
    Done,
    /// Something has to happen first, which may not be watched.
    Waiting,
    /// The next step waits for nothing but another visit.
    Soon,
}

/// Visits a Restore once: does the next step of it, and says where it stands.
pub async fn visit<C: Catalog>(ctx: &Context<C>, watched: &Restore, story: &Story) -> Result<Visit> {
    watch::known(ctx.restores()).await;
    watch::known(ctx.backups()).await;
    watch::known(ctx.tenants()).await;
    let found = story.step("dereference", dereference::dereference(ctx, watched)).await?;
    let Some(found) = found else { return Ok(Visit::Done) };
    let restore = &found.restore;
    if restore.metadata.deletion_timestamp.is_some() {
        story.step("delete", apply::give_up(ctx, restore)).await?;
        return Ok(Visit::Done);
    }
    let now = (ctx.operator.ctx.now)();
    let step = validate::validate(&found, now);
    if let Step::Settled = step {
        return Ok(Visit::Done);
    }
    story.step("apply", apply::apply(ctx, &found, &step)).await?;
    let (standing, visit) = match &step {
        // A Tenant that is made together with the Restore is ready in a second or two.
        Step::Wait(refusal) if is_new(restore, now) => (Standing::Waiting(refusal), Visit::Soon),
        Step::Wait(refusal) => (Standing::Waiting(refusal), Visit::Waiting),
        Step::Refuse(refusal) | Step::Fail(refusal) => (Standing::Failed(refusal), Visit::Done),
        Step::Close => (Standing::Closing, Visit::Soon),
        Step::Saved { artifact, schema } => (Standing::Saved { artifact, schema }, Visit::Soon),
        Step::Save(_) | Step::Start(_) | Step::Running | Step::Settled => (Standing::Running, Visit::Waiting),
        Step::End(report) => (Standing::Ended(report), Visit::Done),
    };
    let status = update_status::status(restore, standing, now);
    story.step("update_status", update_status::write(ctx.client(), restore, status, story)).await?;
    Ok(visit)
}

/// Writes into the status why a visit failed. Nothing is given up for it.
pub async fn report<C>(ctx: &Context<C>, watched: &Restore, error: &Error, story: &Story) -> Result<()> {
    let Some(restore) = dereference::current(ctx.client(), watched).await? else { return Ok(()) };
    if restore.status.as_ref().is_some_and(|status| status.completion_time.is_some()) {
        return Ok(());
    }
    let refusal = Refusal { reason: error.reason().as_str(), message: error.to_string() };
    let status = update_status::status(&restore, Standing::Waiting(&refusal), (ctx.operator.ctx.now)());
    update_status::write(ctx.client(), &restore, status, story).await
}

fn is_new(restore: &Restore, now: Timestamp) -> bool {
    let created = restore.metadata.creation_timestamp.as_ref();
    created.is_some_and(|created| now.as_second() - created.0.as_second() < NEW_SECONDS)
}
