//! When the jobs run, and what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use finaiflow_crds::backup::{
    Anchor, Bucket, INCREMENTAL_DEADLINE_MINUTES, JobDestination, JobSettings, Place, Run, SEGMENT_DEADLINE_MINUTES,
};
use finaiflow_crds::names::{BACKUP, LABEL_NAME, LABEL_RUN, backup_job_name};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::secrets::Secrets;
use super::{labels, metadata, pod};
use crate::backup::dereference::Found;
use crate::backup::settings::Class;
use crate::backup::validate::Valid;
use crate::error::Result;

/// Annotation on the CronJob of verifications: when it was last told another anchor.
const ANCHORED: &str = "finaiflow.io/anchored-at";
const ANCHOR_EVERY: SignedDuration = SignedDuration::from_hours(1);
const HOUR: i64 = 3600;
/// A finished job is kept until the next of its kind, so that what came of a drill can be read in the next quarter.
const KEEP_SECONDS: i32 = 100 * 24 * 3600;

/// The CronJobs of every run that has a schedule.
pub fn build(found: &Found, valid: &Valid, secrets: &Secrets, now: Timestamp) -> Result<BTreeMap<Run, CronJob>> {
    let mut cron_jobs = BTreeMap::new();
    for (run, schedule) in &valid.schedules {
        let mut settings = settings(found, valid, secrets);
        let mut metadata = metadata(found, &valid.claim, backup_job_name(&valid.claim, *run));
        if *run == Run::Verify {
            let (anchor, since) = anchor(found, now);
            settings.anchor = anchor;
            metadata.annotations.get_or_insert_default().extend(since.map(|since| (ANCHORED.to_owned(), since)));
        }
        let pod = pod::build(&found.backup, valid, *run, serde_json::to_string(&settings)?);
        let spec = spec(found, *run, schedule, job_labels(&valid.claim, *run), pod);
        cron_jobs.insert(*run, CronJob { metadata, spec: Some(spec), status: None });
    }
    Ok(cron_jobs)
}

fn spec(
    found: &Found,
    run: Run,
    schedule: &str,
    labels: BTreeMap<String, String>,
    pod: PodTemplateSpec,
) -> CronJobSpec {
    let labelled = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
    let spec = &found.backup.spec;
    let times = times(run);
    CronJobSpec {
        schedule: schedule.to_owned(),
        time_zone: Some(spec.time_zone.clone()),
        concurrency_policy: Some("Forbid".to_owned()),
        // Of a bank that is not there nothing is taken, and nothing goes. What is stored can still be proven.
        suspend: Some(spec.suspend || found.tenant.is_none() && !matches!(run, Run::Verify | Run::Drill)),
        successful_jobs_history_limit: Some(1),
        failed_jobs_history_limit: Some(1),
        starting_deadline_seconds: Some(times.starting),
        job_template: JobTemplateSpec {
            metadata: Some(labelled.clone()),
            spec: Some(JobSpec {
                backoff_limit: Some(times.retries),
                active_deadline_seconds: Some(times.active),
                ttl_seconds_after_finished: Some(KEEP_SECONDS),
                template: PodTemplateSpec { metadata: Some(labelled), ..pod },
                ..JobSpec::default()
            }),
        },
    }
}

/// How long a run may take, how late it may begin, both in seconds, and how often it is tried again.
struct Times {
    active: i64,
    starting: i64,
    retries: i32,
}

fn times(run: Run) -> Times {
    let minutes = |minutes: i32| 60 * i64::from(minutes);
    let (active, starting, retries) = match run {
        Run::Segment => (minutes(SEGMENT_DEADLINE_MINUTES), minutes(SEGMENT_DEADLINE_MINUTES), 2),
        Run::Incremental => (minutes(INCREMENTAL_DEADLINE_MINUTES), minutes(INCREMENTAL_DEADLINE_MINUTES), 2),
        Run::Full => (6 * HOUR, HOUR, 2),
        Run::Prune => (HOUR, HOUR, 1),
        // What fails for what it finds would find it again.
        Run::Verify => (6 * HOUR, HOUR, 0),
        Run::Drill => (12 * HOUR, 6 * HOUR, 0),
    };
    Times { active, starting, retries }
}

/// Labels of jobs and pods. The last is what network policies select.
fn job_labels(claim: &str, run: Run) -> BTreeMap<String, String> {
    let mut labels = labels(claim);
    labels.insert(LABEL_RUN.to_owned(), run.as_str().to_owned());
    labels.insert(LABEL_NAME.to_owned(), BACKUP.to_owned());
    labels
}

fn settings(found: &Found, valid: &Valid, secrets: &Secrets) -> JobSettings {
    let spec = &found.backup.spec;
    let trusted: BTreeSet<_> = secrets.signers.iter().chain(&valid.settings.trusted_keys).cloned().collect();
    let recipients = std::iter::once(&secrets.recipient).chain(&valid.settings.escrow_recipients);
    let destination = |destination: &finaiflow_crds::backup::Destination| {
        let class = destination.class_name.as_ref().and_then(|class| valid.classes.get(class));
        JobDestination {
            name: destination.name.clone(),
            retention_days: destination.retention_days(),
            place: match class {
                Some(class) => Place::Bucket(bucket(&destination.name, class)),
                None => Place::Directory(PathBuf::from(pod::volume_path(&destination.name))),
            },
        }
    };
    JobSettings {
        claim_id: valid.claim.clone(),
        namespace: found.backup.namespace().unwrap_or_default(),
        tenant: spec.tenant_ref.name.clone(),
        recipients: recipients.cloned().collect(),
        trusted_keys: trusted.into_iter().collect(),
        destinations: spec.destinations.iter().map(destination).collect(),
        anchor: None,
    }
}

/// A class, for a job.
#[must_use]
pub fn bucket(destination: &str, class: &Class) -> Bucket {
    Bucket {
        endpoint: class.endpoint.clone(),
        region: class.region.clone(),
        bucket: class.bucket.clone(),
        prefix: class.prefix.clone(),
        allow_http: class.allow_http,
        credentials: PathBuf::from(pod::credentials_path(destination)),
    }
}

/// The head of the ledger as the Tenant's status has it, and since when jobs are told it: another one is told at most once
/// an hour, and what was told stays when the Tenant is gone.
fn anchor(found: &Found, now: Timestamp) -> (Option<Anchor>, Option<String>) {
    let ledger = found.tenant.as_ref().and_then(|tenant| tenant.status.as_ref()?.ledger.as_ref());
    let newest = ledger
        .and_then(|ledger| Some(Anchor { epoch: ledger.epoch, sequence: ledger.sequence, hash: ledger.hash.clone()? }));
    let live = found.live.cron_jobs.get(&Run::Verify);
    let told = live.and_then(pod::settings).and_then(|settings| settings.anchor);
    let since = live.and_then(|live| live.annotations().get(ANCHORED).cloned());
    let is_fresh = |since: &String| since.parse::<Timestamp>().is_ok_and(|since| now < since + ANCHOR_EVERY);
    match (newest, told) {
        (None, told) => (told, since),
        (Some(newest), Some(told)) if newest == told || since.as_ref().is_some_and(is_fresh) => (Some(told), since),
        (newest, _) => (newest, Some(now.to_string())),
    }
}
