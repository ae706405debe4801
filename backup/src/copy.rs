//! What lies at one destination and is missing at another is copied, sealed as it is.

use std::collections::{BTreeMap, BTreeSet};

use time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::job::{Destination, Job};
use crate::manifest::chain::Chains;
use crate::manifest::{ArtefactId, SignedManifest};
use crate::progress::Progress;
use crate::sha256::Sha256;
use crate::survey::Survey;
use crate::vault::{self, Folder, Trouble, Vault};

/// Bytes that are passed on at once.
const BUFFER: usize = 64 * 1024;

/// A destination that answers, and what lies there.
#[derive(Debug)]
pub struct Place<'j> {
    /// The destination.
    pub destination: &'j Destination,
    /// What lies there.
    pub survey: Survey,
}

/// What failed at destinations, by their names: the first of each.
pub type Faults = BTreeMap<String, vault::Error>;

/// Copies to each place what is a backup at another, falls into the place's own retention, and is missing there. Whoever
/// is stopped in between, begins again and goes on from what is there.
pub async fn copy(job: &Job, places: &mut [Place<'_>]) -> Faults {
    let mut faults = Faults::new();
    for target in 0..places.len() {
        if let Err((name, error)) = fill(job, places, target, &mut faults).await {
            tracing::warn!(destination = name, %error, "what is missing there cannot be copied");
            faults.entry(name).or_insert(error);
        }
    }
    faults
}

type Failure = (String, vault::Error);

/// Brings a place up to date. The failure is one after which there is no sense in going on.
async fn fill(job: &Job, places: &mut [Place<'_>], target: usize, faults: &mut Faults) -> Result<(), Failure> {
    let absent = absent(places, target);
    for (number, place) in places.iter_mut().enumerate() {
        if let Err(error) = place.survey.read(&job.trusted, job.claim, absent.iter().copied()).await {
            let name = place.destination.name.clone();
            if number == target {
                return Err((name, error));
            }
            faults.entry(name).or_insert(error);
        }
    }
    let chains = union(places);
    // With what they follow, and each after what it follows.
    let wanted: BTreeSet<_> =
        absent.iter().flat_map(|id| chains.path(*id)).map(|signed| signed.manifest().id).collect();
    for id in chains.trees().iter().flatten().filter(|id| wanted.contains(id)) {
        let there = &places[target].survey;
        let Some(signed) = chains.get(*id).filter(|signed| !is_there(there, signed)) else { continue };
        if there.tombstones.contains_key(id) {
            continue;
        }
        fetch(places, target, signed, faults).await?;
    }
    Ok(())
}

/// Copies a backup from the first place that has it as it should be.
async fn fetch(
    places: &mut [Place<'_>],
    target: usize,
    signed: &SignedManifest,
    faults: &mut Faults,
) -> Result<(), Failure> {
    let (id, to) = (signed.manifest().id, places[target].destination.name.clone());
    for source in (0..places.len()).filter(|source| *source != target) {
        if !is_there(&places[source].survey, signed) {
            continue;
        }
        let from = places[source].destination.name.clone();
        match copy_one(places[source].survey.vault(), places[target].survey.vault(), signed).await {
            Ok(()) => {
                tracing::info!(%id, from, to, bytes = signed.manifest().object.bytes, "copied");
                places[target].survey.insert(signed.clone());
                return Ok(());
            }
            Err(Side::Source(error)) => {
                tracing::warn!(%id, destination = from, %error, "it cannot be copied from there");
                faults.entry(from).or_insert(error);
            }
            // Of this one only: another manifest lies in its place.
            Err(Side::Target(error)) if error.trouble == Trouble::Exists => {
                faults.entry(to).or_insert(error);
                return Ok(());
            }
            Err(Side::Target(error)) => return Err((to, error)),
        }
    }
    Ok(())
}

/// What is listed elsewhere, by its name falls into the retention of the target, and is not there as it is elsewhere.
fn absent(places: &[Place<'_>], target: usize) -> BTreeSet<ArtefactId> {
    let chains: Vec<_> = places.iter().map(|place| place.survey.chains()).collect();
    let newest = chains.iter().flat_map(Chains::sound).map(|signed| signed.manifest().id.taken_at()).max();
    let days = Duration::days(places[target].destination.retention_days.into());
    let since = newest.and_then(|newest| newest.checked_sub(days));
    let there = &places[target].survey;
    let others = places.iter().enumerate().filter(|(place, _)| *place != target).map(|(_, place)| &place.survey);
    others
        .flat_map(|other| other.manifests.keys().map(move |id| (*id, other.objects.get(id))))
        .filter(|(id, _)| since.is_none_or(|since| id.taken_at() >= since))
        .filter(|(id, elsewhere)| {
            let bytes = there.objects.get(id).map(|found| found.bytes);
            !there.manifests.contains_key(id) || bytes.is_none() || bytes != elsewhere.map(|found| found.bytes)
        })
        .map(|(id, _)| id)
        .collect()
}

/// The backups of all places together, as an artefact and the one that it follows may lie at two.
fn union(places: &[Place<'_>]) -> Chains {
    let mut union = BTreeMap::new();
    for place in places {
        let backups = place.survey.manifests_read().filter(|(id, _)| !place.survey.tombstones.contains_key(id));
        for (id, read) in backups {
            match (read, union.get(&id)) {
                (Ok(signed), None | Some(Err(_))) => drop(union.insert(id, Ok(signed.clone()))),
                (Err(error), None) => drop(union.insert(id, Err(error.clone()))),
                _ => {}
            }
        }
    }
    Chains::of(union)
}

fn is_there(survey: &Survey, signed: &SignedManifest) -> bool {
    let id = signed.manifest().id;
    survey.manifests.contains_key(&id) && !survey.tombstones.contains_key(&id) && survey.has_object(signed)
}

/// Where it failed.
enum Side {
    Source(vault::Error),
    Target(vault::Error),
}

/// Copies an object, whose hash is checked on the way, and then its manifest.
async fn copy_one(source: &Vault, target: &Vault, signed: &SignedManifest) -> Result<(), Side> {
    let manifest = signed.manifest();
    let at = format!("copy {}", manifest.object.key);
    let (_, mut stream) = source.read(manifest.id).await.map_err(Side::Source)?;
    let (mut upload, mut digest, mut progress) = (target.upload(manifest.id), Sha256::default(), Progress::default());
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = stream.read(&mut buffer).await.map_err(|error| Side::Source(vault::Error::of(error, &at)))?;
        if read == 0 {
            break;
        }
        digest.update(&buffer[..read]);
        let written = upload.write_all(&buffer[..read]).await;
        written.map_err(|error| Side::Target(vault::Error::of(error, &at)))?;
        progress.add(read, manifest.id, 0);
    }
    if progress.bytes() != manifest.object.bytes || digest.finish() != manifest.object.sha256 {
        // What was sent of it is of no use.
        let _ = upload.abort().await;
        let why = "it is not what its manifest says".to_owned();
        return Err(Side::Source(vault::Error { trouble: Trouble::Corrupt, at, why }));
    }
    upload.complete().await.map_err(Side::Target)?;
    target.put_once(Folder::Manifests, manifest.id, signed.file()).await.map_err(Side::Target)
}
