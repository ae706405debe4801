//! A bank that was left behind is taken back with all it had, or by who may name it.

use finaiflow_crds::manifest::ADMISSION;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::world::{World, eventually};

const MARK: &str = "(at, event, outcome) VALUES (now(), 'test.mark', 'success')";

/// A bank with a mark in it; returns its claim and its schema.
async fn marked(world: &World, name: &str) -> (String, String) {
    world.create(&world.banks, name, json!({"deletionPolicy": "Retain"})).await;
    world.ready(name).await;
    let status = world.tenant(name).await.status.unwrap();
    let schema = status.schema.unwrap().name;
    world.execute(&format!("INSERT INTO {schema}.audit_events {MARK}")).await;
    (status.claim_id.unwrap(), schema)
}

/// What a Tenant has when it holds that bank.
async fn holds(world: &World, name: &str, claim: &str, schema: &str) {
    world.ready(name).await;
    let status = world.tenant(name).await.status.unwrap();
    assert_eq!((status.claim_id.as_deref(), status.schema.unwrap().name.as_str()), (Some(claim), schema));
    let url = world.secret(&format!("{name}.database"), "DATABASE_URL").await;
    let mut app = sqlx::PgConnection::connect(&url).await.unwrap();
    let marks: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_events WHERE event = 'test.mark'")
        .fetch_one(&mut app)
        .await
        .unwrap();
    assert_eq!(marks, 1);
    let recorded = format!("SELECT name || ' ' || state FROM finaiflow_system.claims WHERE claim_id = '{claim}'");
    assert_eq!(world.query(&recorded).await, [format!("{name} active")]);
}

async fn guard(world: &World) {
    for document in serde_yaml::Deserializer::from_str(ADMISSION) {
        let object = Value::deserialize(document).unwrap();
        let (name, as_it) = (object["metadata"]["name"].as_str().unwrap(), PatchParams::apply("it").force());
        let put = Patch::Apply(&object);
        if object["kind"] == "ValidatingAdmissionPolicy" {
            let api: Api<ValidatingAdmissionPolicy> = Api::all(world.client.clone());
            api.patch(name, &as_it, &put).await.unwrap();
        } else if object["kind"] == "ValidatingAdmissionPolicyBinding" {
            let api: Api<ValidatingAdmissionPolicyBinding> = Api::all(world.client.clone());
            api.patch(name, &as_it, &put).await.unwrap();
        }
    }
}

/// An administrator's copy of a Secret.
async fn copy(world: &World, name: &str) -> Secret {
    let mut secret: Secret = world.api(&world.banks).get(name).await.unwrap();
    secret.metadata.resource_version = None;
    secret.metadata.uid = None;
    secret.metadata.managed_fields = None;
    secret
}

async fn restore(world: &World, mut secret: Secret, name: &str) {
    secret.metadata.name = Some(name.to_owned());
    world.api::<Secret>(&world.banks).create(&PostParams::default(), &secret).await.unwrap();
}

#[tokio::test]
async fn the_same_name_gets_its_bank_back_once_its_key_is_there() {
    let world = World::running().await;
    world.replica().await;
    let (claim, schema) = marked(&world, "acme").await;
    let keys = world.secret("acme.signing-keys", "keys.json").await;
    let data_key = copy(&world, "acme.data-key").await;

    // At once: what the old Tenant owned may not be collected yet.
    world.delete(&world.banks, "acme").await;
    world.create(&world.banks, "acme", json!({"deletionPolicy": "Retain"})).await;
    holds(&world, "acme", &claim, &schema).await;
    assert_eq!(world.secret("acme.signing-keys", "keys.json").await, keys);
    assert_eq!(copy(&world, "acme.data-key").await.data, data_key.data);
    assert_eq!(world.roles().await.len(), 6);

    world.delete(&world.banks, "acme").await;
    let secrets: Api<Secret> = world.api(&world.banks);
    secrets.delete("acme.data-key", &DeleteParams::default()).await.unwrap();
    world.create(&world.banks, "acme", json!({})).await;
    let message = world.condition(&world.banks, "acme", "Stalled", "True", "KeyLost").await;
    assert!(message.contains("secret acme.data-key") && message.contains(&claim), "{message}");
    assert_eq!(world.query("SELECT state FROM finaiflow_system.claims").await, ["released"]);
    restore(&world, data_key, "acme.data-key").await;
    holds(&world, "acme", &claim, &schema).await;
    world.end().await;
}

