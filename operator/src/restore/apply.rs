//! Step 4: makes the Job of a Restore and what it needs, and takes away what it needed.

use finaiflow_crds::Restore;
use finaiflow_crds::backup::Run;
use finaiflow_crds::names::{ANNOTATION_GENERATION, MANAGER_OPERATOR, RESTORE_FINALIZER, SecretPurpose};
use finaiflow_crds::restore::Mode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::build::CARRIER_KEY;
use super::dereference::Found;
use super::validate::{Place, Start, Step, place};
use super::{Context, build, update_status};
use crate::backup::keys;
use crate::catalog::{Catalog, Password};
use crate::error::{Attempt, Error, OnServer, Reason, Result};
use crate::finalizer;
use crate::tenant::build::{KEK, database_url};

/// Does a step. Each can be repeated.
pub async fn apply<C: Catalog>(ctx: &Context<C>, found: &Found, step: &Step) -> Result<()> {
    let restore = &found.restore;
    match step {
        Step::Settled | Step::Refuse(_) | Step::Wait(_) | Step::Running | Step::Saved { .. } => Ok(()),
        // The Tenant's own visit says so in its status, and the API server lets go of it.
        Step::Close => hold(ctx, restore).await,
        Step::Save(start) => save(ctx, found, start).await,
        Step::Start(start) => begin(ctx, found, start).await,
        Step::End(report) => {
            let succeeded = update_status::failure(report).is_none();
            if let (true, Some(plan), Some(sealed)) = (succeeded, &report.plan, &report.data_key) {
                carry_key(ctx, restore, &plan.claim_id, sealed).await?;
            }
            end(ctx, restore, succeeded).await
        }
        Step::Fail(_) => end(ctx, restore, false).await,
    }
}

/// Backs up what the Tenant has, now that nobody can change it any more.
async fn save<C: Catalog>(ctx: &Context<C>, found: &Found, start: &Start) -> Result<()> {
    if let Some(Place { server, names, .. }) = &start.target {
        ctx.operator.ctx.catalog.pause(server, names).await.on(server)?;
    }
    let template = ctx.jobs().template(&start.source.to_string(), Run::Incremental).await?;
    ctx.jobs().create(build::save(&found.restore, &ctx.namespace, template)).await
}

/// Makes the Job, in an order in which every step can be repeated: the login before the Secret with its password, the
/// Secret before the Job.
async fn begin<C: Catalog>(ctx: &Context<C>, found: &Found, start: &Start) -> Result<()> {
    let (restore, catalog, source) = (&found.restore, &ctx.operator.ctx.catalog, start.source.to_string());
    hold(ctx, restore).await?;
    let template = match &restore.spec.source.class_name {
        Some(class) => build::reader(found, ctx.config(), &source, class)?,
        None => ctx.jobs().template(&source, Run::Drill).await?,
    };
    if let Some(target) = &start.target {
        let server = ctx.config().servers().find(|server| server.name == target.server);
        let server = server.ok_or_else(|| unknown(&target.server))?;
        if restore.spec.mode == Mode::InPlace {
            let number = build::number(restore);
            catalog.set_aside(&server.name, &target.names, target.limits, number).await.on(&server.name)?;
        }
        let password = Password::from_random(ctx.operator.ctx.random.bytes()?);
        let login = catalog.open_restore(&server.name, &target.names, &password).await.on(&server.name)?;
        let url = database_url(server, &login, &password);
        let carrier = keys::draw_carrier(ctx.operator.ctx.random)?;
        write_secret(ctx, &build::secret(restore, &ctx.namespace, target, url, carrier)).await?;
    }
    ctx.jobs().create(build::restoring(restore, &ctx.namespace, start, template)).await
}

fn unknown(server: &str) -> Error {
    Error::refused(Reason::ClassNotFound, format!("the configuration has no server {server}"))
}

async fn write_secret<C>(ctx: &Context<C>, secret: &Secret) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client().clone(), &ctx.namespace);
    let parameters = PatchParams::apply(MANAGER_OPERATOR).force();
    secrets
        .patch(&secret.name_any(), &parameters, &Patch::Apply(secret))
        .await
        .attempt(|| format!("write secret {}", secret.name_any()))?;
    Ok(())
}

