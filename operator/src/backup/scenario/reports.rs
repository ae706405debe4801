//! What jobs say, and what the status says because of it.

use serde_json::{Value, json};

use super::*;

/// A job of a run, made by its CronJob, and its pod, which ended and said something.
struct Said<'a> {
    run: Run,
    number: i64,
    message: Option<&'a str>,
    failed: Option<&'a str>,
}

impl World {
    fn said(&self, Said { run, number, message, failed }: &Said<'_>) {
        let cron_job = self.home("cronjobs", &format!("backup-{CLAIM}-{}", run.as_str())).unwrap();
        let (name, uid) =
            (format!("backup-{CLAIM}-{}-{number}", run.as_str()), format!("job-{}-{number}", run.as_str()));
        let labels = json!({"finaiflow.io/claim-id": CLAIM, "finaiflow.io/run": run.as_str()});
        let owner = |kind: &str, uid: &Value| json!([{"apiVersion": "batch/v1", "kind": kind, "name": "x", "uid": uid, "controller": true}]);
        let (condition, why) = failed.map_or(("Complete", ""), |why| ("Failed", why));
        let job = json!({"metadata": {"name": name, "namespace": HOME, "uid": uid, "labels": labels,
                "creationTimestamp": at(*number), "ownerReferences": owner("CronJob", &cron_job["metadata"]["uid"])},
            "status": {"conditions": [{"type": condition, "status": "True", "message": why, "reason": condition}]}});
        self.cluster.by_hand(&path("jobs", &name), Some(job));
        let reason = if failed.is_some() { "Error" } else { "Completed" };
        let pod = json!({"metadata": {"name": name, "namespace": HOME, "labels": labels,
                "creationTimestamp": at(*number), "ownerReferences": owner("Job", &json!(uid))},
            "status": {"containerStatuses": [{"name": "finaiflow-backup", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": reason, "message": message}}}]}});
        self.cluster.by_hand(&path("pods", &name), Some(pod));
    }

    async fn hears(&mut self, run: Run, number: i64, message: &Value) -> Vec<Fact> {
        self.said(&Said { run, number, message: Some(&message.to_string()), failed: None });
        let (result, facts) = self.visit("nightly").await;
        result.unwrap();
        facts
    }
}

fn full(second: i64) -> Value {
    let id = format!("20270115t080000z-full-{second:08x}");
    json!({"id": id, "recoveryPointTime": at(second), "sequence": 7, "bytes": 100})
}

/// A destination with a backup of that second.
fn stored(name: &str, second: i64) -> Value {
    json!({"name": name, "restorableFrom": at(0), "restorableTo": at(second), "rpoSeconds": 900, "bytes": 100,
        "lastFull": full(0)})
}

fn report(second: i64, destinations: &[Value]) -> Value {
    json!({"time": at(second), "destinations": destinations})
}

fn verification(second: i64, passed: bool, rto: Option<i64>) -> Value {
    let findings = if passed { json!([]) } else { json!([{"check": "sum", "message": "a cent is missing"}]) };
    let mut one = json!({"time": at(second), "artifact": "20270115t080000z-full-00000000", "passed": passed, "findings": findings});
    if let Some(rto) = rto {
        one["rtoSeconds"] = json!(rto);
    }
    one
}

#[tokio::test]
async fn what_a_job_found_is_what_the_status_says() {
    let mut world = World::settled().await;
    NOW.set(100);
    let facts = world.hears(Run::Full, 1, &report(100, &[stored("local", 90), stored("far", 60)])).await;
    assert_eq!(reasons(&facts), ["BackupTaken", "RPOMet"]);
    let status = world.backup("nightly")["status"].clone();
    assert_eq!(
        (&status["recoveryPointTime"], &status["rpoSeconds"], &status["listedTime"]),
        (&json!(at(90)), &json!(900), &json!(at(100)))
    );
    let far = json!({"name": "far", "restorableFrom": at(0), "restorableTo": at(60), "rpoSeconds": 900,
        "lagSeconds": 30, "bytes": 100, "lastFull": full(0)});
    assert_eq!(status["destinations"][1], far);
    assert_eq!(world.condition("nightly", "RPOMet"), "True/ObjectiveMet");
    assert_eq!(world.condition("nightly", "Copied"), "False/Lagging");
    assert_eq!(world.message("nightly", "Copied"), "far is 30 s behind");
    assert_eq!(world.condition("nightly", "Verified"), "Unknown/NotYetVerified");
    assert_eq!(world.condition("nightly", "RTOMet"), "Unknown/Pending");

    // It is heard once, however often it is there.
    world.cluster.writes();
    assert_eq!(world.visit("nightly").await.1, []);
    assert_eq!(world.cluster.writes(), Vec::<String>::new());
    // And an older one changes nothing, nor does this one once it is gone.
    world.cluster.by_hand(&path("pods", &format!("backup-{CLAIM}-full-1")), None);
    assert_eq!(world.hears(Run::Prune, 2, &report(99, &[stored("local", 10)])).await, []);
    assert_eq!(world.cluster.writes(), Vec::<String>::new());

    NOW.set(200);
    world.hears(Run::Segment, 3, &report(200, &[stored("local", 190), stored("far", 190)])).await;
    assert_eq!(world.condition("nightly", "Copied"), "True/Copied");
}

#[tokio::test]
async fn an_objective_is_missed_when_its_time_has_come() {
    let mut world = World::settled().await;
    NOW.set(100);
    world.hears(Run::Full, 1, &report(100, &[stored("local", 90), stored("far", 60)])).await;
    let until = |visit: Result<Visit>| match visit.unwrap() {
        Visit::Done { until } => until.map(|until| until.as_secs()),
        other => panic!("{other:?}"),
    };
    assert_eq!(until(world.visit("nightly").await.0), Some(60 + 3600 + 1 - 100));
    NOW.set(3660);
    assert_eq!(until(world.visit("nightly").await.0), Some(1));
    assert_eq!(world.condition("nightly", "RPOMet"), "True/ObjectiveMet");
    NOW.set(3661);
    let (visit, facts) = world.visit("nightly").await;
    assert_eq!((until(visit), reasons(&facts)), (None, vec!["RPOMissed"]));
    assert_eq!(world.condition("nightly", "RPOMet"), "False/ObjectiveMissed");
    assert!(world.message("nightly", "RPOMet").starts_with("what is stored at far ends at"));
    let facts = world.hears(Run::Segment, 2, &report(3661, &[stored("local", 3650), stored("far", 3650)])).await;
    assert_eq!(reasons(&facts), ["RPOMet"]);

    // Where nothing ever came.
    let mut world = World::settled().await;
    NOW.set(3601);
    assert_eq!(reasons(&world.visit("nightly").await.1), ["RPOMissed"]);
    assert_eq!(world.message("nightly", "RPOMet"), "nothing is stored yet");
}

#[tokio::test]
async fn a_destination_that_cannot_be_used_keeps_what_is_known_of_it() {
    let mut world = World::settled().await;
    NOW.set(300);
    world.hears(Run::Full, 1, &report(100, &[stored("local", 90), stored("far", 90)])).await;
    let fault = json!({"name": "far", "fault": "the bucket answers 403"});
    let facts = world.hears(Run::Segment, 2, &report(200, &[stored("local", 190), fault])).await;
    assert_eq!(reasons(&facts), ["DestinationFailed"]);
    assert_eq!(world.condition("nightly", "Copied"), "False/DestinationFault");
    assert_eq!(world.message("nightly", "Copied"), "far: the bucket answers 403");
    let far = world.backup("nightly")["status"]["destinations"][1].clone();
    assert_eq!((&far["restorableTo"], &far["lagSeconds"]), (&json!(at(90)), &json!(100)));
    let facts = world.hears(Run::Segment, 3, &report(300, &[stored("local", 290), stored("far", 290)])).await;
    assert_eq!(reasons(&facts), ["DestinationRecovered"]);
}

#[tokio::test]
async fn proofs_count_for_the_destination_that_they_were_made_at() {
    let mut world = World::settled().await;
    NOW.set(100_000);
    let proven = |name: &str, second, passed, rto| {
        let mut at = stored(name, second);
        at["lastVerification"] = verification(second, passed, rto);
        report(second, &[at])
    };
    assert_eq!(
        reasons(&world.hears(Run::Verify, 1, &proven("local", 100, true, Some(30))).await)[1..],
        ["BackupVerified", "RPOMissed"]
    );
    assert!(world.message("nightly", "Verified").ends_with("not verified yet: far"));
    world.hears(Run::Verify, 2, &proven("far", 200, true, None)).await;
    assert_eq!(world.condition("nightly", "Verified"), "True/Verified");
    let status = world.backup("nightly")["status"].clone();
    assert_eq!((&status["lastVerifiedTime"], &status["rtoSeconds"]), (&json!(at(200)), &json!(30)));
    assert_eq!(world.condition("nightly", "RTOMet"), "True/ObjectiveMet");

    // What was proven is not proven for ever.
    NOW.set(200 + 2 * 86_400);
    world.visit("nightly").await.0.unwrap();
    assert_eq!(world.condition("nightly", "Verified"), "True/Verified");
    NOW.set(201 + 2 * 86_400);
    assert_eq!(reasons(&world.visit("nightly").await.1), ["VerificationOverdue"]);
    assert_eq!(world.condition("nightly", "Verified"), "False/VerificationOverdue");
    NOW.set(100_000);

    // A verification that finds something ends with an error, and that is no trouble of the job's.
    let message = proven("local", 300, false, None).to_string();
    world.said(&Said { run: Run::Verify, number: 3, message: Some(&message), failed: Some("BackoffLimitExceeded") });
    let (_, facts) = world.visit("nightly").await;
    assert_eq!(reasons(&facts), ["VerificationFailed"]);
    assert_eq!(world.condition("nightly", "Verified"), "False/VerificationFailed");
    assert_eq!(world.message("nightly", "Verified"), "local: sum: a cent is missing");
    assert_eq!(world.condition("nightly", "Ready"), "True/Scheduled");
    assert_eq!(world.backup("nightly")["status"]["destinations"][0]["lastVerifiedTime"], at(100));

    let drill = |second, passed, rto: Option<i64>| {
        let mut at_local = stored("local", second);
        at_local["lastDrill"] = json!({"time": at(second), "passed": passed, "rtoSeconds": rto, "findings": []});
        report(second, &[at_local])
    };
    assert_eq!(reasons(&world.hears(Run::Drill, 4, &drill(400, true, Some(20_000))).await), ["Drilled"]);
    assert_eq!(world.condition("nightly", "RTOMet"), "False/ObjectiveMissed");
    assert_eq!(reasons(&world.hears(Run::Drill, 5, &drill(500, false, None)).await), ["DrillFailed"]);
    assert_eq!(world.condition("nightly", "RTOMet"), "False/DrillFailed");
    assert_eq!(world.backup("nightly")["status"]["rtoSeconds"], 20_000, "what was achieved last");
}

#[tokio::test]
async fn what_cannot_be_changes_nothing_but_a_condition() {
    let long = format!("{{\"time\":\"{}\",\"error\":\"{}\"}}", at(50), "x".repeat(4096));
    let mut swapped = stored("local", 90);
    swapped["lastFull"]["id"] = json!("20270115t080000z-segment-00000000");
    let mut backwards = stored("local", 90);
    backwards["restorableFrom"] = json!(at(91));
    let mut negative = stored("local", 90);
    negative["bytes"] = json!(-1);
    for (message, why) in [
        ("not json, postgres://secret", "it is no report"),
        ("{\"time\":\"2027-01-15T08:00:00Z\",\"extra\":1}", "it is no report"),
        (&long, "it is longer than 4096 bytes"),
        (&report(100, &[stored("elsewhere", 90)]).to_string(), "it is of a destination that the spec has not"),
        (&report(100, &[stored("local", 90), stored("local", 90)]).to_string(), "it tells of destination local twice"),
        (&report(500, &[stored("local", 90)]).to_string(), "its time has not come"),
        (&report(100, &[stored("local", 1000)]).to_string(), "what it tells of destination local cannot be"),
        (&report(100, &[swapped]).to_string(), "what it tells of destination local cannot be"),
        (&report(100, &[backwards]).to_string(), "what it tells of destination local cannot be"),
        (&report(100, &[negative]).to_string(), "what it tells of destination local cannot be"),
    ] {
        let mut world = World::settled().await;
        NOW.set(100);
        let before = world.backup("nightly")["status"]["destinations"].clone();
        world.said(&Said { run: Run::Full, number: 1, message: Some(message), failed: None });
        let (_, facts) = world.visit("nightly").await;
        assert_eq!(reasons(&facts), ["ReportRefused"], "{message}");
        assert_eq!(world.backup("nightly")["status"]["destinations"], before, "{message}");
        let said = world.message("nightly", "Ready");
        assert_eq!(said, format!("job backup-{CLAIM}-full-1: what it says is not believed: {why}"));
        // The next one is believed again.
        let good = report(100, &[stored("local", 90), stored("far", 90)]);
        assert_eq!(reasons(&world.hears(Run::Full, 2, &good).await), ["BackupTaken", "RPOMet", "Ready"]);
    }
}

#[tokio::test]
async fn nobody_else_is_heard() {
    let mut world = World::settled().await;
    NOW.set(100);
    let message = report(100, &[stored("local", 90), stored("far", 90)]).to_string();
    let said = Said { run: Run::Full, number: 1, message: Some(&message), failed: None };
    let name = format!("backup-{CLAIM}-full-1");
    for (kind, edit) in [
        (
            "jobs",
            json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "x", "uid": "another", "controller": true}]),
        ),
        ("jobs", json!([])),
        ("pods", json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "another", "controller": true}])),
        (
            "pods",
            json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "job-full-1", "controller": false}]),
        ),
    ] {
        world.said(&said);
        let mut object = world.home(kind, &name).unwrap();
        object["metadata"]["ownerReferences"] = edit;
        world.cluster.by_hand(&path(kind, &name), Some(object));
        world.visit("nightly").await.0.unwrap();
        assert_eq!(world.backup("nightly")["status"]["listedTime"], Value::Null);
    }
    world.said(&said);
    assert_eq!(reasons(&world.visit("nightly").await.1), ["BackupTaken", "RPOMet"]);
}

