//! The program killed at any moment: what it leaves is whole or not there, and the same command goes on from it.

use std::process::Child;
use std::time::Duration;

use finaiflow_backup::manifest::SignedManifest;
use finaiflow_backup::vault::Folder;

use crate::bank::random;
use crate::program::Job;
use crate::pruning::days_as;

fn rounds() -> u32 {
    std::env::var("FINAIFLOW_BACKUP_KILLS").map_or(10, |rounds| rounds.parse().unwrap())
}

/// Lets it go on for a random part of so long, and kills it.
fn kill(mut run: Child, most: Duration) {
    let part = u32::from(u16::from_be_bytes(random()));
    std::thread::sleep(most * part / u32::from(u16::MAX));
    run.kill().unwrap();
    run.wait().unwrap();
}

/// All that is listed at a destination is whole.
fn nothing_partial(job: &Job, name: &str) {
    let listed = job.list(name);
    assert!(listed.iter().all(|(_, word)| word == "ok"), "{name}: {listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_killed_is_not_there_or_whole() {
    let job = Job::new("killed-take", &["near", "far"]).await;
    let began = std::time::Instant::now();
    job.run(&["take", "full"]).passed();
    let most = began.elapsed() * 5 / 4;
    for round in 0..rounds() {
        job.bank.transfer(format!("{round}"), 0, 1).await;
        kill(job.start(&["take", ["segment", "incremental", "full"][round as usize % 3]]), most);
        // What lies at the second may follow what has not been copied yet, but never the other way around.
        nothing_partial(&job, "near");
        nothing_partial(&job, "far");
    }
    let ran = job.run(&["take", "segment"]).passed();
    assert_eq!(ran.destination("near").restorable_to, ran.destination("far").restorable_to);
    assert_eq!(job.list("near"), job.list("far"));
    let restored = job.all_restore(&job.vault("far")).await;
    assert!(restored >= 2, "{restored}");
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_killed_goes_on() {
    let mut job = Job::new("killed-copy", &["near", "far"]).await;
    let far = job.destinations.pop().unwrap();
    for number in 0..8 {
        job.bank.transfer(format!("{number}"), 0, 1).await;
        job.run(&["take", if number == 0 { "full" } else { "segment" }]).passed();
    }
    job.destinations.push(far);
    let began = std::time::Instant::now();
    job.run(&["copy"]).passed();
    let most = began.elapsed() * 5 / 4;
    for _ in 0..rounds() {
        let directory = job.directory("far");
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::create_dir(&directory).unwrap();
        for _ in 0..3 {
            kill(job.start(&["copy"]), most / 2);
            nothing_partial(&job, "far");
        }
        job.run(&["copy"]).passed();
        assert_eq!(job.list("near"), job.list("far"));
    }
    assert_eq!(job.all_restore(&job.vault("far")).await, 8);
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pruner_that_is_killed_goes_on() {
    let mut job = Job::new("killed-prune", &["near"]).await;
    job.destinations[0]["retentionDays"] = 3.into();
    let vault = job.vault("near");
    let ids = |all: &[SignedManifest]| -> Vec<_> { all.iter().map(|it| it.manifest().id.to_string()).collect() };
    for _ in 0..rounds().div_ceil(3) {
        let all = days_as(&vault, job.bank.db.claim_id, &job.key(), 12).await;
        let kept = ids(&all[14..]);
        for _ in 0..6 {
            kill(job.start(&["prune"]), Duration::from_millis(400));
            let listed = job.list("near");
            let good: Vec<_> = listed.iter().filter(|(_, word)| word == "ok").map(|(id, _)| id).collect();
            assert!(kept.iter().all(|id| good.contains(&id)), "{listed:?}");
            let hidden = listed.iter().filter(|(_, word)| word == "it is being pruned").count();
            assert_eq!(good.len() + hidden, listed.len(), "{listed:?}");
        }
        while job.list("near").len() > kept.len() {
            job.run(&["prune"]).passed();
        }
        let left: Vec<_> = job.list("near").into_iter().map(|(id, _)| id).collect();
        assert_eq!(left, kept);
        assert_eq!(vault.list(Folder::Tombstones).await.unwrap().found, []);
        assert_eq!(vault.list(Folder::Objects).await.unwrap().found.len(), kept.len());
        for signed in &all {
            for folder in [Folder::Manifests, Folder::Objects] {
                vault.delete(folder, signed.manifest().id).await.unwrap();
            }
        }
    }
    job.close().await;
}
