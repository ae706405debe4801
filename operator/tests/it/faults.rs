//! Neighbours that fail while the operator lives on: what it says in between is true, and it converges after.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use finaiflow_crds::Tenant;
use futures::future::join_all;
use futures::{StreamExt, join};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::between::{Call, Fault, Kind, Point, Side, Wire};
use crate::lane::{BYSTANDER, Lane, Mishaps, STEPS};
use crate::world::World;

/// Tenants with which something goes wrong at the same time.
const BATCH: usize = 6;
const LANES: usize = 4;
/// A watch that says nothing is given up after 50 s, a request that is not answered after 60 s.
const SILENCE: Duration = Duration::from_mins(2);

const REFUSALS: [u16; 4] = [409, 410, 429, 500];

/// Every Ready condition that was ever seen, as `status reason`, in order, by Tenant.
type Told = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

fn listen(world: &World) -> Told {
    let told = Told::default();
    let (api, heard) = (world.api::<Tenant>(&world.banks), Arc::clone(&told));
    tokio::spawn(async move {
        let changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            let Ok(tenant) = change else { continue };
            let conditions = tenant.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            if let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") {
                println!("{} says {} {}: {}", tenant.name_any(), ready.status, ready.reason, ready.message);
                let ready = format!("{} {}", ready.status, ready.reason);
                heard.lock().unwrap().entry(tenant.name_any()).or_default().push(ready);
            }
        }
    });
    told
}

/// At every write a refusal and a connection that ends, before it and after it; at every read one of these. Which
/// refusal it is takes turns: the operator treats all alike.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_fails_once_is_not_worth_a_word() {
    let mut lane = Lane::new(1).await.remove(0);
    lane.start().await;
    let (told, started) = (listen(&lane.world), lane.world.process());
    let recorded = lane.life("recorded", "Delete", &Mishaps::default()).await;
    let mishaps = recorded.map(|calls| api_mishaps(&calls, "recorded"));
    let count = mishaps.iter().map(Vec::len).max().unwrap_or_default();
    println!("{count} lives, {:?}", mishaps.each_ref().map(Vec::len));
    let names: Vec<_> = (0..count).map(|number| format!("tenant-{number:03}")).collect();
    for batch in (0..count).collect::<Vec<_>>().chunks(BATCH) {
        for (step, mishaps) in STEPS.into_iter().zip(&mishaps) {
            for (name, (point, fault)) in
                batch.iter().filter_map(|number| Some((&names[*number], mishaps.get(*number)?)))
            {
                println!("{step:?} {name} {point:?} {fault:?}");
                lane.between.arm(Point { about: name.clone(), ..point.clone() }, *fault);
            }
            let names: Vec<_> = batch.iter().map(|number| names[*number].as_str()).collect();
            join_all(names.iter().map(|name| lane.act(step, name, "Delete"))).await;
            join_all(names.iter().map(|name| lane.settled(step, name))).await;
            if step == STEPS[2] {
                lane.nothing_is_written(&[BYSTANDER]).await;
                join_all(names.iter().map(|name| lane.is_given_up(name, "Delete"))).await;
            } else {
                lane.nothing_is_written(&names).await;
                join_all(names.iter().map(|name| lane.world.is_true(name))).await;
            }
            assert!(!lane.between.disarm(), "{step:?} of {names:?} made fewer calls than before");
        }
    }
    for (name, told) in told.lock().unwrap().iter() {
        let mut told = told.clone();
        // A slow machine's PostgreSQL may let a lock time out.
        told.retain(|told| told != "False DatabaseUnavailable");
        told.dedup();
        let expected = ["False Provisioning", "False NotYetServed", "True Reconciled"];
        assert!(expected.ends_with(&told.iter().map(String::as_str).collect::<Vec<_>>()), "{name}: {told:?}");
    }
    assert_eq!(lane.world.process(), started);
    lane.end().await;
}

