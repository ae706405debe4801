//! What is true of a Backup, from what really lies at its destinations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is true of a Backup. It follows from what lies at the destinations, never from how a job ended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, RPOMet, RTOMet, Verified, Copied; Reconciling and Stalled when abnormal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// Identity of the bank whose data is backed up: 16 hexadecimal digits.
    #[serde(default, rename = "claimID", skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<String>,
    /// The newest moment that a restore from any destination reaches (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point_time: Option<Time>,
    /// Achieved recovery point: the longest that lay between two moments to restore to, one after the other, of the
    /// last 24 hours, in seconds. While no new one comes RPOMet says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<i64>,
    /// Achieved recovery time: how long the newest drill took to restore, or the newest verification if that was
    /// later, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// When a verification of any destination last found everything good (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// When the newest job ended whose listing of the destinations this is (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed_time: Option<Time>,
    /// What lies at each destination.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub destinations: Vec<DestinationStatus>,
}

/// What lies at a destination.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DestinationStatus {
    /// Name of the destination in the spec.
    pub name: String,
    /// Name of the PersistentVolumeClaim in the operator's namespace, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_name: Option<String>,
    /// Why it could not be read or written the last time; absent: it could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// The oldest moment that a restore from here reaches (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable_from: Option<Time>,
    /// The newest moment that a restore from here reaches (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restorable_to: Option<Time>,
    /// As `status.rpoSeconds`, of what lies here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo_seconds: Option<i64>,
    /// How much older the newest moment here is than the newest at any destination, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// Bytes that the bank's backups take here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// The newest full backup here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full: Option<Artifact>,
    /// The newest incremental backup here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_incremental: Option<Artifact>,
    /// The newest segment here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_segment: Option<Artifact>,
    /// When a verification here last found everything good (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_time: Option<Time>,
    /// The newest verification here, whatever it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verification: Option<Verified>,
    /// The newest drill from here, whatever it found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill: Option<Drilled>,
}

/// A backup that is stored.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its id, as a Restore names it.
    pub id: String,
    /// The moment whose data it brings back, by the database's clock (RFC 3339).
    pub recovery_point_time: Time,
    /// Sequence of the newest journal in it.
    pub sequence: i64,
    /// Its bytes, as stored.
    pub bytes: i64,
}

/// A verification.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// When it ended (RFC 3339).
    pub time: Time,
    /// Id of the backup up to which it went.
    pub artifact: String,
    /// Whether everything was good.
    pub passed: bool,
    /// How long the restore in it took, in seconds; absent: it restored nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// What was not good: the first eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub findings: Vec<Finding>,
}

/// A drill.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Drilled {
    /// When it ended (RFC 3339).
    pub time: Time,
    /// The moment that it restored (RFC 3339); absent: it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point_time: Option<Time>,
    /// Whether everything was there and good.
    pub passed: bool,
    /// How long it took until everything was there, in seconds; absent: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// What was not good: the first eight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub findings: Vec<Finding>,
}

/// What was not good.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check that failed, in a word.
    pub check: String,
    /// Id of the backup that it failed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// What it saw, for people. No data of the bank.
    pub message: String,
}
