//! Whether a Tenant's data would come back: what the Backup says that acts for it.

use std::sync::Arc;

use finaiflow_crds::condition::{self, ConditionType, Truth};
use finaiflow_crds::tenant::TenantBackupStatus;
use finaiflow_crds::{Backup, Tenant};
use kube::ResourceExt;

use crate::backup::update_status;

/// The Backup that acts for the Tenant.
#[must_use]
pub fn acting(backups: &[Arc<Backup>], tenant: &Tenant) -> Option<Arc<Backup>> {
    let claim = tenant.status.as_ref()?.claim_id.as_ref()?;
    let acting = |backup: &&Arc<Backup>| {
        let Some(status) = &backup.status else { return false };
        backup.namespace() == tenant.namespace()
            && backup.spec.tenant_ref.name == tenant.name_any()
            && status.claim_id.as_ref() == Some(claim)
            && update_status::acts(status)
    };
    backups.iter().find(acting).map(Arc::clone)
}

/// What is stored, for the Tenant's status.
#[must_use]
pub fn stored(backup: Option<&Backup>) -> Option<TenantBackupStatus> {
    let status = backup?.status.as_ref()?;
    let stored = TenantBackupStatus {
        last_verified_at: status.last_verified_time.clone(),
        recovery_point_time: status.recovery_point_time.clone(),
    };
    (stored != TenantBackupStatus::default()).then_some(stored)
}

/// Whether the Tenant is protected, with reason and message.
#[must_use]
pub fn judge(backup: Option<&Backup>) -> (Truth, &'static str, String) {
    let Some(backup) = backup else { return (Truth::False, "NoBackup", "no Backup acts for the Tenant".to_owned()) };
    let (name, conditions) = (backup.name_any(), backup.status.as_ref().map(|status| status.conditions.as_slice()));
    let fault = [ConditionType::RPOMet, ConditionType::Verified].into_iter().find_map(|kind| {
        let found = condition::find(conditions.unwrap_or_default(), kind);
        let message = found.map(|found| found.message.as_str()).unwrap_or_default();
        found.is_none_or(|found| found.status != Truth::True.as_str()).then(|| format!("{kind}: {message}"))
    });
    match fault {
        None => (Truth::True, "Protected", format!("Backup {name} meets its objective and was verified")),
        Some(fault) => (Truth::False, "NotProtected", format!("Backup {name} is not {fault}")),
    }
}
