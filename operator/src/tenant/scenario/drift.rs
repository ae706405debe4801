//! What others changed or removed is put right, and told.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::api::secret_path;
use super::{World, reasons};
use crate::catalog::fake::sha256;
use crate::catalog::{Place, Verification};
use crate::story::Fact;

const CRON_JOB: &str = "/apis/batch/v1/namespaces/banks/cronjobs/acme-verify";
const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/banks/roles/acme.finaiflow-api";

async fn corrected(world: &mut World) -> Vec<String> {
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    match facts.as_slice() {
        [Fact::DriftCorrected(what)] => what.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn objects_are_put_right() {
    let mut world = World::ready(json!({})).await;
    world.cluster.by_hand(CRON_JOB, None);
    let mut role = world.cluster.get(ROLE).unwrap();
    role["rules"][0]["verbs"] = json!(["get", "list"]);
    world.cluster.by_hand(ROLE, Some(role));
    assert_eq!(corrected(&mut world).await, ["Role acme.finaiflow-api differed", "CronJob acme-verify was missing"]);
    assert_eq!(world.cluster.writes(), ["PATCH acme.finaiflow-api", "PATCH acme-verify"]);
    assert_eq!(world.cluster.get(ROLE).unwrap()["rules"][0]["verbs"], json!(["get"]));
    assert_eq!(world.condition("Serving"), "True/Served");
}

#[tokio::test]
async fn roles_in_postgresql_are_put_right() {
    let mut world = World::ready(json!({})).await;
    let role = world.catalog.state.lock().unwrap().roles.pop_first().unwrap();
    assert_eq!(corrected(&mut world).await, [format!("created role {role}")]);
}

#[tokio::test]
async fn a_lost_schema_is_a_warning() {
    let mut world = World::ready(json!({})).await;
    {
        let mut state = world.catalog.state.lock().unwrap();
        state.schemas.clear();
        state.versions.clear();
    }
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["SchemaLost", "Migrated"]);
}

#[tokio::test]
async fn a_lost_login_secret_is_a_new_password() {
    let mut world = World::ready(json!({})).await;
    let before = world.cluster.secret("acme.database").unwrap()["data"]["password"].clone();
    world.cluster.by_hand(&secret_path("acme.database"), None);
    assert_eq!(corrected(&mut world).await, ["secret acme.database got new contents, generation 2"]);
    let secret = world.cluster.secret("acme.database").unwrap();
    assert_ne!(secret["data"]["password"], before);
    assert_eq!(secret["metadata"]["annotations"]["finaiflow.io/generation"], "2");
    assert_eq!(world.cluster.tenant("acme").unwrap()["status"]["secrets"][2]["generation"], 2);
    assert_eq!(world.condition("Serving"), "False/Propagating", "the API server has yet to read it");
    let state = world.catalog.state.lock().unwrap();
    let logins: Vec<_> =
        state.logins.iter().map(|record| (record.role.rsplit('_').next(), record.generation)).collect();
    assert_eq!(logins, [(Some("maintenance"), 1), (Some("backup"), 1), (Some("a"), 2)], "the old password is void");
}

#[tokio::test]
async fn a_password_written_by_hand_is_replaced_under_a_new_number() {
    let mut world = World::ready(json!({})).await;
    let mut secret = world.cluster.secret("acme.database").unwrap();
    secret["data"]["password"] = json!("aHVudGVyMg==");
    world.cluster.by_hand(&secret_path("acme.database"), Some(secret));
    assert_eq!(corrected(&mut world).await, ["secret acme.database got new contents, generation 2"]);
    let known = sha256("hunter2");
    assert!(world.catalog.state.lock().unwrap().logins.iter().all(|record| record.digest != known));
}

#[tokio::test]
async fn a_host_written_by_hand_is_put_right_with_the_same_password() {
    let mut world = World::ready(json!({})).await;
    let mut secret = world.cluster.secret("acme.database").unwrap();
    secret["data"]["host"] = json!("ZXZpbA==");
    world.cluster.by_hand(&secret_path("acme.database"), Some(secret.clone()));
    assert_eq!(corrected(&mut world).await, ["Secret acme.database differed"]);
    let repaired = world.cluster.secret("acme.database").unwrap();
    assert_eq!(repaired["data"]["password"], secret["data"]["password"]);
    assert_ne!(repaired["data"]["host"], secret["data"]["host"]);
}

#[tokio::test]
async fn lost_signing_keys_are_new_and_a_warning() {
    let mut world = World::ready(json!({})).await;
    world.cluster.by_hand(&secret_path("acme.signing-keys"), None);
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["SigningKeysReplaced", "DriftCorrected"]);
    let status = world.cluster.tenant("acme").unwrap()["status"].clone();
    assert_eq!(status["secrets"][1], json!({"name": "acme.signing-keys", "purpose": "signing-keys", "generation": 2}));
}

fn verification(balanced: bool, findings: Value, second: i64) -> Verification {
    let finished_at = Timestamp::from_second(second).unwrap();
    Verification { epoch: 1, sequence: 42, hash: Some("ab".to_owned()), balanced, findings, finished_at }
}

fn place(epoch: i32, hash: &str) -> Place {
    Place { epoch, hash: hash.to_owned() }
}