fn api_mishaps(calls: &[Call], name: &str) -> Vec<(Point, Fault)> {
    let mut calls: Vec<_> = calls.iter().filter(|call| call.wire == Wire::Api && call.what.contains(name)).collect();
    calls.truncate(calls.iter().rposition(|call| call.wrote).map_or(0, |last| last + 1));
    let mut mishaps = Vec::new();
    for kind in [Kind::Write, Kind::Read] {
        for nth in 0..calls.iter().filter(|call| call.kind == kind).count() {
            let refusal = (Side::Before, Fault::Refuse(REFUSALS[nth % REFUSALS.len()]));
            let faults = [refusal, (Side::Before, Fault::Cut), (Side::After, Fault::Cut)];
            let faults = if kind == Kind::Write { &faults[..] } else { &faults[nth % 3..][..1] };
            let point = |side| Point { wire: Wire::Api, kind: Some(kind), about: String::new(), nth, side };
            mishaps.extend(faults.iter().map(|(side, fault)| (point(*side), *fault)));
        }
    }
    mishaps
}

/// Before every write, after every commit, and at every eighth read.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_postgresql_that_is_cut_does_no_harm() {
    let mut lanes = Lane::new(LANES).await;
    join_all(lanes.iter_mut().map(Lane::start)).await;
    let told: Vec<_> = lanes.iter().map(|lane| listen(&lane.world)).collect();
    let recorded = lanes[0].life("recorded", "Delete", &Mishaps::default()).await;
    let cuts = recorded.map(|calls| cuts(&calls));
    let count = cuts.iter().map(Vec::len).max().unwrap_or_default();
    println!("{count} lives, {:?}", cuts.each_ref().map(Vec::len));
    let cuts = &cuts;
    join_all(lanes.into_iter().enumerate().map(|(number, mut lane)| async move {
        let started = lane.world.process();
        for index in (number..count).step_by(LANES) {
            let mishaps = cuts.each_ref().map(|cuts| cuts.get(index).map(|point| (point.clone(), Fault::Cut)));
            lane.life(&format!("t-{index}"), "Delete", &mishaps).await;
        }
        assert_eq!(lane.world.process(), started);
        lane.end().await;
    }))
    .await;
    for told in told {
        for (name, told) in told.lock().unwrap().iter() {
            let known = ["False Provisioning", "False NotYetServed", "False DatabaseUnavailable", "True Reconciled"];
            assert!(told.iter().all(|told| known.contains(&told.as_str())), "{name}: {told:?}");
        }
    }
}

