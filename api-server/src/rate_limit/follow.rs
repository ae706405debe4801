//! Keeps the guard's policies equal to the cluster's.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use finaiflow_crds::RateLimitPolicy;
use futures::StreamExt;
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
    let mut policies = Policies::default();
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        let changed = match event {
            Ok(event) => policies.take(event),
            Err(error) => {
                tracing::warn!(%error, "the watch on rate limit policies broke off");
                false
            }
        };
        if changed {
            guard.replace(policies.known.values().cloned());
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

#[derive(Default)]
struct Policies {
    known: HashMap<String, Arc<RateLimitPolicy>>,
    /// Of a list that is not complete yet.
    listed: HashMap<String, Arc<RateLimitPolicy>>,
}

impl Policies {
    /// Whether the set is another one now. The first list makes one even if it is empty.
    fn take(&mut self, event: Event<RateLimitPolicy>) -> bool {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(policy) => {
                self.listed.insert(policy.key(), Arc::new(policy));
            }
            Event::InitDone => {
                self.known = std::mem::take(&mut self.listed);
                return true;
            }
            Event::Apply(policy) => {
                let same = |old: &Arc<RateLimitPolicy>| {
                    (&old.metadata.uid, &old.spec) == (&policy.metadata.uid, &policy.spec)
                        && old.metadata.generation == policy.metadata.generation
                };
                if !self.known.get(&policy.key()).is_some_and(same) {
                    self.known.insert(policy.key(), Arc::new(policy));
                    return true;
                }
            }
            Event::Delete(policy) => return self.known.remove(&policy.key()).is_some(),
        }
        false
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

    fn known(policies: &Policies) -> Vec<(&str, i64)> {
        let mut known: Vec<_> =
            policies.known.iter().map(|(key, policy)| (key.as_str(), policy.metadata.generation.unwrap())).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn a_list_counts_when_it_is_complete_and_lacks_what_is_gone() {
        let mut policies = Policies::default();
        assert!(!policies.take(Event::Init));
        assert!(!policies.take(Event::InitApply(policy("a", 1))));
        assert!(known(&policies).is_empty());
        assert!(policies.take(Event::InitDone));
        assert_eq!(known(&policies), [("banks/a", 1)]);
        for event in [Event::Init, Event::InitApply(policy("b", 1))] {
            assert!(!policies.take(event));
        }
        assert_eq!(known(&policies), [("banks/a", 1)], "the old set holds until the new one is complete");
        assert!(policies.take(Event::InitDone));
        assert_eq!(known(&policies), [("banks/b", 1)]);
    }

    #[test]
    fn only_what_changes_the_set_makes_a_new_one() {
        let mut policies = Policies::default();
        assert!(policies.take(Event::Apply(policy("a", 1))));
        assert!(!policies.take(Event::Apply(policy("a", 1))), "a status was written");
        assert!(policies.take(Event::Apply(policy("a", 2))));
        assert!(!policies.take(Event::Delete(policy("b", 1))));
        assert!(policies.take(Event::Delete(policy("a", 2))));
        assert!(known(&policies).is_empty());
    }
}
