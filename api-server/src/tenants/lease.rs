//! What this replica tells the operator: a Lease with how far it is and what it could not do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use finaiflow_crds::names::{
    ANNOTATION_APPLIED, ANNOTATION_FAILURES, ANNOTATION_POLICIES, API_SERVER, LABEL_COMPONENT, MANAGER_API,
};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Key;
use crate::clock::{self, Clock};

/// A Lease not renewed for this long speaks of a dead replica.
const DURATION_SECONDS: i32 = 30;
const RENEW: Duration = Duration::from_secs(10);
/// Changes come in bursts; one write tells them all.
const GATHER: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);
const REQUEST: Duration = Duration::from_secs(5);
/// Most failures told, and the longest reason in bytes: an annotation is no log.
const MOST_FAILURES: usize = 64;
const LONGEST_REASON: usize = 256;

/// This replica, as its Lease names it.
#[derive(Clone, Debug)]
pub struct Replica {
    /// Namespace of the Lease, the pod's own.
    pub namespace: String,
    /// Name of the pod; the Lease is called `finaiflow-api-<pod>`.
    pub pod: String,
    /// Uid of the pod: with it, the Lease disappears with the pod however the pod ends.
    pub pod_uid: Option<String>,
}

impl Replica {
    /// Name of its Lease.
    #[must_use]
    pub fn lease_name(&self) -> String {
        format!("{API_SERVER}-{}", self.pod)
    }
}

/// Why tenants cannot be served as their objects say, and the version of the object that says it.
pub(super) type Failures = HashMap<Key, (u64, String)>;

/// What the registry has done so far, as far as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    applied: u64,
    failures: BTreeMap<String, String>,
}

impl Report {
    /// Every Tenant change up to `applied` has been applied or is among the `failures`. Of too many failures the
    /// newest are told: those are the ones that somebody waits for.
    pub(super) fn new(applied: u64, failures: &Failures) -> Self {
        let mut newest: Vec<_> = failures.iter().collect();
        newest.sort_unstable_by_key(|(_, (version, _))| Reverse(*version));
        let told = newest.into_iter().take(MOST_FAILURES).map(|(key, (_, reason))| {
            let end = reason.floor_char_boundary(LONGEST_REASON);
            (key.to_string(), reason[..end].to_owned())
        });
        Self { applied, failures: told.collect() }
    }
}

/// Publishes each report, and the newest one again in time, until the sender is gone; then deletes the Lease.
///
/// There is no Lease before the first report and the first digest of the policies in force: a replica counts once it has
/// caught up with both.
pub(super) async fn publish(
    client: Client,
    replica: Replica,
    clock: Clock,
    mut reports: watch::Receiver<Option<Report>>,
    mut policies: watch::Receiver<Option<String>>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &replica.namespace);
    let name = replica.lease_name();
    let mut next = None;
    loop {
        tokio::select! {
            changed = reports.changed() => {
                if changed.is_err() {
                    break;
                }
                sleep(GATHER).await;
            }
            Ok(()) = policies.changed() => sleep(GATHER).await,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
        let told = (reports.borrow_and_update().clone(), policies.borrow_and_update().clone());
        let (Some(report), Some(policies)) = told else { continue };
        let lease = lease(&replica, &report, policies, clock());
        let (params, lease) = (PatchParams::apply(MANAGER_API).force(), Patch::Apply(&lease));
        let wait = match timeout(REQUEST, leases.patch(&name, &params, &lease)).await {
            Ok(Ok(_)) => RENEW,
            Ok(Err(error)) => retry(&name, &error.to_string()),
            Err(_) => retry(&name, "no answer in time"),
        };
        next = Some(Instant::now() + wait);
    }
    let deleted = timeout(REQUEST, leases.delete(&name, &DeleteParams::default())).await;
    if !matches!(deleted, Ok(Ok(_))) {
        tracing::warn!(lease = name, "the lease could not be deleted and will expire");
    }
}

fn retry(lease: &str, error: &str) -> Duration {
    tracing::warn!(lease, error, "the lease could not be written");
    RETRY
}

fn lease(replica: &Replica, report: &Report, policies: String, now: OffsetDateTime) -> Lease {
    let annotations = BTreeMap::from([
        (ANNOTATION_APPLIED.to_owned(), report.applied.to_string()),
        (ANNOTATION_FAILURES.to_owned(), serde_json::json!(report.failures).to_string()),
        (ANNOTATION_POLICIES.to_owned(), policies),
    ]);
    let owner = |uid: &String| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: replica.pod.clone(),
        uid: uid.clone(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta {
            name: Some(replica.lease_name()),
            labels: Some(BTreeMap::from([(LABEL_COMPONENT.to_owned(), API_SERVER.to_owned())])),
            annotations: Some(annotations),
            owner_references: replica.pod_uid.as_ref().map(|uid| vec![owner(uid)]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(replica.pod.clone()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(MicroTime(clock::timestamp(now))),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn key(name: &str) -> Key {
        Key { namespace: "banks".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn a_lease_says_who_until_when_and_how_far() {
        let replica = Replica { namespace: "system".into(), pod: "api-0".into(), pod_uid: Some("u1".into()) };
        let report = Report::new(42, &Failures::from([(key("acme"), (7, "why".into()))]));
        let lease =
            serde_json::to_value(lease(&replica, &report, "0-0".to_owned(), datetime!(2026-01-01 00:00:00.5 UTC)))
                .unwrap();
        assert_eq!(
            lease,
            serde_json::json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {
                    "name": "finaiflow-api-api-0",
                    "labels": {"app.kubernetes.io/component": "finaiflow-api"},
                    "annotations": {
                        "finaiflow.io/applied-resource-version": "42",
                        "finaiflow.io/failures": r#"{"banks/acme":"why"}"#,
                        "finaiflow.io/policy-digest": "0-0",
                    },
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "api-0", "uid": "u1"}],
                },
                "spec": {"holderIdentity": "api-0", "leaseDurationSeconds": 30,
                         "renewTime": "2026-01-01T00:00:00.500000Z"},
            })
        );
    }

    #[test]
    fn failures_are_cut() {
        let many = (0..100).map(|number| (key(&format!("t{number:03}")), (number, "ä".repeat(1000)))).collect();
        let told = Report::new(100, &many).failures;
        assert_eq!(told.len(), MOST_FAILURES);
        assert!(told.values().all(|reason| reason.len() == LONGEST_REASON));
        assert_eq!(told.first_key_value().unwrap().0, "banks/t036", "the oldest are left out");
    }
}
