//! Buckets with object lock: one that refuses to delete what is locked, and one that keeps it behind a delete marker.

use std::time::{Duration, Instant};

use finaiflow_backup::manifest::SignedManifest;
use finaiflow_backup::prune::{self, Pruned};
use finaiflow_backup::vault::{Folder, Vault};
use finaiflow_schema::names::ClaimId;
use time::format_description::well_known::Rfc3339;

use crate::bank::now;
use crate::gateway::{Kind, Server};
use crate::harness::claim;
use crate::program::Job;
use crate::pruning::{days, days_as, ids, plan, restorable};

/// Gives what is put from now on, and what is there, a retention of so many days; with none, new files have none.
fn default_retention(server: &Server, mode: &str, days: Option<u32>) {
    let rule = days.map_or_else(String::new, |days| {
        format!("<Rule><DefaultRetention><Mode>{mode}</Mode><Days>{days}</Days></DefaultRetention></Rule>")
    });
    let body = format!(
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled>{rule}</ObjectLockConfiguration>"
    );
    server.administer("PUT", "?object-lock=", &body).unwrap();
}

fn key(claim: ClaimId, folder: Folder, signed: &SignedManifest) -> String {
    format!("pre/fix/{claim}/{}", folder.key(signed.manifest().id))
}

/// Locks an object for so long from now on.
fn lock(server: &Server, signed: &SignedManifest, time: Duration) {
    let until = (now() + time).replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
    let body = format!("<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
    let target = format!("/{}?retention=", key(claim(), Folder::Objects, signed));
    server.administer("PUT", &target, &body).unwrap();
}

async fn sweep(vault: &Vault) -> Pruned {
    let (survey, plan) = plan(vault, 0).await;
    prune::sweep(&survey, &plan).await.unwrap()
}

#[tokio::test]
async fn what_is_locked_stays_with_all_that_it_follows() {
    let server = Server::start("s3-locks").await;
    default_retention(&server, "", None);
    let vault = server.vault();
    let all = days(&vault, 6).await;
    // A segment, whose full backup could go; and a full one, whose segment can.
    for locked in [&all[1], &all[2]] {
        lock(&server, locked, Duration::from_hours(24));
    }
    let mut gone = 0;
    loop {
        let pruned = sweep(&vault).await;
        gone += pruned.gone;
        let all_restore = restorable(&vault).await;
        assert!(ids(&all[8..]).is_subset(&all_restore) && ids(&all[..3]).is_subset(&all_restore), "{all_restore:?}");
        if pruned.gone == 0 {
            assert_eq!(pruned.locked, 2);
            break;
        }
    }
    assert_eq!(gone, 5, "those that are locked take nobody's turn");
    assert_eq!(restorable(&vault).await, &ids(&all[..3]) | &ids(&all[8..]));
    assert_eq!(vault.list(Folder::Tombstones).await.unwrap().found, []);

    for locked in [&all[1], &all[2]] {
        lock(&server, locked, Duration::from_secs(10));
    }
    let until = Instant::now() + Duration::from_mins(2);
    while restorable(&vault).await != ids(&all[8..]) {
        assert!(Instant::now() < until, "the retention is over");
        sweep(&vault).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tombstones_are_locked_hardly_anything_is_hidden() {
    let server = Server::start("s3-locks-all").await;
    let mut job = Job::new("locks-all", &[]).await;
    job.bucket("locked", server.port, "secret");
    job.destinations[0]["retentionDays"] = 0.into();
    default_retention(&server, "COMPLIANCE", Some(30));
    let vault = server.vault_of(job.bank.db.claim_id);
    let all = days_as(&vault, job.bank.db.claim_id, &job.key(), 6).await;
    for _ in 0..3 {
        let ran = job.run(&["prune"]).passed();
        let checks: Vec<_> = ran.report().findings.iter().map(|finding| finding.check.as_str()).collect();
        assert_eq!((checks, ran.destination("locked").fault.as_ref()), (vec!["locked"], None));
        let listed = job.list("locked");
        let hidden: Vec<_> = listed.iter().filter(|(_, word)| word != "ok").collect();
        assert_eq!(listed.len(), all.len());
        assert_eq!(hidden, [&(all[1].manifest().id.to_string(), "it is being pruned".to_owned())]);
    }
    // It is needed after all.
    job.destinations[0]["retentionDays"] = 90.into();
    let ran = job.run(&["prune"]).passed();
    assert_eq!(ran.report().findings[0].check, "locked", "it cannot be shown again yet");
    job.destinations[0]["retentionDays"] = 0.into();

    default_retention(&server, "", None);
    while !job.run(&["prune", "--dry-run"]).output.is_empty() {
        assert_eq!(job.run(&["prune"]).passed().report().findings, []);
    }
    assert_eq!(job.list("locked").len(), 4);
    assert_eq!(vault.list(Folder::Tombstones).await.unwrap().found, []);
    job.close().await;
}

/// The versions of a bucket's files, or the markers that hide them, as keys and version ids.
fn versions(server: &Server, what: &str) -> Vec<(String, String)> {
    let answer = server.administer("GET", "?versions=", "").unwrap();
    let text = |entry: &str, name: &str| {
        let (_, rest) = entry.split_once(&format!("<{name}>")).unwrap();
        rest.split_once("</").unwrap().0.to_owned()
    };
    let start = format!("<{what}>");
    answer.split(&start).skip(1).map(|entry| (text(entry, "Key"), text(entry, "VersionId"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_by_a_thief_comes_back() {
    let server = Server::of("s3-versions", Kind::Versioned).await;
    let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    server.administer("PUT", "?versioning=", enabled).unwrap();
    default_retention(&server, "COMPLIANCE", Some(30));
    let mut job = Job::new("locks-versions", &[]).await;
    job.bucket("kept", server.port, "secret");
    let vault = server.vault_of(job.bank.db.claim_id);
    for kind in ["full", "segment", "incremental", "segment"] {
        job.bank.transfer(format!("{kind} {}", now().unix_timestamp_nanos()), 0, 1).await;
        job.run(&["take", kind]).passed();
    }
    let (before, stored) = (job.list("kept"), versions(&server, "Version"));
    assert_eq!((before.len(), stored.len()), (4, 8));

    // With what a job has, everything can be hidden, and nothing destroyed.
    for (id, _) in &before {
        for folder in [Folder::Objects, Folder::Manifests] {
            vault.delete(folder, id.parse().unwrap()).await.unwrap();
        }
    }
    for (key, version) in &stored {
        let refused = server.administer("DELETE", &format!("/{key}?versionId={version}"), "").unwrap_err();
        assert!(refused.contains("object lock"), "{refused}");
    }
    assert_eq!(job.run(&["copy"]).passed().destination("kept").restorable_to, None);

    for (key, marker) in versions(&server, "DeleteMarker") {
        server.administer("DELETE", &format!("/{key}?versionId={marker}"), "").unwrap();
    }
    assert_eq!(job.list("kept"), before);
    assert_eq!(job.all_restore(&vault).await, 4);

    // What is pruned is only hidden, too.
    let old = days_as(&vault, job.bank.db.claim_id, &job.key(), 5).await;
    job.destinations[0]["retentionDays"] = 0.into();
    while !job.run(&["prune", "--dry-run"]).output.is_empty() {
        assert_eq!(job.run(&["prune"]).passed().report().findings, []);
    }
    assert_eq!(job.list("kept").len(), 4 + 4);
    let kept = versions(&server, "Version");
    for signed in &old {
        for folder in [Folder::Objects, Folder::Manifests] {
            let key = key(job.bank.db.claim_id, folder, signed);
            assert!(kept.iter().any(|(kept, _)| *kept == key), "{key}");
        }
    }
    job.close().await;
}
