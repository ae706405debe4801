//! Which of the hosts in a spec a Tenant gets.

use std::sync::Arc;

use finaiflow_crds::Tenant;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::config::Config;

/// The answer to `spec.hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// What the Tenant gets, in the spec's order.
    pub granted: Vec<String>,
    /// What it does not get, and why.
    pub denied: Vec<String>,
}

/// A host is granted if the platform team allows its suffix for the namespace and no other Tenant has it. Who has it
/// already keeps it; of two that ask at once the older one gets it.
#[must_use]
pub fn grant(tenant: &Tenant, others: &[Arc<Tenant>], config: &Config) -> Hosts {
    let mut hosts = Hosts::default();
    for host in &tenant.spec.hosts {
        match denial(tenant, host, others, config) {
            None => hosts.granted.push(host.clone()),
            Some(why) => hosts.denied.push(format!("{host} ({why})")),
        }
    }
    hosts
}

fn denial(tenant: &Tenant, host: &str, others: &[Arc<Tenant>], config: &Config) -> Option<String> {
    if let Some(label) = host.strip_suffix(&config.api_server.base_domain).and_then(|rest| rest.strip_suffix('.'))
        && !label.contains('.')
    {
        let is_own = label == tenant.name_any();
        return (!is_own).then(|| format!("it is the host of the tenant named {label}"));
    }
    let namespace = tenant.namespace().unwrap_or_default();
    if !config.allows_host(&namespace, host) {
        return Some(format!("its suffix is not allowed in namespace {namespace}"));
    }
    let holder = others.iter().find(|other| has_before(tenant, other, host, config))?;
    Some(format!("Tenant {}/{} has it", holder.namespace().unwrap_or_default(), holder.name_any()))
}

fn has_before(tenant: &Tenant, other: &Tenant, host: &str, config: &Config) -> bool {
    let other_asks = other.spec.hosts.iter().any(|asked| asked == host)
        && config.allows_host(&other.namespace().unwrap_or_default(), host);
    if other.uid() == tenant.uid() || !other_asks {
        return false;
    }
    match (holds(tenant, host), holds(other, host)) {
        (false, true) => true,
        (true, false) => false,
        _ => age(other) < age(tenant),
    }
}

fn holds(tenant: &Tenant, host: &str) -> bool {
    tenant.status.as_ref().is_some_and(|status| status.hosts.iter().any(|held| held == host))
}

fn age(tenant: &Tenant) -> (Option<Time>, Option<String>) {
    (tenant.creation_timestamp(), tenant.uid())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::EXAMPLE;

    fn tenant(name: &str, created: i64, asks: &[&str], holds: &[&str]) -> Arc<Tenant> {
        let tenant = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": "banks", "uid": name,
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"hosts": asks}, "status": {"hosts": holds},
        });
        Arc::new(serde_json::from_value(tenant).unwrap())
    }

    fn granted(tenant: &Tenant, others: &[Arc<Tenant>]) -> (Vec<String>, Vec<String>) {
        let hosts = grant(tenant, others, &Config::parse(EXAMPLE).unwrap());
        (hosts.granted, hosts.denied)
    }

    #[test]
    fn suffixes_are_the_platform_teams() {
        let acme = tenant("acme", 1, &["www.acme.example", "acme.org", "globex.bank.local", "acme.bank.local"], &[]);
        assert_eq!(
            granted(&acme, &[Arc::clone(&acme)]),
            (
                vec!["www.acme.example".to_owned(), "acme.bank.local".to_owned()],
                vec![
                    "acme.org (its suffix is not allowed in namespace banks)".to_owned(),
                    "globex.bank.local (it is the host of the tenant named globex)".to_owned(),
                ]
            )
        );
    }

    #[test]
    fn the_older_one_gets_it_unless_the_younger_one_has_it() {
        let host = ["x.acme.example"];
        let (old, young) = (tenant("old", 1, &host, &[]), tenant("young", 2, &host, &[]));
        let both = [Arc::clone(&old), Arc::clone(&young)];
        assert_eq!(granted(&old, &both).0, host);
        assert_eq!(granted(&young, &both).1, ["x.acme.example (Tenant banks/old has it)"]);

        let holder = tenant("young", 2, &host, &host);
        let both = [Arc::clone(&old), Arc::clone(&holder)];
        assert_eq!(granted(&old, &both).1, ["x.acme.example (Tenant banks/young has it)"]);
        assert_eq!(granted(&holder, &both).0, host);
    }

    #[test]
    fn a_host_that_is_no_longer_asked_for_is_free() {
        let host = ["x.acme.example"];
        let former = tenant("former", 1, &[], &host);
        assert_eq!(granted(&tenant("acme", 2, &host, &[]), &[former]).0, host);
    }
}
