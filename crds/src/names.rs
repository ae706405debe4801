//! The only place where a name that several programs share is spelt.

use std::fmt;

use kube::core::Rule;

use crate::backup::Run;

/// API group of every FinaiFlow resource.
pub const GROUP: &str = "finaiflow.io";
/// API version of every FinaiFlow resource.
pub const VERSION: &str = "v1alpha1";
/// Finalizer that keeps a Tenant until what it owns outside Kubernetes is released or dropped.
pub const TENANT_FINALIZER: &str = "finaiflow.io/tenant";
/// Finalizer that keeps a Restore until its Job, its login and its Secret are gone.
pub const RESTORE_FINALIZER: &str = "finaiflow.io/restore";
/// Finalizer that keeps a Backup until its jobs are gone.
pub const BACKUP_FINALIZER: &str = "finaiflow.io/backup";

/// Label: who made an object (a Kubernetes recommended label).
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`] on everything the operator makes.
pub const MANAGED_BY: &str = "finaiflow-operator";
/// Label: the Tenant an object belongs to, by name.
pub const LABEL_TENANT: &str = "finaiflow.io/tenant";
/// Label that every Tenant has for the selectors of policies, whatever its labels: the value of its `spec.tier`.
pub const LABEL_TIER: &str = "finaiflow.io/tier";
/// Label on the Leases of API server replicas (value [`API_SERVER`]).
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";

/// Label on jobs of Restores: the name of the Restore.
pub const LABEL_RESTORE: &str = "finaiflow.io/restore";
/// Label on jobs of Restores: the namespace of the Restore.
pub const LABEL_RESTORE_NAMESPACE: &str = "finaiflow.io/restore-namespace";
/// Label on jobs of Backups, and on their pods: the claim of the bank.
pub const LABEL_CLAIM: &str = "finaiflow.io/claim-id";
/// Label on jobs of Backups, and on their pods: the [`Run`].
pub const LABEL_RUN: &str = "finaiflow.io/run";
/// Label that says which program a pod is of: the name of its Deployment, or [`BACKUP`].
pub const LABEL_NAME: &str = "app.kubernetes.io/name";

/// Annotation: the claim that a Secret belongs to. A Secret without ours is never adopted.
pub const ANNOTATION_CLAIM: &str = "finaiflow.io/claim-id";
/// Annotation: counts the contents of a Secret from 1; a new number is new contents.
pub const ANNOTATION_GENERATION: &str = "finaiflow.io/generation";
/// Annotation on a replica's Lease: the newest Tenant resourceVersion the replica has applied.
pub const ANNOTATION_APPLIED: &str = "finaiflow.io/applied-resource-version";
/// Annotation on a replica's Lease: JSON object `{"<namespace>/<name>": "<why it cannot serve it>"}`, at most 64 entries.
pub const ANNOTATION_FAILURES: &str = "finaiflow.io/failures";

/// Annotation on a replica's Lease: the digest of the RateLimitPolicies that the replica enforces.
pub const ANNOTATION_POLICIES: &str = "finaiflow.io/policy-digest";

/// Field manager of the operator's children.
pub const MANAGER_OPERATOR: &str = "finaiflow-operator";
/// Field manager of the operator's status writes.
pub const MANAGER_STATUS: &str = "finaiflow-operator-status";
/// Field manager of the API server's own objects (Leases).
pub const MANAGER_API: &str = "finaiflow-api";

/// Name of the operator's Deployment and of the Lease that its leader holds.
pub const OPERATOR: &str = "finaiflow-operator";
/// Name of the API server's Deployment, Service, ServiceAccount and component label.
pub const API_SERVER: &str = "finaiflow-api";

/// Value of [`LABEL_NAME`] on the pods of backup jobs, their ServiceAccount, and their container.
pub const BACKUP: &str = "finaiflow-backup";

/// The verb on Tenants that lets a person take over a bank, or its backup, by naming its claim.
pub const ADOPT_VERB: &str = "adopt";
/// The ValidatingAdmissionPolicy, and its binding, that asks for [`ADOPT_VERB`].
pub const ADOPTION_GUARD: &str = "finaiflow-tenant-adoption";
/// The ValidatingAdmissionPolicy, and its binding, that asks for [`ADOPT_VERB`] where a Restore names a bank's backup.
pub const RESTORE_GUARD: &str = "finaiflow-restore-source";

/// What a Secret beside a Tenant is for. Its Display is the word used in the Secret's name and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretPurpose {
    /// The API server's login to the tenant's schema.
    Database,
    /// The login of the ledger verification job: reads money tables, writes its findings.
    MaintenanceDatabase,
    /// The login of the backup jobs: reads all that is backed up, writes nothing.
    BackupDatabase,
    /// Ed25519 keys that sign access tokens.
    SigningKeys,
    /// The key encryption key of the tenant.
    DataKey,
}

impl SecretPurpose {
    /// Every purpose, in the order in which Secrets are made.
    pub const ALL: [Self; 5] =
        [Self::DataKey, Self::SigningKeys, Self::Database, Self::MaintenanceDatabase, Self::BackupDatabase];

    /// The word in names and types.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::MaintenanceDatabase => "maintenance-database",
            Self::BackupDatabase => "backup-database",
            Self::SigningKeys => "signing-keys",
            Self::DataKey => "data-key",
        }
    }

    /// Name of the Secret of `tenant`: `<tenant>.<purpose>`.
    #[must_use]
    pub fn secret_name(self, tenant: &str) -> String {
        format!("{tenant}.{self}")
    }

    /// The Secret's `type`: `finaiflow.io/<purpose>`.
    #[must_use]
    pub fn secret_type(self) -> String {
        format!("{GROUP}/{self}")
    }

    /// True for keys without which retained data is lost or its tokens void: they outlive the Tenant object.
    #[must_use]
    pub const fn outlives_tenant(self) -> bool {
        matches!(self, Self::SigningKeys | Self::DataKey)
    }
}

impl fmt::Display for SecretPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Name of the CronJob (and of its ServiceAccount-less pods' label) that verifies the ledger of `tenant`.
#[must_use]
pub fn ledger_verification_name(tenant: &str) -> String {
    format!("{tenant}-verify")
}

/// Name of the CronJob of the Backup of a bank, in the operator's namespace.
#[must_use]
pub fn backup_job_name(claim_id: &str, run: Run) -> String {
    format!("backup-{claim_id}-{}", run.as_str())
}

/// Name of the Secret, in the operator's namespace, of the jobs that take, copy and prune the backups of a bank: the login,
/// the key that signs manifests, and the key that is escrowed in them. Nothing in it opens a backup.
#[must_use]
pub fn backup_secret_name(claim_id: &str) -> String {
    format!("backup-{claim_id}")
}

/// Name of the Secret, in the operator's namespace, with which backups of a bank are opened: mounted by jobs that verify
/// and restore, and by no others.
#[must_use]
pub fn backup_identity_name(claim_id: &str) -> String {
    format!("backup-{claim_id}-identity")
}

/// Name of the PersistentVolumeClaim of a destination, in the operator's namespace.
#[must_use]
pub fn backup_volume_name(claim_id: &str, destination: &str) -> String {
    format!("backup-{claim_id}-{destination}")
}

/// Name of the Role and RoleBinding that let the API server read exactly the tenant's Secrets.
#[must_use]
pub fn api_access_name(tenant: &str) -> String {
    format!("{tenant}.finaiflow-api")
}

/// Name of the NetworkPolicy around the pods of `tenant`.
#[must_use]
pub fn network_policy_name(tenant: &str) -> String {
    format!("{tenant}.finaiflow-jobs")
}

/// Longest allowed name of a resource that CronJobs are named after: with the longest suffix theirs must stay within 52
/// characters.
pub const NAME_MAX: usize = 40;
const _: () = assert!(NAME_MAX + "-verify".len() <= 52, "CronJob names stop at 52 characters");

/// The rule of a resource's own name, which becomes part of `what`.
pub(crate) fn rule(what: &str) -> Rule {
    let rule = format!(
        "size(self.metadata.name) <= {NAME_MAX} && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')"
    );
    let message = format!(
        "metadata.name must be a DNS label of at most {NAME_MAX} characters (a-z, 0-9, '-'): it becomes part of {what}"
    );
    Rule::new(rule).message(message.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change() {
        // Clients, charts and retained Secrets depend on these: a change here is a migration.
        let names: Vec<_> = SecretPurpose::ALL.iter().map(|p| (p.secret_name("acme"), p.secret_type())).collect();
        assert_eq!(
            names,
            [
                ("acme.data-key".into(), "finaiflow.io/data-key".into()),
                ("acme.signing-keys".into(), "finaiflow.io/signing-keys".into()),
                ("acme.database".into(), "finaiflow.io/database".into()),
                ("acme.maintenance-database".into(), "finaiflow.io/maintenance-database".to_owned()),
                ("acme.backup-database".into(), "finaiflow.io/backup-database".to_owned()),
            ]
        );
        assert_eq!(TENANT_FINALIZER, "finaiflow.io/tenant");
        let jobs = Run::ALL.map(|run| backup_job_name("0123456789abcdef", run));
        assert_eq!(jobs[0], "backup-0123456789abcdef-full");
        assert!(jobs.iter().all(|job| job.len() <= 52), "CronJob names stop at 52 characters");
    }
}
