//! What the jobs say of the destinations: heard only from pods that our own CronJobs made, checked, and merged. Pure.

use std::collections::BTreeSet;

use finaiflow_crds::backup::{Artifact, DestinationStatus, Drilled, REPORT_MAX, Report, Run, Verified};
use finaiflow_crds::names::{ANNOTATION_CLAIM, BACKUP, backup_volume_name};
use finaiflow_crds::{Backup, BackupStatus};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::dereference::Found;

/// Clocks of nodes and databases differ by less.
const SKEW: SignedDuration = SignedDuration::from_mins(5);
/// Why a container may never start.
const STUCK: [&str; 5] =
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError"];

/// What was heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// What can be believed, oldest first.
    pub reports: Vec<Report>,
    /// What went wrong with the newest job of a run.
    pub trouble: Option<Trouble>,
}

/// What went wrong with a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// A job of ours and its pods, the newest pod first.
struct Heir<'a> {
    run: Run,
    job: &'a Job,
    pods: Vec<&'a Pod>,
}

/// Listens to the pods of the bank's jobs.
#[must_use]
pub fn hear(found: &Found, now: Timestamp) -> Heard {
    let mut jobs = heirs(found);
    jobs.sort_by_key(|heir| (heir.run, std::cmp::Reverse(heir.job.creation_timestamp())));
    let messages = jobs.iter().flat_map(|heir| &heir.pods).filter_map(|pod| ended(pod)?.message.as_deref());
    let mut reports: Vec<_> = messages.filter_map(|message| read(message, &found.backup, now).ok()).collect();
    reports.sort_by_key(|report| report.time.0);
    let mut runs = jobs.chunk_by(|a, b| a.run == b.run);
    let judge = |heir: &Heir<'_>| match judge(heir, &found.backup, now) {
        Verdict::NotEnded => None,
        Verdict::Well => Some(None),
        Verdict::Trouble(trouble) => Some(Some(trouble)),
    };
    let trouble = runs.find_map(|of_run| of_run.iter().find_map(judge)?);
    Heard { reports, trouble }
}

fn heirs(found: &Found) -> Vec<Heir<'_>> {
    let is_ours = |annotations: &std::collections::BTreeMap<String, String>| {
        found.claim.is_some() && annotations.get(ANNOTATION_CLAIM) == found.claim.as_ref()
    };
    let cron_jobs = found.live.cron_jobs.iter().filter(|(_, cron_job)| is_ours(cron_job.annotations()));
    let heirs = cron_jobs.flat_map(|(run, cron_job)| {
        let jobs = found
            .jobs
            .iter()
            .filter(move |job| made_by(job.owner_references(), "CronJob", cron_job.metadata.uid.as_deref()));
        jobs.map(move |job| {
            let pods =
                found.pods.iter().filter(|pod| made_by(pod.owner_references(), "Job", job.metadata.uid.as_deref()));
            let mut pods: Vec<_> = pods.map(AsRef::as_ref).collect();
            pods.sort_by_key(|pod: &&Pod| std::cmp::Reverse(pod.creation_timestamp()));
            Heir { run: *run, job, pods }
        })
    });
    heirs.collect()
}

fn made_by(owners: &[OwnerReference], kind: &str, uid: Option<&str>) -> bool {
    owners.iter().any(|owner| owner.controller == Some(true) && owner.kind == kind && Some(owner.uid.as_str()) == uid)
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|container| container.name == BACKUP)
}

/// How the job's container of a pod ended.
#[must_use]
pub fn ended(pod: &Pod) -> Option<&ContainerStateTerminated> {
    container(pod)?.state.as_ref()?.terminated.as_ref()
}

/// What became of a job.
enum Verdict {
    /// Nothing yet, so that the one before it is still the newest.
    NotEnded,
    /// What it found is known.
    Well,
    /// Not that.
    Trouble(Trouble),
}

