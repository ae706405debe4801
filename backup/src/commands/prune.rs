//! `prune`: what is past its retention goes.

use std::io::{self, Write as _};

use finaiflow_backup::copy::Place;
use finaiflow_backup::job::Job;
use finaiflow_backup::prune::{self, Plan};
use finaiflow_backup::survey::Survey;
use finaiflow_backup::vault;
use finaiflow_crds::backup::{Finding, Report};

use super::{Error, Result, now, refused, statuses, survey};

pub async fn run(job: &Job, report: &mut Report) -> Result<()> {
    let (mut places, mut faults) = survey(job).await;
    for place in &mut places {
        let name = &place.destination.name;
        match prune(job, place).await {
            Ok(findings) => report.findings.extend(findings),
            Err(error) => {
                tracing::warn!(destination = name, %error, "it is not pruned further");
                faults.insert(name.clone(), error);
            }
        }
    }
    report.destinations = statuses(job, places, &faults).await;
    if !faults.is_empty() {
        return Err(Error::Faults(refused(&faults)));
    }
    match report.findings.iter().find(|finding| finding.check == "object") {
        Some(finding) => Err(Error::Damaged(finding.message.clone())),
        None => Ok(()),
    }
}

async fn prune(job: &Job, place: &mut Place<'_>) -> vault::Result<Vec<Finding>> {
    let (name, days) = (&place.destination.name, place.destination.retention_days);
    let plan = prune::plan(&mut place.survey, &job.trusted, job.claim, days, now()).await?;
    let pruned = prune::sweep(&place.survey, &plan).await?;
    tracing::info!(destination = name, gone = pruned.gone, locked = pruned.locked, later = plan.later.len(), "pruned");
    let damaged = plan.damaged.iter().map(|id| Finding {
        check: "object".to_owned(),
        artifact: Some(id.to_string()),
        message: format!("{name}: it is not what its manifest says, so older backups stay for it"),
    });
    let locked = (pruned.locked > 0).then(|| Finding {
        check: "locked".to_owned(),
        artifact: None,
        message: format!("{name} does not let go of {}: a lock keeps them, or a right is missing", pruned.locked),
    });
    Ok(damaged.chain(locked).collect())
}

/// A line for each file that would go, and nothing else.
pub async fn dry(job: &Job) -> Result<()> {
    for destination in &job.destinations {
        let vault = destination.vault.as_ref().map_err(Clone::clone)?;
        let mut survey = Survey::of(vault).await?;
        let plan = prune::plan(&mut survey, &job.trusted, job.claim, destination.retention_days, now()).await?;
        print(&destination.name, &plan).map_err(Error::Output)?;
    }
    Ok(())
}

fn print(destination: &str, plan: &Plan) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (ids, why) in [
        (&plan.unfinished, "somebody began to prune it"),
        (&plan.past, "it is past its retention"),
        (&plan.orphans, "it has no manifest"),
    ] {
        for id in ids {
            writeln!(out, "{destination}  {id}  {why}")?;
        }
    }
    if !plan.later.is_empty() {
        writeln!(out, "{destination}  {} more are past their retention, and go another time", plan.later.len())?;
    }
    for id in &plan.damaged {
        writeln!(out, "{destination}  {id}  stays, and is damaged: older ones stay for it")?;
    }
    Ok(())
}
