//! The volumes of destinations.

use std::collections::BTreeMap;

use finaiflow_crds::names::backup_volume_name;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::metadata;
use crate::backup::dereference::Found;

/// The volumes, by destination.
pub fn build(found: &Found, claim: &str) -> BTreeMap<String, PersistentVolumeClaim> {
    let volume = |destination: &finaiflow_crds::backup::Destination| {
        let wanted = destination.persistent_volume_claim.as_ref()?;
        let name = destination.name.clone();
        // A volume that somebody has made larger stays so: none can shrink.
        let live = found.live.volumes.get(&name).and_then(gibibytes).unwrap_or_default();
        let size = Quantity(format!("{}Gi", i64::from(wanted.size_gib()).max(live)));
        let spec = PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name: wanted.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        };
        let metadata = metadata(found, claim, backup_volume_name(claim, &name));
        Some((name, PersistentVolumeClaim { metadata, spec: Some(spec), status: None }))
    };
    found.backup.spec.destinations.iter().filter_map(volume).collect()
}

/// What a volume asks for, if that is written as we write it.
fn gibibytes(volume: &PersistentVolumeClaim) -> Option<i64> {
    let requests = volume.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    requests.get("storage")?.0.strip_suffix("Gi")?.parse().ok()
}
