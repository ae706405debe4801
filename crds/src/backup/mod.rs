//! The `Backup`: when the data of a bank is backed up, to where, for how long, and how that is proven.

mod job;
mod schedule;
mod status;

use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{cron, names};

pub use job::{Anchor, Bucket, JobDestination, JobSettings, Place, REPORT_MAX, Report};
pub use schedule::{INCREMENTAL_DEADLINE_MINUTES, Run, SEGMENT_DEADLINE_MINUTES};
pub use status::{Artifact, BackupStatus, DestinationStatus, Drilled, Finding, Verified};

/// The policy by which a bank is backed up.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "finaiflow.io",
    version = "v1alpha1",
    kind = "Backup",
    plural = "backups",
    singular = "backup",
    shortname = "fbk",
    category = "finaiflow",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    doc = "When the data of a Tenant is to be backed up, to where and for how long, and how often that is to be proven by restoring it.",
    selectable = ".spec.tenantRef.name",
    validation = names::rule("labels of its jobs"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.tenantRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", priority = 1),
    printcolumn(name = "RPO", type_ = "string", json_path = ".status.conditions[?(@.type==\"RPOMet\")].status"),
    printcolumn(name = "RPO-Seconds", type_ = "integer", json_path = ".status.rpoSeconds"),
    printcolumn(name = "Recovery-Point", type_ = "date", json_path = ".status.recoveryPointTime"),
    printcolumn(name = "Last-Verified", type_ = "date", json_path = ".status.lastVerifiedTime"),
    printcolumn(name = "RTO-Seconds", type_ = "integer", json_path = ".status.rtoSeconds", priority = 1),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = segments_in_time(),
    validation = ("self.segments.intervalMinutes > 0 || self.timeZone == 'UTC'", "spec.timeZone must be UTC if spec.segments.intervalMinutes is 0: where clocks are set, a run of spec.incremental is left out once a year, and spec.objectives.rpoMinutes would not be met")
)]
pub struct BackupSpec {
    /// The Tenant whose data is backed up, in the same namespace.
    #[x_kube(validation = ("self == oldSelf", "spec.tenantRef is immutable: what was stored is another bank's"))]
    pub tenant_ref: LocalRef,

    /// Backups of everything.
    #[serde(default)]
    pub full: Full,

    /// Backups of what changed since the last full or incremental one.
    #[serde(default)]
    pub incremental: Incremental,

    /// Backups of what changed since the last backup of any kind.
    #[serde(default)]
    pub segments: Segments,

    /// IANA time zone of the schedules.
    #[serde(default = "cron::utc")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = cron::time_zone_rule())]
    pub time_zone: String,

    /// What the backups are held against.
    #[serde(default)]
    pub objectives: Objectives,

    /// Where backups are stored. Every one of them is enough to restore from.
    #[schemars(length(min = 1, max = 5))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["name".into()]),
        validation = ("self.all(d, !has(d.className) || self.exists_one(o, has(o.className) && o.className == d.className))", "spec.destinations must not name a class twice: both would be one place"),
    )]
    pub destinations: Vec<Destination>,

    /// How backups are proven to be good, one destination after the other.
    #[serde(default)]
    pub verification: Verification,

    /// Rehearsals of the loss of everything but a destination.
    #[serde(default)]
    pub drill: Drill,

    /// Starts no jobs. What is stored stays, and running jobs end.
    #[serde(default)]
    pub suspend: bool,
}

/// An object of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// Backups of everything.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Full {
    /// Cron schedule in `spec.timeZone`, at least once in 31 days. Absent: daily, at a time derived from the tenant's
    /// claim so that tenants spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = cron::rule("spec.full.schedule"))]
    pub schedule: Option<String>,
}

/// Backups of what changed since the last full or incremental one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Incremental {
    /// Cron schedule in `spec.timeZone`, at least once a day. Absent: every four hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = cron::rule("spec.incremental.schedule"))]
    pub schedule: Option<String>,
}

/// Backups of what changed since the last backup of any kind.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Segments {
    /// At most so many minutes from one to the next; 0 means none, and the incremental backups have to meet
    /// `spec.objectives.rpoMinutes`.
    #[serde(default = "default_interval")]
    #[x_kube(validation = ("self == 0 || self >= 5 && self <= 50", "spec.segments.intervalMinutes must be between 5 and 50, or 0 for no segments"))]
    pub interval_minutes: i32,
}

impl Default for Segments {
    fn default() -> Self {
        Self { interval_minutes: default_interval() }
    }
}

/// What backups are held against.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Objectives {
    /// Recovery point objective: of how many minutes the data may be lost with the database.
    #[serde(default = "default_rpo")]
    #[x_kube(validation = ("self >= 15 && self <= 10080", "spec.objectives.rpoMinutes must be between 15 and 10080"))]
    pub rpo_minutes: i32,
    /// Recovery time objective: within how many minutes the data shall be there again.
    #[serde(default = "default_rto")]
    #[x_kube(validation = ("self >= 5 && self <= 10080", "spec.objectives.rtoMinutes must be between 5 and 10080"))]
    pub rto_minutes: i32,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { rpo_minutes: default_rpo(), rto_minutes: default_rto() }
    }
}

