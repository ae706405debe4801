//! The live registry: keeps the [`Directory`] equal to the cluster's Tenants, with no restart for any change.
//!
//! [`plan`] decides what a Tenant object asks for, [`load`] reads its Secrets, [`connection`] opens and retires its
//! pool and ledger writer, [`registry`] ties them to the watch, and [`lease`] tells the operator how far this replica is.

mod applied;
mod connection;
mod lease;
mod load;
mod plan;
mod registry;
mod settings;

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use connection::Budget;
pub use lease::Replica;

use crate::clock::Clock;
use crate::tenant::Directory;

/// Where a Tenant is. Its Display is the key in a Lease's failures: `<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    namespace: String,
    name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Follows the Tenants of every namespace into `directory` and publishes the progress on the Lease of `replica`.
///
/// Returns once `stop` is cancelled, every ledger writer has finished, every pool is closed and the Lease is deleted;
/// the caller bounds the wait.
pub async fn run(
    client: kube::Client,
    directory: Arc<Directory>,
    clock: Clock,
    replica: Replica,
    budget: Budget,
    stop: CancellationToken,
) {
    let (reports, published) = watch::channel(None);
    let registry = registry::Registry::new(client.clone(), directory, Arc::clone(&clock), budget, reports);
    tokio::join!(registry.run(stop), lease::publish(client, replica, clock, published));
}
