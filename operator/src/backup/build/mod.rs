//! Step 3: writes down, as whole objects, what shall be. Pure: one file per kind.

mod cron_job;
pub mod pod;
mod secrets;
mod volumes;

pub use cron_job::bucket;

use std::collections::BTreeMap;

use finaiflow_crds::backup::Run;
use finaiflow_crds::names::{ANNOTATION_CLAIM, LABEL_CLAIM, LABEL_MANAGED_BY, MANAGED_BY};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;

use super::dereference::{Found, Live};
use super::validate::Valid;
use crate::error::Result;
use crate::random::Random;

/// Everything that shall be, before anything of it is.
#[derive(Debug)]
pub struct Prepared {
    /// What opens the backups.
    pub identity: Secret,
    /// What the jobs need.
    pub secret: Secret,
    /// The volumes by destination.
    pub volumes: BTreeMap<String, PersistentVolumeClaim>,
    /// The jobs.
    pub cron_jobs: BTreeMap<Run, CronJob>,
    /// What was there before.
    pub live: Live,
}

/// Writes down what shall be. `random` goes into new keys only, `now` into when the anchor was taken.
pub fn build(found: &Found, valid: &Valid, now: Timestamp, random: Random) -> Result<Prepared> {
    let secrets = secrets::build(found, valid, random)?;
    Ok(Prepared {
        volumes: volumes::build(found, &valid.claim),
        cron_jobs: cron_job::build(found, valid, &secrets, now)?,
        identity: secrets.identity,
        secret: secrets.secret,
        live: found.live.clone(),
    })
}

/// Name, labels and claim of an object. It has no owner: a Backup is in another namespace.
fn metadata(found: &Found, claim: &str, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(found.home.clone()),
        labels: Some(labels(claim)),
        annotations: Some([(ANNOTATION_CLAIM.to_owned(), claim.to_owned())].into()),
        ..ObjectMeta::default()
    }
}

fn labels(claim: &str) -> BTreeMap<String, String> {
    [(LABEL_MANAGED_BY, MANAGED_BY), (LABEL_CLAIM, claim)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
