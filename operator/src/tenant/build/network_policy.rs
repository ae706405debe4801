//! What the tenant's pods may reach: name service and their database. Nothing may reach them.

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{LABEL_TENANT, network_policy_name};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::metadata;
use crate::config::Endpoint;

pub fn build(tenant: &Tenant, database: &Endpoint) -> NetworkPolicy {
    let name = tenant.name_any();
    NetworkPolicy {
        metadata: metadata(tenant, network_policy_name(&name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some([(LABEL_TENANT.to_owned(), name)].into()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            // Spelt out, so that a rule added by hand is seen as drift.
            ingress: Some(Vec::new()),
            egress: Some(vec![NetworkPolicyEgressRule {
                to: None,
                ports: Some(vec![port("UDP", 53), port("TCP", 53), port("TCP", i32::from(database.port))]),
            }]),
        }),
    }
}

fn port(protocol: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(protocol.to_owned()), port: Some(IntOrString::Int(port)), end_port: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::super::tests::{config, owned, tenant};
    use super::*;

    #[test]
    fn jobs_reach_names_and_their_database_only() {
        let endpoint = &config().database_classes[0].servers[0].tenant_endpoint;
        assert_eq!(
            to_value(build(&tenant(&json!({})), endpoint)).unwrap(),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": owned("acme.finaiflow-jobs"),
                "spec": {
                    "podSelector": {"matchLabels": {"finaiflow.io/tenant": "acme"}},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": [],
                    "egress": [{"ports": [
                        {"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53},
                        {"protocol": "TCP", "port": 6432},
                    ]}],
                },
            })
        );
    }
}
