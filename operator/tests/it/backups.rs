//! A Backup on a real API server: what it becomes there, and what the status says when a job's pod has ended.

use finaiflow_crds::backup::{JobSettings, Run};
use finaiflow_crds::names::{BACKUP, backup_identity_name, backup_job_name, backup_secret_name, backup_volume_name};
use finaiflow_crds::{Backup, Tenant};
use finaiflow_operator::clock;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::world::{World, eventually};

const SAMPLE: &str = include_str!("../../../config/samples/backup.yaml");

pub fn settings() -> Value {
    json!({"image": "localhost/finaiflow-backup:dev", "postgresImage": "localhost/postgres:dev",
        "escrowRecipients": ["age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh"],
        "classes": [{"name": "far", "bucket": "banks", "region": "eu-west-1", "endpoint": "https://s3.example",
            "credentialsSecretName": "far"}]})
}

impl World {
    /// A running operator that offers backups, and the Tenant acme.
    pub async fn backed_up() -> (Self, String) {
        let mut world = Self::new().await;
        world.bind_tenant_namespace(&world.banks).await;
        world.offer_backups(&settings());
        world.start(&[&world.banks.clone()]);
        world.replica().await;
        world.create(&world.banks, "acme", json!({})).await;
        world.ready("acme").await;
        let claim = world.tenant("acme").await.status.unwrap().claim_id.unwrap();
        (world, claim)
    }

    pub async fn apply_backup(&self, name: &str, spec: &Value) {
        let backup =
            json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "Backup", "metadata": {"name": name}, "spec": spec});
        let api = self.api::<Backup>(&self.banks);
        api.patch(name, &PatchParams::apply("it").force(), &Patch::Apply(backup)).await.unwrap();
    }

    async fn backup(&self, name: &str) -> Backup {
        self.api(&self.banks).get(name).await.unwrap()
    }

    /// Waits until a condition of a Backup is `<status> <reason>`; returns its message.
    pub async fn backup_says(&self, name: &str, kind: &str, expected: &str) -> String {
        eventually(&format!("{name} is {kind} {expected}"), async || {
            let conditions = self.backup(name).await.status.unwrap_or_default().conditions;
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            found
                .filter(|condition| format!("{} {}", condition.status, condition.reason) == expected)
                .map(|condition| condition.message.clone())
                .ok_or_else(|| format!("{conditions:?}"))
        })
        .await
    }

    /// What the cluster does when a run is due, but for the node: the pod ends with these words.
    pub async fn run(&self, claim: &str, run: Run, message: &str) {
        let cron_job: CronJob = self.api(&self.system).get(&backup_job_name(claim, run)).await.unwrap();
        let owner = |kind: &str, name: &str, uid: &Option<String>| json!([{"apiVersion": "batch/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
        let template = cron_job.spec.as_ref().unwrap().job_template.clone();
        let labels = template.metadata.unwrap().labels.unwrap();
        let job: Job = serde_json::from_value(json!({
            "metadata": {"generateName": format!("{}-", cron_job.name_any()), "labels": labels,
                "ownerReferences": owner("CronJob", &cron_job.name_any(), &cron_job.uid())},
            "spec": template.spec.unwrap(),
        }))
        .unwrap();
        let job = self.api::<Job>(&self.system).create(&PostParams::default(), &job).await.unwrap();
        self.job_ends(&job.name_any(), message).await;
    }

    /// What a node would do with a job: its pod ends with these words.
    pub async fn job_ends(&self, job: &str, message: &str) {
        let pods = self.api::<Pod>(&self.system);
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let pod = eventually("a pod of the job", async || {
            let found = pods.list(&of_job).await.map_err(|error| error.to_string())?;
            found.items.first().map(ResourceExt::name_any).ok_or_else(|| "none".to_owned())
        })
        .await;
        let ended = json!({"status": {"phase": "Succeeded", "containerStatuses": [{"name": BACKUP, "image": "x",
            "imageID": "x", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}}}]}});
        pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(ended)).await.unwrap();
    }
}

