//! The `Tenant`: one bank.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{cron, names};

/// A bank: its schema and roles in PostgreSQL, its keys, and how the API server serves it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "finaiflow.io",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    singular = "tenant",
    shortname = "tnt",
    category = "finaiflow",
    namespaced,
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "A bank: its schema and roles in PostgreSQL, its keys, and how the API server serves it.",
    selectable = ".spec.tier",
    selectable = ".spec.databaseClassName",
    validation = names::rule("host, Secret and PostgreSQL names"),
    validation = Rule::new("!has(self.spec.adoptClaim) || has(oldSelf.spec.adoptClaim) || !has(self.status) || !has(self.status.claimID) || self.status.claimID == self.spec.adoptClaim")
        .message("spec.adoptClaim cannot be added: this Tenant has a bank already, see status.claimID"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Schema", type_ = "string", json_path = ".status.schema.name"),
    printcolumn(name = "Version", type_ = "integer", json_path = ".status.schema.version"),
    printcolumn(name = "Ledger", type_ = "string", json_path = ".status.conditions[?(@.type==\"LedgerVerified\")].status"),
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.databaseClassName", priority = 1),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.deletionPolicy", priority = 1),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.schemaName) == has(oldSelf.schemaName)", "spec.schemaName cannot be added or removed after creation: the schema would be another one"),
    validation = ("has(self.adoptClaim) || !has(oldSelf.adoptClaim)", "spec.adoptClaim cannot be removed: it says where this bank came from")
)]
pub struct TenantSpec {
    /// Name for people. Not used for anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 120))]
    pub display_name: Option<String>,

    /// The database class that the platform team offers in the operator's configuration.
    #[serde(default = "default_class")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self == oldSelf", "spec.databaseClassName is immutable: to move a bank to another class, restore it there"))]
    pub database_class_name: String,

    /// Name of the PostgreSQL schema. Absent: the operator derives one that cannot clash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(
        validation = ("self.matches('^[a-z_][a-z0-9_]*$')", "spec.schemaName must be lower-case letters, digits and '_', not starting with a digit"),
        validation = ("!self.startsWith('pg_') && !(self in ['public', 'information_schema', 'finaiflow_system'])", "spec.schemaName is reserved: not pg_*, public, information_schema or finaiflow_system"),
        validation = ("self == oldSelf", "spec.schemaName is immutable")
    )]
    pub schema_name: Option<String>,

    /// A word for grouping tenants, for instance by what they pay.
    #[serde(default = "default_tier")]
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = ("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", "spec.tier must be a DNS label (a-z, 0-9, '-')"))]
    pub tier: String,

    /// IANA time zone of the bank's schedules.
    #[serde(default = "cron::utc")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = cron::time_zone_rule())]
    pub time_zone: String,

    /// Host names under which the API server serves this tenant, besides `<name>.<base domain>`. Which suffixes a
    /// namespace may claim is the platform team's configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = ("self.all(h, h.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)+$'))", "spec.hosts must be lower-case DNS names with at least two labels, without port or wildcard")
    )]
    pub hosts: Vec<String>,

    /// What the tenant may use of the shared database.
    #[serde(default)]
    pub limits: Limits,

    /// Currencies in which accounts can be opened (ISO 4217 codes).
    #[serde(default = "default_currencies")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 3)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = ("self.all(c, c.matches('^[A-Z]{3}$'))", "spec.currencies must be ISO 4217 codes such as USD")
    )]
    pub currencies: Vec<String>,

    /// What users may do with money by themselves.
    #[serde(default)]
    pub payments: Payments,

    /// How users of this bank sign in.
    #[serde(default)]
    pub auth: Auth,

    /// Users who work for the bank. A user registers like everybody else and reads the own id in
    /// `GET /api/v1/auth/profile`; that id, and no e-mail address, is what a role is given to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["user".into()]))]
    pub staff: Vec<StaffMember>,

    /// When the ledger is verified.
    #[serde(default)]
    pub ledger_verification: LedgerVerification,

    /// Stops serving: the API server answers 403 `tenant-suspended`. Nothing is removed.
    #[serde(default)]
    pub suspend: bool,

    /// What deleting the Tenant does to schema, data and keys.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// Refuses to delete the Tenant until this is false again.
    #[serde(default)]
    pub deletion_protection: bool,

    /// What happens to the bank that an earlier Tenant of this namespace and name left behind.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// The identity of a bank to take over, whatever its Tenant was called and in whichever cluster: 16 hexadecimal
    /// digits. Setting it takes the verb `adopt` on Tenants. The bank keeps the name of its schema; its data key must
    /// be put into the Secret `<name>.data-key` before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 16, max = 16))]
    #[x_kube(
        validation = ("self.matches('^[0-9a-f]{16}$')", "spec.adoptClaim must be a claim id: 16 lower-case hexadecimal digits"),
        validation = ("self == oldSelf", "spec.adoptClaim is immutable")
    )]
    pub adopt_claim: Option<String>,
}

