//! `verify`: whether what lies at a destination can be restored.

use finaiflow_backup::job::{Destination, Job};
use finaiflow_backup::status::time;
use finaiflow_backup::verify::{Order, Scratch, Verified, verify};
use finaiflow_crds::backup::{self, Report};

use super::{Error, Mode, Result, Verify, anchor, claim, connect_to, now, seconds, status_of, todays};

pub async fn run(asked: &Verify, job: &Job, report: &mut Report) -> Result<()> {
    let destination = todays(job, asked.opens.destination.as_deref())?;
    let outcome = look(asked, job, destination).await;
    let mut status = status_of(job, destination).await;
    let verified = match outcome {
        Ok(verified) => verified,
        Err(error) => {
            if let Error::Vault(fault) | Error::Verify(finaiflow_backup::verify::Error::Vault(fault)) = &error {
                status.fault = Some(fault.to_string());
            }
            report.destinations.push(status);
            return Err(error);
        }
    };
    let Verified { artefact, findings, restored_in } = verified;
    let wrong = findings.first().map(|finding| finding.message.clone());
    let findings: Vec<backup::Finding> = findings.into_iter().map(Into::into).collect();
    match artefact {
        Some(artefact) => {
            let passed = findings.is_empty();
            status.last_verified_time = passed.then(|| time(now()));
            status.last_verification = Some(backup::Verified {
                time: time(now()),
                artifact: artefact.to_string(),
                passed,
                rto_seconds: restored_in.map(seconds),
                findings,
            });
        }
        None => report.findings = findings,
    }
    report.destinations.push(status);
    wrong.map_or(Ok(()), |wrong| Err(Error::Damaged(wrong)))
}

async fn look(asked: &Verify, job: &Job, destination: &Destination) -> Result<Verified> {
    let vault = destination.vault.as_ref().map_err(Clone::clone)?;
    let identities = asked.opens.identities()?;
    let order = Order { claim: job.claim, trusted: &job.trusted, identities: &identities, anchor: anchor(job)? };
    if asked.mode == Mode::Checksum {
        return Ok(verify(vault, &order, None).await?);
    }
    let mut conn = connect_to("SCRATCH_DATABASE_URL").await?;
    let scratch = Scratch { conn: &mut conn, claim: claim()? };
    Ok(verify(vault, &order, Some(scratch)).await?)
}
