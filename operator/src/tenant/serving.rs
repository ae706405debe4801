//! Whether the API server's replicas serve a Tenant, judged from their Leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use finaiflow_crds::names::{ANNOTATION_APPLIED, ANNOTATION_FAILURES};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

/// A replica whose Lease is current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The Lease's name.
    pub name: String,
    /// The newest Tenant resourceVersion it has applied.
    pub applied: u128,
    /// `<namespace>/<name>` of Tenants it cannot serve, and why.
    pub failures: BTreeMap<String, String>,
}

/// What the replicas say about a Tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every live replica serves it.
    Served,
    /// No replica is alive.
    NoReplica,
    /// A replica cannot serve it.
    Failed(String),
    /// A replica has not got that far.
    Behind(String),
}

/// The replicas that are alive. Resource versions are decimal integers that grow (KEP-5504).
#[must_use]
pub fn alive(leases: &[Arc<Lease>], now: Timestamp) -> Vec<Replica> {
    let mut replicas: Vec<_> =
        leases.iter().filter(|lease| is_current(lease, now)).map(|lease| replica(lease)).collect();
    replicas.sort_by(|a, b| a.name.cmp(&b.name));
    replicas
}

fn is_current(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let (Some(renewed), Some(seconds)) = (&spec.renew_time, spec.lease_duration_seconds) else { return false };
    renewed.0.saturating_add(SignedDuration::from_secs(i64::from(seconds))).is_ok_and(|until| until >= now)
}

fn replica(lease: &Lease) -> Replica {
    let annotation = |name: &str| lease.annotations().get(name).map(String::as_str);
    Replica {
        name: lease.name_any(),
        applied: annotation(ANNOTATION_APPLIED).and_then(|text| text.parse().ok()).unwrap_or_default(),
        failures: annotation(ANNOTATION_FAILURES).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
    }
}

/// Judges `tenant` (`<namespace>/<name>`). Replicas must have applied `at_least`, if given.
#[must_use]
pub fn judge(replicas: &[Replica], tenant: &str, at_least: Option<u128>) -> Verdict {
    if replicas.is_empty() {
        return Verdict::NoReplica;
    }
    let behind = replicas.iter().find(|replica| at_least.is_some_and(|version| replica.applied < version));
    if let Some(replica) = behind {
        return Verdict::Behind(format!("replica {} has not applied the Tenant yet", replica.name));
    }
    let failed = replicas.iter().find_map(|replica| Some((replica, replica.failures.get(tenant)?)));
    match failed {
        Some((replica, why)) => Verdict::Failed(format!("replica {} cannot serve the Tenant: {why}", replica.name)),
        None => Verdict::Served,
    }
}

/// A resourceVersion as a number.
#[must_use]
pub fn version(resource_version: Option<&str>) -> Option<u128> {
    resource_version?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(name: &str, renewed: &str, applied: &str, failures: &str) -> Arc<Lease> {
        let lease = json!({
            "metadata": {"name": name, "annotations": {ANNOTATION_APPLIED: applied, ANNOTATION_FAILURES: failures}},
            "spec": {"renewTime": renewed, "leaseDurationSeconds": 15},
        });
        Arc::new(serde_json::from_value(lease).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_lease_that_was_not_renewed_is_no_replica() {
        let leases = [
            lease("late", "2026-01-01T00:00:00.000000Z", "7", ""),
            lease("live", "2026-01-01T00:00:10.500000Z", "x", "not json"),
            Arc::new(Lease::default()),
        ];
        let names = |now| alive(&leases, at(now)).into_iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(names("2026-01-01T00:00:15Z"), ["late", "live"]);
        assert_eq!(names("2026-01-01T00:00:16Z"), ["live"]);
        assert!(names("2026-01-01T00:00:26Z").is_empty());
    }

    #[test]
    fn every_live_replica_must_have_got_there() {
        let now = at("2026-01-01T00:00:01Z");
        let renewed = "2026-01-01T00:00:00.000000Z";
        let failing = r#"{"banks/acme":"secret acme.database is not readable"}"#;
        let [behind, there, failed] =
            [lease("a", renewed, "99", ""), lease("b", renewed, "100", ""), lease("c", renewed, "100", failing)];
        let verdict = |leases: &[&Arc<Lease>], tenant: &str, at_least| {
            let leases: Vec<_> = leases.iter().map(|lease| Arc::clone(lease)).collect();
            judge(&alive(&leases, now), tenant, at_least)
        };
        assert_eq!(verdict(&[], "banks/acme", None), Verdict::NoReplica);
        assert_eq!(verdict(&[&there], "banks/acme", Some(100)), Verdict::Served);
        assert_eq!(
            verdict(&[&there, &behind], "banks/acme", Some(100)),
            Verdict::Behind("replica a has not applied the Tenant yet".to_owned())
        );
        assert_eq!(verdict(&[&there, &behind], "banks/acme", None), Verdict::Served);
        assert_eq!(
            verdict(&[&there, &failed], "banks/acme", None),
            Verdict::Failed("replica c cannot serve the Tenant: secret acme.database is not readable".to_owned())
        );
        assert_eq!(verdict(&[&there, &failed], "banks/globex", Some(100)), Verdict::Served);
    }

    #[test]
    fn resource_versions_are_numbers() {
        assert!(version(Some("100")) > version(Some("99")));
        assert_eq!(version(Some("x")), None);
    }
}
