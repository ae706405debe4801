//! Decides whether a request may pass: rates, what was taken under them, and how replicas share them.
//!
//! A request asks for several things at once ([`Ask`]), and either gets all of them or takes nothing. `rate` is the
//! arithmetic of one rate, `cells` the bounded memory of what was taken, `limiter` the decision of a replica by itself;
//! with `store` it is made by all together, and with `lease` mostly without asking (`leasing`).
//!
//! Around it: `follow` keeps the RateLimitPolicies of the cluster, `rules` makes them ready for requests, `peers` counts
//! the live replicas, [`enforce`] is the layer that every request passes, with the address from [`client_ip`] and the
//! headers of `headers`, and [`explain`] tells operators why. What they share is in `guard`.

mod cells;
pub mod client_ip;
pub mod enforce;
pub mod explain;
mod follow;
mod guard;
pub(crate) mod headers;
mod lease;
mod leasing;
mod limiter;
mod metrics;
mod peers;
#[cfg(test)]
mod properties;
mod rate;
mod rules;
mod store;

use std::sync::Arc;

use kube::Client;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use guard::{Guard, GuardError, Settings, limiter};
pub use limiter::{Ask, FailureMode, Limiter, Outcome, Row, Share, Source, Stats, StoreStats, Verdict};
pub use rate::{Algorithm, COST_MAX, InvalidRate, Micros, Rate};
pub use store::{InvalidUrl, Store};

use crate::clock::Clock;
use crate::tenants::Replica;

/// Keeps the guard's policies equal to the cluster's and its share to the number of replicas until `stop`; `told` gets
/// the digest of the policies in force.
pub async fn run(
    client: Client,
    guard: Arc<Guard>,
    clock: Clock,
    replica: Replica,
    told: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let (lease, known) = (replica.lease_name(), Notify::new());
    // A replica that took itself for the only one would grant all of every rate: it is not ready before it knows.
    let policies = async {
        if stop.run_until_cancelled(known.notified()).await.is_some() {
            follow::policies(client.clone(), Arc::clone(&guard), told, stop.clone()).await;
        }
    };
    let guard = Arc::clone(&guard);
    tokio::join!(
        policies,
        peers::count(client.clone(), &replica.namespace, &lease, guard, clock, &known, stop.clone()),
    );
}
