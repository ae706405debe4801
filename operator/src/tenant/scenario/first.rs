//! The way to the first Ready, and what serving does to it.

use serde_json::json;

use super::{Visit, World, reasons};
use crate::catalog::fake::sha256;

#[tokio::test]
async fn a_tenant_becomes_everything_in_one_visit() {
    let mut world = World::new();
    world.cluster.create_tenant("acme", &json!({"hosts": ["x.acme.example", "elsewhere.org"]}));
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap(), Visit::Waiting);
    assert_eq!(reasons(&facts), ["Claimed", "Provisioned", "Migrated", "CredentialsCreated"]);
    assert_eq!(
        world.cluster.writes(),
        [
            "PATCH acme", // the finalizer, before anything is made
            "PATCH status",
            "POST secrets",
            "POST secrets",
            "POST secrets",
            "POST secrets",
            "POST secrets",
            "PATCH acme.finaiflow-api",
            "PATCH acme.finaiflow-api",
            "PATCH acme.finaiflow-jobs",
            "PATCH acme-verify",
            "PATCH status",
        ]
    );
    let tenant = world.cluster.tenant("acme").unwrap();
    assert_eq!(tenant["metadata"]["finalizers"], json!(["finaiflow.io/tenant"]));
    let claim = world.catalog.state.lock().unwrap().claims[0].clone();
    let status = &tenant["status"];
    assert_eq!(status["claimID"], claim.claim_id.to_string());
    assert_eq!(status["schema"], json!({"name": claim.schema_name, "version": 3}));
    assert_eq!(status["database"], json!({"class": "default", "instance": "primary"}));
    assert_eq!(status["hosts"], json!(["x.acme.example"]));
    assert_eq!(status["endpoint"], "http://finaiflow-api.finaiflow-system.svc:8000");
    assert_eq!(status["observedGeneration"], 1);
    let secrets = ["data-key", "signing-keys", "database", "maintenance-database", "backup-database"];
    assert_eq!(
        status["secrets"],
        json!(secrets.map(|purpose| json!({"name": format!("acme.{purpose}"), "purpose": purpose, "generation": 1})))
    );
    assert_eq!(world.condition("Ready"), "False/NotYetServed");
    assert_eq!(world.condition("SchemaReady"), "True/Provisioned");
    assert_eq!(world.condition("CredentialsReady"), "True/Provisioned");
    assert_eq!(world.condition("Serving"), "Unknown/NotYetServed");
    assert_eq!(world.condition("LedgerVerified"), "Unknown/NotYetVerified");
    assert_eq!(world.condition("Reconciling"), "True/NotYetServed");
    assert_eq!(world.condition("Stalled"), "");
}

#[tokio::test]
async fn the_secret_holds_what_postgresql_was_given() {
    let world = World::provisioned(json!({})).await;
    let secret: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(world.cluster.secret("acme.database").unwrap()).unwrap();
    let text = |key: &str| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
    let (user, password) = (text("username"), text("password"));
    assert_eq!(
        text("DATABASE_URL"),
        format!("postgres://{user}:{password}@pooler.finaiflow-system.svc:6432/finaiflow?sslmode=verify-full")
    );
    assert_eq!((text("host"), text("port")), ("pooler.finaiflow-system.svc".to_owned(), "6432".to_owned()));
    let state = world.catalog.state.lock().unwrap();
    let record = state.logins.iter().find(|record| record.role == user).unwrap();
    assert_eq!((record.generation, &record.digest), (1, &sha256(&password)));
    assert!(user.ends_with("_app_a") && text("schema") == state.claims[0].schema_name);
}

