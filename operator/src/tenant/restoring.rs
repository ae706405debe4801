//! What Restores that replace a Tenant's data mean for it.

use std::sync::Arc;

use finaiflow_crds::restore::Mode;
use finaiflow_crds::tenant::LedgerStatus;
use finaiflow_crds::{Restore, Tenant};
use kube::ResourceExt;

/// The Restore that is replacing the Tenant's data. While there is one, nothing of the Tenant is put right: its logins are
/// closed on purpose, and its schema is not the one to be.
#[must_use]
pub fn under_way(restores: &[Arc<Restore>], tenant: &Tenant) -> Option<String> {
    let is_at_work = |restore: &&Arc<Restore>| {
        let status = restore.status.as_ref();
        status.is_some_and(|status| status.start_time.is_some() && status.completion_time.is_none())
    };
    replacing(restores, tenant).find(is_at_work).map(|restore| restore.name_any())
}

/// Where the ledger is anchored: at the head that a Restore brought back, if that was after the last verification. What was
/// given up for it is not there to be found.
#[must_use]
pub fn anchor(restores: &[Arc<Restore>], tenant: &Tenant) -> Option<LedgerStatus> {
    let known = tenant.status.as_ref()?.ledger.clone()?;
    let ended = |restore: &Arc<Restore>| {
        let status = restore.status.as_ref()?;
        Some((status.completion_time.clone()?, status.restored.clone()?))
    };
    let newest = replacing(restores, tenant).filter_map(ended).max_by_key(|(time, _)| time.0);
    Some(match newest {
        Some((time, head)) if time.0 > known.verified_at.0 => LedgerStatus {
            epoch: head.epoch,
            sequence: head.sequence,
            hash: head.hash.filter(|_| head.sequence > 0),
            ..known
        },
        _ => known,
    })
}

fn replacing<'a>(restores: &'a [Arc<Restore>], tenant: &Tenant) -> impl Iterator<Item = &'a Arc<Restore>> {
    let (namespace, name) = (tenant.metadata.namespace.clone(), tenant.name_any());
    restores.iter().filter(move |restore| {
        restore.metadata.namespace == namespace
            && restore.spec.mode == Mode::InPlace
            && restore.spec.target_tenant_ref.as_ref().is_some_and(|target| target.name == name)
    })
}
