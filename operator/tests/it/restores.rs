//! A Restore on a real API server and a real PostgreSQL, whose jobs' pods are played; and the operator killed at each
//! call that it makes for one.

use std::collections::HashMap;
use std::str::FromStr;

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use data_encoding::BASE64;
use finaiflow_crds::backup::Run;
use finaiflow_crds::names::{ANNOTATION_GENERATION, LABEL_RESTORE, RESTORE_FINALIZER};
use finaiflow_crds::restore::{Mode, RestoreStatus};
use finaiflow_crds::{Backup, Restore};
use finaiflow_operator::clock;
use finaiflow_operator::restore::build::{self, CARRIER_KEY};
use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::backups::{report, settings};
use crate::between::{Call, Fault, Kind, Point, Side, Wire};
use crate::crash_points::points;
use crate::lane::{BYSTANDER, Lane, Mishaps, Step};
use crate::world::{World, eventually};

/// The bank whose backup is restored.
const BANK: &str = "acme";
/// A Tenant without data.
const COPY: &str = "copy";
const RESTORE: &str = "back";
const AT_WORK: &str = "its Job is at work";
const STORED: &str = "20261122t184412z-full-89abcdef";

const LANES: usize = 8;
/// Of what leaves nothing behind when it is not gone on with.
const EVERY: usize = 4;

/// What becomes of a Restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Way {
    Clone,
    InPlace,
    /// In place, and its Job fails.
    Fails,
    /// In place, and it is deleted while its Job is at work.
    Deleted,
}

impl Way {
    fn mode(self) -> Mode {
        if self == Self::Clone { Mode::Clone } else { Mode::InPlace }
    }
}

impl World {
    /// A backup of the bank is stored.
    async fn store(&self) {
        let volume = json!([{"name": "near", "persistentVolumeClaim": {}}]);
        self.apply_backup(BANK, &json!({"tenantRef": {"name": BANK}, "destinations": volume})).await;
        self.backup_says(BANK, "Ready", "True Scheduled").await;
        let (claim, _) = self.bank(BANK).await;
        let told = report(clock::now() - SignedDuration::from_secs(5), &["near"]);
        self.run(&claim, Run::Verify, &told.to_string()).await;
        eventually("something is stored", async || {
            let status = self.api::<Backup>(&self.banks).get(BANK).await.unwrap().status;
            let stored = status.and_then(|status| status.recovery_point_time);
            stored.ok_or_else(|| "nothing".to_owned())
        })
        .await;
    }

    /// The claim and the schema of a Tenant.
    async fn bank(&self, tenant: &str) -> (String, String) {
        let status = self.tenant(tenant).await.status.unwrap();
        (status.claim_id.unwrap(), status.schema.unwrap().name)
    }

    async fn begin(&self, mode: Mode) -> Restore {
        let mut spec = json!({"source": {"backupRef": {"name": BANK}}, "target": {"latest": true}, "mode": mode});
        match mode {
            Mode::Scratch => {}
            Mode::Clone => spec["targetTenantRef"] = json!({"name": COPY}),
            Mode::InPlace => {
                spec["targetTenantRef"] = json!({"name": BANK});
                spec["confirmClaimID"] = self.bank(BANK).await.0.into();
            }
        }
        let restore = Restore::new(RESTORE, serde_json::from_value(spec).unwrap());
        self.api(&self.banks).create(&PostParams::default(), &restore).await.unwrap()
    }

    async fn restore(&self) -> Restore {
        self.api(&self.banks).get(RESTORE).await.unwrap()
    }

    async fn job(&self, name: &str) -> Option<Job> {
        self.api(&self.system).get_opt(name).await.unwrap()
    }

    /// Waits until a Job of the Restore is at work, and the Restore says so. Returns its UID.
    async fn is_at_work(&self, job: fn(&Restore) -> String) -> String {
        eventually("a Job is at work", async || {
            let restore = self.restore().await;
            let job = self.job(&job(&restore)).await.ok_or("there is none")?;
            let status = restore.status.unwrap_or_default();
            if says(&status).2 == AT_WORK { Ok(job.uid().unwrap()) } else { Err(format!("{status:?} {}", self.log())) }
        })
        .await
    }

