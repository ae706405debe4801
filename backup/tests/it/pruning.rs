//! Retention at a directory, without a database: manifests of any age, and objects that are noise.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration as Wait;

use finaiflow_backup::manifest::{
    ArtefactId, Kind, Manifest, Object, Server, SignedManifest, SigningKey, Span, Tenant, TrustedKeys, VERSION,
};
use finaiflow_backup::prune::{self, Plan, Pruned};
use finaiflow_backup::sha256::sha256;
use finaiflow_backup::survey::Survey;
use finaiflow_backup::vault::{Folder, Vault};
use finaiflow_ledger::chain::Hash;
use finaiflow_ledger::id::Sequence;
use finaiflow_schema::names::ClaimId;
use time::Duration;
use tokio::io::AsyncWriteExt as _;

use crate::bank::{now, random, signing_key};
use crate::harness::{Directory, claim, noise};

/// Puts an artefact that was taken so many hours ago.
async fn put(vault: &Vault, kind: Kind, parent: Option<&SignedManifest>, hours: i64) -> SignedManifest {
    put_as(vault, claim(), &signing_key(), kind, parent, hours).await
}

async fn put_as(
    vault: &Vault,
    claim_id: ClaimId,
    key: &SigningKey,
    kind: Kind,
    parent: Option<&SignedManifest>,
    hours: i64,
) -> SignedManifest {
    let created_at = now() - Duration::hours(hours);
    let id = ArtefactId::new(created_at, kind, u32::from_be_bytes(random()));
    let content = noise(1_000 + usize::from(random::<1>()[0]));
    let from_sequence = parent.map_or(Sequence::ZERO, |parent| parent.manifest().ledger.sequence);
    let manifest = Manifest {
        version: VERSION,
        id,
        kind,
        claim_id,
        tenant: Tenant { namespace: "banks".into(), name: "acme".into() },
        created_at,
        schema_version: 1,
        schema_fingerprint: Hash([7; 32]),
        postgres: Server { system_identifier: "1".into(), timeline: 1, server_version: 150_008 },
        snapshot: "1:1:".into(),
        parent: parent.map(SignedManifest::as_parent),
        ledger: Span { epoch: 1, from_sequence, sequence: from_sequence, head_time: None, hash: Hash([9; 32]) },
        tables: Vec::new(),
        balances: Vec::new(),
        object: Object { key: Folder::Objects.key(id), bytes: content.len() as u64, sha256: sha256(&content) },
        kek: None,
        recipients: vec!["age1example".into()],
        program: "0.1.0".into(),
    };
    let signed = SignedManifest::sign(manifest, key).unwrap();
    let mut upload = vault.upload(id);
    upload.write_all(&content).await.unwrap();
    upload.complete().await.unwrap();
    vault.put_once(Folder::Manifests, id, signed.file()).await.unwrap();
    signed
}

/// A full one a day and a segment after it, of so many days; the oldest first.
pub async fn days(vault: &Vault, days: i64) -> Vec<SignedManifest> {
    days_as(vault, claim(), &signing_key(), days).await
}

/// The same of another bank.
pub async fn days_as(vault: &Vault, claim: ClaimId, key: &SigningKey, days: i64) -> Vec<SignedManifest> {
    let mut all = Vec::new();
    for day in (0..days).rev() {
        all.push(put_as(vault, claim, key, Kind::Full, None, day * 24 + 2).await);
        all.push(put_as(vault, claim, key, Kind::Segment, all.last(), day * 24 + 1).await);
    }
    all
}

fn trusted() -> TrustedKeys {
    TrustedKeys::parse([signing_key().public_key().as_str()]).unwrap()
}

pub async fn plan(vault: &Vault, days: i32) -> (Survey, Plan) {
    let mut survey = Survey::of(vault).await.unwrap();
    let plan = prune::plan(&mut survey, &trusted(), claim(), days, now()).await.unwrap();
    (survey, plan)
}

