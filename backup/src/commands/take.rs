//! `take`: a new backup, at the first destination that answers.

use finaiflow_backup::copy::{self, Faults, Place};
use finaiflow_backup::job::{self, Job};
use finaiflow_backup::manifest::{Kind, SignedManifest};
use finaiflow_backup::seal::{self, Secrets};
use finaiflow_backup::status::newest_to_follow;
use finaiflow_backup::take::{self, Error as Failure, Order};
use finaiflow_backup::vault::{self, Vault};
use finaiflow_crds::backup::Report;
use sqlx::Connection as _;

use super::{Error, Result, Take, connect, random, refused, statuses, survey};

pub async fn run(asked: &Take, job: &Job, report: &mut Report) -> Result<()> {
    let (mut places, mut faults) = survey(job).await;
    let stored = first(asked, job, &mut places, &mut faults, report).await;
    if let Ok(signed) = &stored {
        report.artifact = Some(signed.manifest().id.to_string());
        // What failed is told by the destination's status: the backup is there.
        for (name, error) in copy::copy(job, &mut places).await {
            faults.entry(name).or_insert(error);
        }
    }
    report.destinations = statuses(job, places, &faults).await;
    stored.map(drop)
}

/// Stores it at the first destination where that is possible.
async fn first(
    asked: &Take,
    job: &Job,
    places: &mut [Place<'_>],
    faults: &mut Faults,
    report: &mut Report,
) -> Result<SignedManifest> {
    for at in 0..places.len() {
        match store(asked, job, at, places, report).await.map_err(destination_error) {
            Ok(signed) => {
                places[at].survey.insert(signed.clone());
                return Ok(signed);
            }
            Err(Err(error)) => return Err(error),
            Err(Ok(error)) => {
                let name = places[at].destination.name.clone();
                tracing::warn!(destination = name, %error, "nothing can be stored there");
                faults.insert(name, error);
            }
        }
    }
    Err(Error::NoDestination(refused(faults)))
}

/// Takes what is asked for, or a full one where nothing can be followed.
async fn store(
    asked: &Take,
    job: &Job,
    at: usize,
    places: &[Place<'_>],
    report: &mut Report,
) -> Result<SignedManifest> {
    let vault = places[at].survey.vault();
    let parent = if asked.kind == Kind::Full { None } else { parent(places, asked.kind) };
    let kind = if parent.is_none() { Kind::Full } else { asked.kind };
    if kind != asked.kind {
        report.full_because = Some("there is no backup that it could follow".to_owned());
    }
    match take(asked, job, vault, kind, parent.as_ref()).await {
        Err(Error::Take(Failure::NoParent { id, reason })) => {
            tracing::warn!(%id, reason, "a full backup is taken instead");
            report.full_because = Some(format!("nothing can follow {id}: {reason}"));
            take(asked, job, vault, Kind::Full, None).await
        }
        outcome => outcome,
    }
}

async fn take(
    asked: &Take,
    job: &Job,
    vault: &Vault,
    kind: Kind,
    parent: Option<&SignedManifest>,
) -> Result<SignedManifest> {
    let (signing_key, kek) = (job::signing_key(&asked.keys)?, job::kek(&asked.keys)?);
    let order = Order {
        kind,
        parent,
        claim: job.claim,
        tenant: job.tenant.clone(),
        recipients: &job.recipients,
        signing_key: &signing_key,
        kek: kek.as_deref(),
        name: u32::from_be_bytes(random()?),
        secrets: Secrets { key: random()?, nonce_prefix: random()? },
    };
    let (mut conn, mut other) = (connect().await?, connect().await?);
    let taken = take::take(&mut conn, &mut other, vault, &order).await;
    // Before another attempt asks for as many again.
    for session in [conn, other] {
        let _ = session.close().await;
    }
    Ok(taken?)
}

/// The newest backup that can be followed, of all destinations.
fn parent(places: &[Place<'_>], kind: Kind) -> Option<SignedManifest> {
    let found = places.iter().filter_map(|place| {
        let chains = place.survey.chains();
        newest_to_follow(&place.survey.restorable(&chains), kind).cloned()
    });
    found.max_by_key(|signed| signed.manifest().created_at)
}

/// What a destination did wrong, if it was one.
fn destination_error(error: Error) -> Result<vault::Error> {
    match error {
        Error::Vault(error) | Error::Take(Failure::Vault(error)) => Ok(error),
        Error::Take(Failure::Seal(seal::Error::Io(error))) => Ok(vault::Error::of(error, "put the object")),
        error => Err(error),
    }
}
