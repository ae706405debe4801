//! What every visit needs.

use finaiflow_crds::{Backup, Restore, Tenant};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::reflector::Store;

use crate::config::Config;
use crate::random::Random;

/// What every visit needs.
pub struct Context<C> {
    /// The Kubernetes API.
    pub client: Client,
    /// The operator's namespace.
    pub home: String,
    /// The PostgreSQL servers.
    pub catalog: C,
    /// The platform team's choices.
    pub config: Config,
    /// UID of the namespace kube-system: which cluster this is.
    pub installation: String,
    /// All Tenants, as watched.
    pub tenants: Store<Tenant>,
    /// The Leases of the API server's replicas, as watched.
    pub leases: Store<Lease>,
    /// All Restores, as watched.
    pub restores: Store<Restore>,
    /// All Backups, as watched.
    pub backups: Store<Backup>,
    /// The time in whole seconds.
    pub now: fn() -> Timestamp,
    /// Randomness for identities, passwords and keys.
    pub random: Random,
}
