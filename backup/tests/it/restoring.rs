//! The program, where it restores: `verify`, `drill` and `restore`.

use std::fs;
use std::process::Command;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use data_encoding::BASE64;
use finaiflow_backup::vault::Folder;
use finaiflow_ledger::chain::Hash;
use finaiflow_schema::names::ClaimId;
use finaiflow_schema::provision::{close_restore, open_restore};
use finaiflow_schema::testing::{TenantDb, random_password};
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::bank::{Bank, IDENTITY, emptied, random};
use crate::program::{Job, KEK, Ran};

const CARRIER: [u8; 32] = [7; 32];

/// The program with the identity, an anchor (epoch, sequence and hash) and the one database that it needs.
fn command(job: &Job, anchor: &(i32, i64, [u8; 32]), arguments: &[&str], database: (&str, &str)) -> Command {
    let identity = job.directory("identity");
    fs::write(&identity, format!("# key\n{IDENTITY}\n")).unwrap();
    let (epoch, sequence, hash) = anchor;
    let mut settings = job.settings();
    settings["anchor"] = json!({"epoch": epoch, "sequence": sequence, "hash": Hash(*hash).to_string()});
    let mut command = job.command(env!("CARGO_BIN_EXE_finaiflow-backup"), arguments);
    command.env_remove("DATABASE_URL").env("FINAIFLOW_JOB", settings.to_string());
    command.env("FINAIFLOW_IDENTITY", identity).env(database.0, database.1).env("CARRIER_KEY", BASE64.encode(&CARRIER));
    command
}

/// The data key in a report, for who has the carrier.
fn carried(ran: &Ran, claim: ClaimId) -> Vec<u8> {
    let mut sealed = BASE64.decode(ran.report().data_key.as_ref().unwrap().as_bytes()).unwrap();
    let (nonce, sealed) = sealed.split_first_chunk_mut::<12>().unwrap();
    let key = RandomizedNonceKey::new(&AES_256_GCM, &CARRIER).unwrap();
    let about = Aad::from(claim.to_string());
    key.open_in_place(Nonce::assume_unique_for_key(*nonce), about, sealed).unwrap().to_vec()
}

fn run(job: &Job, anchor: &(i32, i64, [u8; 32]), arguments: &[&str], database: (&str, &str)) -> Ran {
    let ran = job.ended(command(job, anchor, arguments, database).spawn().unwrap());
    assert!(!ran.output.contains("AGE-SECRET-KEY") && !ran.output.contains(database.1), "{ran:?}");
    assert!(!ran.output.contains(&String::from_utf8_lossy(KEK).into_owned()), "{ran:?}");
    ran
}

/// Opens the restore's way into a Tenant.
async fn login(target: &TenantDb) -> String {
    let password = random_password();
    open_restore(&mut target.admin().await, &target.names, &password).await.unwrap();
    let login: PgConnectOptions = target.app_url.parse().unwrap();
    login.username(target.names.restore.as_str()).password(password.expose()).to_url_lossy().to_string()
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
    let login = login(&target).await;
    let login = ("DATABASE_URL", login.as_str());
    let ran = run(&job, &forged, &latest, login);
    assert!(!ran.passed && ran.report().error.as_ref().is_some_and(|error| error.contains("kept outside")), "{ran:?}");
    let to = format!("sequence={point}");
    let ran = run(&job, &anchor, &["restore", "--target", &to], login).passed();
    assert_eq!(ran.report().findings, []);
    assert_eq!(carried(&ran, bank.db.claim_id), KEK);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_has_done_nothing_or_everything() {
    let job = Job::new("killed-restore", &["near"]).await;
    job.run(&["take", "full"]).passed();
    for number in 0..50 {
        job.bank.transfer(format!("{number}"), number % 4, (number + 1) % 4).await;
    }
    job.run(&["take", "segment"]).passed();
    let head = "SELECT epoch, sequence, hash FROM ledger_head";
    let anchor: (i32, i64, [u8; 32]) = sqlx::query_as(head).fetch_one(&job.bank.pool).await.unwrap();
    let point = anchor.1 - 20;
    let to = format!("sequence={point}");
    let restore = ["restore", "--target", &to];
    let target = TenantDb::create().await;
    let mut most = None;
    for round in 0..8 {
        let mut admin = emptied(&target).await;
        let login = login(&target).await;
        let login = ("DATABASE_URL", login.as_str());
        let began = Instant::now();
        if let Some(most) = most {
            let mut run = command(&job, &anchor, &restore, login).spawn().unwrap();
            let part = u32::from(u16::from_be_bytes(random()));
            std::thread::sleep(most * part / u32::from(u16::MAX));
            run.kill().unwrap();
            run.wait().unwrap();
        }
        let ran = run(&job, &anchor, &restore, login).passed();
        let restored = ran.report().restored.as_ref().unwrap();
        assert_eq!((restored.epoch, restored.sequence), (anchor.0, point), "{round}");
        assert_eq!(ran.report().findings, []);
        most.get_or_insert_with(|| began.elapsed() * 5 / 4);
        // And so it is when nobody was killed; but not once something was done there.
        let again = run(&job, &anchor, &restore, login).passed();
        assert_eq!(again.report().restored.as_ref(), Some(restored));
        let other = run(&job, &anchor, &["restore", "--target", "latest"], login);
        assert!(!other.passed, "{other:?}");
        let changed = format!("UPDATE {}.users SET name = 'Eva'", target.names.schema);
        sqlx::query(AssertSqlSafe(changed)).execute(&mut target.superuser().await).await.unwrap();
        let refused = run(&job, &anchor, &restore, login);
        assert!(!refused.passed && refused.report().restored.is_none(), "{refused:?}");
        close_restore(&mut admin, &target.names).await.unwrap();
    }
    target.drop().await;
    job.close().await;
}
