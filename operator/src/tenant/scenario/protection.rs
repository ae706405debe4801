//! What a Tenant says of the Backup that acts for it.

use finaiflow_crds::Backup;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::World;

impl World {
    /// A Backup of acme that says that of its objective and of its verifications.
    pub fn backup(&mut self, name: &str, claim: &str, rpo: [&str; 2], verified: &str) {
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": "why",
                "lastTransitionTime": "2027-01-15T08:00:00Z"})
        };
        let backup: Backup = serde_json::from_value(json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "banks", "uid": name},
            "spec": {"tenantRef": {"name": "acme"}, "destinations": []},
            "status": {"claimID": claim, "recoveryPointTime": "2027-01-15T07:59:00Z",
                "lastVerifiedTime": "2027-01-15T03:00:00Z",
                "conditions": [condition("RPOMet", rpo[0], rpo[1]), condition("Verified", verified, "X")]},
        }))
        .unwrap();
        self.backups.apply_watcher_event(&Event::Apply(backup));
    }
}

#[tokio::test]
async fn a_tenant_is_protected_while_its_backup_meets_its_objective_and_is_verified() {
    let mut world = World::ready(json!({})).await;
    assert_eq!(world.condition("Protected"), "False/NoBackup");
    assert_eq!(world.cluster.tenant("acme").unwrap()["status"]["backup"], Value::Null);
    let claim = world.cluster.tenant("acme").unwrap()["status"]["claimID"].as_str().unwrap().to_owned();
    world.backup("waiting", &claim, ["Unknown", "NotActing"], "True");
    world.backup("other", "ffffffffffffffff", ["True", "ObjectiveMet"], "True");
    world.settle("acme").await;
    assert_eq!(world.condition("Protected"), "False/NoBackup");

    for (rpo, verified, said, message) in [
        (["Unknown", "Pending"], "Unknown", "False/NotProtected", "Backup nightly is not RPOMet: why"),
        (["True", "ObjectiveMet"], "False", "False/NotProtected", "Backup nightly is not Verified: why"),
        (["True", "ObjectiveMet"], "True", "True/Protected", "Backup nightly meets its objective and was verified"),
        (["False", "ObjectiveMissed"], "True", "False/NotProtected", "Backup nightly is not RPOMet: why"),
    ] {
        world.backup("nightly", &claim, rpo, verified);
        world.settle("acme").await;
        assert_eq!(
            (world.condition("Protected").as_str(), world.message("acme", "Protected").as_str()),
            (said, message)
        );
        // It is no change that a replica of the API server has to hear of.
        assert_eq!(world.condition("Serving"), "True/Served");
    }
    assert_eq!(
        world.cluster.tenant("acme").unwrap()["status"]["backup"],
        json!({"lastVerifiedAt": "2027-01-15T03:00:00Z", "recoveryPointTime": "2027-01-15T07:59:00Z"})
    );
}
