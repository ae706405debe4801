//! Processes that start, stop, are killed, or are replaced.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, eventually, unique};

fn up_to(milliseconds: u64) -> Duration {
    Duration::from_millis(u64::from_str_radix(&unique(), 16).unwrap() % milliseconds)
}

#[tokio::test]
async fn killed_at_random_it_converges() {
    let mut world = World::running().await;
    world.replica().await;
    let tenants: Vec<_> = (0..8).map(|number| format!("bank-{number}")).collect();
    for tenant in &tenants {
        world.create(&world.banks, tenant, json!({})).await;
        tokio::time::sleep(up_to(250)).await;
        world.kill();
        world.start(&[&world.banks.clone()]);
        tokio::time::sleep(up_to(350)).await;
    }
    for tenant in &tenants {
        world.ready(tenant).await;
    }
    let count = tenants.len();
    assert_eq!(world.query("SELECT state FROM finaiflow_system.claims").await, vec!["active"; count]);
    assert_eq!(world.query("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 't\\_%'").await.len(), count);
    assert_eq!(world.roles().await.len(), 6 * count);
    let orphans = format!(
        "SELECT rolname::text FROM pg_roles WHERE pg_has_role('{}', oid, 'MEMBER') AND rolname LIKE 'ff\\_%\\_owner'
         AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspowner = pg_roles.oid)",
        world.admin
    );
    assert_eq!(world.query(&orphans).await, Vec::<String>::new());
    for tenant in &tenants {
        let url = world.secret(&format!("{tenant}.database"), "DATABASE_URL").await;
        let options: sqlx::postgres::PgConnectOptions = url.parse().unwrap();
        sqlx::ConnectOptions::connect(&options).await.unwrap();
        let status = world.tenant(tenant).await.status.unwrap();
        assert!(status.secrets.iter().all(|secret| secret.generation == 1), "{status:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn told_to_stop_it_ends_well() {
    let mut world = World::running().await;
    for number in 0..5 {
        world.create(&world.banks, &format!("bank-{number}"), json!({})).await;
    }
    eventually("a first visit", async || if world.log().contains("Claimed") { Ok(()) } else { Err("none".to_owned()) })
        .await;
    let (mut operator, told) = (world.take_operator(), Instant::now());
    assert!(Command::new("kill").arg(operator.id().to_string()).status().unwrap().success());
    let status = tokio::task::spawn_blocking(move || operator.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status} {}", world.log());
    assert!(told.elapsed() < Duration::from_secs(25));
    world.end().await;
}

#[tokio::test]
async fn an_older_operator_ends_when_a_newer_one_has_taken_over() {
    let mut world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    let mut older = world.take_operator();
    world.execute("UPDATE finaiflow_system.leadership SET epoch = epoch + 1").await;
    world.create(&world.banks, "globex", json!({})).await;
    let status = tokio::task::spawn_blocking(move || older.wait().unwrap()).await.unwrap();
    assert!(!status.success());
    assert!(world.log().contains("a newer operator is at work"));
    assert_eq!(world.query("SELECT name FROM finaiflow_system.claims").await, ["acme"]);
    world.end().await;
}

#[tokio::test]
async fn a_changed_admin_login_is_read_again() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    // The login that the operator knows is closed, as a rotation would; every open session ends.
    let (old, new) = (&world.admin, format!("{}_next", world.admin));
    let rename = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{old}';
         ALTER ROLE {old} RENAME TO {new};
         ALTER ROLE {new} PASSWORD 'password'"
    );
    world.execute(&rename).await;
    world.create(&world.banks, "globex", json!({})).await;
    world.condition(&world.banks, "globex", "Ready", "False", "DatabaseUnavailable").await;
    world.write_admin_secret(&new).await;
    world.ready("globex").await;
    world.execute(&format!("ALTER ROLE {new} RENAME TO {old}")).await;
    world.end().await;
}

/// The answer to `GET path` on every address that the operator listens on.
async fn answers(world: &World, path: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for line in world.log().lines().filter(|line| line.contains("\"listening\"")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut stream = TcpStream::connect(line["address"].as_str().unwrap()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn probes_and_metrics_answer() {
    let world = World::running().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.condition(&world.banks, "acme", "SchemaReady", "True", "").await;
    let ok = |answers: &[String], body: &str| {
        answers.iter().any(|answer| answer.starts_with("HTTP/1.0 200") && answer.contains(body))
    };
    assert!(ok(&answers(&world, "/readyz").await, "ok"), "{}", world.log());
    assert!(ok(&answers(&world, "/livez").await, "ok"));
    let visits = "finaiflow_operator_reconcile_total{kind=\"Tenant\",result=\"success\"}";
    eventually("the visit is counted", async || {
        let answers = answers(&world, "/metrics").await;
        if ok(&answers, visits) { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .await;
    world.end().await;
}
