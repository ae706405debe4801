//! Several operator processes of which one works.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use crate::world::{World, eventually};

/// An operator process that does not outlive its test.
struct Process(Child);

impl Process {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    /// Waits for its end; returns whether it ended well.
    async fn ended(mut self) -> bool {
        tokio::task::spawn_blocking(move || self.0.wait().unwrap().success()).await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a process leads; returns how long that took.
async fn leads(world: &World, pod: &str) -> Duration {
    let began = Instant::now();
    let leases = world.api::<Lease>(&world.system);
    eventually(&format!("{pod} leads"), async || {
        let holder = leases.get_opt("finaiflow-operator").await.map_err(|error| error.to_string())?;
        let holder = holder.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default();
        if holder == pod { Ok(()) } else { Err(format!("{holder} leads")) }
    })
    .await;
    began.elapsed()
}

/// A world with two processes, of which the first leads and has made the bank `acme`.
async fn pair() -> (World, Process, Process) {
    let world = World::new().await;
    world.bind_tenant_namespace(&world.banks).await;
    world.configure(&[&world.banks]);
    world.replica().await;
    let first = Process(world.spawn_as("first"));
    leads(&world, "first").await;
    let second = Process(world.spawn_as("second"));
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    (world, first, second)
}

/// Whoever leads now makes a bank, and nothing is there twice.
async fn works(world: &World) {
    world.create(&world.banks, "globex", json!({})).await;
    world.ready("globex").await;
    assert_eq!(world.query("SELECT name FROM finaiflow_system.claims ORDER BY 1").await, ["acme", "globex"]);
}

async fn epoch(world: &World) -> String {
    world.query("SELECT epoch::text FROM finaiflow_system.leadership").await.concat()
}

#[tokio::test]
async fn told_to_stop_it_hands_over() {
    let (world, first, second) = pair().await;
    assert_eq!(epoch(&world).await, "1", "who stands by touches nothing");
    first.signal("-TERM");
    let took = leads(&world, "second").await;
    println!("handed over in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}: the Lease was not released");
    assert!(first.ended().await);
    works(&world).await;
    drop(second);
    world.end().await;
}

#[tokio::test]
async fn a_killed_leader_is_replaced() {
    let (world, first, second) = pair().await;
    drop(first);
    println!("taken over in {:?}", leads(&world, "second").await);
    works(&world).await;
    drop(second);
    world.end().await;
}

/// A process that stood still, as on a suspended machine, believes that it leads. PostgreSQL knows better.
#[tokio::test]
async fn a_leader_that_stood_still_ends_and_changes_nothing() {
    let (world, first, second) = pair().await;
    first.signal("-STOP");
    leads(&world, "second").await;
    works(&world).await;
    let roles = world.roles().await;
    first.signal("-CONT");
    assert!(!first.ended().await);
    let log = world.log();
    assert!(log.contains("another holder") || log.contains("a newer operator"), "{log}");
    assert_eq!((world.roles().await, epoch(&world).await.as_str()), (roles, "2"));
    drop(second);
    world.end().await;
}

#[tokio::test]
async fn told_to_stop_while_it_stands_by_it_ends_well() {
    let (world, first, second) = pair().await;
    second.signal("-TERM");
    assert!(second.ended().await);
    leads(&world, "first").await;
    drop(first);
    world.end().await;
}
