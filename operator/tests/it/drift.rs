//! What others remove or alter comes back at once, because it is watched.

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use sqlx::Connection;

use crate::world::{World, eventually};

#[tokio::test]
async fn what_is_removed_or_altered_comes_back() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;

    let cron_jobs = world.api::<CronJob>(&world.banks);
    cron_jobs.delete("acme-verify", &DeleteParams::background()).await.unwrap();
    eventually("the CronJob", async || cron_jobs.get("acme-verify").await.map_err(|error| error.to_string())).await;

    let roles = world.api::<Role>(&world.banks);
    let wide = json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    roles.patch("acme.finaiflow-api", &PatchParams::default(), &Patch::Merge(wide)).await.unwrap();
    eventually("the Role", async || {
        let role = roles.get("acme.finaiflow-api").await.unwrap();
        role.rules.unwrap()[0].resource_names.clone().ok_or_else(|| "too wide".to_owned())
    })
    .await;

    let secrets = world.api::<Secret>(&world.banks);
    let (url, password) =
        (world.secret("acme.database", "DATABASE_URL").await, world.secret("acme.database", "password").await);
    secrets.delete("acme.database", &DeleteParams::default()).await.unwrap();
    eventually("generation 2 in the status", async || {
        let generation = world.tenant("acme").await.status.unwrap().secrets[2].generation;
        if generation == 2 { Ok(()) } else { Err(generation.to_string()) }
    })
    .await;
    assert_ne!(world.secret("acme.database", "password").await, password);
    assert_ne!(world.secret("acme.database", "DATABASE_URL").await, url);
    sqlx::PgConnection::connect(&world.secret("acme.database", "DATABASE_URL").await).await.unwrap();

    // PostgreSQL is not watched: the next visit finds it.
    let prefix = format!("ff_{}", world.tenant("acme").await.status.unwrap().claim_id.unwrap());
    world.execute(&format!("ALTER ROLE {prefix}_app_a NOLOGIN CONNECTION LIMIT 99")).await;
    world.execute(&format!("DROP OWNED BY {prefix}_maintenance; DROP ROLE {prefix}_maintenance")).await;
    let attributes = format!(
        "SELECT substr(rolname, 21) || ' ' || rolcanlogin || ' ' || rolconnlimit FROM pg_roles
         WHERE starts_with(rolname, '{prefix}') ORDER BY rolname COLLATE \"C\""
    );
    cron_jobs.delete("acme-verify", &DeleteParams::background()).await.unwrap();
    eventually("the roles", async || {
        let found = world.query(&attributes).await;
        let logins = ["app_a true 20", "app_b false 20", "backup true 6", "maintenance true 2"];
        if found[0] == "app false -1" && found[1..5] == logins && found[5..] == ["owner false -1"] {
            return Ok(());
        }
        Err(format!("{found:?}"))
    })
    .await;
    sqlx::PgConnection::connect(&world.secret("acme.maintenance-database", "DATABASE_URL").await).await.unwrap();
    eventually("the events", async || {
        let notes: Vec<_> =
            world.events("acme").await.into_iter().filter(|(reason, _)| reason == "DriftCorrected").collect();
        if notes.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn a_changed_spec_is_followed() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    let limits = json!({"connections": 7, "statementTimeoutSeconds": 5});
    let change = json!({"spec": {"limits": limits, "timeZone": "Europe/Zurich", "suspend": true}});
    let tenants = world.api::<finaiflow_crds::Tenant>(&world.banks);
    tenants.patch("acme", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    world.condition(&world.banks, "acme", "Ready", "True", "Suspended").await;
    let tenant = world.tenant("acme").await;
    assert_eq!(tenant.status.as_ref().unwrap().observed_generation, tenant.metadata.generation);
    let claim = tenant.status.unwrap().claim_id.unwrap();
    let settings = world
        .query(&format!(
            "SELECT rolconnlimit || array_to_string(rolconfig, ',') FROM pg_roles WHERE rolname = 'ff_{claim}_app_a'"
        ))
        .await;
    assert!(settings[0].starts_with('7') && settings[0].contains("statement_timeout=5s"), "{settings:?}");
    let cron_job: CronJob = world.api(&world.banks).get("acme-verify").await.unwrap();
    assert_eq!(cron_job.spec.unwrap().time_zone.as_deref(), Some("Europe/Zurich"));
    world.end().await;
}
