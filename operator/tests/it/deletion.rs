//! Deleting keeps or drops exactly what the Tenant owns.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sqlx::Connection;

use crate::world::{World, eventually};

async fn secrets(world: &World) -> Vec<String> {
    use kube::ResourceExt;
    let mut names: Vec<_> = world
        .api::<Secret>(&world.banks)
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn retain_keeps_data_and_keys_and_closes_the_logins() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({"deletionPolicy": "Retain"})).await;
    world.ready("acme").await;
    let schema = world.tenant("acme").await.status.unwrap().schema.unwrap().name;
    let url = world.secret("acme.database", "DATABASE_URL").await;
    let session = sqlx::PgConnection::connect(&url).await.unwrap();
    world.delete(&world.banks, "acme").await;

    assert_eq!(world.query("SELECT state FROM finaiflow_system.claims").await, ["released"]);
    assert_eq!(world.query(&format!("SELECT count(*)::text FROM {schema}.users")).await, ["0"]);
    for role in world.roles().await {
        let can_login = world.query(&format!("SELECT rolcanlogin::text FROM pg_roles WHERE rolname = '{role}'")).await;
        assert_eq!(can_login, ["false"], "{role}");
    }
    let mut session = session;
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "the session was ended");
    eventually("what the Tenant owned is collected", async || {
        let left = secrets(&world).await;
        if left == ["acme.data-key", "acme.signing-keys"] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;

    world.create(&world.banks, "acme", json!({"adoptionPolicy": "Never"})).await;
    let message = world.condition(&world.banks, "acme", "Stalled", "True", "ClaimReleased").await;
    assert!(message.contains(&schema), "{message}");
    world.delete(&world.banks, "acme").await;
    assert_eq!(world.query("SELECT state FROM finaiflow_system.claims").await, ["released"]);
    assert_eq!(secrets(&world).await, ["acme.data-key", "acme.signing-keys"]);
    world.end().await;
}

#[tokio::test]
async fn delete_drops_exactly_what_was_made() {
    let world = World::running().await;
    world.replica().await;
    world.execute("CREATE SCHEMA t_bystander; CREATE TABLE t_bystander.t (id int)").await;
    world.create(&world.banks, "acme", json!({"deletionPolicy": "Delete"})).await;
    world.create(&world.banks, "globex", json!({"deletionPolicy": "Delete"})).await;
    world.ready("acme").await;
    world.ready("globex").await;
    let session = sqlx::PgConnection::connect(&world.secret("acme.database", "DATABASE_URL").await).await.unwrap();
    world.delete(&world.banks, "acme").await;
    drop(session);

    let kept = world.tenant("globex").await.status.unwrap().schema.unwrap().name;
    let schemas = world.query("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 't\\_%' ORDER BY 1").await;
    assert_eq!(schemas, ["t_bystander", kept.as_str()]);
    assert_eq!(world.query("SELECT state FROM finaiflow_system.claims ORDER BY name").await, ["dropped", "active"]);
    assert_eq!(world.roles().await.len(), 6);
    eventually("only the other bank's Secrets are left", async || {
        let left = secrets(&world).await;
        if left.len() == 5 && left.iter().all(|name| name.starts_with("globex.")) {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    world.ready("globex").await;
    // The name is free again.
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    world.end().await;
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_its_tenants_along() {
    let world = World::running().await;
    world.replica().await;
    for (name, policy) in [("dropped", "Delete"), ("kept", "Retain")] {
        world.create(&world.banks, name, json!({"deletionPolicy": policy})).await;
    }
    world.create(&world.banks, "never-valid", json!({"databaseClassName": "gold"})).await;
    world.ready("dropped").await;
    world.ready("kept").await;
    world.condition(&world.banks, "never-valid", "Stalled", "True", "ClassNotFound").await;
    let session = sqlx::PgConnection::connect(&world.secret("kept.database", "DATABASE_URL").await).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.banks, &DeleteParams::default()).await.unwrap();
    // The namespace controller looks again only now and then.
    let started = Instant::now();
    while let Some(left) = namespaces.get_opt(&world.banks).await.unwrap() {
        assert!(started.elapsed() < Duration::from_mins(3), "{left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(session);
    let claims = world.query("SELECT name || ' ' || state FROM finaiflow_system.claims ORDER BY name").await;
    assert_eq!(claims, ["dropped dropped", "kept released"]);
    assert_eq!(world.roles().await.len(), 6);
    world.end().await;
}

#[tokio::test]
async fn without_its_database_a_tenant_stays_and_says_so_until_it_is_back() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({"deletionPolicy": "Delete"})).await;
    world.ready("acme").await;
    let admin = &world.admin;
    let close = format!(
        "ALTER ROLE {admin} NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{admin}'"
    );
    world.execute(&close).await;
    let tenants: Api<finaiflow_crds::Tenant> = world.api(&world.banks);
    tenants.delete("acme", &DeleteParams::default()).await.unwrap();
    let message = world.condition(&world.banks, "acme", "Ready", "False", "DatabaseUnavailable").await;
    assert!(message.starts_with("the deletion waits for server primary: "), "{message}");
    assert!(message.contains("remove its finalizer finaiflow.io/tenant"), "{message}");
    assert!(world.tenant("acme").await.metadata.finalizers.is_some());

    world.execute(&format!("ALTER ROLE {admin} LOGIN")).await;
    eventually("acme is gone", async || match tenants.get_opt("acme").await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(world.query("SELECT state FROM finaiflow_system.claims").await, ["dropped"]);
    world.end().await;
}