/// Gives the Tenant the data key of the bank whose backup it has: fingerprints and ciphertext in its rows are of that one.
/// Only once it has them: a Tenant that had data of its own is refused by the Job, and keeps the key to that.
async fn carry_key<C>(ctx: &Context<C>, restore: &Restore, source: &str, sealed: &str) -> Result<()> {
    let ours: Api<Secret> = Api::namespaced(ctx.client().clone(), &ctx.namespace);
    let name = build::name(restore);
    let secret = ours.get_opt(&name).await.attempt(|| format!("read secret {name}"))?;
    // It goes once the key is where it belongs.
    let Some(carrier) = secret.and_then(|secret| secret.data?.remove(CARRIER_KEY)) else { return Ok(()) };
    let carrier = String::from_utf8_lossy(&carrier.0);
    let unsealed =
        || Error::refused(Reason::InternalError, "the data key that the Job reports is not for this Restore");
    let key = ByteString(keys::carried(&carrier, source, sealed).ok_or_else(unsealed)?);
    let theirs: Api<Secret> = Api::namespaced(ctx.client().clone(), &restore.namespace().unwrap_or_default());
    let target = restore.spec.target_tenant_ref.as_ref().map(|target| target.name.as_str()).unwrap_or_default();
    let name = SecretPurpose::DataKey.secret_name(target);
    let secret = theirs.get(&name).await.attempt(|| format!("read secret {name}"))?;
    if secret.data.as_ref().and_then(|data| data.get(KEK)) == Some(&key) {
        return Ok(());
    }
    let generation = secret.annotations().get(ANNOTATION_GENERATION).and_then(|text| text.parse().ok());
    let generation = generation.unwrap_or(1_i64) + 1;
    let patch = json!({
        // As it was read, or not at all.
        "metadata": {
            "resourceVersion": secret.resource_version(), "annotations": {ANNOTATION_GENERATION: generation.to_string()},
        },
        "data": {KEK: key},
    });
    let parameters = PatchParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PatchParams::default() };
    theirs.patch(&name, &parameters, &Patch::Merge(patch)).await.attempt(|| format!("write secret {name}"))?;
    Ok(())
}

/// Closes the way in, and takes its Secret away; where data was to be replaced and was not, that comes back. The Jobs stay
/// for their logs, until their time is over.
pub async fn end<C: Catalog>(ctx: &Context<C>, restore: &Restore, succeeded: bool) -> Result<()> {
    if !finalizer::is_held(restore, RESTORE_FINALIZER) {
        return Ok(());
    }
    let target = restore.spec.target_tenant_ref.as_ref();
    let target = target.and_then(|target| {
        ctx.tenants().get(&ObjectRef::new(&target.name).within(&restore.namespace().unwrap_or_default()))
    });
    // Where the Tenant is gone, its roles are, too, or closed.
    if let Some(Place { server, names, .. }) = target.as_deref().and_then(place) {
        let catalog = &ctx.operator.ctx.catalog;
        catalog.close_restore(&server, &names).await.on(&server)?;
        if restore.spec.mode == Mode::InPlace && !succeeded {
            catalog.put_back(&server, &names, build::number(restore)).await.on(&server)?;
        }
    }
    let (name, secrets) = (build::name(restore), Api::<Secret>::namespaced(ctx.client().clone(), &ctx.namespace));
    match secrets.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        result => drop(result.attempt(|| format!("delete secret {name}"))?),
    }
    finalizer::release(ctx.client(), restore, RESTORE_FINALIZER).await
}

/// Ends a Restore that is being deleted: its Jobs first, so that nothing is at work any more.
pub async fn give_up<C: Catalog>(ctx: &Context<C>, restore: &Restore) -> Result<()> {
    let completed = restore.status.as_ref().is_some_and(|status| status.completion_time.is_some());
    for name in [build::name(restore), build::save_name(restore)] {
        ctx.jobs().delete(&name).await?;
    }
    // What has ended has been put right then.
    end(ctx, restore, completed).await
}

async fn hold<C>(ctx: &Context<C>, restore: &Restore) -> Result<()> {
    finalizer::hold(ctx.client(), restore.clone(), RESTORE_FINALIZER).await.map(drop)
}
