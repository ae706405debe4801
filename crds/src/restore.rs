//! The `Restore`: brings the data of a bank back, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::backup::{Finding, LocalRef};
use crate::names;

/// Brings the data of a bank back, once.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "finaiflow.io",
    version = "v1alpha1",
    kind = "Restore",
    plural = "restores",
    singular = "restore",
    shortname = "frs",
    category = "finaiflow",
    namespaced,
    status = "RestoreStatus",
    derive = "PartialEq",
    doc = "That the data of a bank is to be brought back from a backup, once: into a new Tenant, for a look, or in place of what is there.",
    selectable = ".spec.mode",
    selectable = ".spec.targetTenantRef.name",
    validation = names::rule("labels of its Job"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".spec.targetTenantRef.name"),
    printcolumn(name = "Succeeded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Succeeded\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Succeeded\")].reason"),
    printcolumn(name = "Restored-To", type_ = "string", json_path = ".status.restored.recoveryPointTime"),
    printcolumn(name = "Sequence", type_ = "integer", json_path = ".status.restored.sequence", priority = 1),
    printcolumn(name = "RTO-Seconds", type_ = "integer", json_path = ".status.rtoSeconds"),
    printcolumn(name = "Completed", type_ = "date", json_path = ".status.completionTime", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self == oldSelf", "spec is immutable: a Restore runs once, make another one"),
    validation = ("(self.mode == 'InPlace') == has(self.confirmClaimID)", "spec.confirmClaimID goes with mode InPlace, which needs it: the status.claimID of the Tenant whose data is replaced"),
    validation = ("(self.mode != 'Scratch') == has(self.targetTenantRef)", "spec.targetTenantRef goes with the modes Clone and InPlace, which need it: Scratch restores into no Tenant"),
    validation = ("!has(self.source.manifest) || !has(self.target.artifact)", "spec.source.manifest names the backup already: spec.target must be latest, time or ledgerSequence")
)]
pub struct RestoreSpec {
    /// The backup.
    pub source: Source,
    /// The Tenant that gets the data, in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_tenant_ref: Option<LocalRef>,
    /// The moment to bring back.
    pub target: Target,
    /// What becomes of the data.
    pub mode: Mode,
    /// Identity of the bank whose data is replaced: 16 hexadecimal digits, as the Tenant's `status.claimID` says.
    #[serde(default, rename = "confirmClaimID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 16))]
    #[x_kube(validation = ("self.matches('^[0-9a-f]{16}$')", "spec.confirmClaimID must be a claim id: 16 lower-case hexadecimal digits"))]
    pub confirm_claim_id: Option<String>,
}

/// Where the backup is.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.backupRef) != has(self.className)", "exactly one of spec.source.backupRef and spec.source.className must be set"),
    validation = ("has(self.className) == has(self.manifest)", "spec.source.className and spec.source.manifest go together"),
    validation = ("!has(self.destination) || has(self.backupRef)", "spec.source.destination goes with spec.source.backupRef only")
)]
pub struct Source {
    /// The Backup, in the same namespace, whose destinations are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<LocalRef>,
    /// The only one of its destinations to read. Absent: the first, in the order of its spec, that can be read and
    /// reaches the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 30))]
    pub destination: Option<String>,
    /// The backup class to read where there is no Backup any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub class_name: Option<String>,
    /// The newest backup to read in the class, `<claim id>/<id of the backup>`. Setting it takes the verb `adopt` on
    /// Tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = ("self.matches('^[0-9a-f]{16}/[0-9]{8}t[0-9]{6}z-(full|incremental|segment)-[0-9a-f]{8}$')", "spec.source.manifest must be a claim id and the id of a backup, such as 0123456789abcdef/20261122t184412z-full-89abcdef"))]
    pub manifest: Option<String>,
}

/// The moment to bring back.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.latest), has(self.time), has(self.ledgerSequence), has(self.artifact)].exists_one(given, given)", "exactly one of latest, time, ledgerSequence and artifact must be set in spec.target"))]
pub struct Target {
    /// The newest that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self", "spec.target.latest is true or absent"))]
    pub latest: Option<bool>,
    /// The newest that is not after this time (RFC 3339). What it is, the status says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub time: Option<Time>,
    /// Right after the journal of this sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "spec.target.ledgerSequence must be at least 1"))]
    pub ledger_sequence: Option<i64>,
    /// The moment of the backup with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = ("self.matches('^[0-9]{8}t[0-9]{6}z-(full|incremental|segment)-[0-9a-f]{8}$')", "spec.target.artifact must be the id of a backup, such as 20261122t184412z-full-89abcdef"))]
    pub artifact: Option<String>,
}

/// What becomes of the data.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A Tenant that has no data yet gets it.
    Clone,
    /// It is restored into a database of its own, checked there, and thrown away.
    Scratch,
    /// It takes the place of the Tenant's, whose requests are answered 503 meanwhile. What was there is kept aside.
    InPlace,
}

/// What is true of a Restore.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RestoreStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Planned, Succeeded, which stays Unknown until the end, and Ready, which says the same; Reconciling and Stalled
    /// when abnormal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// What is to be restored, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// When the work began (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended, well or not (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What was restored; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// Achieved recovery time: from the beginning until the data was there and checked, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// What a restore InPlace put aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
    /// What was not good: the first eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub findings: Vec<Finding>,
}

/// What is to be restored.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Identity of the bank whose backup it is: 16 hexadecimal digits.
    #[serde(rename = "claimID")]
    pub claim_id: String,
    /// The destination of the Backup, or the class, that is read.
    pub destination: String,
    /// Id of the newest backup that is read.
    pub artifact: String,
    /// How many backups are read: a full one and those after it.
    pub artifacts: i32,
    /// Their bytes, as stored.
    pub bytes: i64,
    /// The moment that comes back (RFC 3339).
    pub recovery_point_time: Time,
    /// Incarnation of the ledger then.
    pub epoch: i32,
    /// Sequence of its newest journal then.
    pub sequence: i64,
    /// Number of the newest migration of the schema then.
    pub schema_version: i32,
}

/// What was restored.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The moment that came back (RFC 3339).
    pub recovery_point_time: Time,
    /// Incarnation of the ledger then. The restored ledger goes on in a new one.
    pub epoch: i32,
    /// Sequence of its newest journal then.
    pub sequence: i64,
    /// Hash of that journal; absent: the ledger was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// What a restore InPlace put aside.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// Schema in PostgreSQL that the data before lies in.
    pub schema: String,
    /// Id of the backup that was taken of it last.
    pub artifact: String,
}

fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 40})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn manifests_are_accepted_and_rejected_offline() {
        cases::check::<Restore>(include_str!("../tests/restore_cases.yaml"));
    }
}
