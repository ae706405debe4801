//! The program, where it restores: `verify`, `drill` and `restore`.

use std::fs;

use finaiflow_backup::vault::Folder;
use finaiflow_ledger::chain::Hash;
use finaiflow_schema::provision::{close_restore, open_restore};
use finaiflow_schema::testing::{TenantDb, random_password};
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::bank::{Bank, IDENTITY};
use crate::program::{Job, Ran};

/// Runs it with the identity, an anchor (epoch, sequence and hash) and the one database that it needs.
fn run(job: &Job, anchor: &(i32, i64, [u8; 32]), arguments: &[&str], database: (&str, &str)) -> Ran {
    let identity = job.directory("identity");
    fs::write(&identity, format!("# key\n{IDENTITY}\n")).unwrap();
    let (epoch, sequence, hash) = anchor;
    let mut settings = job.settings();
    settings["anchor"] = json!({"epoch": epoch, "sequence": sequence, "hash": Hash(*hash).to_string()});
    let mut command = job.command(env!("CARGO_BIN_EXE_finaiflow-backup"), arguments);
    command.env_remove("DATABASE_URL").env("FINAIFLOW_JOB", settings.to_string());
    let ran = job.ended(command.env("FINAIFLOW_IDENTITY", identity).env(database.0, database.1).spawn().unwrap());
    assert!(!ran.output.contains("AGE-SECRET-KEY") && !ran.output.contains(database.1), "{ran:?}");
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_the_other_region_comes_back() {
    let job = Job::new("restoring", &["primary", "other"]).await;
    job.run(&["take", "full"]).passed();
    let bank = &job.bank;
    bank.transfer("one".to_owned(), 0, 1).await;
    let head = "SELECT epoch, sequence, hash FROM ledger_head";
    let (epoch, point, _): (i32, i64, [u8; 32]) = sqlx::query_as(head).fetch_one(&bank.pool).await.unwrap();
    bank.transfer("two".to_owned(), 1, 2).await;
    let anchor: (i32, i64, [u8; 32]) = sqlx::query_as(head).fetch_one(&bank.pool).await.unwrap();
    let segment = job.run(&["take", "segment"]).passed().report().artifact.clone().unwrap();
    fs::remove_dir_all(job.directory("primary")).unwrap();

    let scratch = TenantDb::create().await;
    let throw_away = ("SCRATCH_DATABASE_URL", scratch.superuser_url.as_str());
    let ran = run(&job, &anchor, &["verify", "--destination", "other"], throw_away).passed();
    let verified = ran.destination("other").last_verification.as_ref().unwrap();
    assert!(verified.passed && verified.rto_seconds.is_some(), "{ran:?}");
    assert!(ran.destination("other").last_verified_time.is_some() && ran.destination("other").last_segment.is_some());
    assert_eq!(verified.artifact, segment);
    let checksum = ["verify", "--mode", "checksum", "--destination", "other"];
    let ran = run(&job, &anchor, &checksum, ("UNUSED", "no database")).passed();
    assert_eq!(ran.destination("other").last_verification.as_ref().unwrap().rto_seconds, None);
    let ran = run(&job, &anchor, &["drill"], throw_away).passed();
    let drilled = ran.destination("other").last_drill.as_ref().unwrap();
    assert!(drilled.passed && drilled.rto_seconds.is_some() && drilled.recovery_point_time.is_some(), "{drilled:?}");
    let latest = ["restore", "--target", "latest"];
    let ran = run(&job, &anchor, &latest, throw_away).passed();
    assert_eq!(ran.report().restored.as_ref().map(|restored| restored.sequence), Some(anchor.1));
    let forged = (epoch, anchor.1, [7; 32]);
    let ran = run(&job, &forged, &["verify", "--destination", "other"], throw_away);
    let verified = ran.destination("other").last_verification.as_ref().unwrap();
    assert!(!ran.passed && !verified.passed && verified.findings[0].check == "anchor", "{ran:?}");

    // To stay, in another Tenant, with the rights of a restore.
    let target = TenantDb::create().await;
    let password = random_password();
    open_restore(&mut target.admin().await, &target.names, &password).await.unwrap();
    let login: PgConnectOptions = target.app_url.parse().unwrap();
    let login = login.username(target.names.restore.as_str()).password(password.expose()).to_url_lossy().to_string();
    let login = ("DATABASE_URL", login.as_str());
    let ran = run(&job, &forged, &latest, login);
    assert!(!ran.passed && ran.report().error.as_ref().is_some_and(|error| error.contains("kept outside")), "{ran:?}");
    let to = format!("sequence={point}");
    let ran = run(&job, &anchor, &["restore", "--target", &to], login).passed();
    assert_eq!(ran.report().findings, []);
    let (plan, restored) = (ran.report().plan.as_ref().unwrap(), ran.report().restored.as_ref().unwrap());
    assert_eq!((plan.destination.as_str(), plan.artifacts, plan.sequence), ("other", 2, point));
    assert_eq!((restored.epoch, restored.sequence, ran.report().rto_seconds.is_some()), (epoch, point, true));
    let ran = run(&job, &anchor, &latest, login);
    assert!(!ran.passed && ran.report().restored.is_none(), "{ran:?}");
    assert!(ran.report().error.as_ref().is_some_and(|error| error.contains("not empty")), "{ran:?}");
    close_restore(&mut target.admin().await, &target.names).await.unwrap();
    let restored = Bank::on(target, bank.accounts.clone());
    restored.is_sound().await;
    let goes_on: (i32, i64, [u8; 32]) = sqlx::query_as(head).fetch_one(&restored.pool).await.unwrap();
    assert_eq!((goes_on.0, goes_on.1), (epoch + 1, anchor.1 + 1), "above what was anchored");

    // What was damaged is told, and no other destination has it.
    let object = job.directory("other").join(bank.db.claim_id.to_string());
    let object = object.join(Folder::Objects.key(segment.parse().unwrap()));
    let mut bytes = fs::read(&object).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&object, bytes).unwrap();
    let ran = run(&job, &anchor, &["verify", "--destination", "other"], throw_away);
    let verified = ran.destination("other").last_verification.as_ref().unwrap();
    assert!(!ran.passed && !verified.passed && ran.destination("other").last_verified_time.is_none(), "{ran:?}");
    assert_eq!(verified.findings[0].check, "object");
    let ran = run(&job, &anchor, &latest, throw_away);
    assert!(!ran.passed && ran.report().restored.is_none() && ran.report().error.is_some(), "{ran:?}");
    let ran = run(&job, &anchor, &["verify", "--destination", "primary"], throw_away);
    assert!(!ran.passed && ran.destination("primary").fault.is_some(), "{ran:?}");
    restored.close().await;
    scratch.drop().await;
    job.close().await;
}