/// Prunes until nothing is left to be pruned.
async fn prune(vault: &Vault, days: i32) -> Pruned {
    let mut all = Pruned::default();
    loop {
        let (survey, plan) = plan(vault, days).await;
        let pruned = prune::sweep(&survey, &plan).await.unwrap();
        (all.gone, all.locked) = (all.gone + pruned.gone, all.locked + pruned.locked);
        if plan.later.is_empty() {
            return all;
        }
    }
}

/// The backups that can be restored.
pub async fn restorable(vault: &Vault) -> BTreeSet<ArtefactId> {
    let mut survey = Survey::of(vault).await.unwrap();
    survey.read_all(&trusted(), claim()).await.unwrap();
    let chains = survey.chains();
    assert!(chains.flaws().is_empty(), "{:?}", chains.flaws());
    survey.restorable(&chains).iter().map(|signed| signed.manifest().id).collect()
}

pub fn ids(all: &[SignedManifest]) -> BTreeSet<ArtefactId> {
    all.iter().map(|signed| signed.manifest().id).collect()
}

fn file(directory: &Directory, folder: Folder, signed: &SignedManifest) -> PathBuf {
    directory.path().join(claim().to_string()).join(folder.key(signed.manifest().id))
}

#[tokio::test]
async fn what_is_past_its_retention_goes_a_part_at_a_time() {
    let directory = Directory::new("prune-past");
    let vault = directory.vault();
    let all = days(&vault, 10).await;
    // The window ends with yesterday's segment, and begins three days before.
    let (survey, first) = plan(&vault, 3).await;
    assert_eq!((first.past.len(), first.later.len()), (4, 6));
    assert_eq!(first.past, [1, 0, 3, 2].map(|number: usize| all[number].manifest().id));
    assert_eq!(restorable(&vault).await, ids(&all), "a plan changes nothing");
    let pruned = prune::sweep(&survey, &first).await.unwrap();
    assert_eq!((pruned, restorable(&vault).await), (Pruned { gone: 4, locked: 0 }, ids(&all[4..])));
    prune(&vault, 3).await;
    assert_eq!(restorable(&vault).await, ids(&all[10..]));
    for folder in ["objects", "manifests"] {
        assert_eq!(directory.files(folder).len(), 10);
    }
    assert_eq!(directory.files("tombstones"), [""; 0]);
    // A bank that is not backed up any more keeps what it has.
    assert_eq!(prune(&vault, 3).await.gone, 0);
}

#[tokio::test]
async fn whoever_was_killed_is_followed_up() {
    for step in 0..4 {
        let directory = Directory::new(&format!("prune-killed-{step}"));
        let vault = directory.vault();
        let all = days(&vault, 5).await;
        let (_, plan) = plan(&vault, 0).await;
        let id = plan.past[0];
        vault.put_once(Folder::Tombstones, id, format!("{{\"id\":\"{id}\"}}\n").as_bytes()).await.unwrap();
        for folder in [Folder::Objects, Folder::Manifests, Folder::Tombstones].into_iter().take(step) {
            vault.delete(folder, id).await.unwrap();
        }
        assert!(!restorable(&vault).await.contains(&id), "nothing of it is to be seen after {step} steps");
        prune(&vault, 0).await;
        assert_eq!(restorable(&vault).await, ids(&all[6..]));
        assert_eq!(directory.files("tombstones"), [""; 0]);
        assert_eq!(directory.files("objects").len(), 4);
    }
}

#[tokio::test]
async fn what_is_hidden_and_needed_is_shown_again() {
    let directory = Directory::new("prune-needed");
    let vault = directory.vault();
    let all = days(&vault, 3).await;
    for signed in &all {
        vault.put_once(Folder::Tombstones, signed.manifest().id, b"{}").await.unwrap();
    }
    assert_eq!(restorable(&vault).await, BTreeSet::new());
    prune(&vault, 30).await;
    assert_eq!(restorable(&vault).await, ids(&all));
}