/// Limits of a tenant in the shared database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Connections that each of the tenant's logins may open.
    #[serde(default = "default_connections")]
    #[x_kube(validation = ("self >= 1 && self <= 1000", "spec.limits.connections must be between 1 and 1000"))]
    pub connections: i32,
    /// Longest time a statement may run, in seconds; 0 means no limit.
    #[serde(default = "default_statement_timeout")]
    #[x_kube(validation = ("self >= 0 && self <= 3600", "spec.limits.statementTimeoutSeconds must be between 0 and 3600"))]
    pub statement_timeout_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: default_connections(), statement_timeout_seconds: default_statement_timeout() }
    }
}

/// What users may do with money by themselves.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Payments {
    /// Lets a user deposit to an own account without a counterparty: for tests and sandboxes.
    #[serde(default)]
    pub self_deposit: bool,
}

/// How users of a bank sign in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Lifetime of an access token, in minutes.
    #[serde(default = "default_access_minutes")]
    #[x_kube(validation = ("self >= 1 && self <= 1440", "spec.auth.accessTokenMinutes must be between 1 and 1440"))]
    pub access_token_minutes: i32,
    /// Lifetime of a session without use, in days: how long a refresh token is good for.
    #[serde(default = "default_refresh_days")]
    #[x_kube(validation = ("self >= 1 && self <= 365", "spec.auth.refreshTokenDays must be between 1 and 365"))]
    pub refresh_token_days: i32,
    /// Whether an e-mail address must be proven before its owner can sign in.
    #[serde(default)]
    pub email_verification: EmailVerification,
    /// Origins that browsers may call from, exact.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = ("self.all(o, o.matches('^https?://[a-z0-9.-]+(:[0-9]{1,5})?$'))", "spec.auth.allowedOrigins must be origins such as https://app.example.com, without path or wildcard")
    )]
    pub allowed_origins: Vec<String>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            access_token_minutes: default_access_minutes(),
            refresh_token_days: default_refresh_days(),
            email_verification: EmailVerification::default(),
            allowed_origins: Vec::new(),
        }
    }
}

/// A user who works for the bank.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StaffMember {
    /// The user's public id, `usr_…`.
    #[schemars(length(min = 30, max = 30))]
    #[x_kube(validation = ("self.matches('^usr_[a-z2-7]{25}[aeimquy4]$')", "spec.staff.user must be the id of a user, as GET /api/v1/auth/profile tells it"))]
    pub user: String,
    /// What the user may do beyond own accounts.
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub roles: Vec<StaffRole>,
}

/// What a user may do beyond own accounts.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaffRole {
    /// Read every account, transaction, hold and journal, the bank's own accounts and the trial balance.
    Auditor,
    /// All of that, and act on every account: move money, hold, freeze, limit, post and reverse journals.
    Teller,
}

