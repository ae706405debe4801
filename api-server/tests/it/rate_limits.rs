//! RateLimitPolicies on replicas that are processes: in force everywhere at once, and as much for all as for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use finaiflow_crds::names::ANNOTATION_POLICIES;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::fleet::{Connection, Fleet, Process, Request, get};
use crate::policies::{flood, limit, limits};
use crate::tenants_bank::{Bank, eventually};

const EDITS: u64 = 120;
/// A machine that has other things to do is given more than the second that is promised.
const IN_FORCE: Duration = Duration::from_secs(3);
/// Longer than any test waits for one thing.
const FOREVER: Duration = Duration::from_mins(2);

fn info(bank: &Bank) -> Request {
    get("/api/v1/info").to(&bank.name)
}

/// Two limits that always change together: one that refuses, and one whose quota is the number of the edit.
fn pair(edit: u64) -> Value {
    json!({"limits": [limit("narrow", narrow(edit).into(), 1, &[]), limit("wide", 1_000_000 + edit, 1, &[])]})
}

fn narrow(edit: u64) -> u32 {
    if edit.is_multiple_of(2) { 100 } else { 10 }
}

/// What one client saw of one edit.
struct Phase {
    edit: u64,
    admitted: u32,
    refused: u32,
    began: Instant,
    ended: Instant,
}