fn judge(heir: &Heir<'_>, backup: &Backup, now: Timestamp) -> Verdict {
    let name = heir.job.name_any();
    let trouble =
        |reason, message: String| Verdict::Trouble(Trouble { reason, message: format!("job {name}: {message}") });
    let conditions = heir.job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let condition =
        |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    let failed = condition("Failed");
    if failed.is_none() && condition("Complete").is_none() {
        let waiting = heir.pods.first().and_then(|pod| container(pod)?.state.as_ref()?.waiting.as_ref());
        let stuck = waiting.filter(|waiting| STUCK.contains(&waiting.reason.as_deref().unwrap_or_default()));
        let Some(stuck) = stuck else { return Verdict::NotEnded };
        let why = [stuck.reason.as_deref(), stuck.message.as_deref()];
        return trouble("JobStuck", why.into_iter().flatten().collect::<Vec<_>>().join(": "));
    }
    let ended = heir.pods.first().and_then(|pod| ended(pod));
    let said = ended.and_then(|ended| ended.message.as_deref()).filter(|message| !message.is_empty());
    match (said.map(|message| read(message, backup, now)), failed) {
        (Some(Ok(report)), _) => match report.error {
            Some(error) => trouble("JobFailed", error),
            None => Verdict::Well,
        },
        (Some(Err(why)), _) => trouble("ReportRefused", format!("what it says is not believed: {why}")),
        (None, Some(failed)) => {
            let why = failed.message.as_deref().or(failed.reason.as_deref()).unwrap_or("no reason given");
            let how = ended.and_then(|ended| ended.reason.as_deref()).filter(|reason| *reason != "Error");
            trouble(
                "JobFailed",
                how.map_or_else(|| why.to_owned(), |how| format!("{why}; its container ended with {how}")),
            )
        }
        (None, None) if ended.is_some() => {
            trouble("ReportMissing", "it ended well, and did not say what is stored".to_owned())
        }
        (None, None) => Verdict::Well,
    }
}

/// What a pod says, or why it is not believed.
pub fn read(message: &str, backup: &Backup, now: Timestamp) -> Result<Report, String> {
    if message.len() > REPORT_MAX {
        return Err(format!("it is longer than {REPORT_MAX} bytes"));
    }
    // The error would quote what it met.
    let report: Report = serde_json::from_str(message).map_err(|_| "it is no report".to_owned())?;
    let latest = now + SKEW;
    let mut seen = BTreeSet::new();
    if report.time.0 > latest {
        return Err("its time has not come".to_owned());
    }
    for said in &report.destinations {
        let name = &said.name;
        if !backup.spec.destinations.iter().any(|destination| destination.name == *name) {
            return Err("it is of a destination that the spec has not".to_owned());
        }
        if !seen.insert(name) {
            return Err(format!("it tells of destination {name} twice"));
        }
        if !is_sensible(said, latest) {
            return Err(format!("what it tells of destination {name} cannot be"));
        }
    }
    Ok(report)
}

/// Whether it can be so.
fn is_sensible(said: &DestinationStatus, latest: Timestamp) -> bool {
    let come = |time: &Option<Time>| time.as_ref().is_none_or(|time| time.0 <= latest);
    let counts = |number: Option<i64>| number.is_none_or(|number| number >= 0);
    let is_artifact = |kind: &str, artifact: &Option<Artifact>| {
        artifact.as_ref().is_none_or(|artifact| {
            is_id(&artifact.id, kind)
                && artifact.recovery_point_time.0 <= latest
                && artifact.bytes >= 0
                && artifact.sequence >= 0
        })
    };
    let verified = |of: &Verified| of.time.0 <= latest && counts(of.rto_seconds) && of.findings.len() <= 8;
    let drilled = |of: &Drilled| {
        of.time.0 <= latest && come(&of.recovery_point_time) && counts(of.rto_seconds) && of.findings.len() <= 8
    };
    come(&said.restorable_from)
        && come(&said.restorable_to)
        && said.restorable_from.as_ref().map(|time| time.0) <= said.restorable_to.as_ref().map(|time| time.0)
        && counts(said.rpo_seconds)
        && counts(said.bytes)
        && is_artifact("full", &said.last_full)
        && is_artifact("incremental", &said.last_incremental)
        && is_artifact("segment", &said.last_segment)
        && said.last_verification.as_ref().is_none_or(verified)
        && said.last_drill.as_ref().is_none_or(drilled)
}

/// `20261122t184412z-full-89abcdef`.
fn is_id(id: &str, kind: &str) -> bool {
    let mut parts = id.split('-');
    let (time, of, random) = (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or_default());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_time = time.len() == 16
        && time.is_ascii()
        && digits(&time[..8])
        && &time[8..9] == "t"
        && digits(&time[9..15])
        && &time[15..] == "z";
    let is_random = random.len() == 8 && random.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_time && of == Some(kind) && is_random && parts.next().is_none()
}

