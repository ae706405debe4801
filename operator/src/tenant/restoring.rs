//! What Restores that replace a Tenant's data mean for it.

use std::sync::Arc;

use finaiflow_crds::condition::{self, ConditionType};
use finaiflow_crds::restore::Mode;
use finaiflow_crds::tenant::LedgerStatus;
use finaiflow_crds::{Restore, Tenant};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// What the Tenant says while a Restore replaces its data; of several that have begun, the oldest. While there is one,
/// nothing of the Tenant is put right: its logins are closed on purpose, and its schema is not the one to be.
#[must_use]
pub fn under_way(restores: &[Arc<Restore>], tenant: &Tenant) -> Option<String> {
    let is_at_work = |restore: &&Arc<Restore>| {
        let status = restore.status.as_ref();
        status.is_some_and(|status| status.start_time.is_some() && status.completion_time.is_none())
    };
    replacing(restores, tenant).filter(is_at_work).min_by_key(|restore| age(restore)).map(|restore| message(restore))
}

/// Whether the Tenant says that it is closed for this Restore. What it says of another one, even of one that had its name,
/// may be about to change: a visit that began after that one had ended opens its logins again.
#[must_use]
pub fn is_closed(tenant: &Tenant, restore: &Restore) -> bool {
    let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    condition::is_true(conditions, ConditionType::Restoring)
        && condition::find(conditions, ConditionType::Restoring).is_some_and(|found| found.message == message(restore))
}

fn message(restore: &Restore) -> String {
    let began = restore.status.as_ref().and_then(|status| status.start_time.as_ref());
    let since = began.map(|began| format!(" since {}", began.0)).unwrap_or_default();
    format!("Restore {} replaces the data{since}; until it has ended, the API server answers 503", restore.name_any())
}

/// Which of several Restores goes first.
#[must_use]
pub fn age(restore: &Restore) -> (Option<Timestamp>, Option<String>) {
    (restore.metadata.creation_timestamp.as_ref().map(|at| at.0), restore.uid())
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
