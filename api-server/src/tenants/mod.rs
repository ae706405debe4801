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

use kube::runtime::watcher;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use connection::Budget;
pub use lease::Replica;

use crate::clock::Clock;
use crate::tenant::Directory;

const PAGE: u32 = 500;
/// In seconds. A watch that has said nothing for that long, and then does not end, is begun anew: its connection may be
/// lost without a sign.
const WATCH: u32 = 45;

/// How anything is watched.
pub(crate) fn watching() -> watcher::Config {
    watcher::Config::default().page_size(PAGE).timeout(WATCH)
}

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

/// Follows the Tenants of every namespace into `directory` and publishes the progress on the Lease of `replica`, beside
/// the digest of the `policies` it enforces.
///
/// Returns once `stop` is cancelled, every ledger writer has finished, every pool is closed and the Lease is deleted;
/// the caller bounds the wait.
pub async fn run(
    client: kube::Client,
    directory: Arc<Directory>,
    clock: Clock,
    replica: Replica,
    budget: Budget,
    policies: watch::Receiver<Option<String>>,
    stop: CancellationToken,
) {
    let (reports, published) = watch::channel(None);
    let registry = registry::Registry::new(client.clone(), directory, Arc::clone(&clock), budget, reports);
    tokio::join!(registry.run(stop), lease::publish(client, replica, clock, published, policies));
}
