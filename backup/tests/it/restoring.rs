//! The program, where it restores: `verify`, `drill` and `restore`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use finaiflow_backup::manifest::Kind;
use finaiflow_backup::vault::Folder;
use finaiflow_crds::backup::{Anchor, JobDestination, JobSettings, Place, Report};
use finaiflow_schema::provision::{close_restore, open_restore};
use finaiflow_schema::testing::{TenantDb, random_password};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::bank::{Bank, IDENTITY, backed_up, signing_key, taken, vault};
use crate::harness::Directory;

/// Runs it with the settings of a job, and reads what it says in the end.
async fn run(directory: &Path, settings: &JobSettings, arguments: &[&str], database: (&str, &str)) -> (Output, Report) {
    let (identity, report) = (directory.join("identity"), directory.join("report"));
    fs::write(&identity, format!("# key\n{IDENTITY}\n")).unwrap();
    let _ = fs::remove_file(&report);
    let mut command = Command::new(env!("CARGO_BIN_EXE_finaiflow-backup"));
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        .env_remove("SCRATCH_DATABASE_URL")
        .env("FINAIFLOW_JOB", serde_json::to_string(settings).unwrap())
        .env("FINAIFLOW_IDENTITY", identity)
        .env("FINAIFLOW_REPORT", &report)
        .env(database.0, database.1);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("AGE-SECRET-KEY") && !told.contains(database.1), "{told}");
    let report = fs::read(&report).unwrap_or_else(|_| panic!("no report: {told}"));
    (output, serde_json::from_slice(&report).unwrap())
}

fn settings(bank: &Bank, directories: &[(&str, &Path)]) -> JobSettings {
    let destination = |(name, path): &(&str, &Path)| JobDestination {
        name: (*name).to_owned(),
        retention_days: 30,
        place: Place::Directory(path.to_path_buf()),
    };
    JobSettings {
        claim_id: bank.db.claim_id.to_string(),
        namespace: "banks".to_owned(),
        tenant: "acme".to_owned(),
        recipients: finaiflow_backup::seal::Identities::parse(IDENTITY).unwrap().recipients().names(),
        trusted_keys: vec![signing_key().public_key()],
        destinations: directories.iter().map(destination).collect(),
        anchor: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_the_other_region_comes_back() {
    let bank = Bank::founded().await;
    let (files, stored) = (Directory::new("restoring"), Directory::new("restoring-stored"));
    let vault = vault(&stored, &bank);
    let mut artefacts = vec![backed_up(&bank, &vault).await];
    bank.transfer("one".to_owned(), 0, 1).await;
    let (epoch, point): (i32, i64) =
        sqlx::query_as("SELECT epoch, sequence FROM ledger_head").fetch_one(&bank.pool).await.unwrap();
    bank.transfer("two".to_owned(), 1, 2).await;
    artefacts.push(taken(&bank, &vault, Kind::Segment, artefacts.last()).await.unwrap());
    let gone = stored.path().join("gone");
    let mut settings = settings(&bank, &[("primary", &gone), ("other", stored.path())]);
    let (at, hash): (i64, [u8; 32]) =
        sqlx::query_as("SELECT sequence, hash FROM ledger_head").fetch_one(&bank.pool).await.unwrap();
    settings.anchor = Some(Anchor { epoch, sequence: at, hash: finaiflow_ledger::chain::Hash(hash).to_string() });

    let scratch = TenantDb::create().await;
    let throw_away = ("SCRATCH_DATABASE_URL", scratch.superuser_url.as_str());
    let (output, report) = run(files.path(), &settings, &["verify", "--destination", "other"], throw_away).await;
    assert!(output.status.success(), "{report:?}");
    let [status] = &report.destinations[..] else { panic!("{report:?}") };
    let verified = status.last_verification.as_ref().unwrap();
    assert!(verified.passed && verified.rto_seconds.is_some() && status.last_verified_time.is_some(), "{status:?}");
    assert_eq!(verified.artifact, artefacts[1].manifest().id.to_string());
    let checksum = ["verify", "--mode", "checksum", "--destination", "other"];
    let (output, report) = run(files.path(), &settings, &checksum, ("UNUSED", "no database")).await;
    assert!(output.status.success(), "{report:?}");
    assert_eq!(report.destinations[0].last_verification.as_ref().unwrap().rto_seconds, None);
    let (output, report) = run(files.path(), &settings, &["drill"], throw_away).await;
    assert!(output.status.success(), "{report:?}");
    let drilled = report.destinations[0].last_drill.as_ref().unwrap();
    assert!(drilled.passed && drilled.rto_seconds.is_some() && drilled.recovery_point_time.is_some(), "{drilled:?}");
    let (output, report) = run(files.path(), &settings, &["restore", "--target", "latest"], throw_away).await;
    assert!(output.status.success(), "{report:?}");
    assert_eq!(report.restored.unwrap().sequence, at);

    // To stay, in another Tenant, with the rights of a restore.
    let target = TenantDb::create().await;
    let password = random_password();
    open_restore(&mut target.admin().await, &target.names, &password).await.unwrap();
    let login: PgConnectOptions = target.app_url.parse().unwrap();
    let login = login.username(target.names.restore.as_str()).password(password.expose()).to_url_lossy().to_string();
    let to = format!("sequence={point}");
    let restore = ["restore", "--target", to.as_str()];
    let (output, report) = run(files.path(), &settings, &restore, ("DATABASE_URL", &login)).await;
    assert!(output.status.success(), "{report:?}");
    assert_eq!(report.findings, []);
    let (plan, restored) = (report.plan.unwrap(), report.restored.unwrap());
    assert_eq!((plan.destination.as_str(), plan.artifacts, plan.sequence), ("other", 2, point));
    assert_eq!((restored.epoch, restored.sequence, report.rto_seconds.is_some()), (epoch, point, true));
    let (output, report) = run(files.path(), &settings, &restore, ("DATABASE_URL", &login)).await;
    assert!(!output.status.success() && report.restored.is_none(), "{report:?}");
    assert!(report.error.as_ref().is_some_and(|error| error.contains("not empty")), "{report:?}");
    close_restore(&mut target.admin().await, &target.names).await.unwrap();
    let restored = Bank::on(target, bank.accounts.clone());
    restored.is_sound().await;
    let (next, head): (i32, i64) =
        sqlx::query_as("SELECT epoch, sequence FROM ledger_head").fetch_one(&restored.pool).await.unwrap();
    assert_eq!((next, head), (epoch + 1, at + 1), "above what was anchored");

    // What was damaged is told, and no other destination has it.
    let object = stored.path().join(bank.db.claim_id.to_string()).join(Folder::Objects.key(artefacts[1].manifest().id));
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();
    let (output, report) = run(files.path(), &settings, &["verify", "--destination", "other"], throw_away).await;
    assert_eq!(output.status.code(), Some(1));
    let verified = report.destinations[0].last_verification.as_ref().unwrap();
    assert!(!verified.passed && report.destinations[0].last_verified_time.is_none());
    assert_eq!(verified.findings[0].check, "object");
    let (output, report) = run(files.path(), &settings, &["restore", "--target", "latest"], throw_away).await;
    assert!(!output.status.success() && report.restored.is_none() && report.error.is_some(), "{report:?}");
    let (output, report) = run(files.path(), &settings, &["verify", "--destination", "primary"], throw_away).await;
    assert!(!output.status.success() && report.destinations[0].fault.is_some(), "{report:?}");
    for bank in [bank, restored] {
        bank.close().await;
    }
    scratch.drop().await;
}