#[tokio::test]
async fn ready_follows_when_every_live_replica_serves() {
    let mut world = World::provisioned(json!({})).await;
    let version =
        || world.cluster.tenant("acme").unwrap()["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let now: u64 = version();
    world.replica("a", now, &json!({}));
    world.replica("b", now - 1, &json!({}));
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Waiting);
    assert_eq!(world.condition("Serving"), "False/NotYetServed");
    assert_eq!(world.message("acme", "Ready"), "replica b has not applied the Tenant yet");

    world.replica("a", u64::MAX, &json!({}));
    world.replica("b", u64::MAX, &json!({"banks/acme": "wrong password"}));
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Waiting);
    assert_eq!(world.message("acme", "Ready"), "replica b cannot serve the Tenant: wrong password");

    world.replica("b", u64::MAX, &json!({}));
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!((result.unwrap(), reasons(&facts)), (Visit::Done, vec!["Ready"]));
    assert_eq!(world.condition("Ready"), "True/Reconciled");
    assert_eq!(world.condition("Serving"), "True/Served");
    assert_eq!(world.condition("Reconciling"), "");
}

#[tokio::test]
async fn a_settled_tenant_is_not_written_again() {
    let mut world = World::ready(json!({"hosts": ["x.acme.example"]})).await;
    let (versions, writes) = (world.cluster.versions(), world.catalog.state.lock().unwrap().writes);
    for _ in 0..3 {
        let (result, facts) = world.visit_and_tell("acme").await;
        assert_eq!((result.unwrap(), facts), (Visit::Done, vec![]));
    }
    assert_eq!(world.cluster.writes(), Vec::<String>::new());
    assert_eq!(world.cluster.versions(), versions);
    assert_eq!(world.catalog.state.lock().unwrap().writes, writes);
}

#[tokio::test]
async fn an_outage_of_the_api_server_leaves_ready() {
    let mut world = World::ready(json!({})).await;
    world.no_replica();
    world.settle("acme").await;
    assert_eq!(world.condition("Serving"), "Unknown/NoReplica");
    assert_eq!(world.condition("Ready"), "True/Reconciled");

    world.replica("late", 0, &json!({}));
    world.settle("acme").await;
    assert_eq!(world.condition("Serving"), "False/Propagating");
    world.replica("late", u64::MAX, &json!({}));
    world.settle("acme").await;
    assert_eq!(world.condition("Serving"), "True/Served");

    // A replica that has just started has not applied anything yet; that is no outage.
    world.replica("new", 0, &json!({}));
    world.settle("acme").await;
    assert_eq!(world.cluster.state.lock().unwrap().requests.last().unwrap().0, "GET");
    assert_eq!(world.condition("Serving"), "True/Served");
}

#[tokio::test]
async fn a_change_is_served_again_before_serving_is_true() {
    let mut world = World::ready(json!({})).await;
    world.cluster.edit_tenant("acme", |tenant| {
        tenant["spec"]["limits"] = json!({"connections": 7});
        tenant["metadata"]["generation"] = json!(2);
    });
    let (_, facts) = world.visit_and_tell("acme").await;
    assert_eq!(reasons(&facts), ["Updated"]);
    assert_eq!(world.condition("Serving"), "False/Propagating");
    assert_eq!(world.condition("Ready"), "True/Reconciled");
    assert_eq!(world.cluster.tenant("acme").unwrap()["status"]["observedGeneration"], 2);
    world.settle("acme").await;
    assert_eq!(world.condition("Serving"), "True/Served");
}

#[tokio::test]
async fn a_suspended_tenant_is_ready_and_still_verified() {
    let mut world = World::new();
    world.cluster.create_tenant("acme", &json!({"suspend": true}));
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Done);
    assert_eq!(world.condition("Ready"), "True/Suspended");
    let cron_job = world.cluster.get("/apis/batch/v1/namespaces/banks/cronjobs/acme-verify").unwrap();
    assert_eq!(cron_job["spec"]["suspend"], false);
}

#[tokio::test]
async fn hosts_that_are_not_granted_are_named() {
    let world = World::ready(json!({"hosts": ["x.acme.example", "elsewhere.org"]})).await;
    assert_eq!(world.condition("Ready"), "True/HostsDenied");
    assert!(world.message("acme", "Ready").contains("elsewhere.org (its suffix is not allowed in namespace banks)"));
}
