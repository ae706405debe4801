//! Whether the API server's replicas serve a Tenant, judged from their Leases.

use crate::replica::Replica;

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
    use super::*;

    fn replica(name: &str, applied: u128, failures: &[(&str, &str)]) -> Replica {
        let failures = failures.iter().map(|(tenant, why)| ((*tenant).to_owned(), (*why).to_owned())).collect();
        Replica { name: name.to_owned(), applied, failures, policies: None }
    }

    #[test]
    fn every_live_replica_must_have_got_there() {
        let failing = [("banks/acme", "secret acme.database is not readable")];
        let [behind, there, failed] = [replica("a", 99, &[]), replica("b", 100, &[]), replica("c", 100, &failing)];
        let verdict = |replicas: &[&Replica], tenant: &str, at_least| {
            let replicas: Vec<_> = replicas.iter().map(|replica| (*replica).clone()).collect();
            judge(&replicas, tenant, at_least)
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
