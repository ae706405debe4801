//! A Kubernetes API in memory: enough of it for visits, with faults and a record of requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Map, Value, json};

use crate::catalog::fake::Fault;

const TENANTS: &str = "/apis/finaiflow.io/v1alpha1/namespaces/banks/tenants";

/// One cluster. Clones share it.
#[derive(Clone, Default)]
pub struct Cluster {
    pub state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    /// By request path.
    pub objects: BTreeMap<String, Value>,
    version: u64,
    /// Method and path of each request.
    pub requests: Vec<(String, String)>,
    /// Which request from now on fails, and when.
    pub fault: Option<(usize, Fault)>,
    /// Requests with this in their path are forbidden.
    pub forbidden: Option<&'static str>,
}

type Answer = Result<Value, (u16, &'static str)>;

impl Cluster {
    pub fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let is_apply = parts.headers.get("content-type").is_some_and(|kind| kind == "application/apply-patch+yaml");
        let answer = self.state.lock().unwrap().request(parts.method.as_str(), parts.uri.path(), body, is_apply);
        let (code, body) = match answer {
            Ok(object) => (200, object),
            Err((code, reason)) => {
                let message =
                    if code == 403 { "secrets is forbidden: User \"x\" cannot get resource \"secrets\"" } else { "no" };
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": reason, "code": code,
                    "details": {"name": parts.uri.path().rsplit('/').next()}});
                (code, status)
            }
        };
        http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub fn tenant(&self, name: &str) -> Option<Value> {
        self.get(&format!("{TENANTS}/{name}"))
    }

    pub fn secret(&self, name: &str) -> Option<Value> {
        self.get(&secret_path(name))
    }

    /// What somebody with kubectl does.
    pub fn by_hand(&self, path: &str, object: Option<Value>) {
        let mut state = self.state.lock().unwrap();
        match object {
            Some(object) => drop(state.store(path, object)),
            None => drop(state.objects.remove(path)),
        }
    }

    pub fn create_tenant(&self, name: &str, spec: &Value) {
        let tenant = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": "banks", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec,
        });
        self.by_hand(&format!("{TENANTS}/{name}"), Some(tenant));
    }

    pub fn edit_tenant(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut tenant = self.tenant(name).unwrap();
        edit(&mut tenant);
        self.by_hand(&format!("{TENANTS}/{name}"), Some(tenant));
    }

    pub fn delete_tenant(&self, name: &str) {
        let finalizers = self.tenant(name).unwrap()["metadata"]["finalizers"].clone();
        if finalizers.as_array().is_none_or(Vec::is_empty) {
            return self.by_hand(&format!("{TENANTS}/{name}"), None);
        }
        self.edit_tenant(name, |tenant| {
            tenant["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        });
    }

    /// Requests since the last call that were not reads.
    pub fn writes(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.state.lock().unwrap().requests);
        let writes = requests.into_iter().filter(|(method, _)| method != "GET");
        writes.map(|(method, path)| format!("{method} {}", path.rsplit('/').next().unwrap_or_default())).collect()
    }

    /// Every object's path and version.
    pub fn versions(&self) -> BTreeMap<String, Value> {
        let state = self.state.lock().unwrap();
        state
            .objects
            .iter()
            .map(|(path, object)| (path.clone(), object["metadata"]["resourceVersion"].clone()))
            .collect()
    }
}

pub fn secret_path(name: &str) -> String {
    format!("/api/v1/namespaces/banks/secrets/{name}")
}

impl State {
    fn request(&mut self, method: &str, path: &str, body: Value, is_apply: bool) -> Answer {
        self.requests.push((method.to_owned(), path.to_owned()));
        if self.forbidden.is_some_and(|part| path.contains(part)) {
            return Err((403, "Forbidden"));
        }
        let fault = match self.fault {
            Some((0, fault)) => {
                self.fault = None;
                Some(fault)
            }
            Some((left, fault)) => {
                self.fault = Some((left - 1, fault));
                None
            }
            None => None,
        };
        if fault == Some(Fault::Before) {
            return Err((500, "InternalError"));
        }
        let answer = match method {
            "GET" => self.read(path),
            "POST" => self.create(path, body),
            "PATCH" => self.patch(path, &body, is_apply),
            "DELETE" => self.delete(path, &body),
            _ => Err((405, "MethodNotAllowed")),
        };
        if fault == Some(Fault::After) { Err((500, "InternalError")) } else { answer }
    }

    fn read(&self, path: &str) -> Answer {
        if let Some(object) = self.objects.get(path) {
            return Ok(object.clone());
        }
        if ["/jobs", "/pods", "/secrets"].iter().any(|kind| path.ends_with(kind)) {
            let of_kind = |(key, _): &(&String, &Value)| key.starts_with(path);
            let items: Vec<_> = self.objects.iter().filter(of_kind).map(|(_, object)| object.clone()).collect();
            return Ok(json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items}));
        }
        Err((404, "NotFound"))
    }

    fn create(&mut self, path: &str, object: Value) -> Answer {
        let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&path) {
            return Err((409, "AlreadyExists"));
        }
        Ok(self.store(&path, object))
    }

    fn patch(&mut self, path: &str, change: &Value, is_apply: bool) -> Answer {
        let (path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let Some(old) = self.objects.get(path).cloned() else {
            return if is_apply && !is_status { Ok(self.store(path, change.clone())) } else { Err((404, "NotFound")) };
        };
        let expected = &change["metadata"]["resourceVersion"];
        if !expected.is_null() && *expected != old["metadata"]["resourceVersion"] {
            return Err((409, "Conflict"));
        }
        let mut new = old.clone();
        if is_status {
            new["status"] = change["status"].clone();
        } else {
            merge(&mut new, change);
        }
        if new == old {
            return Ok(old);
        }
        let is_gone = !new["metadata"]["deletionTimestamp"].is_null() && new["metadata"]["finalizers"] == json!([]);
        if is_gone {
            let uid = &new["metadata"]["uid"];
            self.objects.remove(path);
            self.objects.retain(|_, object| object["metadata"]["ownerReferences"][0]["uid"] != *uid);
            return Ok(new);
        }
        Ok(self.store(path, new))
    }

    fn delete(&mut self, path: &str, options: &Value) -> Answer {
        let old = self.objects.get(path).ok_or((404, "NotFound"))?;
        let expected = &options["preconditions"]["uid"];
        if *expected != old["metadata"]["uid"] {
            return Err((409, "Conflict"));
        }
        Ok(self.objects.remove(path).unwrap_or_default())
    }

    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.insert("resourceVersion".to_owned(), self.version.to_string().into());
        metadata.entry("uid").or_insert_with(|| format!("uid-{}", self.version).into());
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        merge(&mut target[key], value);
    }
}
