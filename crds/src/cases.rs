//! Manifests that must be accepted or rejected, tried offline: what serde and CEL say without an API server.

use kube::core::cel::{validate_cel, validate_cel_update};
use kube::{CustomResourceExt, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Tries every case of a table, as `tests/tenant_cases.yaml` explains it.
pub fn check<K>(table: &str)
where
    K: Resource<DynamicType = ()> + CustomResourceExt + Serialize + DeserializeOwned,
{
    let all: Value = serde_yaml::from_str(table).unwrap();
    for case in all["create"].as_array().unwrap().iter().filter(|case| case["structural"] != true) {
        let result = object::<K>(case, "spec");
        judge(case, result.and_then(|object| validate_cel(&object).map_err(|error| format!("{error:?}"))));
    }
    for case in all["update"].as_array().unwrap().iter().filter(|case| case["structural"] != true) {
        let (old, new) = (object::<K>(case, "old").unwrap(), object::<K>(case, "new").unwrap());
        judge(case, validate_cel_update(&new, &old).map_err(|error| format!("{error:?}")));
    }
}

fn object<K: Resource<DynamicType = ()> + DeserializeOwned>(case: &Value, spec: &str) -> Result<K, String> {
    let object = json!({
        "apiVersion": K::api_version(&()), "kind": K::kind(&()),
        "metadata": {"name": case["name"]}, "spec": case[spec],
    });
    serde_json::from_value(object).map_err(|error| error.to_string())
}

fn judge(case: &Value, result: Result<(), String>) {
    match (case["reject"].as_str(), result) {
        (None, Ok(())) => {}
        (Some(part), Err(message)) => assert!(message.contains(part), "{case}: {message}"),
        (expected, result) => panic!("{case}: expected {expected:?}, got {result:?}"),
    }
}
