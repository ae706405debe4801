//! Step 5: says what is true. A status derives from what the jobs found at the destinations, never from how they ended.

use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::backup::{DestinationStatus, Finding};
use finaiflow_crds::condition::{self, ConditionType, Truth};
use finaiflow_crds::names::MANAGER_STATUS;
use finaiflow_crds::{Backup, BackupStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::dereference::Found;
use super::report::{self, Trouble};
use crate::error::{Attempt, Error, Reason, Result};
use crate::story::{self, Fact, Story};

/// Reason of conditions that nothing is known about yet.
const PENDING: &str = "Pending";
const WAITING: &str = "WaitingForTenant";
const TENANT_GONE: &str = "TenantGone";
const SUSPENDED: &str = "Suspended";
const SCHEDULED: &str = "Scheduled";
const MET: &str = "ObjectiveMet";
const MISSED: &str = "ObjectiveMissed";
const DRILL_FAILED: &str = "DrillFailed";
const VERIFIED: &str = "Verified";
const VERIFICATION_FAILED: &str = "VerificationFailed";
const NOT_YET_VERIFIED: &str = "NotYetVerified";
const VERIFICATION_OVERDUE: &str = "VerificationOverdue";
const COPIED: &str = "Copied";
const LAGGING: &str = "Lagging";
const DESTINATION_FAULT: &str = "DestinationFault";

/// How a Backup stands to its bank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its jobs run.
    Acting,
    /// The Tenant is gone, and what was stored of its bank is proven on.
    TenantGone,
    /// Something of the Tenant is still to come.
    Waiting(String),
}

