//! What was heard of Tenants and Backups that concerns others.

use std::collections::HashMap;

use finaiflow_crds::condition::{self, ConditionType};
use finaiflow_crds::{Backup, Tenant};
use futures::channel::mpsc::UnboundedSender;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

use crate::watch::mark;

/// A Tenant that others shall look at, or whose Backups.
pub type Names = UnboundedSender<ObjectRef<Tenant>>;

/// Tells `backups` of Tenants in which something changes that their Backups follow.
pub fn of_tenants(backups: Names) -> impl FnMut(&Event<Tenant>) + Send {
    let mark = |tenant: &Tenant| {
        let status = tenant.status.as_ref();
        let secrets = status.map(|status| status.secrets.iter().map(|secret| secret.generation).collect::<Vec<_>>());
        let anchor = status.and_then(|status| status.ledger.as_ref()).map(|ledger| (ledger.epoch, ledger.sequence));
        mark(&(tenant.uid(), status.and_then(|status| status.claim_id.as_ref()), secrets, anchor))
    };
    hear(mark, ObjectRef::from_obj, backups)
}

/// Tells `backups` of Tenants of which a Backup comes or goes: another may act for them then. Tells `tenants` of those that
/// are protected otherwise than before.
pub fn of_backups(backups: Names, tenants: Names) -> impl FnMut(&Event<Backup>) + Send {
    let tenant =
        |backup: &Backup| ObjectRef::new(&backup.spec.tenant_ref.name).within(&backup.namespace().unwrap_or_default());
    let protection = |backup: &Backup| {
        let status = backup.status.clone().unwrap_or_default();
        let truth = |kind| condition::find(&status.conditions, kind).map(|found| found.status.clone());
        let seconds =
            |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| time.map(|time| time.0.as_second());
        let conditions = [truth(ConditionType::RPOMet), truth(ConditionType::Verified)];
        mark(&(
            &status.claim_id,
            conditions,
            seconds(status.recovery_point_time.clone()),
            seconds(status.last_verified_time.clone()),
        ))
    };
    let mut rivals = hear(|backup: &Backup| mark(&backup.uid()), tenant, backups);
    let mut protected = hear(protection, tenant, tenants);
    move |event| {
        rivals(event);
        protected(event);
    }
}

/// Tells of what comes, goes, or changes as far as `mark` shows. What went while nobody watched is found by the next visit
/// that comes by itself.
fn hear<K: ResourceExt>(
    mark: fn(&K) -> u64,
    tenant: fn(&K) -> ObjectRef<Tenant>,
    names: Names,
) -> impl FnMut(&Event<K>) + Send + use<K> {
    let mut known: HashMap<(Option<String>, String), u64> = HashMap::new();
    move |event| {
        let concerned = match event {
            Event::Apply(object) | Event::InitApply(object) => {
                let mark = mark(object);
                (known.insert((object.namespace(), object.name_any()), mark) != Some(mark)).then_some(object)
            }
            Event::Delete(object) => {
                known.remove(&(object.namespace(), object.name_any()));
                Some(object)
            }
            Event::Init | Event::InitDone => None,
        };
        if let Some(object) = concerned {
            // Nobody listens any more when the program ends.
            let _ = names.unbounded_send(tenant(object));
        }
    }
}
