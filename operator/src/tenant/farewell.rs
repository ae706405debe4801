//! The last backup of a bank whose Tenant is being deleted by `BackupThenDelete`: taken when nobody writes any more, and
//! proven by restoring it, before anything is dropped.

use finaiflow_crds::Tenant;
use finaiflow_crds::backup::{Report, Run};
use finaiflow_crds::names::LABEL_TENANT;
use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use kube::ResourceExt;

use super::protection;
use crate::catalog::{Catalog, TenantNames};
use crate::config::Server;
use crate::context::Context;
use crate::error::{Error, OnServer, Reason, Result};
use crate::job::{self, Jobs, State};

/// Goes on with it. None: it is stored and proven; else what it waits for.
pub async fn take<C: Catalog>(
    ctx: &Context<C>,
    tenant: &Tenant,
    server: &Server,
    names: &TenantNames,
) -> Result<Option<String>> {
    if protection::acting(&ctx.backups.state(), tenant).is_none() {
        let message =
            "deletionPolicy is BackupThenDelete, and no Backup acts for the Tenant: make one, or change the policy";
        return Err(Error::refused(Reason::NoBackup, message));
    }
    ctx.catalog.pause(&server.name, names).await.on(&server.name)?;
    let (jobs, claim) = (Jobs { client: &ctx.client, home: &ctx.home }, names.claim_id.to_string());
    let uid = tenant.uid().unwrap_or_default();
    let (last, proof) = (format!("farewell-{uid}"), format!("farewell-{uid}-proof"));
    let labels = [(LABEL_TENANT, tenant.name_any())];
    let made =
        |name: &str, template: JobTemplateSpec| Some(job::once(&ctx.home, name.to_owned(), &labels, template.spec?));

    let stored = match jobs.state(&last).await? {
        state @ (None | Some(State::Working)) => {
            if state.is_none() {
                jobs.create(made(&last, jobs.template(&claim, Run::Full).await?)).await?;
            }
            return Ok(Some("the last backup is being taken".to_owned()));
        }
        Some(State::Failed(why)) => Err(why),
        Some(State::Reported(report)) => stored(&report),
    };
    let proven = match &stored {
        Err(_) => Ok(()),
        Ok((artifact, destination)) => match jobs.state(&proof).await? {
            state @ (None | Some(State::Working)) => {
                if state.is_none() {
                    let job = made(&proof, jobs.template(&claim, Run::Drill).await?);
                    jobs.create(job.and_then(|job| proving(job, destination))).await?;
                }
                return Ok(Some(format!("{artifact} is being restored from {destination}, as a proof")));
            }
            Some(State::Failed(why)) => Err(why),
            Some(State::Reported(report)) => is_proven(&report, destination),
        },
    };
    match stored.map(drop).and(proven) {
        Ok(()) => Ok(None),
        Err(why) => {
            // Both anew, as what is wrong with the one may be the other's doing.
            jobs.delete(&proof).await?;
            jobs.delete(&last).await?;
            Err(Error::LastBackup(why))
        }
    }
}

/// The last backup, and a destination that has it.
fn stored(report: &Report) -> std::result::Result<(String, String), String> {
    let nothing = || report.error.clone().unwrap_or_else(|| "it stored nothing".to_owned());
    let artifact = report.artifact.clone().filter(|_| report.error.is_none()).ok_or_else(nothing)?;
    let has_it = report.destinations.iter().find(|destination| {
        destination.fault.is_none() && destination.last_full.as_ref().is_some_and(|full| full.id == artifact)
    });
    let destination = has_it.ok_or_else(|| format!("no destination has {artifact}"))?;
    Ok((artifact, destination.name.clone()))
}

/// Whether a verification that began after the last backup found everything good.
fn is_proven(report: &Report, destination: &str) -> std::result::Result<(), String> {
    let found = report.destinations.iter().find(|said| said.name == destination);
    let verified = found.and_then(|found| found.last_verification.as_ref());
    match (&report.error, verified) {
        (None, Some(verified)) if verified.passed && verified.rto_seconds.is_some() => Ok(()),
        (Some(error), _) => Err(error.clone()),
        _ => Err("it was not restored".to_owned()),
    }
}

/// The job of a drill as one that verifies a destination.
fn proving(mut job: Job, destination: &str) -> Option<Job> {
    let words = ["verify", "--mode", "restore", "--destination", destination];
    job::container(job.spec.as_mut()?)?.command = Some(job::command(words));
    Some(job)
}
