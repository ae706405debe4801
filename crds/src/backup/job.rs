//! What the operator tells a job of a Backup or a Restore, and what the job tells the operator.

use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Serialize};

use super::{DestinationStatus, Finding};
use crate::restore::{Plan, Restored};

/// The most bytes that Kubernetes keeps of what a container says when it ends.
pub const REPORT_MAX: usize = 4096;

/// What a job is told. It holds no secret: those are files of mounted Secrets.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobSettings {
    /// Identity of the bank whose backups these are: 16 hexadecimal digits.
    #[serde(rename = "claimID")]
    pub claim_id: String,
    /// Namespace of its Tenant.
    pub namespace: String,
    /// Name of its Tenant.
    pub tenant: String,
    /// age public keys of those who can open what is taken.
    pub recipients: Vec<String>,
    /// Ed25519 public keys in base64 whose manifests are believed.
    pub trusted_keys: Vec<String>,
    /// The destinations, in the order of the spec.
    pub destinations: Vec<JobDestination>,
    /// The head of the ledger as it was once kept outside the database: what a backup holds has to go through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
}

/// A destination of a job.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobDestination {
    /// Its name in the spec.
    pub name: String,
    /// How many days back a restore from there must be possible.
    pub retention_days: i32,
    /// Where it is.
    pub place: Place,
}

/// Where a destination is, for a job.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A directory: where a volume is mounted.
    Directory(PathBuf),
    /// A bucket of an S3 server.
    Bucket(Bucket),
}

/// A bucket of an S3 server.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    /// URL of the server; absent: Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// Name of the bucket.
    pub bucket: String,
    /// What all keys begin with.
    #[serde(default)]
    pub prefix: String,
    /// Whether the endpoint may be plain HTTP.
    #[serde(default)]
    pub allow_http: bool,
    /// Directory with the files `accessKeyId` and `secretAccessKey`.
    pub credentials: PathBuf,
}

/// A head of the ledger.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anchor {
    /// Incarnation of the ledger.
    pub epoch: i32,
    /// Sequence of the journal.
    pub sequence: i64,
    /// Its hash, in hexadecimal digits.
    pub hash: String,
}

/// What a job says when it ends, as the container's termination message: JSON of at most [`REPORT_MAX`] bytes.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// When it ended.
    pub time: Time,
    /// Why it did not do what it is for, for people; absent: it did. No data of the bank, no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Id of the backup that it stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
    /// Why it took a full backup where less was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_because: Option<String>,
    /// What lies at the destinations, as listed at the end; those that it did not look at are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<DestinationStatus>,
    /// What a restore was to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What a restore restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// The data key that belongs to what a restore restored, for the operator: in base64 the nonce (12 bytes), the ciphertext
    /// and the tag (16 bytes) of AES-256-GCM (NIST SP 800-38D), by a key that this restore alone has. Authenticated with it is
    /// the claim id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
    /// How long that took until the data was there and checked, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto_seconds: Option<i64>,
    /// What was not good about what was restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}