/// Whether an e-mail address must be proven.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmailVerification {
    /// Proven before the first sign-in.
    #[default]
    Required,
    /// Registration alone is enough.
    Optional,
}

/// When the ledger is verified.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerVerification {
    /// Cron schedule in `spec.timeZone`. Absent: daily, at a minute derived from the tenant's claim so that tenants spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = cron::rule("spec.ledgerVerification.schedule"))]
    pub schedule: Option<String>,
}

/// What deleting a Tenant does to schema, data and keys.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Schema, data and keys stay; logins are closed and the claim is released.
    #[default]
    Retain,
    /// Exactly what was created for this Tenant is dropped.
    Delete,
    /// The same, once a last backup by the Tenant's Backup is stored and has been proven by restoring it.
    BackupThenDelete,
}

/// What happens to a bank that an earlier Tenant of the same namespace and name left behind.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdoptionPolicy {
    /// It is not touched, and the Tenant waits.
    Never,
    /// It is this Tenant's again: the same identity, schema, data and keys.
    #[default]
    IfOwned,
}

/// What is true of a Tenant. Traffic and sizes are metrics, not status.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// `metadata.generation` that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, SchemaReady, CredentialsReady, Serving, LedgerVerified, Protected; Reconciling and Stalled when abnormal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// The bank's identity, which outlives this object: 16 hexadecimal digits.
    #[serde(default, rename = "claimID", skip_serializing_if = "Option::is_none")]
    pub claim_id: Option<String>,
    /// Hosts of the spec that this tenant really has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub hosts: Vec<String>,
    /// The schema in PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaStatus>,
    /// Where the schema is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
    /// The tenant's Secrets. A higher generation is new contents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub secrets: Vec<SecretStatus>,
    /// What ledger verifications saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerStatus>,
    /// What the Backup that acts for this tenant has stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<TenantBackupStatus>,
    /// Base URL of the tenant's API inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// What is stored of the tenant.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TenantBackupStatus {
    /// When a verification last found everything good (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified_at: Option<Time>,
    /// The newest moment that a restore reaches (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_point_time: Option<Time>,
}

/// The tenant's schema.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SchemaStatus {
    /// Its name in PostgreSQL.
    pub name: String,
    /// Number of the newest applied migration.
    pub version: i32,
}

/// Where the tenant's schema is.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// The database class.
    pub class: String,
    /// The PostgreSQL server of that class.
    pub instance: String,
}

/// One of the tenant's Secrets.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// Name of the Secret in the Tenant's namespace.
    pub name: String,
    /// What it is for: `database`, `maintenance-database`, `backup-database`, `signing-keys` or
    /// `data-key`.
    pub purpose: String,
    /// Counts its contents from 1.
    pub generation: i64,
}

/// What ledger verifications saw.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LedgerStatus {
    /// Incarnation of the ledger at `sequence`; a restore starts a new one.
    pub epoch: i32,
    /// Sequence of the newest journal that a verification without findings saw.
    pub sequence: i64,
    /// Hash of that journal: with epoch and sequence the anchor, which what came before cannot change without breaking.
    /// It only moves on, to verifications of a ledger that still passes through it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Whether every check of the newest verification passed.
    pub balanced: bool,
    /// When that ended (RFC 3339).
    pub verified_at: Time,
}

fn default_class() -> String {
    "default".to_owned()
}
fn default_tier() -> String {
    "standard".to_owned()
}
fn default_currencies() -> Vec<String> {
    ["USD", "EUR", "GBP", "CAD", "AUD"].map(str::to_owned).to_vec()
}
const fn default_connections() -> i32 {
    20
}
const fn default_statement_timeout() -> i32 {
    30
}
const fn default_access_minutes() -> i32 {
    30
}
const fn default_refresh_days() -> i32 {
    7
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    #[test]
    fn manifests_are_accepted_and_rejected_offline() {
        cases::check::<Tenant>(include_str!("../tests/tenant_cases.yaml"));
    }
}
