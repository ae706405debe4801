//! Step 1: reads everything a Restore points to. Writes nothing.

use std::sync::Arc;

use finaiflow_crds::names::{RESTORE_GUARD, backup_identity_name};
use finaiflow_crds::restore::Mode;
use finaiflow_crds::{Backup, Restore, Tenant};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};

use super::{Context, build};
use crate::backup::settings::Settings;
use crate::backup::validate::SIGNERS;
use crate::catalog::Catalog;
use crate::error::{Attempt, Result};
use crate::job::State;
use crate::tenant::dereference::is_guarded;
use crate::tenant::restoring::{age, is_closed};

/// A Restore and its surroundings.
#[derive(Debug)]
pub struct Found {
    /// The Restore, as it is.
    pub restore: Restore,
    /// The Backup that it reads.
    pub backup: Option<Arc<Backup>>,
    /// The Tenant that gets the data.
    pub target: Option<Arc<Tenant>>,
    /// Another Restore that is at work on that Tenant.
    pub rival: Option<String>,
    /// What the configuration offers, if it offers backups.
    pub offers: Option<Settings>,
    /// Whether the API server asks who may name another's backup.
    pub guarded: bool,
    /// Public keys of those who signed the backups, if there is what opens them.
    pub signers: Option<Vec<String>>,
    /// The Tenant of the bank whose backups are read, if it is still there.
    pub bank: Option<Arc<Tenant>>,
    /// The Job that restores.
    pub job: Option<State>,
    /// The Job that backs up what is to be replaced.
    pub save: Option<State>,
    /// Whether the Tenant says that it is closed for it.
    pub closed: bool,
}

/// The Restore as it is now; None if it is gone.
pub async fn current(client: &Client, watched: &Restore) -> Result<Option<Restore>> {
    let api: Api<Restore> = Api::namespaced(client.clone(), &watched.namespace().unwrap_or_default());
    let restore = api.get_opt(&watched.name_any()).await.attempt(|| "read the Restore".to_owned())?;
    Ok(restore.filter(|restore| restore.uid() == watched.uid()))
}

/// Reads; None if the Restore is gone.
pub async fn dereference<C: Catalog>(ctx: &Context<C>, watched: &Restore) -> Result<Option<Found>> {
    let namespace = watched.namespace().unwrap_or_default();
    let Some(restore) = current(ctx.client(), watched).await? else { return Ok(None) };
    let source = &restore.spec.source;
    let backup =
        source.backup_ref.as_ref().and_then(|name| ctx.backups().get(&ObjectRef::new(&name.name).within(&namespace)));
    let target = restore.spec.target_tenant_ref.as_ref();
    let target = target.and_then(|name| ctx.tenants().get(&ObjectRef::new(&name.name).within(&namespace)));
    let claim = match &source.manifest {
        Some(manifest) => manifest.split('/').next().map(str::to_owned),
        None => backup.as_ref().and_then(|backup| backup.status.as_ref()?.claim_id.clone()),
    };
    let bank = claim.as_deref().and_then(|claim| {
        let is_it =
            |tenant: &&Arc<Tenant>| tenant.status.as_ref().and_then(|status| status.claim_id.as_deref()) == Some(claim);
        ctx.tenants().state().iter().find(is_it).map(Arc::clone)
    });
    let signers = match &claim {
        Some(claim) => {
            let secrets: Api<Secret> = Api::namespaced(ctx.client().clone(), &ctx.namespace);
            let name = backup_identity_name(claim);
            let identity = secrets.get_opt(&name).await.attempt(|| format!("read secret {name}"))?;
            identity.map(|identity| signers(&identity))
        }
        None => None,
    };
    Ok(Some(Found {
        rival: rival(&ctx.restores().state(), &restore),
        offers: ctx.config().backups.clone(),
        guarded: source.manifest.is_none() || is_guarded(ctx.client(), RESTORE_GUARD).await?,
        signers,
        bank,
        job: ctx.jobs().state(&build::name(&restore)).await?,
        save: match restore.spec.mode {
            Mode::InPlace => ctx.jobs().state(&build::save_name(&restore)).await?,
            Mode::Clone | Mode::Scratch => None,
        },
        closed: target.as_deref().is_some_and(|target| is_closed(target, &restore)),
        backup,
        target,
        restore,
    }))
}

fn signers(identity: &Secret) -> Vec<String> {
    let lines = identity.data.as_ref().and_then(|data| data.get(SIGNERS));
    let lines = lines.map(|lines| String::from_utf8_lossy(&lines.0).into_owned()).unwrap_or_default();
    lines.lines().map(str::to_owned).collect()
}

/// The Restore that is at work on the same Tenant: of several that could begin, or that have, the oldest goes on.
fn rival(restores: &[Arc<Restore>], restore: &Restore) -> Option<String> {
    let began = |restore: &Restore| restore.status.as_ref().is_some_and(|status| status.start_time.is_some());
    let target = restore.spec.target_tenant_ref.as_ref()?;
    let is_rival = |other: &&Arc<Restore>| {
        other.uid() != restore.uid()
            && other.metadata.namespace == restore.metadata.namespace
            && other.spec.target_tenant_ref.as_ref() == Some(target)
            && other.status.as_ref().is_none_or(|status| status.completion_time.is_none())
            && match (began(other), began(restore)) {
                (true, false) => true,
                (false, true) => false,
                _ => age(other) < age(restore),
            }
    };
    restores.iter().find(is_rival).map(|rival| rival.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn restore(name: &str, created: &str, status: &Value) -> Arc<Restore> {
        let restore = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Restore",
            "metadata": {"name": name, "namespace": "banks", "uid": name, "creationTimestamp": created},
            "spec": {"source": {"backupRef": {"name": "acme"}}, "target": {"latest": true}, "mode": "InPlace",
                "targetTenantRef": {"name": "acme"}},
            "status": status,
        });
        Arc::new(serde_json::from_value(restore).unwrap())
    }

    /// Also of two that began before either was seen by the other: made within a second, their order is that of their UIDs.
    #[test]
    fn of_two_exactly_one_goes_on() {
        let (waits, began) = (json!({}), json!({"startTime": "2026-11-22T12:00:01Z"}));
        let (early, late) = ("2026-11-22T12:00:00Z", "2026-11-22T12:00:05Z");
        for (first, second, goes_on) in [
            (restore("a", early, &waits), restore("b", late, &waits), "a"),
            (restore("b", early, &waits), restore("a", late, &waits), "b"),
            (restore("a", early, &waits), restore("b", late, &began), "b"),
            (restore("a", early, &began), restore("b", late, &waits), "a"),
            (restore("a", early, &began), restore("b", early, &began), "a"),
            (restore("b", early, &began), restore("a", early, &began), "a"),
        ] {
            let both = [first, second];
            let on: Vec<_> = both.iter().filter(|one| rival(&both, one).is_none()).map(|one| one.name_any()).collect();
            assert_eq!(on, [goes_on]);
        }
        let ended = restore("a", early, &json!({"startTime": early, "completionTime": late}));
        let next = restore("b", late, &waits);
        assert_eq!(rival(&[ended, Arc::clone(&next)], &next), None);
    }
}