/// Asks one replica again and again, tells which edit it saw last and when, and fails if it sees half of one.
async fn witness(
    port: u16,
    request: Request,
    seen: watch::Sender<(u64, Instant)>,
    stop: Arc<AtomicBool>,
) -> Vec<Phase> {
    let mut connection = Connection::open(port).await.unwrap();
    let mut phases = Vec::<Phase>::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answer = connection.send(&request).await.unwrap();
        let ended = Instant::now();
        let header = answer.header("ratelimit-policy");
        let wide = header.split_once("\"wide\";q=").unwrap().1.strip_suffix(";w=1").unwrap();
        let edit = wide.parse::<u64>().unwrap() - 1_000_000;
        assert_eq!(header, format!("\"narrow\";q={};w=1, \"wide\";q={wide};w=1", narrow(edit)), "half a set");
        if phases.last().is_none_or(|last| last.edit != edit) {
            assert!(phases.iter().all(|phase| phase.edit < edit), "back to {edit}");
            phases.push(Phase { edit, admitted: 0, refused: 0, began, ended });
            seen.send_replace((edit, ended));
        }
        let phase = phases.last_mut().unwrap();
        phase.ended = ended;
        match answer.status {
            200 => phase.admitted += 1,
            429 => phase.refused += 1,
            _ => panic!("{}", answer.text),
        }
        sleep(Duration::from_millis(3)).await;
    }
    phases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_is_in_force_on_every_replica_at_once_and_never_by_half() {
    let bank = Bank::ready().await;
    bank.declare("pair", &pair(0)).await;
    let fleet = Fleet::limited(&bank);
    let (a, b, c) = tokio::join!(fleet.add(), fleet.add(), fleet.add());
    let replicas = [&a, &b, &c];
    bank.enforced_by(&replicas).await;
    shares(&replicas, &bank, 3).await;

    let stop = Arc::new(AtomicBool::new(false));
    let (mut witnesses, mut seen) = (Vec::new(), Vec::new());
    for replica in replicas {
        let (tell, told) = watch::channel((0, Instant::now()));
        witnesses.push(tokio::spawn(witness(replica.port, info(&bank), tell, Arc::clone(&stop))));
        seen.push(told);
    }
    let mut times = Vec::new();
    for edit in 1..=EDITS {
        bank.declare("pair", &pair(edit)).await;
        let answered = Instant::now();
        let mut last = answered;
        for told in &mut seen {
            let told = timeout(FOREVER, told.wait_for(|(seen, _)| *seen >= edit)).await.expect("the edit is seen");
            last = last.max(told.unwrap().1);
        }
        times.push(last - answered);
        sleep(Duration::from_millis(60)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut phases = Vec::new();
    for witness in witnesses {
        phases.extend(witness.await.unwrap());
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
    println!("{EDITS} edits in force on 3 replicas after: p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100));
    assert!(at(99) <= IN_FORCE);
    for edit in 1..=EDITS {
        let phases = || phases.iter().filter(|phase| phase.edit == edit);
        let time = phases().map(|it| it.ended).max().unwrap() - phases().map(|it| it.began).min().unwrap();
        let (admitted, quota) = (phases().map(|it| it.admitted).sum::<u32>(), f64::from(narrow(edit)));
        assert!(f64::from(admitted) <= quota + quota * time.as_secs_f64(), "{admitted} of {quota}/s in {time:?}");
    }
    assert!(phases.iter().any(|phase| phase.refused > 0));

    // The Leases tell what the answers showed.
    let leases: Api<Lease> = Api::namespaced(bank.admin.clone(), &bank.namespace);
    for replica in replicas {
        let told = || async {
            let (digest, lease) = (bank.digest().await, leases.get(&format!("finaiflow-api-{}", replica.pod)).await);
            (lease.unwrap().annotations()[ANNOTATION_POLICIES] == digest).then_some(())
        };
        eventually("the lease tells the digest of the policies", told).await;
    }
    drop((a, b, c, fleet));
    bank.drop().await;
}

/// Waits until each replica grants its part of the bank's first limit and no more.
async fn shares(replicas: &[&Process], bank: &Bank, live: u64) {
    for replica in replicas {
        let part = || async {
            let said = replica.explain(&format!("path=/api/v1/info&tenant={}", bank.name)).await;
            let rate = &said["limits"][0]["rates"][0];
            let (left, burst) = (rate["remaining"].as_u64()?, rate["burst"].as_u64()?);
            (burst / live..=burst.div_ceil(live)).contains(&left).then_some(())
        };
        let deadline = Instant::now() + FOREVER;
        while part().await.is_none() {
            assert!(Instant::now() < deadline, "{} does not know of {live} replicas", replica.pod);
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_replicas_together_admit_what_one_would() {
    let bank = Bank::ready().await;
    bank.declare("all", &json!({"limits": [limit("all", 60, 1, &[])]})).await;
    let fleet = Fleet::limited(&bank);
    let (a, b, c) = tokio::join!(fleet.add(), fleet.add(), fleet.add());
    bank.enforced_by(&[&a, &b, &c]).await;
    shares(&[&a, &b, &c], &bank, 3).await;
    let run = async |replicas: &[&Process]| {
        let rates: Vec<_> = replicas.iter().map(|replica| (replica.port, 100.0)).collect();
        let tally = flood(&info(&bank), &rates, Duration::from_secs(8)).await;
        let part = tally.part_of(60.0, 60.0);
        println!("{} replicas: {:.4} of the bound ({tally:?})", replicas.len(), part);
        assert_eq!(tally.of(200) + tally.of(429), tally.answers.values().sum::<u32>(), "{tally:?}");
        part
    };
    let part = run(&[&a, &b, &c]).await;
    assert!((0.98..=1.0).contains(&part), "{part}");

    drop(c); // as kill -9 does
    let killed = Instant::now();
    shares(&[&a, &b], &bank, 2).await;
    assert!(killed.elapsed() > Duration::from_secs(15), "a replica counts until its Lease has run out");
    let part = run(&[&a, &b]).await;
    assert!((0.98..=1.0).contains(&part), "{part}");

    // One more while requests come: it may have a burst's part more, and until the others know of it, which a busy machine
    // may take a second for, its part of the rate.
    let rates = [&a, &b].map(|replica| (replica.port, 100.0));
    shares(&[&a, &b], &bank, 2).await;
    let (request, began, time) = (info(&bank), Instant::now(), Duration::from_secs(12));
    let old = tokio::spawn(async move { flood(&request, &rates, time).await });
    let d = fleet.add().await;
    let new = flood(&info(&bank), &[(d.port, 100.0)], time.saturating_sub(began.elapsed())).await;
    let old = old.await.unwrap();
    let (admitted, bound) = (f64::from(old.of(200) + new.of(200)), 60.0 + 60.0 * old.time.as_secs_f64() + 20.0 + 20.0);
    println!("a replica joins: {admitted} of at most {bound:.0}");
    assert!(new.of(200) > 0 && admitted <= bound, "{admitted} > {bound}");
    let part = 20.0 + 20.0 * new.time.as_secs_f64();
    assert!(f64::from(new.of(200)) <= part, "it never took itself for the only one: {new:?}");
    shares(&[&a, &b, &d], &bank, 3).await;
    drop((a, b, d, fleet));
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_that_wins_is_the_one_that_counts() {
    let bank = Bank::ready().await;
    let fleet = Fleet::limited(&bank);
    let replica = fleet.add().await;
    let (info, profile) = (info(&bank), get("/api/v1/auth/profile").to(&bank.name));
    // A Tenant that was changed is known a moment later.
    let counted = async |request: &Request, names: &[&str]| {
        let wanted = || async { (limits(&replica.ask(request).await) == names).then_some(()) };
        eventually(&format!("{names:?} count"), wanted).await;
    };
    let declare = async |name: &str, target: &str, of: Value, strategy: &str, requests: u64| {
        let limits = [limit(name, requests, 3600, &[])];
        bank.declare(name, &json!({target: of, "strategy": strategy, "limits": limits})).await;
        bank.enforced_by(&[&replica]).await;
    };
    let label = |label: &str, value: &str| json!({"matchLabels": {label: value}});
    let server = json!([{"kind": "ApiServer", "name": "default"}]);
    let section = json!([{"kind": "Tenant", "name": bank.name, "sectionName": "auth"}]);
    let tenant = json!([{"kind": "Tenant", "name": bank.name}]);

    counted(&info, &["per-address"]).await;
    declare("server", "targetRefs", server.clone(), "AtomicDefaults", 5_000).await;
    counted(&info, &["server"]).await;
    counted(&get("/api/v1/info"), &["server"]).await;

    // A Tenant that is labelled otherwise moves to other limits.
    declare("gold", "targetSelector", label("finaiflow.io/tier", "gold"), "AtomicDefaults", 5_000).await;
    declare("pilot", "targetSelector", label("stage", "pilot"), "AtomicOverrides", 5_000).await;
    counted(&info, &["server"]).await;
    bank.patch_spec(json!({"tier": "gold"})).await;
    counted(&info, &["gold"]).await;
    let stage = Patch::Merge(json!({"metadata": {"labels": {"stage": "pilot"}}}));
    bank.tenants().patch(&bank.name, &PatchParams::default(), &stage).await.unwrap();
    let standing = || async {
        let said = replica.explain(&format!("path=/&tenant={}", bank.name)).await;
        said["policies"].as_array()?.iter().any(|policy| policy["standing"] == "conflicted").then_some(())
    };
    eventually("the younger of two equals is in conflict", standing).await;
    counted(&info, &["gold"]).await;
    bank.withdraw("gold").await;
    counted(&info, &["pilot"]).await;

    declare("tenant", "targetRefs", tenant, "AtomicDefaults", 3).await;
    counted(&info, &["pilot"]).await; // which overrides
    bank.withdraw("pilot").await;
    counted(&info, &["tenant"]).await;
    let statuses = [replica.ask(&info).await, replica.ask(&info).await, replica.ask(&info).await];
    assert_eq!(statuses[2].expect(429)["violated-policies"], json!(["tenant"]));
    declare("section", "targetRefs", section, "AtomicDefaults", 5_000).await;
    counted(&profile, &["section"]).await;
    counted(&info, &["tenant"]).await;

    for (strategy, general, auth) in [
        ("AtomicOverrides", &["server"][..], &["server"][..]),
        ("MergeDefaults", &["tenant", "server"], &["section", "server"]),
        ("MergeOverrides", &["server", "tenant"], &["server", "section"]),
        ("AtomicDefaults", &["tenant"], &["section"]),
    ] {
        declare("server", "targetRefs", server.clone(), strategy, 5_000).await;
        counted(&info, general).await;
        counted(&profile, auth).await;
    }
    bank.withdraw("section").await;
    counted(&profile, &["tenant"]).await;
    bank.withdraw("tenant").await;
    counted(&profile, &["server"]).await;
    bank.withdraw("server").await;
    counted(&info, &["per-address"]).await;
    drop((replica, fleet));
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_namespace_of_the_server_has_policies_for_all() {
    let (bank, stranger) = (Bank::ready().await, Bank::create().await);
    let fleet = Fleet::limited(&bank);
    let replica = fleet.add().await;
    let server = json!([{"kind": "ApiServer", "name": "default"}]);
    let (limits_of_all, denied) = ([limit("all", 1, 3600, &[])], ["0.0.0.0/0"]);
    stranger.declare("all", &json!({"targetRefs": server, "limits": limits_of_all, "denyCIDRs": denied})).await;
    bank.enforced_by(&[&replica]).await;
    for _ in 0..3 {
        let answer = replica.ask(&info(&bank)).await;
        answer.expect(200);
        assert_eq!(limits(&answer), ["per-address"]);
    }
    drop((replica, fleet));
    stranger.withdraw("all").await;
    stranger.drop().await;
    bank.drop().await;
}
