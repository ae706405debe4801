//! Keeps the guard's policies equal to the cluster's.

use std::pin::pin;
use std::sync::Arc;

use finaiflow_crds::RateLimitPolicy;
use finaiflow_crds::rate_limit_policy::digest;
use futures::StreamExt;
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Guard;
use crate::tenants::watching;

/// Follows the policies of every namespace until `stop`, and tells the digest of those in force.
///
/// A set is put in force as a whole: after a list is complete, and after each change.
pub(super) async fn policies(
    client: Client,
    guard: Arc<Guard>,
    told: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let events = watcher(Api::<RateLimitPolicy>::all(client), watching()).default_backoff().modify(prune);
    let mut events = pin!(events);
    let mut policies = Policies::new();
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        let changed = match event {
            Ok(event) => policies.take(&event),
            Err(error) => {
                tracing::warn!(%error, "the watch on rate limit policies broke off");
                false
            }
        };
        if changed {
            guard.replace(policies.known.state());
            told.send_replace(guard.digest());
        }
    }
}

/// What nothing here reads; a status that changes is then no change.
fn prune(policy: &mut RateLimitPolicy) {
    policy.metadata.managed_fields = None;
    policy.metadata.annotations = None;
    policy.status = None;
}

struct Policies {
    known: Store<RateLimitPolicy>,
    writer: Writer<RateLimitPolicy>,
    /// Of those that were told last.
    digest: Option<String>,
}

impl Policies {
    fn new() -> Self {
        let (known, writer) = reflector::store();
        Self { known, writer, digest: None }
    }

    /// Whether the set is another one now: not while a list is incomplete, nor when only a status was written. The first
    /// list makes one even if it is empty.
    fn take(&mut self, event: &Event<RateLimitPolicy>) -> bool {
        self.writer.apply_watcher_event(event);
        if matches!(event, Event::Init | Event::InitApply(_)) {
            return false;
        }
        let digest = Some(digest(self.known.state().iter().map(Arc::as_ref)));
        std::mem::replace(&mut self.digest, digest.clone()) != digest
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, generation: i64) -> RateLimitPolicy {
        serde_json::from_value(json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"namespace": "banks", "name": name, "uid": name, "generation": generation},
            "spec": {"targetRefs": [{"kind": "Tenant", "name": "acme"}], "maxInFlight": generation},
        }))
        .unwrap()
    }

    fn known(policies: &Policies) -> Vec<(String, i64)> {
        let known = policies.known.state();
        let mut known: Vec<_> =
            known.iter().map(|policy| (policy.key(), policy.metadata.generation.unwrap())).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_lacks_what_is_gone() {
        let mut policies = Policies::new();
        assert!(!policies.take(&Event::Init));
        assert!(!policies.take(&Event::InitApply(policy("a", 1))));
        assert!(known(&policies).is_empty());
        assert!(policies.take(&Event::InitDone));
        assert_eq!(known(&policies), [("banks/a".to_owned(), 1)]);
        for event in [Event::Init, Event::InitApply(policy("b", 1))] {
            assert!(!policies.take(&event));
        }
        assert_eq!(known(&policies), [("banks/a".to_owned(), 1)], "the old set holds until the new one is complete");
        assert!(policies.take(&Event::InitDone));
        assert_eq!(known(&policies), [("banks/b".to_owned(), 1)]);
    }

    #[test]
    fn only_what_changes_the_set_makes_a_new_one() {
        let mut policies = Policies::new();
        assert!(policies.take(&Event::Apply(policy("a", 1))));
        assert!(!policies.take(&Event::Apply(policy("a", 1))), "a status was written");
        assert!(policies.take(&Event::Apply(policy("a", 2))));
        assert!(!policies.take(&Event::Delete(policy("b", 1))));
        assert!(policies.take(&Event::Delete(policy("a", 2))));
        assert!(known(&policies).is_empty());
    }
}
