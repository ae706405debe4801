//! What belongs to others stays theirs.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn the_second_tenant_of_a_schema_is_stalled_and_told_whose_it_is() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({"schemaName": "shared"})).await;
    world.ready("acme").await;
    world.create(&world.banks, "globex", json!({"schemaName": "shared"})).await;
    let message = world.condition(&world.banks, "globex", "Stalled", "True", "SchemaConflict").await;
    assert!(message.contains(&format!("{}/acme", world.banks)), "{message}");
    world.condition(&world.banks, "globex", "Ready", "False", "SchemaConflict").await;
    world.delete(&world.banks, "globex").await;
    assert_eq!(world.query("SELECT nspname::text FROM pg_namespace WHERE nspname = 'shared'").await, ["shared"]);
    world.ready("acme").await;
    world.end().await;
}

#[tokio::test]
async fn a_foreign_schema_is_refused_with_its_owner() {
    let world = World::running().await;
    world.execute("CREATE SCHEMA theirs; CREATE TABLE theirs.precious AS SELECT 42 AS answer").await;
    world.create(&world.banks, "greedy", json!({"schemaName": "theirs", "deletionPolicy": "Delete"})).await;
    let message = world.condition(&world.banks, "greedy", "Stalled", "True", "SchemaConflict").await;
    let superuser = world.query("SELECT current_user::text").await.remove(0);
    assert!(message.contains(&format!("role {superuser}")), "{message}");
    world.delete(&world.banks, "greedy").await;
    assert_eq!(world.query("SELECT answer::text FROM theirs.precious").await, ["42"]);
    assert_eq!(world.roles().await, Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn a_name_is_unique_and_a_namespace_needs_rights() {
    let mut world = World::new().await;
    let others = format!("{}-others", world.banks);
    let closed = format!("{}-closed", world.banks);
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    for name in [&others, &closed] {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    }
    world.bind_tenant_namespace(&world.banks).await;
    world.bind_tenant_namespace(&others).await;
    world.replica().await;
    // `closed` is configured, but nobody bound the rules there.
    world.start(&[&world.banks.clone(), &others, &closed]);
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;

    world.create(&others, "acme", json!({})).await;
    let message = world.condition(&others, "acme", "Stalled", "True", "NameConflict").await;
    assert!(message.contains(&format!("held by {}/acme", world.banks)), "{message}");
    world.delete(&others, "acme").await;

    world.create(&closed, "locked", json!({})).await;
    let message = world.condition(&closed, "locked", "Stalled", "True", "Forbidden").await;
    assert!(message.contains("resource \"secrets\" in API group \"\" in the namespace"), "{message}");
    assert!(message.contains(&format!("add {closed} to tenantNamespaces")), "{message}");

    world.create("default", &world.system.clone(), json!({})).await;
    let message = world.condition("default", &world.system.clone(), "Stalled", "True", "Forbidden").await;
    assert!(message.contains("add default to tenantNamespaces"), "{message}");
    world.delete("default", &world.system.clone()).await;
    world.end().await;
}

#[tokio::test]
async fn a_statement_that_fails_leaves_nothing_locked() {
    let world = World::running().await;
    world.replica().await;
    world
        .execute(
            "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not today''; END';
             CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('GRANT') EXECUTE FUNCTION refuse()",
        )
        .await;
    world.create(&world.banks, "acme", json!({})).await;
    let message = world.condition(&world.banks, "acme", "Ready", "False", "DatabaseError").await;
    assert!(message.contains("not today"), "{message}");
    let open = format!(
        "SELECT state || ' ' || query FROM pg_stat_activity
         WHERE usename = '{}' AND state LIKE 'idle in%' AND state_change < now() - interval '1 s'",
        world.admin
    );
    for _ in 0..30 {
        assert_eq!(world.query(&open).await, Vec::<String>::new());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    world.execute("DROP EVENT TRIGGER refuse").await;
    world.ready("acme").await;
    world.end().await;
}
