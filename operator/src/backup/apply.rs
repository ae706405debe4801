//! Step 4: makes it so.

use finaiflow_crds::backup::Run;
use kube::{Client, ResourceExt};

use super::build::Prepared;
use super::delete::delete_cron_job;
use crate::error::Result;
use crate::story::{Fact, Story};
use crate::tenant::child::{self, Child, Written, describe};

/// Applies everything, in an order that a crash cannot hurt: what opens backups before anything is encrypted to it, who
/// signs before anything is signed, and the jobs last.
pub async fn apply(client: &Client, prepared: Prepared, story: &Story) -> Result<()> {
    let Prepared { identity, secret, volumes, cron_jobs, live } = prepared;
    // Before the first jobs everything is new, and that is no drift.
    let was_complete = !live.cron_jobs.is_empty();
    let mut changes = Vec::new();
    note(&mut changes, &identity, child::ensure_ours(client, &identity, live.identity.as_ref()).await?);
    note(&mut changes, &secret, child::ensure_ours(client, &secret, live.secret.as_ref()).await?);
    for (destination, volume) in &volumes {
        note(&mut changes, volume, child::ensure(client, volume, live.volumes.get(destination)).await?);
    }
    for (run, cron_job) in &cron_jobs {
        note(&mut changes, cron_job, child::ensure(client, cron_job, live.cron_jobs.get(run)).await?);
    }
    for run in Run::ALL.iter().filter(|run| !cron_jobs.contains_key(run)) {
        if let Some(surplus) = live.cron_jobs.get(run) {
            delete_cron_job(client, surplus).await?;
            changes.push(format!("{} is gone", surplus.name_any()));
        }
    }
    if was_complete && !changes.is_empty() {
        story.tell(Fact::Updated(changes));
    }
    Ok(())
}

fn note<K: Child>(changes: &mut Vec<String>, object: &K, written: Written) {
    match written {
        Written::Nothing => {}
        Written::Created => changes.push(format!("{} was missing", describe(object))),
        Written::Repaired => changes.push(format!("{} differed", describe(object))),
    }
}
