//! `restore`: a moment comes back.

use std::env;

use data_encoding::BASE64;
use finaiflow_backup::job::{Destination, Job};
use finaiflow_backup::manifest::Manifest;
use finaiflow_backup::restore::{self, Plan, Restored, Use};
use finaiflow_backup::seal::{self, Identities};
use finaiflow_backup::status::time;
use finaiflow_backup::vault::Vault;
use finaiflow_backup::verify::{self, Finding, Order, Rehearsed, Scratch};
use finaiflow_crds::backup::Report;
use finaiflow_crds::restore as crds;
use finaiflow_ledger::id::Sequence;
use tokio::time::Instant;

use super::{Error, Restore, Result, anchor, claim, connect, connect_to, seconds, survey_all};

/// From the first destination that can be read and reaches the target. What was restored of another one that failed was rolled back.
pub async fn run(asked: &Restore, job: &Job, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let identities = asked.opens.identities()?;
    let destinations = match &asked.opens.destination {
        Some(name) => vec![job.destination(name)?],
        None => job.destinations.iter().collect(),
    };
    let mut refused = Vec::new();
    for destination in destinations {
        match from(asked, job, destination, &identities, report).await {
            Ok(()) => {
                report.rto_seconds = Some(seconds(began.elapsed()));
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(destination = destination.name, %error, "nothing is restored from there");
                refused.push(format!("{}: {error}", destination.name));
            }
        }
    }
    Err(Error::NotRestored(refused.join("; ")))
}

async fn from(
    asked: &Restore,
    job: &Job,
    destination: &Destination,
    identities: &Identities,
    report: &mut Report,
) -> Result<()> {
    let survey = survey_all(job, destination).await?;
    let chains = survey.whole();
    let plan = Plan::of(&chains, asked.target)?;
    report.plan = Some(planned(job, destination, &plan));
    // First, as rows that nobody can read are not a bank that is back.
    let data_key = carried(job, &plan, identities)?;
    let (restored, findings) = if env::var_os("DATABASE_URL").is_some() {
        into_tenant(job, survey.vault(), &plan, identities).await?
    } else {
        into_scratch(job, survey.vault(), &plan, identities).await?
    };
    report.findings = findings.into_iter().map(Into::into).collect();
    let Some(restored) = restored else {
        let wrong = report.findings.first().map(|finding| finding.message.clone());
        return Err(Error::Damaged(wrong.unwrap_or_default()));
    };
    report.data_key = data_key;
    report.restored = Some(crds::Restored {
        recovery_point_time: time(restored.recovery_point),
        epoch: restored.head.epoch.cast_signed(),
        sequence: restored.head.sequence.into(),
        hash: (restored.head.sequence > Sequence::ZERO).then(|| restored.head.hash.to_string()),
    });
    Ok(())
}

/// The data key of the bank as it was then, sealed for the operator, where that asks for it.
fn carried(job: &Job, plan: &Plan<'_>, identities: &Identities) -> Result<Option<String>> {
    let Some(carrier) = env::var_os("CARRIER_KEY") else { return Ok(None) };
    let carrier = BASE64.decode(carrier.as_encoded_bytes()).ok().and_then(|key| key.try_into().ok());
    let carrier: [u8; 32] = carrier.ok_or(Error::Carrier)?;
    let Some(sealed) = &newest(plan).kek else { return Ok(None) };
    let sealed = BASE64.decode(sealed.as_bytes()).map_err(|_| seal::Error::WrappedKey)?;
    let key = seal::open_bytes(identities, &sealed)?;
    Ok(Some(BASE64.encode(&seal::seal_with(&carrier, job.claim.to_string().as_bytes(), &key)?)))
}

fn newest<'a>(plan: &Plan<'a>) -> &'a Manifest {
    plan.ahead().map_or(plan.last(), |ahead| ahead.artefact.manifest())
}

/// To stay.
async fn into_tenant(
    job: &Job,
    vault: &Vault,
    plan: &Plan<'_>,
    identities: &Identities,
) -> Result<(Option<Restored>, Vec<Finding>)> {
    let anchor = anchor(job)?;
    let mut conn = connect().await?;
    let names = restore::whose(&mut conn).await?;
    let used = Use::Work { abandoned: anchor };
    let restored = restore::restore(&mut conn, &names, vault, plan, identities, used).await?;
    // It is there: what is wrong with it is told, and whoever wants it as it is has it.
    let findings = verify::bank(&mut conn, &names, plan.last().id, restored.head, anchor).await?;
    Ok((Some(restored), findings))
}

/// For a look.
async fn into_scratch(
    job: &Job,
    vault: &Vault,
    plan: &Plan<'_>,
    identities: &Identities,
) -> Result<(Option<Restored>, Vec<Finding>)> {
    let order = Order { claim: job.claim, trusted: &job.trusted, identities, anchor: anchor(job)? };
    let mut conn = connect_to("SCRATCH_DATABASE_URL").await?;
    let scratch = Scratch { conn: &mut conn, claim: claim()? };
    let Rehearsed { restored, findings } = verify::rehearse(vault, &order, plan, scratch).await?;
    Ok((restored.map(|(restored, _)| restored), findings))
}

fn planned(job: &Job, destination: &Destination, plan: &Plan<'_>) -> crds::Plan {
    let last = plan.last();
    crds::Plan {
        claim_id: job.claim.to_string(),
        destination: destination.name.clone(),
        artifact: newest(plan).id.to_string(),
        artifacts: i32::try_from(plan.artefacts().count()).unwrap_or(i32::MAX),
        bytes: i64::try_from(plan.bytes()).unwrap_or(i64::MAX),
        // Of a journal between two artefacts, the time is known once it is there.
        recovery_point_time: time(last.created_at),
        epoch: last.ledger.epoch.cast_signed(),
        sequence: plan.sequence().into(),
        schema_version: last.schema_version,
    }
}
