//! What the API server refuses besides malformed manifests.

use finaiflow_crds::manifest::ADMISSION;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{client, client_as, definition};

const NAMESPACE: &str = "crds-admission";

fn api(client: &Client, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("finaiflow.io", "v1alpha1", kind);
    Api::namespaced_with(client.clone(), NAMESPACE, &ApiResource::from_gvk(&kind))
}

fn tenants(client: &Client) -> Api<DynamicObject> {
    api(client, "Tenant")
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    let object = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
    serde_json::from_value(object).unwrap()
}

fn tenant(name: &str, spec: &Value) -> DynamicObject {
    object("Tenant", name, spec)
}

async fn put(client: &Client, object: &DynamicObject) {
    let types = object.types.as_ref().unwrap();
    let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    api.patch(&object.name_any(), &PatchParams::apply("crds-test").force(), &Patch::Apply(object)).await.unwrap();
}

/// The definitions and their guards; `editor` may do everything but adopt, `adopter` may do that too.
async fn install(client: &Client) {
    definition(client).await;
    crate::install(client, include_str!("../../../config/crd/restores.finaiflow.io.yaml")).await;
    let guards = serde_yaml::Deserializer::from_str(ADMISSION).map(|document| Value::deserialize(document).unwrap());
    let editor = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "crds-test-editor"},
        "rules": [{"apiGroups": ["finaiflow.io"], "resources": ["tenants", "restores"],
            "verbs": ["get", "list", "create", "update", "patch", "delete", "deletecollection"]}]});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let binding = |role: &str, users: &[&str]| {
        let users = users.iter().map(|user| json!({"kind": "User", "name": user})).collect::<Vec<_>>();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": role, "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": users})
    };
    let bindings =
        [binding("crds-test-editor", &["editor", "adopter"]), binding("finaiflow-tenant-adopter", &["adopter"])];
    for object in guards.chain([editor, namespace]).chain(bindings) {
        put(client, &serde_json::from_value(object).unwrap()).await;
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> String {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => status.message.clone(),
        other => panic!("{other:?}"),
    }
}

/// Guards take a moment to act after they were made.
async fn until_refused<T>(what: &str, attempt: impl AsyncFn() -> Result<T, kube::Error>) {
    for _ in 0..300 {
        if attempt().await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{what} is not refused 30 s after its guard was made");
}

#[tokio::test]
async fn only_who_may_adopt_names_a_claim() {
    let admin = client().await;
    install(&admin).await;
    let (editor, adopter) = (client_as("editor").await, client_as("adopter").await);
    let (editors, adopters) = (tenants(&editor), tenants(&adopter));
    let claims = json!({"adoptClaim": "0123456789abcdef"});
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    until_refused("adoptClaim", async || editors.create(&dry_run, &tenant("probe", &claims)).await).await;

    let message = refusal(editors.create(&PostParams::default(), &tenant("taken", &claims)).await);
    assert!(message.contains("verb adopt on tenants.finaiflow.io in namespace crds-admission"), "{message}");
    assert!(message.contains("which editor lacks"), "{message}");

    editors.create(&PostParams::default(), &tenant("later", &json!({}))).await.unwrap();
    let add = Patch::Merge(json!({"spec": claims}));
    refusal(editors.patch("later", &PatchParams::default(), &add).await);
    adopters.patch("later", &PatchParams::default(), &add).await.unwrap();
    // What the field says already takes no right, so that others can go on with the Tenant.
    let edit = Patch::Merge(json!({"spec": {"suspend": true}, "metadata": {"finalizers": ["example.org/x"]}}));
    editors.patch("later", &PatchParams::default(), &edit).await.unwrap();
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    editors.patch("later", &PatchParams::default(), &free).await.unwrap();

    adopters.create(&PostParams::default(), &tenant("taken", &claims)).await.unwrap();
    // A bank that is there already is not exchanged for another one.
    editors.create(&PostParams::default(), &tenant("settled", &json!({}))).await.unwrap();
    let status = Patch::Merge(json!({"status": {"claimID": "00000000000000aa"}}));
    tenants(&admin).patch_status("settled", &PatchParams::default(), &status).await.unwrap();
    let refused = adopters.patch("settled", &PatchParams::default(), &add).await.unwrap_err();
    assert!(refused.to_string().contains("spec.adoptClaim cannot be added"), "{refused}");
    for name in ["later", "taken", "settled"] {
        tenants(&admin).delete(name, &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn only_who_may_adopt_names_the_backup_of_a_bank() {
    let admin = client().await;
    install(&admin).await;
    let (editor, adopter) = (client_as("editor").await, client_as("adopter").await);
    let (editors, adopters) = (api(&editor, "Restore"), api(&adopter, "Restore"));
    let manifest = json!({"className": "gold", "manifest": "0123456789abcdef/20261122t184412z-full-89abcdef"});
    let restore = |source: &Value| {
        object("Restore", "theirs", &json!({"source": source, "target": {"latest": true}, "mode": "Scratch"}))
    };
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    until_refused("manifest", async || editors.create(&dry_run, &restore(&manifest)).await).await;

    let message = refusal(editors.create(&PostParams::default(), &restore(&manifest)).await);
    assert!(message.contains("verb adopt on tenants.finaiflow.io in namespace crds-admission"), "{message}");
    assert!(message.contains("which editor lacks"), "{message}");
    editors.create(&dry_run, &restore(&json!({"backupRef": {"name": "ours"}}))).await.unwrap();

    adopters.create(&PostParams::default(), &restore(&manifest)).await.unwrap();
    // Others can go on with it, but not make one of theirs into it.
    let edit = Patch::Merge(json!({"metadata": {"finalizers": ["example.org/x"]}}));
    editors.patch("theirs", &PatchParams::default(), &edit).await.unwrap();
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    editors.patch("theirs", &PatchParams::default(), &free).await.unwrap();
    editors.delete("theirs", &DeleteParams::default()).await.unwrap();
    editors.create(&PostParams::default(), &restore(&json!({"backupRef": {"name": "ours"}}))).await.unwrap();
    let change = Patch::Merge(json!({"spec": {"source": {"backupRef": null, "className": manifest["className"],
        "manifest": manifest["manifest"]}}}));
    let refused = editors.patch("theirs", &PatchParams::default(), &change).await.unwrap_err();
    assert!(refused.to_string().contains("spec is immutable"), "{refused}");
    editors.delete("theirs", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_protected_tenant_is_not_deleted_by_anybody() {
    let admin = client().await;
    install(&admin).await;
    let api = tenants(&admin);
    api.create(&PostParams::default(), &tenant("protected", &json!({"deletionProtection": true}))).await.unwrap();
    let dry_run = DeleteParams { dry_run: true, ..DeleteParams::default() };
    until_refused("deletion", async || api.delete("protected", &dry_run).await).await;

    let message = refusal(api.delete("protected", &DeleteParams::default()).await);
    let lift =
        r#"kubectl -n crds-admission patch tenant protected --type=merge -p '{"spec":{"deletionProtection":false}}'"#;
    assert!(message.contains("Tenant protected is protected from deletion") && message.contains(lift), "{message}");
    let all = ListParams::default().fields("metadata.name=protected");
    refusal(api.delete_collection(&DeleteParams::default(), &all).await);

    let lift = Patch::Merge(json!({"spec": {"deletionProtection": false}}));
    api.patch("protected", &PatchParams::default(), &lift).await.unwrap();
    api.delete("protected", &DeleteParams::default()).await.unwrap();
}