/// Status, reason and message of a condition.
type Verdict = (Truth, &'static str, String);

/// The status of a Backup, of which `outcome` says whether its jobs are there, or why they cannot be.
#[must_use]
pub fn status(found: &Found, outcome: std::result::Result<&Standing, &Error>, now: Timestamp) -> BackupStatus {
    let backup = found.backup.as_ref();
    let idle = match outcome {
        Err(error) => [Reason::NotActing, Reason::NotOffered].into_iter().find(|reason| *reason == error.reason()),
        Ok(_) => None,
    };
    let heard = if idle.is_none() { report::hear(found, now) } else { report::Heard::default() };
    let mut status = report::merge(backup, found.claim.as_deref(), &heard.reports);
    status.observed_generation = backup.metadata.generation;
    if matches!(outcome, Ok(Standing::Acting | Standing::TenantGone)) {
        status.claim_id.clone_from(&found.claim);
    }
    let mut conditions = std::mem::take(&mut status.conditions);
    let mut set = |kind, (truth, reason, message): Verdict| {
        condition::set(&mut conditions, kind, truth, reason, &message, backup.metadata.generation, now);
    };
    let at = &status.destinations;
    let verdicts = [
        (ConditionType::RPOMet, rpo(backup, at, outcome.ok(), now)),
        (ConditionType::RTOMet, rto(backup, at)),
        (ConditionType::Verified, verified(backup, at, now)),
        (ConditionType::Copied, copied(at)),
    ];
    for (kind, verdict) in verdicts {
        // Who does nothing knows nothing.
        set(kind, idle.map_or(verdict, |reason| (Truth::Unknown, reason.as_str(), String::new())));
    }
    let (ready, abnormal) = ready(found, outcome, heard.trouble);
    set(ConditionType::Ready, ready.clone());
    for kind in [ConditionType::Reconciling, ConditionType::Stalled] {
        if abnormal == Some(kind) {
            let (_, reason, message) = &ready;
            condition::set(&mut conditions, kind, Truth::True, reason, message, backup.metadata.generation, now);
        } else {
            condition::remove(&mut conditions, kind);
        }
    }
    status.conditions = conditions;
    status
}

/// The summary, and the condition that is present when it is abnormal.
fn ready(
    found: &Found,
    outcome: std::result::Result<&Standing, &Error>,
    trouble: Option<Trouble>,
) -> (Verdict, Option<ConditionType>) {
    let name = &found.backup.spec.tenant_ref.name;
    match (outcome, trouble) {
        (Err(error), _) => {
            let reason = error.reason();
            let kind = if reason.is_terminal() { ConditionType::Stalled } else { ConditionType::Reconciling };
            ((Truth::False, reason.as_str(), error.to_string()), Some(kind))
        }
        (Ok(Standing::Waiting(why)), _) => ((Truth::False, WAITING, why.clone()), Some(ConditionType::Reconciling)),
        (Ok(_), Some(Trouble { reason, message })) => ((Truth::False, reason, message), None),
        (Ok(Standing::TenantGone), None) => {
            let message =
                format!("Tenant {name} is gone: nothing is taken or removed, and what is stored is verified on");
            ((Truth::True, TENANT_GONE, message), None)
        }
        (Ok(Standing::Acting), None) if found.backup.spec.suspend => {
            ((Truth::True, SUSPENDED, "no jobs are started".to_owned()), None)
        }
        (Ok(Standing::Acting), None) => ((Truth::True, SCHEDULED, "its jobs run at their schedules".to_owned()), None),
    }
}

/// Whether the Backup acts for its bank, and that is there: of several one knows how old its backups are, the others nothing.
#[must_use]
pub fn acts(status: &BackupStatus) -> bool {
    condition::find(&status.conditions, ConditionType::RPOMet)
        .is_some_and(|rpo| rpo.status != Truth::Unknown.as_str() || rpo.reason == PENDING)
}

fn objective(backup: &Backup) -> SignedDuration {
    SignedDuration::from_mins(backup.spec.objectives.rpo_minutes.into())
}

fn rpo(backup: &Backup, at: &[DestinationStatus], standing: Option<&Standing>, now: Timestamp) -> Verdict {
    if standing == Some(&Standing::TenantGone) {
        return (Truth::Unknown, TENANT_GONE, "there is no Tenant whose data could be lost".to_owned());
    }
    let minutes = backup.spec.objectives.rpo_minutes;
    let allowed = objective(backup);
    let since = |to: Timestamp| now.duration_since(to);
    if at.iter().all(|at| at.restorable_to.is_none()) {
        let age = backup.creation_timestamp().map(|created| since(created.0)).unwrap_or_default();
        let truth = if age > allowed { Truth::False } else { Truth::Unknown };
        let reason = if truth == Truth::False { MISSED } else { PENDING };
        return (truth, reason, "nothing is stored yet".to_owned());
    }
    let late = at.iter().filter_map(|at| match &at.restorable_to {
        None => Some(format!("nothing is stored at {}", at.name)),
        Some(to) if since(to.0) > allowed => Some(format!("what is stored at {} ends at {}", at.name, to.0)),
        Some(_) => None,
    });
    let late: Vec<_> = late.collect();
    if late.is_empty() {
        return (Truth::True, MET, format!("every destination has a backup that is at most {minutes} minutes old"));
    }
    (Truth::False, MISSED, format!("{}, and {minutes} minutes is the objective", late.join("; ")))
}

fn rto(backup: &Backup, at: &[DestinationStatus]) -> Verdict {
    let minutes = backup.spec.objectives.rto_minutes;
    match report::restored(at).last() {
        None => (Truth::Unknown, PENDING, "nothing was restored yet".to_owned()),
        Some((_, None)) => (Truth::False, DRILL_FAILED, format!("the newest drill failed: {}", drill_findings(at))),
        Some((_, Some(seconds))) if *seconds <= 60 * i64::from(minutes) => {
            (Truth::True, MET, format!("restored in {seconds} s, and {minutes} minutes is the objective"))
        }
        Some((_, Some(seconds))) => {
            (Truth::False, MISSED, format!("restored in {seconds} s, and {minutes} minutes is the objective"))
        }
    }
}

fn drill_findings(at: &[DestinationStatus]) -> String {
    let newest = at.iter().filter_map(|at| at.last_drill.as_ref()).max_by_key(|drill| drill.time.0);
    newest.map(|drill| findings(&drill.findings)).unwrap_or_default()
}

fn verified(backup: &Backup, at: &[DestinationStatus], now: Timestamp) -> Verdict {
    let of = |at: &DestinationStatus| at.last_verification.clone().map(|one| (at.name.clone(), one));
    let known: Vec<_> = at.iter().filter_map(of).collect();
    let failed = known.iter().filter(|(_, one)| !one.passed);
    let failed: Vec<_> = failed.map(|(name, one)| format!("{name}: {}", findings(&one.findings))).collect();
    if !failed.is_empty() {
        return (Truth::False, VERIFICATION_FAILED, failed.join("; "));
    }
    let missing = at.iter().filter(|at| at.last_verification.is_none()).map(|at| at.name.as_str());
    let missing = missing.collect::<Vec<_>>().join(", ");
    if known.is_empty() {
        return (Truth::Unknown, NOT_YET_VERIFIED, format!("not verified yet: {missing}"));
    }
    let allowed = backup.spec.verification_minutes().map(i64::from);
    let newest = known.iter().map(|(_, one)| one.time.0).max();
    if let Some((allowed, newest)) = allowed.zip(newest)
        && now.duration_since(newest) > SignedDuration::from_mins(allowed)
    {
        let message = format!("the newest verification found everything good at {newest}, and none has ended since");
        return (Truth::False, VERIFICATION_OVERDUE, message);
    }
    // They take turns, a destination a run.
    let message = match missing.as_str() {
        "" => "the newest verification of every destination found everything good".to_owned(),
        missing => format!("the verifications so far found everything good; not verified yet: {missing}"),
    };
    (Truth::True, VERIFIED, message)
}

fn findings(findings: &[Finding]) -> String {
    let say = |finding: &Finding| match &finding.artifact {
        Some(artifact) => format!("{} of {artifact}: {}", finding.check, finding.message),
        None => format!("{}: {}", finding.check, finding.message),
    };
    if findings.is_empty() {
        "no finding given".to_owned()
    } else {
        findings.iter().map(say).collect::<Vec<_>>().join("; ")
    }
}

fn copied(at: &[DestinationStatus]) -> Verdict {
    let faults = at.iter().filter_map(|at| Some(format!("{}: {}", at.name, at.fault.as_ref()?)));
    let faults: Vec<_> = faults.collect();
    if !faults.is_empty() {
        return (Truth::False, DESTINATION_FAULT, faults.join("; "));
    }
    if at.iter().all(|at| at.restorable_to.is_none()) {
        return (Truth::Unknown, PENDING, "nothing is stored yet".to_owned());
    }
    let behind = at.iter().filter_map(|at| match at.lag_seconds {
        Some(0) => None,
        Some(lag) => Some(format!("{} is {lag} s behind", at.name)),
        None => Some(format!("{} has nothing", at.name)),
    });
    let behind: Vec<_> = behind.collect();
    if behind.is_empty() {
        return (Truth::True, COPIED, "every destination holds what was stored at any".to_owned());
    }
    (Truth::False, LAGGING, behind.join("; "))
}

/// After which time the status stops to be true by itself: then an objective will be missed.
#[must_use]
pub fn until(backup: &Backup, status: &BackupStatus, now: Timestamp) -> Option<Duration> {
    let rpo = condition::find(&status.conditions, ConditionType::RPOMet)?;
    let from = match (rpo.status.as_str(), rpo.reason.as_str()) {
        ("True", _) => {
            status.destinations.iter().filter_map(|at| at.restorable_to.as_ref()).map(|time| time.0).min()?
        }
        ("Unknown", PENDING) => backup.creation_timestamp()?.0,
        _ => return None,
    };
    let left = (from + objective(backup)).duration_since(now) + SignedDuration::from_secs(1);
    Some(Duration::try_from(left).unwrap_or_default())
}

/// The status of a Backup before anything was made: from now on it is this bank's.
#[must_use]
pub fn first(found: &Found) -> Option<BackupStatus> {
    let old = found.backup.status.clone().unwrap_or_default();
    (old.claim_id.is_none()).then(|| BackupStatus { claim_id: found.claim.clone(), ..old })
}

/// Writes the status if it says something new, and tells what people want to hear of it. Returns the Backup as it is then;
/// None if it has changed meanwhile.
pub async fn write(
    client: &Client,
    backup: &Arc<Backup>,
    status: BackupStatus,
    story: &Story,
) -> Result<Option<Arc<Backup>>> {
    let old = backup.status.clone().unwrap_or_default();
    if status == old {
        return Ok(Some(Arc::clone(backup)));
    }
    let api: Api<Backup> = Api::namespaced(client.clone(), &backup.namespace().unwrap_or_default());
    let intent = json!({
        "apiVersion": Backup::api_version(&()), "kind": Backup::kind(&()),
        "metadata": {"name": backup.name_any(), "uid": backup.uid(), "resourceVersion": backup.resource_version()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER_STATUS).force();
    let written = match api.patch_status(&backup.name_any(), &parameters, &Patch::Apply(intent)).await {
        Err(kube::Error::Api(answer)) if answer.is_conflict() || answer.is_not_found() => return Ok(None),
        answer => answer.attempt(|| "write the status".to_owned())?,
    };
    for fact in transitions(&old, &status) {
        story.tell(fact);
    }
    Ok(Some(Arc::new(written)))
}

/// What changed between two statuses that is worth an event.
fn transitions(old: &BackupStatus, new: &BackupStatus) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut tell = |reason, warning, message| facts.push(Fact::Backup { reason, warning, message });
    let newest = |status: &BackupStatus| {
        let full = status.destinations.iter().filter_map(|at| Some((at.last_full.clone()?.id, at.name.clone())));
        full.max_by(|a, b| a.0.cmp(&b.0))
    };
    if let Some((id, at)) = newest(new).filter(|(id, _)| newest(old).is_none_or(|(before, _)| before < *id)) {
        tell("BackupTaken", false, format!("full backup {id} is stored at {at}"));
    }
    for at in &new.destinations {
        let before = old.destinations.iter().find(|before| before.name == at.name);
        proofs(before, at, &mut tell);
        match (before.and_then(|before| before.fault.as_ref()), &at.fault) {
            (None, Some(fault)) => tell("DestinationFailed", true, format!("destination {}: {fault}", at.name)),
            (Some(_), None) => {
                tell("DestinationRecovered", false, format!("destination {} can be used again", at.name));
            }
            _ => {}
        }
    }
    let changed = |kind| changed(&old.conditions, &new.conditions, kind);
    if let Some(rpo) = changed(ConditionType::RPOMet) {
        match rpo.reason.as_str() {
            MISSED => tell("RPOMissed", true, rpo.message.clone()),
            MET => tell("RPOMet", false, rpo.message.clone()),
            _ => {}
        }
    }
    if let Some(overdue) = changed(ConditionType::Verified).filter(|verified| verified.reason == VERIFICATION_OVERDUE) {
        tell(VERIFICATION_OVERDUE, true, overdue.message.clone());
    }
    if let Some(ready) = changed(ConditionType::Ready) {
        if ready.status == Truth::True.as_str() {
            facts.push(Fact::Ready(ready.message.clone()));
        } else if ready.reason != WAITING {
            facts.push(Fact::NotReady { reason: ready.reason.clone(), message: ready.message.clone() });
        }
    }
    facts
}

fn changed<'a>(old: &[Condition], new: &'a [Condition], kind: ConditionType) -> Option<&'a Condition> {
    story::news(old, new, kind)
}

/// Tells of a verification and of a drill that are new.
fn proofs(
    before: Option<&DestinationStatus>,
    at: &DestinationStatus,
    tell: &mut impl FnMut(&'static str, bool, String),
) {
    let name = &at.name;
    if let Some(new) = &at.last_verification
        && before.and_then(|before| before.last_verification.as_ref()) != Some(new)
    {
        if new.passed {
            tell("BackupVerified", false, format!("destination {name} was verified up to {}", new.artifact));
        } else {
            tell(VERIFICATION_FAILED, true, format!("destination {name}: {}", findings(&new.findings)));
        }
    }
    if let Some(new) = &at.last_drill
        && before.and_then(|before| before.last_drill.as_ref()) != Some(new)
    {
        match new.rto_seconds.filter(|_| new.passed) {
            Some(seconds) => tell("Drilled", false, format!("a drill restored everything from {name} in {seconds} s")),
            None => tell(DRILL_FAILED, true, format!("destination {name}: {}", findings(&new.findings))),
        }
    }
}
