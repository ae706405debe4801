//! A bank that is backed up, and proven to be, before it is dropped; and one whose data a Restore replaces.

use finaiflow_crds::Restore;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::{Visit, World, reasons};
use crate::error::Reason;
use crate::tenant::restoring::is_closed;

const LAST: &str = "20270115t080000z-full-00000001";
const JOBS: &str = "/apis/batch/v1/namespaces/finaiflow-system/jobs";

impl World {
    /// The Tenant acme by `BackupThenDelete`, deleted, with a Backup that acts for it.
    async fn leaving() -> (Self, String) {
        let mut world = Self::ready(json!({"deletionPolicy": "BackupThenDelete"})).await;
        let tenant = world.cluster.tenant("acme").unwrap();
        let claim = tenant["status"]["claimID"].as_str().unwrap().to_owned();
        for run in ["full", "drill"] {
            let container = json!({"name": "finaiflow-backup", "command": ["finaiflow-backup", run]});
            let template = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
            let name = format!("backup-{claim}-{run}");
            let cron_job = json!({
                "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name, "namespace": "finaiflow-system"},
                "spec": {"schedule": "0 0 * * *", "jobTemplate": template},
            });
            let path = format!("/apis/batch/v1/namespaces/finaiflow-system/cronjobs/{name}");
            world.cluster.by_hand(&path, Some(cron_job));
        }
        world.backup("nightly", &claim, ["True", "ObjectiveMet"], "True");
        world.cluster.delete_tenant("acme");
        world.cluster.writes();
        (world, format!("{JOBS}/farewell-{}", tenant["metadata"]["uid"].as_str().unwrap()))
    }

    /// The job at `path` ends, and says that.
    fn ends(&self, path: &str, report: &Value) {
        let mut job = self.cluster.get(path).unwrap();
        job["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "finaiflow-system", "creationTimestamp": "2027-01-15T08:00:00Z",
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": job["metadata"]["uid"]}]},
            "status": {"containerStatuses": [{"name": "finaiflow-backup", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": 0, "message": report.to_string()}}}]},
        });
        let name = job["metadata"]["name"].as_str().unwrap().to_owned();
        self.cluster.by_hand(path, Some(job));
        self.cluster.by_hand(&format!("/api/v1/namespaces/finaiflow-system/pods/{name}"), Some(pod));
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.catalog.state.lock().unwrap().calls)
    }
}

fn stored() -> Value {
    let full = json!({"id": LAST, "recoveryPointTime": "2027-01-15T08:00:00Z", "sequence": 7, "bytes": 9});
    json!({"time": "2027-01-15T08:00:00Z", "artifact": LAST, "destinations": [
        {"name": "near", "fault": "gone"}, {"name": "far", "lastFull": full}]})
}

fn proven(passed: bool, restored_in: Option<i64>) -> Value {
    let verification =
        json!({"time": "2027-01-15T08:01:00Z", "artifact": LAST, "passed": passed, "rtoSeconds": restored_in});
    json!({"time": "2027-01-15T08:01:00Z", "destinations": [{"name": "far", "lastVerification": verification}]})
}

#[tokio::test]
async fn nothing_is_dropped_before_the_last_backup_is_proven() {
    let (mut world, job) = World::leaving().await;
    let proof = format!("{job}-proof");
    world.calls();
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Leaving);
    assert!(world.calls().contains(&"pause"), "nobody writes any more");
    assert_eq!(world.condition("Ready"), "False/LastBackup");
    let command = |path: &str, world: &World| {
        world.cluster.get(path).unwrap()["spec"]["template"]["spec"]["containers"][0]["command"].clone()
    };
    assert_eq!(command(&job, &world), json!(["finaiflow-backup", "full"]));
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Leaving, "it is at work");

    world.ends(&job, &stored());
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Leaving);
    assert_eq!(command(&proof, &world)[5], "far", "where it is");
    assert!(world.message("acme", "Ready").starts_with(&format!("{LAST} is being restored from far, as a proof")));
    world.ends(&proof, &proven(true, Some(1)));
    world.calls();
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Gone);
    assert!(world.calls().contains(&"drop_tenant"));
    assert_eq!(world.cluster.tenant("acme"), None);
}