#[tokio::test]
async fn a_job_that_failed_says_so_until_the_next_one() {
    let mut world = World::settled().await;
    NOW.set(100);
    let said = |message, failed| Said { run: Run::Full, number: 1, message, failed };
    let error = json!({"time": at(50), "error": "no destination answers"}).to_string();
    for (said, message) in [
        (said(None, Some("DeadlineExceeded")), "DeadlineExceeded"),
        (said(Some(""), Some("DeadlineExceeded")), "DeadlineExceeded"),
        (said(Some(&error), Some("BackoffLimitExceeded")), "no destination answers"),
    ] {
        world.said(&said);
        world.visit("nightly").await.0.unwrap();
        assert_eq!(world.condition("nightly", "Ready"), "False/JobFailed");
        assert_eq!(world.message("nightly", "Ready"), format!("job backup-{CLAIM}-full-1: {message}"));
    }
    // One that is killed has no word.
    let name = path("pods", &format!("backup-{CLAIM}-full-1"));
    world.said(&said(None, Some("BackoffLimitExceeded")));
    let mut pod = world.cluster.get(&name).unwrap();
    pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] = json!("OOMKilled");
    world.cluster.by_hand(&name, Some(pod));
    world.visit("nightly").await.0.unwrap();
    assert!(world.message("nightly", "Ready").ends_with("its container ended with OOMKilled"));
    let good = report(100, &[stored("local", 90), stored("far", 90)]);
    assert_eq!(reasons(&world.hears(Run::Full, 2, &good).await), ["BackupTaken", "RPOMet", "Ready"]);

    // An image that is not there is told before the deadline.
    world.said(&Said { run: Run::Segment, number: 3, message: None, failed: None });
    let name = format!("backup-{CLAIM}-segment-3");
    let (mut job, mut pod) = (world.home("jobs", &name).unwrap(), world.home("pods", &name).unwrap());
    job["status"] = json!({});
    pod["status"]["containerStatuses"][0]["state"] =
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    world.cluster.by_hand(&path("jobs", &name), Some(job));
    world.cluster.by_hand(&path("pods", &name), Some(pod));
    assert_eq!(reasons(&world.visit("nightly").await.1), ["JobStuck"]);
    assert!(world.message("nightly", "Ready").ends_with("ImagePullBackOff: no such image"));
}