/// The status with what the reports say, oldest first. A listing that is not newer than the one that is known changes
/// nothing, nor does a verification or a drill; so it does not matter how often a report is heard.
#[must_use]
pub fn merge(backup: &Backup, claim: Option<&str>, reports: &[Report]) -> BackupStatus {
    let mut status = backup.status.clone().unwrap_or_default();
    let old = std::mem::take(&mut status.destinations);
    status.destinations = backup
        .spec
        .destinations
        .iter()
        .map(|destination| {
            let known = old.iter().find(|known| known.name == destination.name).cloned();
            let volume = claim.filter(|_| destination.class_name.is_none());
            DestinationStatus {
                name: destination.name.clone(),
                claim_name: volume.map(|claim| backup_volume_name(claim, &destination.name)),
                ..known.unwrap_or_default()
            }
        })
        .collect();
    for report in reports {
        let is_newer = status.listed_time.as_ref().is_none_or(|listed| listed.0 < report.time.0);
        if is_newer && !report.destinations.is_empty() {
            status.listed_time = Some(report.time.clone());
        }
        for said in &report.destinations {
            if let Some(known) = status.destinations.iter_mut().find(|known| known.name == said.name) {
                if is_newer {
                    list(known, said);
                }
                prove(known, said);
            }
        }
    }
    sum_up(&mut status);
    status
}

/// What lies there. Where it could not be seen, what lay there is all that is known.
fn list(known: &mut DestinationStatus, said: &DestinationStatus) {
    known.fault.clone_from(&said.fault);
    if said.fault.is_some() {
        return;
    }
    known.restorable_from.clone_from(&said.restorable_from);
    known.restorable_to.clone_from(&said.restorable_to);
    known.rpo_seconds = said.rpo_seconds;
    known.bytes = said.bytes;
    known.last_full.clone_from(&said.last_full);
    known.last_incremental.clone_from(&said.last_incremental);
    known.last_segment.clone_from(&said.last_segment);
}

fn prove(known: &mut DestinationStatus, said: &DestinationStatus) {
    if let Some(new) = &said.last_verification
        && known.last_verification.as_ref().is_none_or(|old| old.time.0 < new.time.0)
    {
        if new.passed {
            known.last_verified_time = Some(new.time.clone());
        }
        known.last_verification = Some(new.clone());
    }
    if let Some(new) = &said.last_drill
        && known.last_drill.as_ref().is_none_or(|old| old.time.0 < new.time.0)
    {
        known.last_drill = Some(new.clone());
    }
}

/// What follows for the whole from what is known of each destination.
fn sum_up(status: &mut BackupStatus) {
    let destinations = &mut status.destinations;
    let newest = destinations.iter().filter_map(|at| at.restorable_to.as_ref()).map(|time| time.0).max();
    for at in destinations.iter_mut() {
        let behind = |to: &Time| newest.map(|newest| newest.duration_since(to.0).as_secs());
        at.lag_seconds = at.restorable_to.as_ref().and_then(behind);
    }
    status.recovery_point_time = newest.map(Time);
    // Each is enough to restore from, so that the best of them counts.
    status.rpo_seconds = destinations.iter().filter_map(|at| at.rpo_seconds).min();
    status.last_verified_time =
        destinations.iter().filter_map(|at| at.last_verified_time.as_ref()).map(|time| time.0).max().map(Time);
    let achieved = restored(destinations).into_iter().filter_map(|(_, rto)| rto).next_back();
    status.rto_seconds = achieved.or(status.rto_seconds);
}

/// Drills and verifications that restored, by the time when they ended, and how long it took; None: it could not.
#[must_use]
pub fn restored(destinations: &[DestinationStatus]) -> Vec<(Timestamp, Option<i64>)> {
    let drills = destinations.iter().filter_map(|at| at.last_drill.as_ref());
    let drills = drills.map(|drill| (drill.time.0, drill.rto_seconds.filter(|_| drill.passed)));
    let verifications = destinations.iter().filter_map(|at| at.last_verification.as_ref());
    let verifications = verifications.filter_map(|one| Some((one.time.0, Some(one.rto_seconds?))));
    let mut all: Vec<_> = drills.chain(verifications).collect();
    all.sort_unstable();
    all
}
