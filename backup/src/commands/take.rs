//! `take`: a new backup, at the first destination that answers.

use finaiflow_backup::job::{self, Job};
use finaiflow_backup::manifest::{Kind, SignedManifest};
use finaiflow_backup::seal::{self, Secrets};
use finaiflow_backup::status::newest_to_follow;
use finaiflow_backup::take::{self, Error as Failure, Order};
use finaiflow_backup::vault::{self, Vault};
use finaiflow_crds::backup::Report;

use super::{Error, Result, Surveyed, Take, connect, random, statuses, survey};

pub async fn run(asked: &Take, job: &Job, report: &mut Report) -> Result<()> {
    let surveyed = survey(job).await;
    let mut failed = Vec::new();
    let mut stored = Err(Error::NoDestination(String::new()));
    for at in &surveyed {
        let outcome = match &at.survey {
            Ok(survey) => store(asked, job, survey.vault(), &surveyed, report).await,
            Err(error) => Err(Error::Vault(error.clone())),
        };
        match outcome {
            Ok(signed) => {
                stored = Ok(signed);
                break;
            }
            Err(error) => match destination_error(error) {
                Ok(error) => {
                    tracing::warn!(destination = at.destination.name, %error, "nothing could be stored there");
                    failed.push((at.destination.name.clone(), error));
                }
                Err(error) => {
                    stored = Err(error);
                    break;
                }
            },
        }
    }
    if let Ok(signed) = &stored {
        report.artifact = Some(signed.manifest().id.to_string());
    }
    report.destinations = statuses(job, &failed).await;
    stored.map(drop).map_err(|error| match error {
        Error::NoDestination(_) => Error::NoDestination(
            failed.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("; "),
        ),
        error => error,
    })
}

/// Takes what is asked for, or a full one where nothing can be followed.
async fn store(
    asked: &Take,
    job: &Job,
    vault: &Vault,
    surveyed: &[Surveyed<'_>],
    report: &mut Report,
) -> Result<SignedManifest> {
    let parent = if asked.kind == Kind::Full { None } else { parent(surveyed, asked.kind) };
    let kind = if parent.is_none() { Kind::Full } else { asked.kind };
    if kind != asked.kind {
        report.full_because = Some(format!("there is no backup that an {} one could follow", asked.kind));
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
    Ok(take::take(&mut conn, &mut other, vault, &order).await?)
}

/// The newest backup that can be followed, of all destinations.
fn parent(surveyed: &[Surveyed<'_>], kind: Kind) -> Option<SignedManifest> {
    let found = surveyed.iter().filter_map(|at| at.survey.as_ref().ok()).filter_map(|survey| {
        let chains = survey.chains();
        newest_to_follow(&survey.restorable(&chains), kind).cloned()
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
