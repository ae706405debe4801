//! `copy`: every destination gets what it lacks.

use finaiflow_backup::copy;
use finaiflow_backup::job::Job;
use finaiflow_crds::backup::Report;

use super::{Error, Result, refused, statuses, survey};

pub async fn run(job: &Job, report: &mut Report) -> Result<()> {
    let (mut places, mut faults) = survey(job).await;
    for (name, error) in copy::copy(job, &mut places).await {
        faults.entry(name).or_insert(error);
    }
    report.destinations = statuses(job, places, &faults).await;
    if faults.is_empty() { Ok(()) } else { Err(Error::Faults(refused(&faults))) }
}