#[tokio::test]
async fn an_anchor_stays_where_it_is_until_the_ledger_has_gone_on_from_it() {
    let mut world = World::ready(json!({})).await;
    let state = world.catalog.state.clone();
    let ledger = |world: &World| {
        let ledger = world.cluster.tenant("acme").unwrap()["status"]["ledger"].clone();
        (ledger["sequence"].as_i64().unwrap(), ledger["hash"].as_str().unwrap_or_default().to_owned())
    };
    let anchored = |sequence, hash: &str| (sequence, hash.to_owned());
    state.lock().unwrap().verification = Some(verification(false, json!([{"check": "head", "detail": "x"}]), 1000));
    world.settle("acme").await;
    assert_eq!(ledger(&world), anchored(42, ""), "what was found wrong is no anchor");
    state.lock().unwrap().verification = Some(verification(true, json!([]), 2000));
    state.lock().unwrap().journals.insert(42, place(1, "ab"));
    world.settle("acme").await;
    assert_eq!((ledger(&world), world.condition("LedgerVerified")), (anchored(42, "ab"), "True/Balanced".to_owned()));

    // History written anew, and a verification that found it in order, or said so.
    let rewritten = Verification { sequence: 50, hash: Some("ef".to_owned()), ..verification(true, json!([]), 3000) };
    state.lock().unwrap().verification = Some(rewritten.clone());
    for found in [Some(place(1, "cd")), Some(place(2, "ab")), None] {
        state.lock().unwrap().journals = found.into_iter().map(|place| (42, place)).collect();
        world.settle("acme").await;
        assert_eq!(world.condition("LedgerVerified"), "False/AnchorBroken");
        assert_eq!(ledger(&world), anchored(42, "ab"));
    }
    let message = world.message("acme", "LedgerVerified");
    assert_eq!(message, "journal 42 of epoch 1, anchored with hash ab, is not there");

    // Its verifications gone with it.
    state.lock().unwrap().verification = None;
    world.settle("acme").await;
    assert_eq!(
        (ledger(&world), world.condition("LedgerVerified").as_str()),
        (anchored(42, "ab"), "False/AnchorBroken")
    );

    state.lock().unwrap().journals.insert(42, place(1, "ab"));
    state.lock().unwrap().verification = Some(Verification { sequence: 41, ..rewritten.clone() });
    world.settle("acme").await;
    assert_eq!((ledger(&world), world.condition("LedgerVerified").as_str()), (anchored(42, "ab"), "True/Balanced"));
    state.lock().unwrap().verification = Some(rewritten);
    world.settle("acme").await;
    assert_eq!(ledger(&world), anchored(50, "ef"));
}

#[tokio::test]
async fn ledger_verifications_are_told_as_they_flip() {
    let mut world = World::ready(json!({})).await;
    world.catalog.state.lock().unwrap().verification = Some(verification(true, json!([]), 1000));
    assert_eq!(reasons(&world.visit_and_tell("acme").await.1), ["LedgerVerified"]);
    assert_eq!(world.condition("LedgerVerified"), "True/Balanced");
    let ledger = world.cluster.tenant("acme").unwrap()["status"]["ledger"].clone();
    assert_eq!(
        ledger,
        json!({"epoch": 1, "sequence": 42, "hash": "ab", "balanced": true, "verifiedAt": "1970-01-01T00:16:40Z"})
    );
    world.catalog.state.lock().unwrap().journals.insert(42, place(1, "ab"));

    let wrong = json!([{"check": "balance", "account_id": "acc_x", "detail": "posted 7, entries say 6"},
        {"check": "zero_sum", "sequence": 9, "detail": "debits differ from credits"}]);
    world.catalog.state.lock().unwrap().verification = Some(verification(false, wrong, 2000));
    assert_eq!(reasons(&world.visit_and_tell("acme").await.1), ["LedgerImbalance"]);
    assert_eq!(
        world.message("acme", "LedgerVerified"),
        "2 findings up to sequence 42: acc_x: posted 7, entries say 6; sequence 9: debits differ from credits"
    );
    assert_eq!(world.condition("Ready"), "True/Reconciled");
}

#[tokio::test]
async fn a_verification_that_did_not_run_is_told_unless_a_newer_one_did() {
    let mut world = World::ready(json!({})).await;
    world.catalog.state.lock().unwrap().verification = Some(verification(true, json!([]), 2000));
    world.catalog.state.lock().unwrap().journals.insert(42, place(1, "ab"));
    let job = |second: i64| {
        let at = Timestamp::from_second(second).unwrap().to_string();
        json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "acme-verify-1", "creationTimestamp": at},
            "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
                "message": "it has failed", "lastTransitionTime": at}]}})
    };
    let path = "/apis/batch/v1/namespaces/banks/jobs/acme-verify-1";
    world.cluster.by_hand(path, Some(job(3000)));
    assert_eq!(reasons(&world.visit_and_tell("acme").await.1), ["VerificationFailed"]);
    assert_eq!(world.condition("LedgerVerified"), "Unknown/VerificationFailed");
    assert!(world.message("acme", "LedgerVerified").ends_with("job acme-verify-1: it has failed"));

    world.cluster.by_hand(path, Some(job(1500)));
    world.settle("acme").await;
    assert_eq!(world.condition("LedgerVerified"), "True/Balanced");
}