fn cuts(calls: &[Call]) -> Vec<Point> {
    let end = calls.iter().rposition(|call| call.wrote).map_or(0, |last| last + 1);
    let of_postgres = |call: &&Call| call.wire == Wire::Postgres;
    let point = |kind, nth, side| Point { wire: Wire::Postgres, kind: Some(kind), about: String::new(), nth, side };
    let mut points = Vec::new();
    for (nth, call) in calls[..end].iter().filter(of_postgres).filter(|call| call.kind == Kind::Write).enumerate() {
        points.push(point(Kind::Write, nth, Side::Before));
        if call.what == "COMMIT" {
            points.push(point(Kind::Write, nth, Side::After));
        }
    }
    let reads = calls[..end].iter().filter(of_postgres).filter(|call| call.kind == Kind::Read).count();
    // The later half may be that of another visit.
    points.extend((0..reads / 2).step_by(8).map(|nth| point(Kind::Read, nth, Side::Before)));
    points
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_without_connections_or_read_only_is_told_and_waited_for() {
    let mut lane = Lane::new(1).await.remove(0);
    lane.start().await;
    let started = lane.world.process();
    let (admin, database) = (lane.world.admin.clone(), lane.world.database.clone());
    for (name, refuse, accept, why) in [
        (
            "crowded",
            format!("ALTER ROLE {admin} CONNECTION LIMIT 0"),
            format!("ALTER ROLE {admin} CONNECTION LIMIT -1"),
            "too many connections",
        ),
        (
            "standby",
            format!("ALTER DATABASE {database} SET default_transaction_read_only = on"),
            format!("ALTER DATABASE {database} RESET default_transaction_read_only"),
            "read-only",
        ),
    ] {
        let (world, banks) = (&lane.world, &lane.world.banks);
        let end_sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{admin}'");
        world.execute(&format!("{refuse}; {end_sessions}")).await;
        lane.act(STEPS[0], name, "Delete").await;
        world.touch(BYSTANDER).await;
        for tenant in [name, BYSTANDER] {
            let message = world.condition(banks, tenant, "Ready", "False", "DatabaseUnavailable").await;
            assert!(message.contains(why), "{message}");
        }
        world.condition(banks, BYSTANDER, "SchemaReady", "True", "").await;
        assert!(world.tenant(name).await.status.unwrap().schema.is_none());
        // A superuser's transaction may always say that it is not read-only.
        world.execute(&format!("BEGIN READ WRITE; {accept}; COMMIT; {end_sessions}")).await;
        for tenant in [name, BYSTANDER] {
            lane.settled(STEPS[1], tenant).await;
            world.is_true(tenant).await;
        }
        lane.nothing_is_written(&[name, BYSTANDER]).await;
    }
    assert_eq!(lane.world.process(), started);
    lane.end().await;
}

#[tokio::test]
async fn a_postgresql_that_crashes_is_waited_for() {
    let mut world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "settled", json!({})).await;
    world.ready("settled").await;
    let started = world.process();
    let names: Vec<_> = (0..5).map(|number| format!("t-{number}")).collect();
    for name in &names {
        world.create(&world.banks, name, json!({})).await;
    }
    crate::world::eventually("a first claim", async || {
        if world.log().contains("t-0") { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    restart(&world).await;
    for name in names.iter().map(String::as_str).chain(["settled"]) {
        world.visit(name).await;
        world.ready(name).await;
    }
    assert_eq!(world.process(), started);
    world.no_orphans().await;
    world.end().await;
}

/// Kills every process of the server, and starts it again as it was started.
async fn restart(world: &World) {
    let directory = world.query("SHOW data_directory").await.remove(0);
    let programs = world.query("SELECT setting FROM pg_config WHERE name = 'BINDIR'").await.remove(0);
    let owner = std::fs::metadata(&directory).unwrap();
    let restarted = Command::new(format!("{programs}/pg_ctl"))
        .args(["restart", "-m", "immediate", "-w", "-D", &directory])
        .current_dir("/")
        .uid(owner.uid())
        .gid(owner.gid())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(restarted.unwrap().success());
}

/// A connection that is neither answered nor ended, as after the loss of a machine in between.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_falls_silent_is_asked_again() {
    let [mut starting, mut watching]: [Lane; 2] = Lane::new(2).await.try_into().ok().unwrap();
    let (about, wire) = ("/tenants?".to_owned(), Wire::Api);
    starting.between.arm(Point { wire, kind: Some(Kind::Read), about, nth: 0, side: Side::Before }, Fault::Silence);
    starting.act(STEPS[0], BYSTANDER, "Delete").await;
    starting.world.start(&[&starting.world.banks.clone()]);
    watching.start().await;
    watching.between.mute_watches();
    watching.act(STEPS[1], BYSTANDER, "Delete").await;
    join!(noticed(&starting), noticed(&watching));
    assert!(!starting.between.disarm());
    join!(starting.settled(STEPS[0], BYSTANDER), watching.settled(STEPS[1], BYSTANDER));
    join!(starting.end(), watching.end());
}

async fn noticed(lane: &Lane) {
    let api: Api<Tenant> = lane.world.api(&lane.world.banks);
    let followed = async {
        loop {
            let tenant = api.get(BYSTANDER).await.unwrap();
            let status = tenant.status.unwrap_or_default();
            if status.schema.is_some() && status.observed_generation == tenant.metadata.generation {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(SILENCE, followed).await.unwrap();
}
