//! `drill`: a disaster is played, and how long it takes is measured.

use finaiflow_backup::job::{Destination, Job};
use finaiflow_backup::restore::{Plan, Target};
use finaiflow_backup::status::time;
use finaiflow_backup::verify::{Order, Rehearsed, Scratch, rehearse};
use finaiflow_crds::backup::{Drilled, Report};
use time::Duration;
use tokio::time::Instant;

use super::{Error, Opens, Result, anchor, claim, connect_to, now, random, seconds, status_of, survey_all};

/// Nobody knows beforehand which moment it will be that has to come back: any, from a destination that has nothing to do
/// with the first one if there is another.
pub async fn run(asked: &Opens, job: &Job, report: &mut Report) -> Result<()> {
    let destination = match &asked.destination {
        Some(name) => job.destination(name)?,
        None => job.destinations.last().ok_or_else(|| Error::NoDestination("there is none".to_owned()))?,
    };
    let began = Instant::now();
    let outcome = play(asked, job, destination).await;
    let took = began.elapsed();
    let mut status = status_of(job, destination).await;
    let mut drilled = Drilled {
        time: time(now()),
        recovery_point_time: None,
        passed: false,
        rto_seconds: None,
        findings: Vec::new(),
    };
    let outcome = outcome.and_then(|Rehearsed { restored, findings }| {
        let wrong = findings.first().map(|finding| finding.message.clone());
        drilled.passed = restored.is_some() && wrong.is_none();
        drilled.recovery_point_time = restored.map(|(restored, _)| time(restored.recovery_point));
        drilled.rto_seconds = restored.map(|_| seconds(took));
        drilled.findings = findings.into_iter().map(Into::into).collect();
        wrong.map_or(Ok(()), |wrong| Err(Error::Damaged(wrong)))
    });
    status.last_drill = Some(drilled);
    report.destinations.push(status);
    outcome
}

async fn play(asked: &Opens, job: &Job, destination: &Destination) -> Result<Rehearsed> {
    let identities = asked.identities()?;
    let order = Order { claim: job.claim, trusted: &job.trusted, identities: &identities, anchor: anchor(job)? };
    let survey = survey_all(job, destination).await?;
    let chains = survey.whole();
    let moments = || chains.sound().map(|signed| signed.manifest().created_at);
    let (Some(first), Some(last)) = (moments().min(), moments().max()) else {
        return Err(Error::NotRestored("there is no backup that can be restored".to_owned()));
    };
    let window = (last - first).whole_seconds().unsigned_abs() + 1;
    let offset = u64::from_be_bytes(random()?) % window;
    let moment = first + Duration::seconds(i64::try_from(offset).unwrap_or_default());
    tracing::info!(destination = destination.name, %moment, "a drill");
    let plan = Plan::of(&chains, Target::Time(moment)).map_err(|error| Error::NotRestored(error.to_string()))?;
    let mut conn = connect_to("SCRATCH_DATABASE_URL").await?;
    let scratch = Scratch { conn: &mut conn, claim: claim()? };
    Ok(rehearse(survey.vault(), &order, &plan, scratch).await?)
}