/// A place for backups.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.className) != has(self.persistentVolumeClaim)", "exactly one of className and persistentVolumeClaim must be set in each of spec.destinations"),
    validation = ("has(self.className) == has(oldSelf.className)", "a destination does not become another place under its name: add one with another name")
)]
pub struct Destination {
    /// Names the destination in status, metrics and Restores.
    #[schemars(length(min = 1, max = 30))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "spec.destinations[].name must be a DNS label (a-z, 0-9, '-')"))]
    pub name: String,
    /// The backup class, a bucket with its region and its rights, that the platform team offers in the operator's
    /// configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self == oldSelf", "the className of a destination is immutable: add a destination with another name"))]
    pub class_name: Option<String>,
    /// A volume that is made for the bank in the operator's namespace, where nobody reaches it who can only reach the
    /// Tenant's. It outlives the Backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<PersistentVolumeClaim>,
    /// How many days back a restore from here must be possible. Absent: 30 from a volume, 90 from a class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1 && self <= 3650", "spec.destinations[].retentionDays must be between 1 and 3650"))]
    pub retention_days: Option<i32>,
}

impl Destination {
    /// How many days back a restore from here must be possible.
    #[must_use]
    pub fn retention_days(&self) -> i32 {
        self.retention_days.unwrap_or(if self.class_name.is_some() { 90 } else { 30 })
    }
}

/// A volume that is made for the bank.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.storageClassName) == has(oldSelf.storageClassName)", "the storageClassName of a destination cannot be added or removed: add a destination with another name")
)]
pub struct PersistentVolumeClaim {
    /// Size of the volume to make, in GiB; it may grow. Absent: 10.
    #[serde(default, rename = "sizeGiB", skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = ("self >= 1 && self <= 65536", "sizeGiB must be between 1 and 65536"),
        validation = ("self >= oldSelf", "sizeGiB cannot shrink: volumes only grow")
    )]
    pub size_gib: Option<i32>,
    /// Storage class of the volume to make. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = ("self == oldSelf", "the storageClassName of a destination is immutable: add a destination with another name"))]
    pub storage_class_name: Option<String>,
}

impl PersistentVolumeClaim {
    /// Size of the volume to make, in GiB.
    #[must_use]
    pub fn size_gib(&self) -> i32 {
        self.size_gib.unwrap_or(10)
    }
}

/// How backups are proven to be good.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Cron schedule in `spec.timeZone`. Absent: daily, an hour after the full backup of the default schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = cron::rule("spec.verification.schedule"))]
    pub schedule: Option<String>,
    /// What a verification does.
    #[serde(default)]
    pub mode: VerificationMode,
}

/// What a verification does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerificationMode {
    /// Restores into a database of its own, and checks there that every cent is where the ledger says.
    #[default]
    Restore,
    /// Compares what is stored with the signed checksums. Data that was wrong already when it was backed up passes.
    Checksum,
}

/// Rehearsals of the loss of everything but a destination.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// Cron schedule in `spec.timeZone`. Absent: in January, April, July and October.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = cron::rule("spec.drill.schedule"))]
    pub schedule: Option<String>,
}

/// A recovery point objective that segments could not meet even if none ever failed is refused.
fn segments_in_time() -> Rule {
    let rule = format!(
        "self.segments.intervalMinutes == 0 || self.segments.intervalMinutes + {SEGMENT_DEADLINE_MINUTES} <= self.objectives.rpoMinutes"
    );
    let message = format!(
        "spec.segments.intervalMinutes + {SEGMENT_DEADLINE_MINUTES} must be at most spec.objectives.rpoMinutes: what is written \
         just after a segment waits for the next one, which may take {SEGMENT_DEADLINE_MINUTES} minutes to be stored"
    );
    Rule::new(rule).message(message.as_str())
}

const fn default_interval() -> i32 {
    15
}
const fn default_rpo() -> i32 {
    60
}
const fn default_rto() -> i32 {
    240
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn manifests_are_accepted_and_rejected_offline() {
        cases::check::<Backup>(include_str!("../../tests/backup_cases.yaml"));
    }

    #[test]
    fn what_a_destination_leaves_open_depends_on_what_it_is() {
        let of = |text: &str| serde_yaml::from_str::<Destination>(text).unwrap();
        assert_eq!(of("{name: s3, className: gold}").retention_days(), 90);
        let volume = of("{name: local, persistentVolumeClaim: {}}");
        assert_eq!((volume.retention_days(), volume.persistent_volume_claim.unwrap().size_gib()), (30, 10));
        assert_eq!(of("{name: local, persistentVolumeClaim: {}, retentionDays: 7}").retention_days(), 7);
    }
}