#[tokio::test]
async fn what_is_not_stored_or_not_proven_is_taken_anew() {
    let (mut world, job) = World::leaving().await;
    let proof = format!("{job}-proof");
    world.visit("acme").await.unwrap();
    let failed = json!({"time": "2027-01-15T08:00:00Z", "error": "no destination can be used"});
    let nowhere = json!({"time": "2027-01-15T08:00:00Z", "artifact": LAST});
    for report in [failed, nowhere] {
        world.ends(&job, &report);
        assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::LastBackupFailed);
        assert!(world.cluster.get(&job).is_none());
        world.visit("acme").await.unwrap();
    }
    let torn = json!({"time": "2027-01-15T08:01:00Z", "error": "the object is missing"});
    for report in [torn, proven(false, Some(1)), proven(true, None), json!({"time": "2027-01-15T08:01:00Z"})] {
        world.ends(&job, &stored());
        world.visit("acme").await.unwrap();
        world.ends(&proof, &report);
        assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::LastBackupFailed, "{report}");
        assert!(world.cluster.get(&job).is_none() && world.cluster.get(&proof).is_none());
        world.visit("acme").await.unwrap();
    }
    assert!(!world.calls().contains(&"drop_tenant"));
}

#[tokio::test]
async fn without_a_backup_the_bank_stays() {
    let mut world = World::ready(json!({"deletionPolicy": "BackupThenDelete"})).await;
    world.cluster.delete_tenant("acme");
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap_err().reason(), Reason::NoBackup);
    assert_eq!(reasons(&facts), ["NoBackup"]);
    assert_eq!(world.condition("Stalled"), "True/NoBackup");
    world.cluster.edit_tenant("acme", |tenant| tenant["spec"]["deletionPolicy"] = json!("Delete"));
    world.settle("acme").await;
    assert_eq!(world.cluster.tenant("acme"), None);
}

#[tokio::test]
async fn a_tenant_whose_data_is_replaced_is_closed_and_left_alone() {
    let mut world = World::ready(json!({})).await;
    let mut restore = json!({
        "apiVersion": "finaiflow.io/v1alpha1", "kind": "Restore",
        "metadata": {"name": "back", "namespace": "banks", "uid": "r"},
        "spec": {"source": {"backupRef": {"name": "acme"}}, "target": {"latest": true}, "mode": "InPlace",
            "targetTenantRef": {"name": "acme"}},
        "status": {"startTime": "2027-01-15T07:59:00Z"},
    });
    let apply = |world: &mut World, restore: &Value| {
        let restore: Restore = serde_json::from_value(restore.clone()).unwrap();
        world.restores.apply_watcher_event(&Event::Apply(restore));
    };
    apply(&mut world, &restore);
    world.calls();
    assert_eq!(world.visit("acme").await.unwrap(), Visit::Waiting);
    assert_eq!(world.condition("Restoring"), "True/Restoring");
    assert_eq!(world.condition("Ready"), "False/Restoring");
    assert_eq!(world.calls(), Vec::<&str>::new(), "its logins are closed on purpose");
    // It is closed for no other that comes after this one, even of its name.
    let closed = |world: &World, restore: &Value| {
        let tenant = serde_json::from_value(world.cluster.tenant("acme").unwrap()).unwrap();
        is_closed(&tenant, &serde_json::from_value(restore.clone()).unwrap())
    };
    let mut next = restore.clone();
    next["status"]["startTime"] = json!("2027-01-15T08:00:00Z");
    assert_eq!((closed(&world, &restore), closed(&world, &next)), (true, false));

    restore["status"]["completionTime"] = json!("2027-01-15T08:00:00Z");
    apply(&mut world, &restore);
    world.settle("acme").await;
    assert_eq!(world.condition("Restoring"), "");
    assert_eq!(world.condition("Ready"), "True/Reconciled");
}
