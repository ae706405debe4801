//! Bringing one object in Kubernetes to its declared form, writing only if it differs.

use std::fmt::Debug;

use finaiflow_crds::names::MANAGER_OPERATOR;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Attempt, Result};

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is as declared.
    Nothing,
    /// It did not exist.
    Created,
    /// It differed.
    Repaired,
}

/// What an object in a namespace can do.
pub trait Child:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Child for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

/// The declared object's kind and name, for people.
pub fn describe<K: Child>(object: &K) -> String {
    format!("{} {}", K::kind(&()), object.name_any())
}

/// Applies `declared` by forced server-side apply unless `live` is as declared already.
pub async fn ensure<K: Child>(client: &Client, declared: &K, live: Option<&K>) -> Result<Written> {
    let written = match live {
        None => Written::Created,
        Some(live) if contains(&serde_json::to_value(live)?, &serde_json::to_value(declared)?) => {
            return Ok(Written::Nothing);
        }
        Some(_) => Written::Repaired,
    };
    let parameters = PatchParams::apply(MANAGER_OPERATOR).force();
    api(client, declared)
        .patch(&declared.name_any(), &parameters, &Patch::Apply(declared))
        .await
        .attempt(|| format!("write {}", describe(declared)))?;
    Ok(written)
}

/// Creates `declared`, which must not exist: an apply would overwrite what somebody made in the meantime.
async fn create<K: Child>(client: &Client, declared: &K) -> Result<()> {
    let parameters = PostParams { field_manager: Some(MANAGER_OPERATOR.to_owned()), ..PostParams::default() };
    api(client, declared).create(&parameters, declared).await.attempt(|| format!("create {}", describe(declared)))?;
    Ok(())
}

/// The same for what nobody else may have made in the meantime, such as a Secret: what is not `live` is created.
pub async fn ensure_ours<K: Child>(client: &Client, declared: &K, live: Option<&K>) -> Result<Written> {
    match live {
        Some(_) => ensure(client, declared, live).await,
        None => create(client, declared).await.map(|()| Written::Created),
    }
}

fn api<K: Child>(client: &Client, object: &K) -> Api<K> {
    Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
}

/// Lists that several writers may share: the API server merges them by key. Any other list is one value.
const SHARED_LISTS: [&str; 3] = ["containers", "env", "ownerReferences"];

/// Whether `live` says everything that `declared` says. What the API server or others added does not matter, except
/// in lists that are one value: server-side apply could not take it away either.
fn contains(live: &Value, declared: &Value) -> bool {
    contains_at("", live, declared)
}

fn contains_at(key: &str, live: &Value, declared: &Value) -> bool {
    match (live, declared) {
        (Value::Object(live), Value::Object(declared)) => {
            declared.iter().all(|(key, declared)| contains_at(key, live.get(key).unwrap_or(&Value::Null), declared))
        }
        (Value::Array(live), Value::Array(declared)) if SHARED_LISTS.contains(&key) => {
            declared.iter().all(|declared| live.iter().any(|live| contains(live, declared)))
        }
        (Value::Array(live), Value::Array(declared)) => {
            live.len() == declared.len() && live.iter().zip(declared).all(|(live, declared)| contains(live, declared))
        }
        // The API server leaves out what is empty.
        (Value::Null, Value::Array(declared)) => declared.is_empty(),
        (live, declared) => live == declared,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_of_others_are_no_drift() {
        let declared = json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get"]}],
            "containers": [{"name": "x", "env": [{"name": "E", "value": "1"}]}]});
        for (live, same) in [
            (
                json!({"metadata": {"labels": {"a": "1", "b": "2"}, "uid": "u"}, "rules": [{"verbs": ["get"]}],
                "containers": [{"name": "side"}, {"name": "x", "tty": false, "env": [{"name": "E", "value": "1"}]}]}),
                true,
            ),
            (
                json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get"]}, {"verbs": ["list"]}],
                "containers": [{"name": "x", "env": [{"name": "E", "value": "1"}]}]}),
                false,
            ),
            (
                json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get", "list"]}],
                "containers": [{"name": "x", "env": [{"name": "E", "value": "1"}]}]}),
                false,
            ),
            (
                json!({"metadata": {"labels": {}}, "rules": [{"verbs": ["get"]}],
                "containers": [{"name": "x", "env": [{"name": "E", "value": "1"}]}]}),
                false,
            ),
            (
                json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get"]}],
                "containers": [{"name": "x", "env": [{"name": "E", "value": "2"}]}]}),
                false,
            ),
        ] {
            assert_eq!(contains(&live, &declared), same, "{live}");
        }
        let nothing = json!({"ingress": []});
        assert!(contains(&json!({}), &nothing) && !contains(&json!({"ingress": [{}]}), &nothing));
    }
}
