//! CustomResourceDefinitions as YAML, in the form that API servers store without surprises.

use kube::CustomResourceExt;
use serde_json::{Map, Value};

use crate::{Backup, RateLimitPolicy, Restore, Tenant};

/// What guards the definitions: who may name a bank by its claim, and what `spec.deletionProtection` refuses. They come
/// with the definitions, so that no field is ever known to a cluster before its guard.
pub const ADMISSION: &str = include_str!("admission.yaml");

/// Why a definition could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The derived definition is not JSON.
    #[error("serialise the definition: {0}")]
    Json(#[from] serde_json::Error),
    /// The definition cannot be written as YAML.
    #[error("write yaml: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

/// Every definition, as `(plural.group, object)`.
pub fn definitions() -> Result<Vec<(String, Value)>, Error> {
    [Tenant::crd(), RateLimitPolicy::crd(), Backup::crd(), Restore::crd()]
        .into_iter()
        .map(|crd| {
            let name = format!("{}.{}", crd.spec.names.plural, crd.spec.group);
            let mut value = serde_json::to_value(crd)?;
            conventional(&mut value);
            Ok((name, value))
        })
        .collect()
}

/// The definition as a YAML document.
pub fn yaml(definition: &Value) -> Result<String, Error> {
    Ok(serde_yaml::to_string(definition)?)
}

/// The definition with `helm.sh/resource-policy: keep`: uninstalling a chart must not delete banks.
#[must_use]
pub fn kept_by_helm(mut definition: Value) -> Value {
    if let Some(metadata) = definition.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert("helm.sh/resource-policy".to_owned(), "keep".into());
        }
    }
    definition
}

/// Drops `nullable` (API conventions: absent, not null), `null` enum values and integer formats that Kubernetes
/// does not know, all of which schemars writes for optional fields.
fn conventional(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if let Some(Value::Array(allowed)) = map.get_mut("enum") {
                allowed.retain(|v| !v.is_null());
            }
            map.values_mut().for_each(conventional);
        }
        Value::Array(items) => items.iter_mut().for_each(conventional),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{ADOPT_VERB, ADOPTION_GUARD, RESTORE_GUARD};

    #[test]
    fn no_definition_allows_null_or_unbounded_strings() {
        for (name, crd) in definitions().unwrap() {
            let text = yaml(&crd).unwrap();
            assert!(!text.contains("nullable"), "{name}");
            let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap();
            bounded(&name, spec);
        }
    }

    #[test]
    fn the_guards_bear_the_names_that_programs_ask_for() {
        let documents: Vec<Value> = serde_yaml::Deserializer::from_str(ADMISSION)
            .map(|document| serde::Deserialize::deserialize(document).unwrap())
            .collect();
        let kinds = |name: &str| -> Vec<_> {
            let named = documents.iter().filter(|object| object["metadata"]["name"] == name);
            named.map(|object| object["kind"].as_str().unwrap()).collect()
        };
        for guard in [ADOPTION_GUARD, RESTORE_GUARD] {
            assert_eq!(kinds(guard), ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]);
        }
        assert!(ADMISSION.contains(&format!(".check('{ADOPT_VERB}')")));
        assert!(ADMISSION.contains(&format!("verbs: [{ADOPT_VERB}]")));
    }

    fn bounded(path: &str, schema: &Value) {
        match schema["type"].as_str() {
            Some("string") => assert!(schema.get("maxLength").is_some() || schema.get("enum").is_some(), "{path}"),
            Some("array") => {
                assert!(schema.get("maxItems").is_some(), "{path}");
                bounded(&format!("{path}[]"), &schema["items"]);
            }
            Some("object") if schema.get("additionalProperties").is_some() => {
                assert!(schema.get("maxProperties").is_some(), "{path}");
                bounded(&format!("{path}{{}}"), &schema["additionalProperties"]);
            }
            Some("object") => {
                for (k, v) in schema["properties"].as_object().unwrap() {
                    bounded(&format!("{path}.{k}"), v);
                }
            }
            _ => {}
        }
    }
}