#[tokio::test]
async fn older_ones_stay_for_one_that_is_damaged() {
    let directory = Directory::new("prune-damaged");
    let vault = directory.vault();
    let all = days(&vault, 5).await;
    let base = plan(&vault, 0).await.1;
    assert_eq!(base.past.len() + base.later.len(), 6);
    // The length is right, and a bit of it is not.
    let object = file(&directory, Folder::Objects, &all[6]);
    let mut content = std::fs::read(&object).unwrap();
    content[500] ^= 1;
    std::fs::write(&object, content).unwrap();
    let (survey, found) = plan(&vault, 0).await;
    assert_eq!(found.damaged, [all[6].manifest().id]);
    assert_eq!(found.past.len() + found.later.len(), 4);
    prune::sweep(&survey, &found).await.unwrap();
    prune(&vault, 0).await;
    assert_eq!(restorable(&vault).await, ids(&all[4..]));
    // Without anything that is whole, nothing goes.
    for signed in &all[4..] {
        std::fs::remove_file(file(&directory, Folder::Objects, signed)).unwrap();
    }
    assert_eq!(prune(&vault, 0).await.gone, 0);
    assert_eq!(directory.files("manifests").len(), 6);
}

#[tokio::test]
async fn an_object_without_a_manifest_goes_after_a_week() {
    let directory = Directory::new("prune-orphans");
    let vault = directory.vault();
    let all = days(&vault, 2).await;
    for signed in &all[2..] {
        vault.delete(Folder::Manifests, signed.manifest().id).await.unwrap();
    }
    let old = |path: PathBuf, days: u64| {
        let file = File::options().write(true).open(path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.set_modified(modified - Wait::from_hours(days * 24)).unwrap();
    };
    old(file(&directory, Folder::Objects, &all[2]), 8);
    old(file(&directory, Folder::Objects, &all[3]), 6);
    // What a killed program left of an object it was putting.
    let staged = directory.folder("objects").join("20261122t184412z-full-0a1b2c3d#1");
    std::fs::write(&staged, "half").unwrap();
    assert_eq!(plan(&vault, 30).await.1.orphans, [all[2].manifest().id]);
    assert_eq!(prune(&vault, 30).await.gone, 1);
    assert!(staged.exists(), "somebody may be at it");
    old(staged.clone(), 2);
    assert_eq!(prune(&vault, 30).await.gone, 1);
    assert!(!staged.exists());
    assert_eq!(restorable(&vault).await, ids(&all[..2]));
    assert_eq!(directory.files("objects").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pruners_at_once_lose_nothing() {
    for round in 0..12 {
        let directory = Directory::new("prune-twice");
        let vault = directory.vault();
        let all = days(&vault, 8).await;
        let (one, other) = (plan(&vault, 3).await, plan(&vault, 3).await);
        // A backup comes meanwhile, and every third time one of the two begins when the other has ended.
        let new = put(&vault, Kind::Segment, all.last(), 0).await;
        if round % 3 == 0 {
            prune::sweep(&one.0, &one.1).await.unwrap();
            prune(&vault, 3).await;
            prune::sweep(&other.0, &other.1).await.unwrap();
        } else {
            let late = async {
                tokio::time::sleep(Wait::from_micros(u64::from(random::<1>()[0]) * 20)).await;
                prune::sweep(&other.0, &other.1).await.unwrap();
            };
            let (first, ()) = tokio::join!(prune::sweep(&one.0, &one.1), late);
            first.unwrap();
        }
        prune(&vault, 3).await;
        let expected: BTreeSet<_> = ids(&all[6..]).into_iter().chain([new.manifest().id]).collect();
        assert_eq!(restorable(&vault).await, expected);
        assert_eq!(directory.files("tombstones"), [""; 0]);
        assert_eq!(directory.files("objects").len(), 11);
    }
}
