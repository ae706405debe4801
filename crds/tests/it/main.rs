//! The same manifests on a real API server.
#![expect(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;

use finaiflow_crds::cron::Cron;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

async fn client() -> Client {
    connect(None).await
}

/// A person without the administrator's rights.
async fn client_as(user: &str) -> Client {
    connect(Some(user.to_owned())).await
}

async fn connect(user: Option<String>) -> Client {
    let path = std::env::var("FINAIFLOW_TEST_KUBECONFIG")
        .expect("FINAIFLOW_TEST_KUBECONFIG names no API server: run `make test-integration`");
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = user;
    Client::try_from(config).unwrap()
}

/// Installs the generated definition of Tenants and waits until the API server serves it.
async fn definition(client: &Client) -> Api<DynamicObject> {
    install(client, include_str!("../../../config/crd/tenants.finaiflow.io.yaml")).await
}

async fn install(client: &Client, definition: &str) -> Api<DynamicObject> {
    let crd: DynamicObject = serde_yaml::from_str(definition).unwrap();
    let crds = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&crds));
    api.patch(&crd.name_any(), &PatchParams::apply("crds-test").force(), &Patch::Apply(&crd)).await.unwrap();
    let kind = crd.data["spec"]["names"]["kind"].as_str().unwrap();
    let kind = GroupVersionKind::gvk("finaiflow.io", "v1alpha1", kind);
    let mut resource = ApiResource::from_gvk(&kind);
    crd.data["spec"]["names"]["plural"].as_str().unwrap().clone_into(&mut resource.plural);
    let objects: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    for _ in 0..100 {
        if objects.list(&kube::api::ListParams::default()).await.is_ok() {
            return objects;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the API server does not serve {kind:?} 10 s after the definition was applied");
}

fn object(kind: &str, case: &Value, spec: &str) -> DynamicObject {
    let object = json!({
        "apiVersion": "finaiflow.io/v1alpha1", "kind": kind,
        "metadata": {"name": case["name"]}, "spec": case[spec],
    });
    serde_json::from_value(object).unwrap()
}

fn check(case: &Value, result: Result<DynamicObject, kube::Error>) {
    match (case["reject"].as_str(), result) {
        (None, Ok(_)) => {}
        (Some(part), Err(kube::Error::Api(status))) => {
            assert!(status.message.contains(part), "{case}: {}", status.message);
        }
        (expected, result) => panic!("{case}: expected {expected:?}, got {result:?}"),
    }
}

/// kubectl asks for strict field validation, which kube's own parameters can ask for too.
fn dry_run() -> PatchParams {
    let params = PatchParams::apply("crds-test").force().validation_strict();
    PatchParams { dry_run: true, ..params }
}

#[tokio::test]
async fn tenants_are_accepted_and_rejected() {
    let tenants = definition(&client().await).await;
    try_all(&tenants, "Tenant", include_str!("../tenant_cases.yaml")).await;
}

#[tokio::test]
async fn rate_limit_policies_are_accepted_and_rejected() {
    let definition = include_str!("../../../config/crd/ratelimitpolicies.finaiflow.io.yaml");
    let policies = install(&client().await, definition).await;
    try_all(&policies, "RateLimitPolicy", include_str!("../rate_limit_policy_cases.yaml")).await;
}

#[tokio::test]
async fn backups_are_accepted_and_rejected() {
    let definition = include_str!("../../../config/crd/backups.finaiflow.io.yaml");
    let backups = install(&client().await, definition).await;
    try_all(&backups, "Backup", include_str!("../backup_cases.yaml")).await;
}

#[tokio::test]
async fn restores_are_accepted_and_rejected() {
    let restores = install(&client().await, include_str!("../../../config/crd/restores.finaiflow.io.yaml")).await;
    try_all(&restores, "Restore", include_str!("../restore_cases.yaml")).await;
}

/// Whether a schedule is one, the crate and whoever stores CronJobs say alike.
#[tokio::test]
async fn schedules_are_read_as_cron_jobs_are() {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", "CronJob"));
    let jobs: Api<DynamicObject> = Api::default_namespaced_with(client().await, &kind);
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]});
    for schedule in [
        "@daily",
        "@annually",
        "@midnight",
        "@reboot",
        "@Daily",
        "",
        "* * * *",
        "* * * * *",
        "* * * * * *",
        "? ? ? ? ?",
        "*/7 1-23/4 15 */3 *",
        "7/20 3 * * *",
        "0 3 * jan-MAR mon,Fri",
        "0 3 * january *",
        "0 3 * * mon-2",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * 0 *",
        "* * * * 7",
        "* * * * 0-6",
        "*/0 * * * *",
        "*/100 * * * *",
        "5-1 * * * *",
        "5-5 * * * *",
        "1-2-3 * * * *",
        "1/2/3 * * * *",
        ",5,, * * * *",
        ", * * * *",
        "L * * * *",
        "0 0 30 2 *",
        "5- * * * *",
        "/5 * * * *",
        "0 0 * * 5L",
        "  1   2 3 4 5  ",
    ] {
        let job = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "schedule"},
            "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod}}}},
        });
        let job: DynamicObject = serde_json::from_value(job).unwrap();
        let stored = jobs.create(&PostParams { dry_run: true, field_manager: None }, &job).await;
        assert_eq!(Cron::parse(schedule).is_some(), stored.is_ok(), "'{schedule}': {stored:?}");
    }
}

async fn try_all(objects: &Api<DynamicObject>, kind: &str, table: &str) {
    let all: Value = serde_yaml::from_str(table).unwrap();
    for case in all["create"].as_array().unwrap() {
        let new = object(kind, case, "spec");
        check(case, objects.patch(&new.name_any(), &dry_run(), &Patch::Apply(&new)).await);
    }
    for case in all["update"].as_array().unwrap() {
        let (old, mut new) = (object(kind, case, "old"), object(kind, case, "new"));
        let name = old.name_any();
        let _ = objects.delete(&name, &kube::api::DeleteParams::default()).await;
        let stored = objects.create(&PostParams::default(), &old).await.unwrap();
        new.metadata.resource_version = stored.resource_version();
        let replace = PostParams { dry_run: true, field_manager: None };
        check(case, objects.replace(&name, &replace, &new).await);
        objects.delete(&name, &kube::api::DeleteParams::default()).await.unwrap();
    }
}
