//! The API server's replicas, as their Leases tell of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use finaiflow_crds::lease::is_current;
use finaiflow_crds::names::{ANNOTATION_APPLIED, ANNOTATION_FAILURES, ANNOTATION_POLICIES};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// A replica whose Lease is current.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replica {
    /// The Lease's name.
    pub name: String,
    /// The newest Tenant resourceVersion it has applied.
    pub applied: u128,
    /// `<namespace>/<name>` of Tenants it cannot serve, and why.
    pub failures: BTreeMap<String, String>,
    /// Digest of the RateLimitPolicies that it enforces, if it says.
    pub policies: Option<String>,
}

/// The replicas that are alive, by name. Resource versions are decimal integers that grow (KEP-5504).
#[must_use]
pub fn alive(leases: &[Arc<Lease>], now: Timestamp) -> Vec<Replica> {
    let mut replicas: Vec<_> =
        leases.iter().filter(|lease| is_current(lease, now)).map(|lease| replica(lease)).collect();
    replicas.sort_by(|a, b| a.name.cmp(&b.name));
    replicas
}

fn replica(lease: &Lease) -> Replica {
    let annotation = |name: &str| lease.annotations().get(name).map(String::as_str);
    Replica {
        name: lease.name_any(),
        applied: annotation(ANNOTATION_APPLIED).and_then(|text| text.parse().ok()).unwrap_or_default(),
        failures: annotation(ANNOTATION_FAILURES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        policies: annotation(ANNOTATION_POLICIES).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(name: &str, renewed: &str, annotations: &serde_json::Value) -> Arc<Lease> {
        let lease = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"renewTime": renewed, "leaseDurationSeconds": 15},
        });
        Arc::new(serde_json::from_value(lease).unwrap())
    }

    #[test]
    fn a_lease_that_was_not_renewed_is_no_replica() {
        let leases = [
            lease("late", "2026-01-01T00:00:00.000000Z", &json!({})),
            lease("live", "2026-01-01T00:00:10.500000Z", &json!({})),
            Arc::new(Lease::default()),
        ];
        let names = |now: &str| alive(&leases, now.parse().unwrap()).into_iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(names("2026-01-01T00:00:15Z"), ["late", "live"]);
        assert_eq!(names("2026-01-01T00:00:16Z"), ["live"]);
        assert!(names("2026-01-01T00:00:26Z").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_as_good_as_not_said() {
        let told = json!({ANNOTATION_APPLIED: "7", ANNOTATION_FAILURES: r#"{"banks/acme":"no login"}"#,
            ANNOTATION_POLICIES: "1-18f4"});
        let garbled = json!({ANNOTATION_APPLIED: "x", ANNOTATION_FAILURES: "not json"});
        let renewed = "2026-01-01T00:00:00.000000Z";
        let leases = [lease("a", renewed, &told), lease("b", renewed, &garbled)];
        let failures = BTreeMap::from([("banks/acme".to_owned(), "no login".to_owned())]);
        assert_eq!(
            alive(&leases, "2026-01-01T00:00:00Z".parse().unwrap()),
            [
                Replica { name: "a".to_owned(), applied: 7, failures, policies: Some("1-18f4".to_owned()) },
                Replica { name: "b".to_owned(), ..Replica::default() },
            ]
        );
    }
}
