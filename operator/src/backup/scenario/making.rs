//! What a Backup makes, keeps, refuses and takes away.

use finaiflow_crds::backup::{Place, Run};
use serde_json::{Value, json, to_value};

use super::*;
use crate::error::Reason;

const SECRET: &str = "backup-0123456789abcdef";
const IDENTITY: &str = "backup-0123456789abcdef-identity";

fn refusal(result: Result<Visit>) -> Reason {
    result.unwrap_err().reason()
}

#[tokio::test]
async fn everything_is_made_once() {
    let mut world = World::with_tenant();
    world.create("nightly", &spec());
    let (visit, facts) = world.visit("nightly").await;
    // When the objective would be missed if nothing came.
    assert_eq!(visit.unwrap(), Visit::Done { until: Some(std::time::Duration::from_secs(3601)) });
    assert_eq!(reasons(&facts), ["Ready"]);
    assert_eq!(
        world.cluster.writes(),
        [
            "PATCH nightly",
            "PATCH status",
            "POST secrets",
            "POST secrets",
            "PATCH backup-0123456789abcdef-local",
            "PATCH backup-0123456789abcdef-full",
            "PATCH backup-0123456789abcdef-incremental",
            "PATCH backup-0123456789abcdef-segment",
            "PATCH backup-0123456789abcdef-verify",
            "PATCH backup-0123456789abcdef-prune",
            "PATCH backup-0123456789abcdef-drill",
            "PATCH status",
        ]
    );
    assert_eq!(world.condition("nightly", "Ready"), "True/Scheduled");
    assert_eq!(world.condition("nightly", "RPOMet"), "Unknown/Pending");
    assert_eq!(world.backup("nightly")["status"]["claimID"], CLAIM);
    assert_eq!(world.backup("nightly")["status"]["destinations"][0]["claimName"], "backup-0123456789abcdef-local");

    let (visit, facts) = world.visit("nightly").await;
    assert!(matches!(visit.unwrap(), Visit::Done { .. }) && facts.is_empty());
    assert_eq!(world.cluster.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_job_is_told_all_that_it_needs_and_no_secret() {
    let world = World::settled().await;
    let settings = world.settings(Run::Full);
    assert_eq!((settings.claim_id.as_str(), settings.tenant.as_str()), (CLAIM, "acme"));
    assert_eq!(settings.recipients[0], world.secret(IDENTITY, "recipient"));
    assert_eq!(settings.recipients[1..], [crate::backup::settings::tests::ESCROW]);
    assert_eq!(settings.trusted_keys, [world.secret(IDENTITY, "signers").trim()]);
    assert_eq!(settings.destinations[0].place, Place::Directory("/destinations/local".into()));
    let Place::Bucket(bucket) = &settings.destinations[1].place else { panic!("{settings:?}") };
    assert_eq!((bucket.bucket.as_str(), bucket.prefix.as_str(), bucket.allow_http), ("banks", "copies", true));
    assert_eq!((settings.destinations[0].retention_days, settings.destinations[1].retention_days), (30, 90));
    let all = Run::ALL.map(|run| to_value(world.cron_job(run).unwrap()).unwrap().to_string()).concat();
    for secret in [world.secret(IDENTITY, "identity"), world.secret(SECRET, "signing-key"), "postgres://one".to_owned()]
    {
        assert!(!all.contains(secret.trim()));
    }
}

/// `<mount path>` and what is mounted there, and the environment.
fn pod(world: &World, run: Run) -> (Vec<String>, Vec<String>, Value) {
    let pod =
        to_value(world.cron_job(run).unwrap()).unwrap()["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone();
    let source = |name: &Value| {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == *name).unwrap();
        let names = [&volume["secret"]["secretName"], &volume["persistentVolumeClaim"]["claimName"]];
        names.into_iter().find_map(Value::as_str).unwrap_or("empty").to_owned()
    };
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap().iter();
    let mounts = mounts.map(|mount| format!("{} {}", mount["mountPath"].as_str().unwrap(), source(&mount["name"])));
    let env = container["env"].as_array().unwrap().iter().map(|env| env["name"].as_str().unwrap().to_owned());
    (mounts.collect(), env.collect(), pod.clone())
}

#[tokio::test]
async fn what_signs_is_where_backups_are_taken_and_what_opens_where_they_are_proven() {
    let world = World::settled().await;
    let places = ["/destinations/local backup-0123456789abcdef-local", "/credentials/far far-bucket"];
    for run in [Run::Full, Run::Incremental, Run::Segment, Run::Prune] {
        let (mounts, env, pod) = pod(&world, run);
        let signs: &[_] = if run == Run::Prune { &[] } else { &["/keys backup-0123456789abcdef"] };
        assert_eq!(mounts, [&["/tmp empty"], signs, &places].concat(), "{run:?}");
        let expected: &[_] = if run == Run::Prune { &["FINAIFLOW_JOB"] } else { &["FINAIFLOW_JOB", "DATABASE_URL"] };
        assert_eq!(env, expected, "{run:?}");
        assert_eq!(pod["initContainers"], Value::Null);
    }
    for run in [Run::Verify, Run::Drill] {
        let (mounts, env, pod) = pod(&world, run);
        let opens = ["/tmp empty", "/identity backup-0123456789abcdef-identity", "/scratch empty"];
        assert_eq!(mounts, [&opens[..], &places].concat());
        assert_eq!(env, ["FINAIFLOW_JOB", "SCRATCH_DATABASE_URL"]);
        let server = &pod["initContainers"][0];
        assert_eq!((&server["restartPolicy"], &server["image"]), (&json!("Always"), &json!("localhost/postgres:dev")));
        assert_eq!(server["securityContext"]["runAsUser"], 999);
    }
    let (_, _, pod) = pod(&world, Run::Full);
    assert_eq!(pod["containers"][0]["command"], json!(["/usr/local/bin/finaiflow-backup", "take", "full"]));
    assert_eq!((&pod["serviceAccountName"], &pod["restartPolicy"]), (&json!("finaiflow-backup"), &json!("Never")));
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(
        pod["containers"][0]["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
}

#[tokio::test]
async fn a_verification_by_checksum_needs_no_server() {
    let mut world = World::with_tenant();
    let mut compares = spec();
    compares["verification"] = json!({"mode": "Checksum"});
    world.create("nightly", &compares);
    world.visit("nightly").await.0.unwrap();
    let (mounts, env, verify) = pod(&world, Run::Verify);
    assert_eq!((env.as_slice(), &verify["initContainers"]), (&["FINAIFLOW_JOB".to_owned()][..], &Value::Null));
    assert!(
        mounts.iter().any(|mount| mount.starts_with("/identity"))
            && !mounts.iter().any(|mount| mount.starts_with("/scratch"))
    );
    let command = json!(["/usr/local/bin/finaiflow-backup", "verify", "--mode", "checksum"]);
    assert_eq!(verify["containers"][0]["command"], command);
}

#[tokio::test]
async fn jobs_run_at_their_schedules_one_at_a_time() {
    let mut world = World::settled().await;
    let spec = |world: &World, run| to_value(world.cron_job(run).unwrap()).unwrap()["spec"].clone();
    let segment = spec(&world, Run::Segment);
    assert_eq!((&segment["schedule"], &segment["concurrencyPolicy"]), (&json!("8,23,38,53 * * * *"), &json!("Forbid")));
    assert_eq!((&segment["timeZone"], &segment["suspend"]), (&json!("UTC"), &json!(false)));
    assert_eq!(segment["jobTemplate"]["spec"]["activeDeadlineSeconds"], 600);
    assert_eq!(spec(&world, Run::Incremental)["jobTemplate"]["spec"]["activeDeadlineSeconds"], 3600);

    world.edit("nightly", |backup| {
        backup["spec"]["segments"] = json!({"intervalMinutes": 0});
        backup["spec"]["objectives"] = json!({"rpoMinutes": 600});
        backup["spec"]["suspend"] = json!(true);
    });
    let (visit, facts) = world.visit("nightly").await;
    visit.unwrap();
    assert_eq!(reasons(&facts), ["Updated", "Ready"]);
    assert!(world.cron_job(Run::Segment).is_none(), "there is nothing for it to do");
    assert_eq!(spec(&world, Run::Verify)["suspend"], true);
    assert_eq!(world.condition("nightly", "Ready"), "True/Suspended");
}

#[tokio::test]
async fn a_renewed_login_is_followed_and_keys_stay() {
    let mut world = World::settled().await;
    let keys = |world: &World| {
        [world.secret(SECRET, "signing-key"), world.secret(IDENTITY, "identity"), world.secret(IDENTITY, "signers")]
    };
    let before = keys(&world);
    let login = "/api/v1/namespaces/banks/secrets/acme.backup-database";
    let mut secret = world.cluster.get(login).unwrap();
    secret["data"]["DATABASE_URL"] = json!(data_encoding::BASE64.encode(b"postgres://two"));
    world.cluster.by_hand(login, Some(secret));
    world.visit("nightly").await.0.unwrap();
    assert_eq!((world.secret(SECRET, "DATABASE_URL"), keys(&world)), ("postgres://two".to_owned(), before.clone()));
    assert_eq!(world.cluster.writes(), [format!("PATCH {SECRET}")]);

    // One that another bank left there is not.
    let mut secret = world.cluster.get(login).unwrap();
    secret["metadata"]["annotations"]["finaiflow.io/claim-id"] = json!("ffffffffffffffff");
    secret["data"]["DATABASE_URL"] = json!(data_encoding::BASE64.encode(b"postgres://three"));
    world.cluster.by_hand(login, Some(secret));
    world.visit("nightly").await.0.unwrap();
    assert_eq!((world.secret(SECRET, "DATABASE_URL"), keys(&world)), ("postgres://two".to_owned(), before));
}

#[tokio::test]
async fn what_is_somebody_elses_is_never_touched() {
    for (kind, name, reason) in [
        ("secrets", SECRET, Reason::SecretConflict),
        ("secrets", IDENTITY, Reason::SecretConflict),
        ("persistentvolumeclaims", "backup-0123456789abcdef-local", Reason::VolumeConflict),
    ] {
        let mut world = World::with_tenant();
        world.create("nightly", &spec());
        let foreign = json!({"metadata": {"name": name, "namespace": HOME}, "data": {"identity": "eA=="}});
        world.cluster.by_hand(&path(kind, name), Some(foreign));
        let before = world.home(kind, name);
        assert_eq!(refusal(world.visit("nightly").await.0), reason);
        assert_eq!(world.home(kind, name), before);
        assert_eq!(world.condition("nightly", "Stalled"), format!("True/{}", reason.as_str()));
        assert_eq!(world.condition("nightly", "Ready"), format!("False/{}", reason.as_str()));
    }
}

#[tokio::test]
async fn a_backup_waits_for_its_tenant() {
    let mut world = World::new();
    world.create("nightly", &spec());
    let waits = async |world: &mut World, why: &str| {
        let (visit, facts) = world.visit("nightly").await;
        assert_eq!((visit.unwrap(), facts.len()), (Visit::Waiting, 0), "{why}");
        assert_eq!(world.condition("nightly", "Ready"), "False/WaitingForTenant");
        assert_eq!(world.message("nightly", "Reconciling"), why);
    };
    waits(&mut world, "Tenant acme does not exist").await;
    let tenant = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme", "namespace": "banks"}, "spec": {}});
    world.cluster.by_hand(&format!("{TENANTS}/acme"), Some(tenant));
    waits(&mut world, "Tenant acme has no bank yet").await;
    world.tenant(CLAIM);
    waits(&mut world, "Secret acme.backup-database is not there yet").await;
    assert_eq!(world.home("secrets", SECRET), None);
}

#[tokio::test]
async fn what_is_not_on_offer_is_refused() {
    let mut world = World::with_tenant();
    let mut elsewhere = spec();
    elsewhere["destinations"][1]["className"] = json!("gold");
    world.create("nightly", &elsewhere);
    assert_eq!(refusal(world.visit("nightly").await.0), Reason::NotOffered);
    assert_eq!(world.message("nightly", "Stalled"), "there is no backup class gold; the classes are near, far");
    world.create("nightly", &spec());
    world.ctx.settings.as_mut().unwrap().volumes = false;
    assert_eq!(refusal(world.visit("nightly").await.0), Reason::NotOffered);
    assert!(world.message("nightly", "Stalled").starts_with("destination local is a volume"));
    world.ctx.settings = None;
    assert_eq!(refusal(world.visit("nightly").await.0), Reason::NotOffered);
    assert!(world.message("nightly", "Stalled").starts_with("this installation offers no backups"));
    assert_eq!(world.condition("nightly", "RPOMet"), "Unknown/NotOffered");
    let mut never = spec();
    never["full"] = json!({"schedule": "0 0 30 2 *"});
    world.ctx.settings = World::new().ctx.settings;
    world.create("nightly", &never);
    assert_eq!(refusal(world.visit("nightly").await.0), Reason::InvalidSchedule);
}

#[tokio::test]
async fn the_oldest_backup_acts_and_the_next_when_it_is_gone() {
    let mut world = World::settled().await;
    NOW.set(60);
    world.create("another", &spec());
    assert_eq!(refusal(world.visit("another").await.0), Reason::NotActing);
    assert!(world.message("another", "Stalled").starts_with("Backup banks/nightly acts for the bank"));
    assert_eq!(world.condition("another", "Verified"), "Unknown/NotActing");
    // Its end touches nothing of the other's.
    world.edit("another", |backup| {
        backup["metadata"]["deletionTimestamp"] = json!(at(61));
        backup["metadata"]["finalizers"] = json!(["finaiflow.io/backup"]);
    });
    assert_eq!(world.visit("another").await.0.unwrap(), Visit::Gone);
    assert!(world.cron_job(Run::Full).is_some() && world.home("secrets", SECRET).is_some());

    world.create("another", &spec());
    world.edit("nightly", |backup| backup["metadata"]["deletionTimestamp"] = json!(at(62)));
    assert_eq!(refusal(world.visit("another").await.0), Reason::NotActing, "it acts until it is gone");
    world.visit("nightly").await.0.unwrap();
    world.visit("another").await.0.unwrap();
    assert_eq!(world.condition("another", "Ready"), "True/Scheduled");
}

#[tokio::test]
async fn the_end_of_a_backup_leaves_what_is_stored_and_what_opens_it() {
    let mut world = World::settled().await;
    let (identity, signer) = (world.secret(IDENTITY, "identity"), world.secret(IDENTITY, "signers"));
    world.edit("nightly", |backup| backup["metadata"]["deletionTimestamp"] = json!(at(1)));
    assert_eq!(world.visit("nightly").await.0.unwrap(), Visit::Gone);
    assert!(Run::ALL.iter().all(|run| world.cron_job(*run).is_none()));
    assert_eq!(world.home("secrets", SECRET), None);
    assert!(world.home("persistentvolumeclaims", "backup-0123456789abcdef-local").is_some());
    assert_eq!(world.cluster.get(&format!("{BACKUPS}/nightly")), None);

    // The next one opens with the same identity, and believes what the former signed.
    world.create("again", &spec());
    world.visit("again").await.0.unwrap();
    assert_eq!(world.secret(IDENTITY, "identity"), identity);
    let signers = world.secret(IDENTITY, "signers");
    assert!(signers.starts_with(&signer) && signers.lines().count() == 2);
    assert_eq!(world.settings(Run::Verify).trusted_keys.len(), 2);
}

#[tokio::test]
async fn of_a_bank_that_is_gone_only_proofs_are_made() {
    let mut world = World::settled().await;
    world.cluster.by_hand(&format!("{TENANTS}/acme"), None);
    world.visit("nightly").await.0.unwrap();
    let suspended = Run::ALL.map(|run| world.cron_job(run).unwrap().spec.unwrap().suspend.unwrap());
    assert_eq!(suspended, [true, true, true, false, true, false]);
    assert_eq!(world.condition("nightly", "Ready"), "True/TenantGone");
    assert_eq!(world.condition("nightly", "RPOMet"), "Unknown/TenantGone");

    world.tenant("ffffffffffffffff");
    assert_eq!(refusal(world.visit("nightly").await.0), Reason::OtherBank);
    assert!(world.cron_job(Run::Full).unwrap().spec.unwrap().suspend.unwrap());
    // A Backup of the new bank is not in its way.
    NOW.set(60);
    world.create("fresh", &spec());
    assert_eq!(world.visit("fresh").await.0.unwrap(), Visit::Waiting, "for the Secrets of the new bank");
    assert_eq!(world.message("fresh", "Ready"), "Secret acme.backup-database is not there yet");
}

#[tokio::test]
async fn the_anchor_is_told_at_most_once_an_hour() {
    let mut world = World::settled().await;
    let anchor = |world: &World, sequence: i64| {
        let mut tenant = world.cluster.get(&format!("{TENANTS}/acme")).unwrap();
        tenant["status"]["ledger"] =
            json!({"epoch": 1, "sequence": sequence, "hash": "ab", "balanced": true, "verifiedAt": at(0)});
        world.cluster.by_hand(&format!("{TENANTS}/acme"), Some(tenant));
    };
    let mut told = Vec::new();
    for (second, sequence) in [(0, 5), (1800, 6), (3600, 6), (3700, 7), (7300, 7)] {
        NOW.set(second);
        anchor(&world, sequence);
        world.visit("nightly").await.0.unwrap();
        told.push(world.settings(Run::Verify).anchor.unwrap().sequence);
    }
    assert_eq!(told, [5, 5, 6, 6, 7]);
    assert_eq!(world.settings(Run::Full).anchor, None);
    world.cluster.by_hand(&format!("{TENANTS}/acme"), None);
    world.visit("nightly").await.0.unwrap();
    assert_eq!(world.settings(Run::Verify).anchor.unwrap().sequence, 7, "it is still to be gone through");
}

#[tokio::test]
async fn what_opens_stored_backups_is_not_made_anew() {
    let mut world = World::settled().await;
    world.edit("nightly", |backup| {
        backup["status"]["destinations"][0]["lastFull"] = json!({"id": "20270115t080000z-full-00000000",
            "recoveryPointTime": at(0), "sequence": 1, "bytes": 1});
    });
    world.cluster.by_hand(&path("secrets", IDENTITY), None);
    assert_eq!(refusal(world.visit("nightly").await.0), Reason::KeyLost);
    assert_eq!(world.home("secrets", IDENTITY), None);
}

#[tokio::test]
async fn a_crash_anywhere_is_made_up_for() {
    for failing in 0..24 {
        for fault in [crate::catalog::fake::Fault::Before, crate::catalog::fake::Fault::After] {
            let mut world = World::with_tenant();
            world.create("nightly", &spec());
            world.cluster.state.lock().unwrap().fault = Some((failing, fault));
            for _ in 0..4 {
                let _ = world.visit("nightly").await;
            }
            assert_eq!(world.condition("nightly", "Ready"), "True/Scheduled", "{failing} {fault:?}");
            let signers = world.secret(IDENTITY, "signers");
            let signer = crate::backup::keys::signer(&world.secret(SECRET, "signing-key")).unwrap();
            assert!(signers.contains(&signer), "{failing} {fault:?}");
            assert!(world.settings(Run::Full).trusted_keys.contains(&signer), "{failing} {fault:?}");
            world.cluster.writes();
            world.visit("nightly").await.0.unwrap();
            assert_eq!(world.cluster.writes(), Vec::<String>::new(), "{failing} {fault:?}");
        }
    }
}