/// A listing in which these destinations have everything, and were verified.
pub fn report(now: Timestamp, destinations: &[&str]) -> Value {
    let stored = |name: &str| {
        json!({"name": name, "restorableFrom": now, "restorableTo": now, "rpoSeconds": 900, "bytes": 4096,
            "lastFull": {"id": "20261122t184412z-full-89abcdef", "recoveryPointTime": now, "sequence": 7, "bytes": 4096},
            "lastVerification": {"time": now, "artifact": "20261122t184412z-full-89abcdef", "passed": true,
                "rtoSeconds": 12, "findings": []}})
    };
    json!({"time": now, "artifact": "20261122t184412z-full-89abcdef", 
        "destinations": destinations.iter().copied().map(stored).collect::<Vec<_>>()})
}

#[tokio::test]
async fn a_backup_becomes_jobs_and_says_what_they_found() {
    let (world, claim) = World::backed_up().await;
    let mut sample: Value = serde_yaml::from_str(SAMPLE).unwrap();
    let destinations = sample["spec"]["destinations"].as_array_mut().unwrap();
    destinations.push(json!({"name": "far", "className": "far", "retentionDays": 90}));
    world.apply_backup("acme", &sample["spec"]).await;
    world.backup_says("acme", "Ready", "True Scheduled").await;
    world.condition(&world.banks, "acme", "Protected", "False", "NotProtected").await;

    // The API server took everything as it is: another visit finds nothing to write.
    let versions = async || {
        let mut versions = Vec::new();
        for run in Run::ALL {
            let cron_job: CronJob = world.api(&world.system).get(&backup_job_name(&claim, run)).await.unwrap();
            versions.push(cron_job.resource_version());
        }
        for name in [backup_secret_name(&claim), backup_identity_name(&claim)] {
            versions.push(world.api::<Secret>(&world.system).get(&name).await.unwrap().resource_version());
        }
        let volume = backup_volume_name(&claim, "near");
        versions.push(world.api::<PersistentVolumeClaim>(&world.system).get(&volume).await.unwrap().resource_version());
        versions.push(world.backup("acme").await.resource_version());
        versions
    };
    let before = versions().await;
    let log = world.log().len();
    let touch = json!({"metadata": {"annotations": {"it": "1"}}});
    let api = world.api::<Backup>(&world.banks);
    let touched = api.patch("acme", &PatchParams::default(), &Patch::Merge(touch)).await.unwrap();
    eventually("another visit", async || {
        let visited = |line: &str| line.contains("\"visited\"") && line.contains("\"Backup\"");
        if world.log()[log..].lines().any(visited) { Ok(()) } else { Err(world.log()[log..].to_owned()) }
    })
    .await;
    let after = versions().await;
    assert_eq!(after[..9], before[..9]);
    assert_eq!(after[9], touched.resource_version(), "the status says nothing new");

    let now = clock::now() - SignedDuration::from_secs(5);
    world.run(&claim, Run::Verify, &report(now, &["near", "far"]).to_string()).await;
    world.backup_says("acme", "RPOMet", "True ObjectiveMet").await;
    world.backup_says("acme", "Verified", "True Verified").await;
    world.backup_says("acme", "RTOMet", "True ObjectiveMet").await;
    world.backup_says("acme", "Copied", "True Copied").await;
    let status = world.backup("acme").await.status.unwrap();
    assert_eq!((status.rto_seconds, status.recovery_point_time.map(|time| time.0)), (Some(12), Some(now)));
    assert_eq!(status.destinations[0].claim_name, Some(backup_volume_name(&claim, "near")));
    world.condition(&world.banks, "acme", "Protected", "True", "Protected").await;
    let backup = world.api::<Tenant>(&world.banks).get("acme").await.unwrap().status.unwrap().backup.unwrap();
    assert_eq!(backup.last_verified_at.map(|time| time.0), Some(now));

    // What cannot be believed changes nothing but a condition.
    world.run(&claim, Run::Full, "no report").await;
    world.backup_says("acme", "Ready", "False ReportRefused").await;
    assert_eq!(world.backup("acme").await.status.unwrap().destinations, status.destinations);
    for reason in ["BackupTaken", "BackupVerified", "RPOMet", "ReportRefused"] {
        eventually(&format!("the event {reason}"), async || {
            let events = world.events("acme").await;
            if events.iter().any(|(found, _)| found == reason) { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_login_is_followed_and_the_end_leaves_what_opens_backups() {
    let (world, claim) = World::backed_up().await;
    let volume = json!([{"name": "near", "persistentVolumeClaim": {}}]);
    world.apply_backup("first", &json!({"tenantRef": {"name": "acme"}, "destinations": volume})).await;
    world.backup_says("first", "Ready", "True Scheduled").await;
    world.apply_backup("second", &json!({"tenantRef": {"name": "acme"}, "destinations": volume})).await;
    let message = world.backup_says("second", "Stalled", "True NotActing").await;
    assert!(message.contains(&format!("{}/first", world.banks)), "{message}");

    // A login that is lost is a new password, which the jobs get.
    let url = async || {
        let secret: Secret = world.api(&world.system).get(&backup_secret_name(&claim)).await.unwrap();
        String::from_utf8(secret.data.unwrap()["DATABASE_URL"].0.clone()).unwrap()
    };
    let before = url().await;
    assert_eq!(before, world.secret("acme.backup-database", "DATABASE_URL").await);
    world.api::<Secret>(&world.banks).delete("acme.backup-database", &DeleteParams::default()).await.unwrap();
    eventually("the new login", async || {
        let now = url().await;
        if now == before { Err("it is the old one".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(url().await, world.secret("acme.backup-database", "DATABASE_URL").await);

    let identity =
        async || world.api::<Secret>(&world.system).get(&backup_identity_name(&claim)).await.unwrap().data.unwrap();
    let opens = identity().await;
    world.api::<Backup>(&world.banks).delete("first", &DeleteParams::default()).await.unwrap();
    world.backup_says("second", "Ready", "True Scheduled").await;
    let again = identity().await;
    assert_eq!(again["identity"], opens["identity"]);
    assert!(again["signers"].0.starts_with(&opens["signers"].0) && again["signers"].0.len() > opens["signers"].0.len());
    let cron_job: CronJob = world.api(&world.system).get(&backup_job_name(&claim, Run::Verify)).await.unwrap();
    let settings: JobSettings = finaiflow_operator::backup::build::pod::settings(&cron_job).unwrap();
    assert_eq!((settings.claim_id, settings.trusted_keys.len()), (claim.clone(), 2));

    world.api::<Backup>(&world.banks).delete("second", &DeleteParams::default()).await.unwrap();
    eventually("nothing is left of the jobs", async || {
        let cron_job = world.api::<CronJob>(&world.system).get_opt(&backup_job_name(&claim, Run::Full)).await.unwrap();
        let secret = world.api::<Secret>(&world.system).get_opt(&backup_secret_name(&claim)).await.unwrap();
        if cron_job.is_none() && secret.is_none() { Ok(()) } else { Err("they are still there".to_owned()) }
    })
    .await;
    assert_eq!(identity().await, again);
    world.api::<PersistentVolumeClaim>(&world.system).get(&backup_volume_name(&claim, "near")).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn where_none_are_on_offer_a_backup_says_so() {
    let world = World::running().await;
    let volume = json!([{"name": "near", "persistentVolumeClaim": {}}]);
    world.apply_backup("acme", &json!({"tenantRef": {"name": "acme"}, "destinations": volume})).await;
    let message = world.backup_says("acme", "Stalled", "True NotOffered").await;
    assert!(message.contains("offers no backups"), "{message}");
    world.api::<Backup>(&world.banks).delete("acme", &DeleteParams::default()).await.unwrap();
    world.end().await;
}
