//! How many replicas are alive, by their Leases: each grants its part of what is counted in memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::lease::is_current;
use finaiflow_crds::names::{API_SERVER, LABEL_COMPONENT};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::{Guard, Share};
use crate::clock::{self, Clock};
use crate::tenants::watching;

/// How often Leases are looked at for having run out, which no event tells.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps the guard's share until `stop`, and tells when it is known for the first time. `own` is the Lease of this
/// replica, which may not exist yet.
pub(super) async fn count(
    client: Client,
    namespace: &str,
    own: &str,
    guard: Arc<Guard>,
    clock: Clock,
    known: &Notify,
    stop: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let events = watcher(leases, watching().labels(&format!("{LABEL_COMPONENT}={API_SERVER}"))).default_backoff();
    let mut events = pin!(events);
    let mut look = interval(LOOK);
    let mut peers = Peers::new();
    let mut share = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.next() => match event {
                Some(Ok(event)) => peers.take(&event),
                Some(Err(error)) => tracing::warn!(%error, "the watch on leases of the API server broke off"),
                None => break,
            },
            _ = look.tick() => {}
        }
        if !peers.complete {
            continue;
        }
        let now = peers.share(own, clock());
        if share != Some(now) {
            tracing::info!(replicas = now.replicas, rank = now.rank, "share of the rates counted in memory");
            guard.share(now);
            share = Some(now);
            known.notify_one();
        }
    }
}

/// The Leases of the replicas.
struct Peers {
    leases: Store<Lease>,
    writer: Writer<Lease>,
    /// Whether there was a whole list yet.
    complete: bool,
}

impl Peers {
    fn new() -> Self {
        let (leases, writer) = reflector::store();
        Self { leases, writer, complete: false }
    }

    fn take(&mut self, event: &Event<Lease>) {
        self.writer.apply_watcher_event(event);
        self.complete |= matches!(event, Event::InitDone);
    }

    /// This replica counts also while it has no Lease or could not renew it: it serves.
    fn share(&self, own: &str, now: OffsetDateTime) -> Share {
        let now = clock::timestamp(now);
        let alive = self.leases.state().into_iter().filter(|lease| is_current(lease, now));
        let others: Vec<_> = alive.map(|lease| lease.name_any()).filter(|name| name != own).collect();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let rank = others.iter().filter(|name| name.as_str() < own).count();
        Share { replicas: number(others.len() + 1), rank: number(rank) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    fn lease(name: &str, renewed: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"renewTime": renewed, "leaseDurationSeconds": 30},
        }))
        .unwrap()
    }

    fn peers(names: &[&str]) -> Peers {
        let mut peers = Peers::new();
        peers.take(&Event::Init);
        for name in names {
            peers.take(&Event::InitApply(lease(name, "2026-01-01T00:00:00.000000Z")));
        }
        peers.take(&Event::InitDone);
        peers
    }

    const NOW: OffsetDateTime = datetime!(2026-01-01 00:00:10 UTC);

    #[test]
    fn every_replica_has_a_rank_of_its_own() {
        let peers = peers(&["a", "b", "c"]);
        let shares = ["a", "b", "c"].map(|own| peers.share(own, NOW));
        assert_eq!(shares, [0, 1, 2].map(|rank| Share { replicas: 3, rank }));
    }

    #[test]
    fn a_replica_counts_itself_before_its_lease_is_seen() {
        assert_eq!(peers(&[]).share("b", NOW), Share { replicas: 1, rank: 0 });
        assert_eq!(peers(&["a", "c"]).share("b", NOW), Share { replicas: 3, rank: 1 });
    }

    #[test]
    fn who_is_gone_or_silent_does_not_count() {
        let mut peers = peers(&["a", "b", "c"]);
        peers.take(&Event::Delete(lease("a", "2026-01-01T00:00:00.000000Z")));
        assert_eq!(peers.share("b", NOW), Share { replicas: 2, rank: 0 });
        peers.take(&Event::Apply(lease("b", "2026-01-01T00:00:20.000000Z")));
        let later = datetime!(2026-01-01 00:00:31 UTC);
        assert_eq!(peers.share("b", later), Share { replicas: 1, rank: 0 });
        peers.take(&Event::Apply(lease("c", "2026-01-01T00:00:31.000000Z")));
        assert_eq!(peers.share("b", later), Share { replicas: 2, rank: 0 });
        assert_eq!(peers.share("b", datetime!(2026-01-01 00:09:00 UTC)), Share { replicas: 1, rank: 0 });
    }
}
