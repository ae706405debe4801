//! What lets the API server read exactly this tenant's Secrets, each by its name.

use finaiflow_crds::Tenant;
use finaiflow_crds::names::{SecretPurpose, api_access_name};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::{Resource, ResourceExt};

use super::metadata;
use crate::config::ApiServer;

/// The Secrets that the API server needs; the jobs mount theirs.
const READABLE: [SecretPurpose; 3] = [SecretPurpose::Database, SecretPurpose::SigningKeys, SecretPurpose::DataKey];

pub fn role(tenant: &Tenant) -> Role {
    let name = tenant.name_any();
    Role {
        metadata: metadata(tenant, api_access_name(&name)),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".to_owned()]),
            resource_names: Some(READABLE.map(|purpose| purpose.secret_name(&name)).to_vec()),
            verbs: vec!["get".to_owned()],
            ..PolicyRule::default()
        }]),
    }
}

pub fn role_binding(tenant: &Tenant, api_server: &ApiServer) -> RoleBinding {
    let name = api_access_name(&tenant.name_any());
    RoleBinding {
        metadata: metadata(tenant, name.clone()),
        role_ref: RoleRef { api_group: Role::group(&()).into_owned(), kind: "Role".to_owned(), name },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: api_server.service_account_name.clone(),
            namespace: Some(api_server.namespace.clone()),
            ..Subject::default()
        }]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::super::tests::{config, owned, tenant};
    use super::*;

    #[test]
    fn the_api_server_reads_three_secrets_by_name() {
        let tenant = tenant(&json!({}));
        assert_eq!(
            to_value(role(&tenant)).unwrap(),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
                "metadata": owned("acme.finaiflow-api"),
                "rules": [{"apiGroups": [""], "resources": ["secrets"],
                    "resourceNames": ["acme.database", "acme.signing-keys", "acme.data-key"], "verbs": ["get"]}],
            })
        );
        assert_eq!(
            to_value(role_binding(&tenant, &config().api_server)).unwrap(),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": owned("acme.finaiflow-api"),
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "acme.finaiflow-api"},
                "subjects": [{"kind": "ServiceAccount", "name": "finaiflow-api", "namespace": "finaiflow-system"}],
            })
        );
    }
}
