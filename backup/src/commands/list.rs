//! `list` and `show`: what lies at the destinations.

use std::io::{self, Write as _};

use finaiflow_backup::job::{Destination, Job};
use finaiflow_backup::survey::Survey;
use time::format_description::well_known::Rfc3339;

use super::{Error, List, Result, Show, survey_all};

/// A line for each backup: destination, id, moment, last journal, bytes, and what is wrong with it.
pub async fn list(asked: &List) -> Result<()> {
    let job = asked.told.job()?;
    let mut failed = None;
    for destination in named(&job, asked.destination.as_deref())? {
        match survey_all(&job, destination).await {
            Ok(survey) => print(&destination.name, &survey).map_err(Error::Output)?,
            Err(error) => {
                writeln!(io::stdout(), "{}  -  {error}", destination.name).map_err(Error::Output)?;
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// The manifest as JSON, of the first destination that has it.
pub async fn show(asked: &Show) -> Result<()> {
    let job = asked.told.job()?;
    let mut failed = None;
    for destination in named(&job, asked.destination.as_deref())? {
        match read_one(&job, destination, asked).await {
            Ok(Some(text)) => return writeln!(io::stdout(), "{text}").map_err(Error::Output),
            Ok(None) => {}
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or(Error::NoArtefact(asked.id)))
}

fn named<'j>(job: &'j Job, name: Option<&str>) -> Result<Vec<&'j Destination>> {
    Ok(match name {
        Some(name) => vec![job.destination(name)?],
        None => job.destinations.iter().collect(),
    })
}

async fn read_one(job: &Job, destination: &Destination, asked: &Show) -> Result<Option<String>> {
    let mut survey = Survey::of(destination.vault.as_ref().map_err(Clone::clone)?).await?;
    survey.read(&job.trusted, job.claim, [asked.id]).await?;
    let Some((_, read)) = survey.manifests_read().find(|(id, _)| *id == asked.id) else { return Ok(None) };
    let manifest = read.map_err(|error| Error::Manifest(asked.id, error.clone()))?.manifest();
    Ok(Some(serde_json::to_string_pretty(manifest).map_err(|error| Error::Output(error.into()))?))
}

fn print(destination: &str, survey: &Survey) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let chains = survey.chains();
    let restorable: Vec<_> = survey.restorable(&chains).iter().map(|signed| signed.manifest().id).collect();
    for (id, read) in survey.manifests_read() {
        let wrong = match (survey.tombstones.contains_key(&id), chains.flaws().get(&id), restorable.contains(&id)) {
            (true, ..) => "it is being pruned".to_owned(),
            (_, Some(flaw), _) => flaw.to_string(),
            (.., false) => "an object is missing or of another length".to_owned(),
            (.., true) => "ok".to_owned(),
        };
        match read {
            Ok(signed) => {
                let manifest = signed.manifest();
                let moment = manifest.created_at.format(&Rfc3339).unwrap_or_default();
                let (sequence, bytes) = (i64::from(manifest.ledger.sequence), manifest.object.bytes);
                writeln!(out, "{destination}  {id}  {moment}  {sequence}  {bytes}  {wrong}")?;
            }
            Err(_) => writeln!(out, "{destination}  {id}  -  -  -  {wrong}")?,
        }
    }
    Ok(())
}
