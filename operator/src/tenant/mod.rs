//! A Tenant becomes a schema, roles, keys, Secrets, access and a job: dereference, validate, build, apply, update
//! the status. Only the first and the last two reach the network.

pub mod apply;
pub mod build;
pub mod child;
pub mod controller;
pub mod delete;
pub mod dereference;
pub mod farewell;
pub mod holder;
pub mod hosts;
pub mod protection;
pub mod restoring;
#[cfg(test)]
pub(crate) mod scenario;
pub mod secret_plan;
pub mod serving;
pub mod sweep;
pub mod update_status;
pub mod validate;

use finaiflow_crds::Tenant;
use finaiflow_crds::condition::{self, ConditionType};
use finaiflow_crds::names::TENANT_FINALIZER;

use self::update_status::View;
use self::validate::Setting;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::finalizer;
use crate::replica;
use crate::story::Story;
use crate::watch;

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Everything is as declared.
    Done,
    /// Everything is as declared, and the API server has yet to serve it.
    Waiting,
    /// It is being deleted, and waits for a job of its last backup.
    Leaving,
    /// The Tenant is gone.
    Gone,
}

/// Visits a Tenant once: makes what its spec asks for, or gives it up if it is being deleted.
pub async fn visit<C: Catalog>(ctx: &Context<C>, watched: &Tenant, story: &Story) -> Result<Visit> {
    let Some(mut tenant) = dereference::current(ctx, watched).await? else { return Ok(Visit::Gone) };
    watch::known(&ctx.restores).await;
    let restores = ctx.restores.state();
    if let Some(message) = restoring::under_way(&restores, &tenant) {
        let status = update_status::restoring(&tenant, &message, (ctx.now)());
        update_status::write(&ctx.client, &tenant, status, story).await?;
        return Ok(Visit::Waiting);
    }
    if tenant.metadata.deletion_timestamp.is_some() {
        watch::known(&ctx.backups).await;
        let Some(waits) = story.step("delete", delete::delete(ctx, &tenant, story)).await? else {
            return Ok(Visit::Gone);
        };
        let status = update_status::leaving(&tenant, &waits, (ctx.now)());
        update_status::write(&ctx.client, &tenant, status, story).await?;
        return Ok(Visit::Leaving);
    }
    let anchor = restoring::anchor(&restores, &tenant);
    if let Some(status) = &mut tenant.status {
        status.ledger = anchor;
    }
    let found = story.step("dereference", dereference::dereference(ctx, &tenant)).await?;
    let setting = Setting {
        config: &ctx.config,
        installation: &ctx.installation,
        tenants: &ctx.tenants.state(),
        random: ctx.random,
    };
    let valid = validate::validate(&tenant, found, setting)?;
    let prepared = build::build(&tenant, valid, &ctx.config, (ctx.now)(), ctx.random)?;

    let tenant = finalizer::hold(&ctx.client, tenant, TENANT_FINALIZER).await?;
    if let Some(status) = update_status::first(&tenant, (ctx.now)()) {
        update_status::write(&ctx.client, &tenant, status, story).await?;
    }
    let applied = story.step("apply", apply::apply(ctx, &tenant, prepared, story)).await?;
    // Before the Leases are known every replica would seem to be gone.
    watch::known(&ctx.leases).await;
    let replicas = replica::alive(&ctx.leases.state(), (ctx.now)());
    watch::known(&ctx.backups).await;
    let backup = protection::acting(&ctx.backups.state(), &tenant);
    let view =
        View { endpoint: &ctx.config.api_server.url, replicas: &replicas, backup: backup.as_deref(), now: (ctx.now)() };
    let status = update_status::applied(&tenant, &applied, view);
    let is_ready = condition::is_true(&status.conditions, ConditionType::Ready);
    story.step("update_status", update_status::write(&ctx.client, &tenant, status, story)).await?;
    Ok(if is_ready { Visit::Done } else { Visit::Waiting })
}

/// Writes into the status why a visit failed.
pub async fn report<C: Catalog>(ctx: &Context<C>, watched: &Tenant, error: &Error, story: &Story) -> Result<()> {
    let Some(tenant) = dereference::current(ctx, watched).await? else { return Ok(()) };
    let status = update_status::failed(&tenant, error, (ctx.now)());
    update_status::write(&ctx.client, &tenant, status, story).await
}