#[tokio::test]
async fn another_name_takes_over_by_identity_what_is_not_in_use() {
    let world = World::running().await;
    world.replica().await;
    guard(&world).await;
    let (claim, schema) = marked(&world, "acme").await;
    let data_key = copy(&world, "acme.data-key").await;
    restore(&world, data_key, "phoenix.data-key").await;
    world.create(&world.banks, "phoenix", json!({"adoptClaim": claim})).await;
    let message = world.condition(&world.banks, "phoenix", "Stalled", "True", "AdoptionRefused").await;
    assert!(message.contains(&format!("held by Tenant {}/acme", world.banks)), "{message}");
    holds(&world, "acme", &claim, &schema).await;

    world.delete(&world.banks, "acme").await;
    let nudge = Patch::Merge(json!({"metadata": {"annotations": {"nudge": "1"}}}));
    let tenants: Api<finaiflow_crds::Tenant> = world.api(&world.banks);
    tenants.patch("phoenix", &PatchParams::default(), &nudge).await.unwrap();
    holds(&world, "phoenix", &claim, &schema).await;
    world.end().await;
}

#[tokio::test]
async fn a_rebuilt_cluster_takes_over_and_ends_what_the_old_one_serves() {
    let mut world = World::running().await;
    world.replica().await;
    guard(&world).await;
    let (claim, schema) = marked(&world, "acme").await;
    let mut session = sqlx::PgConnection::connect(&world.secret("acme.database", "DATABASE_URL").await).await.unwrap();
    // The claim is another cluster's, as it would be if this one had just been built.
    world.kill();
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let tenants: Api<finaiflow_crds::Tenant> = world.api(&world.banks);
    tenants.patch("acme", &PatchParams::default(), &free).await.unwrap();
    world.delete(&world.banks, "acme").await;
    world.execute("UPDATE finaiflow_system.claims SET installation_id = 'the old one', namespace = 'old'").await;
    world.start(&[&world.banks.clone()]);

    world.create(&world.banks, "acme", json!({"adoptClaim": claim})).await;
    holds(&world, "acme", &claim, &schema).await;
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "the session was ended");
    let holder = world.query("SELECT installation_id || ' ' || namespace FROM finaiflow_system.claims").await.remove(0);
    assert!(holder.ends_with(&world.banks) && !holder.starts_with("the old one"), "{holder}");
    world.end().await;
}

#[tokio::test]
async fn what_was_left_behind_is_swept_at_the_next_start() {
    let mut world = World::running().await;
    world.replica().await;
    let (claim, schema) = marked(&world, "acme").await;
    world.kill();
    // The finalizer is removed by hand; a key of a bank that was dropped is left.
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let tenants: Api<finaiflow_crds::Tenant> = world.api(&world.banks);
    tenants.patch("acme", &PatchParams::default(), &free).await.unwrap();
    world.delete(&world.banks, "acme").await;
    let dropped = "INSERT INTO finaiflow_system.claims SELECT '00000000000000aa', installation_id, namespace, 'gone', \
                   't_gone', 'gone', 'dropped' FROM finaiflow_system.claims";
    world.execute(dropped).await;
    let mut left = copy(&world, "acme.data-key").await;
    left.metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert("finaiflow.io/claim-id".to_owned(), "00000000000000aa".to_owned());
    restore(&world, left, "gone.data-key").await;
    world.start(&[&world.banks.clone()]);

    let state = format!("SELECT state FROM finaiflow_system.claims WHERE claim_id = '{claim}'");
    eventually("the claim is released", async || match world.query(&state).await.as_slice() {
        [state] if state == "released" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let secrets: Api<Secret> = world.api(&world.banks);
    eventually("the dropped bank's key is deleted", async || match secrets.get_opt("gone.data-key").await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    eventually("it is told", async || {
        let events = world.events("acme").await;
        events.iter().find(|(reason, _)| reason == "Orphaned").map(|_| ()).ok_or_else(|| format!("{events:?}"))
    })
    .await;
    let open = format!("SELECT rolname::text FROM pg_roles WHERE starts_with(rolname, 'ff_{claim}') AND rolcanlogin");
    assert_eq!(world.query(&open).await, Vec::<String>::new());
    assert!(secrets.get_opt("acme.data-key").await.unwrap().is_some());

    world.create(&world.banks, "acme", json!({})).await;
    holds(&world, "acme", &claim, &schema).await;
    world.end().await;
}