    /// Waits until the Restore has ended, and nothing holds it any more.
    async fn has_ended(&self) -> RestoreStatus {
        eventually("the Restore ends", async || {
            let restore = self.restore().await;
            let status = restore.status.clone().unwrap_or_default();
            let free = !restore.finalizers().contains(&RESTORE_FINALIZER.to_owned());
            if status.completion_time.is_some() && free {
                Ok(status)
            } else {
                Err(format!("{restore:?} {}", self.log()))
            }
        })
        .await
    }

    async fn delete_restore(&self) {
        self.api::<Restore>(&self.banks).delete(RESTORE, &DeleteParams::default()).await.unwrap();
    }

    async fn is_gone(&self) {
        eventually("the Restore is gone", async || match self.api::<Restore>(&self.banks).get_opt(RESTORE).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?} {}", self.log())),
        })
        .await;
    }

    /// A secret that the Job of the Restore is given.
    async fn given(&self, restore: &Restore, key: &str) -> String {
        let secret: Secret = self.api(&self.system).get(&build::name(restore)).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// How the Job of the Restore gets in.
    async fn way_in(&self, restore: &Restore) -> PgConnectOptions {
        PgConnectOptions::from_str(&self.given(restore, "DATABASE_URL").await).unwrap()
    }

    /// A Tenant's data key.
    async fn data_key(&self, tenant: &str) -> Vec<u8> {
        let secret: Secret = self.api(&self.banks).get(&format!("{tenant}.data-key")).await.unwrap();
        secret.data.unwrap()["kek"].0.clone()
    }

    /// Waits until a Tenant speaks of the data key that it has.
    async fn knows_its_key(&self, tenant: &str) {
        let secret: Secret = self.api(&self.banks).get(&format!("{tenant}.data-key")).await.unwrap();
        let generation: i64 = secret.annotations()[ANNOTATION_GENERATION].parse().unwrap();
        self.touch(tenant).await;
        eventually("the Tenant knows its key", async || {
            let known = self.tenant(tenant).await.status.unwrap().secrets;
            let is_it = known.iter().any(|known| known.purpose == "data-key" && known.generation == generation);
            if is_it { Ok(()) } else { Err(format!("{generation}: {known:?}")) }
        })
        .await;
    }

    /// The Job of the Restore has restored, and carries a data key.
    async fn succeeds(&self, restore: &Restore, key: &[u8]) {
        let report = restored_with(&self.given(restore, CARRIER_KEY).await, key);
        self.job_ends(&build::name(restore), &report.to_string()).await;
    }

    /// What the Job of the Restore does: from now on there are rows.
    async fn restores(&self, restore: &Restore) -> PgConnection {
        let mut job = self.way_in(restore).await.connect().await.unwrap();
        sqlx::query("INSERT INTO audit_events (at, event, outcome) VALUES (now(), 'restored', 'success')")
            .execute(&mut job)
            .await
            .unwrap();
        job
    }

    /// What rows there are in a schema.
    async fn rows(&self, schema: &str) -> Vec<String> {
        self.query(&format!("SELECT event FROM {schema}.audit_events ORDER BY id")).await
    }

    /// Gives a schema one row.
    async fn set_row(&self, schema: &str, row: &str) {
        let insert =
            format!("INSERT INTO {schema}.audit_events (at, event, outcome) VALUES (now(), '{row}', 'success')");
        self.execute(&format!("DELETE FROM {schema}.audit_events; {insert}")).await;
    }

    /// Schemas that were put aside.
    async fn aside(&self) -> Vec<String> {
        self.query("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE '%\\_\\_pre\\_%' ORDER BY 1").await
    }

    /// That nothing is left of the way in: no Secret, no login, no session.
    async fn is_shut(&self, restore: &Restore, job: Option<PgConnection>) {
        let secret = self.api::<Secret>(&self.system).get_opt(&build::name(restore)).await.unwrap();
        assert!(secret.is_none(), "{secret:?}");
        let logins = "SELECT rolname::text FROM pg_roles r JOIN finaiflow_system.claims c
            ON rolname = 'ff_' || c.claim_id || '_restore'";
        assert_eq!(self.query(logins).await, Vec::<String>::new());
        if let Some(mut job) = job {
            assert!(job.ping().await.is_err());
        }
    }

    /// The UIDs of the Restore's Jobs by name.
    async fn jobs(&self, restore: &Restore) -> Vec<(String, String)> {
        let of_restore = ListParams::default().labels(&format!("{LABEL_RESTORE}={RESTORE}"));
        let mut jobs = self.api::<Job>(&self.system).list(&of_restore).await.unwrap().items;
        jobs.retain(|job| {
            job.metadata.deletion_timestamp.is_none() && job.name_any().starts_with(&build::name(restore))
        });
        jobs.iter().map(|job| (job.name_any(), job.uid().unwrap())).collect()
    }

    /// Somebody deletes a Job.
    async fn lose_job(&self, name: &str) {
        self.api::<Job>(&self.system).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// Takes away what a Restore leaves on purpose.
    async fn forget(&self, restore: &Restore) {
        if self.api::<Restore>(&self.banks).get_opt(RESTORE).await.unwrap().is_some() {
            self.delete_restore().await;
            self.is_gone().await;
        }
        for (job, _) in self.jobs(restore).await {
            self.lose_job(&job).await;
        }
        for schema in self.aside().await {
            self.execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
        }
    }
}

/// Status, reason and message of condition Succeeded.
fn says(status: &RestoreStatus) -> (String, String, String) {
    let found = status.conditions.iter().find(|condition| condition.type_ == "Succeeded");
    found.map(|found| (found.status.clone(), found.reason.clone(), found.message.clone())).unwrap_or_default()
}

/// The report of a Job that stored what is to be replaced.
fn stored() -> String {
    json!({"time": clock::now(), "artifact": STORED}).to_string()
}

/// The report of a Job that restored.
fn restored() -> Value {
    let now = clock::now();
    json!({"time": now, "restored": {"recoveryPointTime": now, "epoch": 1, "sequence": 0}})
}

/// The same with the bank's data key, as it is carried.
fn restored_with(carrier: &str, key: &[u8]) -> Value {
    let (mut report, claim) = (restored(), "0123456789abcdef");
    let carrier = RandomizedNonceKey::new(&AES_256_GCM, &BASE64.decode(carrier.as_bytes()).unwrap()).unwrap();
    let mut sealed = key.to_vec();
    let nonce = carrier.seal_in_place_append_tag(Aad::from(claim), &mut sealed).unwrap();
    report["dataKey"] = BASE64.encode(&[nonce.as_ref().as_slice(), &sealed].concat()).into();
    report["plan"] = json!({"claimID": claim, "destination": "near", "artifact": STORED, "artifacts": 1, "bytes": 4096,
        "recoveryPointTime": clock::now(), "epoch": 1, "sequence": 0, "schemaVersion": 4});
    report
}

fn failed(why: &str) -> String {
    json!({"time": clock::now(), "error": why}).to_string()
}

/// Lanes with a bank that has a backup, and a Tenant without data.
async fn lanes(count: usize) -> Vec<Lane> {
    let start = async |mut lane: Lane| {
        lane.world.offer_backups(&settings());
        lane.start().await;
        for name in [BANK, COPY] {
            lane.act(Step::Create, name, "Delete").await;
            lane.settled(Step::Create, name).await;
        }
        lane.world.store().await;
        lane
    };
    join_all(Lane::new(count).await.into_iter().map(start)).await
}

/// A Restore from its beginning to its end. Returns the calls until a Job is at work, until the one that restores is, and
/// until the end.
async fn life(lane: &mut Lane, way: Way, mishaps: &Mishaps) -> [Vec<Call>; 3] {
    println!("{way:?} {mishaps:?}");
    let tenant = if way == Way::Clone { COPY } else { BANK };
    let (_, schema) = lane.world.bank(tenant).await;
    let first = if way == Way::Clone { build::name } else { build::save_name };
    if way == Way::Clone {
        lane.world.execute(&format!("DELETE FROM {schema}.audit_events")).await;
    } else {
        lane.world.set_row(&schema, "kept").await;
    }

    let begin = async |lane: &Lane| drop(lane.world.begin(way.mode()).await);
    let at_work = async |lane: &Lane| drop(lane.world.is_at_work(first).await);
    let started = lane.through(mishaps[0].as_ref(), begin, at_work).await;
    let restore = lane.world.restore().await;
    let mut jobs = vec![(first(&restore), lane.world.is_at_work(first).await)];
    let mut replaced = Vec::new();
    if way != Way::Clone {
        let store = async |lane: &Lane| lane.world.job_ends(&build::save_name(&restore), &stored()).await;
        let at_work = async |lane: &Lane| drop(lane.world.is_at_work(build::name).await);
        replaced = lane.through(mishaps[1].as_ref(), store, at_work).await;
        jobs.insert(0, (build::name(&restore), lane.world.is_at_work(build::name).await));
    }

    let job = lane.world.restores(&restore).await;
    // In a copy it is another one, of each Restore.
    let key = match way {
        Way::Clone => restore.uid().unwrap().into_bytes()[..32].to_vec(),
        _ => lane.world.data_key(BANK).await,
    };
    let end = async |lane: &Lane| match way {
        Way::Deleted => lane.world.delete_restore().await,
        Way::Fails => lane.world.job_ends(&build::name(&restore), &failed("a tooth broke")).await,
        Way::Clone | Way::InPlace => lane.world.succeeds(&restore, &key).await,
    };
    let has_ended = async |lane: &Lane| {
        match way {
            Way::Deleted => lane.world.is_gone().await,
            _ => drop(lane.world.has_ended().await),
        }
        lane.settled(Step::Update, tenant).await;
    };
    let mut ended = lane.through(mishaps[2].as_ref(), end, has_ended).await;
    assert!(!matches!(way, Way::Clone | Way::InPlace) || lane.world.data_key(tenant).await == key);
    if way == Way::Clone {
        // What the Tenant makes of another key is its own affair, and takes as many calls as it takes.
        let last = ended.iter().rposition(|call| call.what.contains("/restores/"));
        ended.truncate(last.map_or(0, |last| last + 1));
        lane.world.knows_its_key(tenant).await;
        lane.settled(Step::Update, tenant).await;
    }
    lane.nothing_is_written(&[tenant]).await;
    lane.world.is_shut(&restore, Some(job)).await;
    lane.world.is_true(tenant).await;
    if way == Way::Deleted {
        jobs.clear();
    }
    assert_eq!(lane.world.jobs(&restore).await, jobs, "those that were made first");
    has_ended_as(&lane.world, way, &schema).await;
    lane.world.forget(&restore).await;
    [started, replaced, ended]
}

/// That a Restore has done what it says.
async fn has_ended_as(world: &World, way: Way, schema: &str) {
    let (rows, aside) = (world.rows(schema).await, world.aside().await);
    let status = if way == Way::Deleted { RestoreStatus::default() } else { world.restore().await.status.unwrap() };
    let (succeeded, reason, message) = says(&status);
    match way {
        Way::Clone => assert_eq!((rows.as_slice(), aside.len()), (&["restored".to_owned()][..], 0)),
        Way::InPlace => {
            assert_eq!(rows, ["restored"]);
            let replaced = status.replaced.clone().unwrap();
            assert_eq!((aside.as_slice(), replaced.artifact.as_str()), (&[replaced.schema.clone()][..], STORED));
            assert_eq!(world.rows(&replaced.schema).await, ["kept"]);
        }
        Way::Fails | Way::Deleted => assert_eq!((rows.as_slice(), aside.len()), (&["kept".to_owned()][..], 0)),
    }
    match way {
        Way::Clone | Way::InPlace => assert_eq!((succeeded.as_str(), reason.as_str()), ("True", "Restored")),
        Way::Fails => {
            let expected = ("False", "RestoreFailed", "a tooth broke");
            assert_eq!((succeeded.as_str(), reason.as_str(), message.as_str()), expected);
            assert_eq!(status.replaced, None, "it was put back");
        }
        Way::Deleted => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_ends_as_told() {
    let mut lane = lanes(1).await.remove(0);
    for way in [Way::Clone, Way::InPlace, Way::Fails, Way::Deleted] {
        life(&mut lane, way, &Mishaps::default()).await;
    }
    let events = lane.world.events(BANK).await;
    assert!(!events.iter().any(|(reason, _)| reason == "DriftCorrected"), "nobody else did anything: {events:?}");
    lane.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_backup_needs_no_way_in() {
    let world = lanes(1).await.remove(0).world;
    let restore = world.begin(Mode::Scratch).await;
    world.is_at_work(build::name).await;
    let job = serde_json::to_string(&world.job(&build::name(&restore)).await).unwrap();
    assert!(
        job.contains("SCRATCH_DATABASE_URL")
            && !job.contains(&format!("\"name\":\"{}\",\"key\"", build::name(&restore)))
    );
    world.is_shut(&restore, None).await;
    world.job_ends(&build::name(&restore), &restored().to_string()).await;
    let (succeeded, reason, message) = says(&world.has_ended().await);
    assert_eq!((succeeded.as_str(), reason.as_str()), ("True", "Restored"));
    assert!(message.ends_with("restored, checked and thrown away"), "{message}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_going_on_is_told() {
    let lane = lanes(1).await.remove(0);
    let world = &lane.world;
    let about = "/jobs".to_owned();
    let create = Point { wire: Wire::Api, kind: Some(Kind::Write), about, nth: 0, side: Side::Before };
    // One alone is tried again without a word.
    for _ in 0..4 {
        lane.between.arm(create.clone(), Fault::Refuse(500));
    }
    let restore = world.begin(Mode::Clone).await;
    let message = eventually("it says why", async || {
        let (succeeded, reason, message) = says(&world.restore().await.status.unwrap_or_default());
        if (succeeded.as_str(), reason.as_str()) == ("Unknown", "KubernetesError") { Ok(message) } else { Err(reason) }
    })
    .await;
    assert!(message.contains("create job"), "{message}");
    world.is_at_work(build::name).await;
    world.succeeds(&restore, b"a data key, of thirty-two bytes.").await;
    assert_eq!(says(&world.has_ended().await).0, "True");
    assert!(!lane.between.disarm());
    lane.world.end().await;
}

/// The save fails, or nobody waits for it any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_stored_is_not_replaced() {
    let lane = lanes(1).await.remove(0);
    let world = &lane.world;
    let (_, schema) = world.bank(BANK).await;
    world.set_row(&schema, "kept").await;
    for deleted in [false, true] {
        let restore = world.begin(Mode::InPlace).await;
        world.is_at_work(build::save_name).await;
        world.condition(&world.banks, BANK, "Restoring", "True", "Restoring").await;
        if deleted {
            world.delete_restore().await;
            world.is_gone().await;
        } else {
            world.job_ends(&build::save_name(&restore), &failed("no destination can be used")).await;
            let (succeeded, reason, message) = says(&world.has_ended().await);
            assert_eq!((succeeded.as_str(), reason.as_str()), ("False", "SaveFailed"));
            assert!(message.contains("no destination can be used"), "{message}");
        }
        lane.settled(Step::Update, BANK).await;
        world.is_true(BANK).await;
        world.is_shut(&restore, None).await;
        assert_eq!((world.rows(&schema).await, world.aside().await), (vec!["kept".to_owned()], Vec::new()));
        assert_eq!(world.jobs(&restore).await.len(), usize::from(!deleted));
        world.forget(&restore).await;
    }
    lane.world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_lost_or_says_nothing_has_not_succeeded() {
    let lane = lanes(1).await.remove(0);
    let world = &lane.world;
    for (lost, expected) in [(true, "JobLost"), (false, "JobFailed")] {
        let restore = world.begin(Mode::Clone).await;
        world.is_at_work(build::name).await;
        let job = world.restores(&restore).await;
        if lost {
            world.lose_job(&build::name(&restore)).await;
        } else {
            world.job_ends(&build::name(&restore), "no report").await;
        }
        let (succeeded, reason, _) = says(&world.has_ended().await);
        assert_eq!((succeeded.as_str(), reason.as_str()), ("False", expected));
        world.is_shut(&restore, Some(job)).await;
        world.forget(&restore).await;
    }

    // In place another one is made. It finds what the first has left, if that has left anything.
    let (_, schema) = world.bank(BANK).await;
    world.set_row(&schema, "kept").await;
    let restore = world.begin(Mode::InPlace).await;
    world.is_at_work(build::save_name).await;
    world.job_ends(&build::save_name(&restore), &stored()).await;
    let first = world.is_at_work(build::name).await;
    let mut job = world.restores(&restore).await;
    world.lose_job(&build::name(&restore)).await;
    eventually("another Job", async || {
        let job = world.job(&build::name(&restore)).await.filter(|job| job.uid().as_ref() != Some(&first));
        job.ok_or_else(|| world.log())
    })
    .await;
    assert!(job.ping().await.is_err(), "the one that is lost cannot go on");
    let job = world.way_in(&restore).await.connect().await.unwrap();
    world.job_ends(&build::name(&restore), &failed("there are rows")).await;
    assert_eq!(says(&world.has_ended().await).2, "there are rows");
    lane.settled(Step::Update, BANK).await;
    world.is_shut(&restore, Some(job)).await;
    world.is_true(BANK).await;
    assert_eq!((world.rows(&schema).await, world.aside().await), (vec!["kept".to_owned()], Vec::new()));
    lane.world.end().await;
}

/// At every write to the API server and every commit, before it and after it; and at every fourth of what leaves nothing
/// behind: reads, and writes before their commit.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_call_a_restore_converges() {
    let mut lanes = lanes(LANES).await;
    let mut of = HashMap::new();
    for way in [Way::Clone, Way::InPlace, Way::Fails, Way::Deleted] {
        of.insert(way, life(&mut lanes[0], way, &Mishaps::default()).await.map(|calls| kills(&calls)));
    }
    let ends = |way: Way| of[&way][2].iter().map(move |point| (way, point.clone()));
    // Those that fail or are deleted begin as the one that succeeds, and read as it does.
    let others = [Way::Fails, Way::Deleted].into_iter().flat_map(ends);
    let in_place: Vec<_> =
        ends(Way::InPlace).chain(others.filter(|(_, point)| point.kind == Some(Kind::Write))).collect();
    let clones: Vec<_> = ends(Way::Clone).collect();
    let lives = [lives(&of[&Way::InPlace], &in_place), lives(&of[&Way::Clone], &clones)].concat();
    println!("{} lives", lives.len());
    let lives = &lives;
    join_all(lanes.into_iter().enumerate().map(|(number, mut lane)| async move {
        for (way, mishaps) in lives.iter().skip(number).step_by(LANES) {
            life(&mut lane, *way, mishaps).await;
        }
        lane.world.is_true(BYSTANDER).await;
        lane.world.end().await;
    }))
    .await;
}

/// As few lives as have every point of the first two parts, and all these ends.
fn lives([first, second, _]: &[Vec<Point>; 3], ends: &[(Way, Point)]) -> Vec<(Way, Mishaps)> {
    let kill = |point: &Point| (point.clone(), Fault::Hold);
    let life = |index: usize| {
        let (way, end) = ends.get(index).map_or((ends[0].0, None), |(way, end)| (*way, Some(kill(end))));
        (way, [first.get(index).map(kill), second.get(index).map(kill), end])
    };
    (0..first.len().max(second.len()).max(ends.len())).map(life).collect()
}

/// Where to kill among these calls.
fn kills(calls: &[Call]) -> Vec<Point> {
    let is_write = |call: &&Call| call.wire == Wire::Postgres && call.kind == Kind::Write;
    let writes: Vec<_> = calls.iter().filter(is_write).map(|call| call.what.as_str()).collect();
    let lasts = |what: &str| what == "COMMIT" || what.contains("pg_terminate_backend");
    let mut points = points(calls);
    points.retain(|point| {
        let is_write = point.wire == Wire::Postgres && point.kind == Some(Kind::Write);
        !is_write || lasts(writes[point.nth]) || (point.nth % EVERY == 0 && point.side == Side::Before)
    });
    points
}
