//! Step 2: decides from what was read what is to be done next. Pure.

use finaiflow_crds::Tenant;
use finaiflow_crds::backup::{Anchor, Report};
use finaiflow_crds::condition::{self, ConditionType};
use finaiflow_crds::restore::Mode;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::build;
use super::dereference::Found;
use crate::catalog::{ClaimId, Limits, TenantNames};
use crate::job::State;
use crate::tenant::validate::limits;

/// Why a Restore cannot begin, or has failed: a word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For the condition.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// It has ended, and says so.
    Settled,
    /// It will never begin.
    Refuse(Refusal),
    /// It cannot begin yet.
    Wait(Refusal),
    /// The Tenant is to be closed, and has not been yet.
    Close,
    /// What it has is to be backed up a last time.
    Save(Box<Start>),
    /// Its Job is to be made.
    Start(Box<Start>),
    /// A Job is at work.
    Running,
    /// What the Tenant had is stored as `artifact`, and is to be put aside as `schema`.
    Saved {
        /// Id of the backup.
        artifact: String,
        /// Name of the schema.
        schema: String,
    },
    /// Its Job has ended.
    End(Box<Report>),
    /// A Job has ended without having done anything.
    Fail(Refusal),
}

/// A Job that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// The bank whose backups are read.
    pub source: ClaimId,
    /// Who gets the data; none for a look.
    pub target: Option<Place>,
    /// The newest head of the bank's ledger that is known outside its database: where it goes through there, what is
    /// restored has to, and a ledger that is given up for it ended there at least.
    pub anchor: Option<Anchor>,
}

/// Where a Tenant's data is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The PostgreSQL server.
    pub server: String,
    /// The names there.
    pub names: TenantNames,
    /// What it may use of the server.
    pub limits: Limits,
}

const SOURCE_NOT_FOUND: &str = "SourceNotFound";
const SOURCE_EMPTY: &str = "SourceEmpty";
const DESTINATION_NOT_FOUND: &str = "DestinationNotFound";
const CLASS_NOT_FOUND: &str = "ClassNotFound";
const IDENTITY_NOT_FOUND: &str = "IdentityNotFound";
const TARGET_NOT_FOUND: &str = "TargetNotFound";
const TARGET_NOT_READY: &str = "TargetNotReady";
const TARGET_BUSY: &str = "TargetBusy";
const TARGET_IS_SOURCE: &str = "TargetIsSource";
const TIME_IN_FUTURE: &str = "TimeInFuture";
const UNGUARDED: &str = "Unguarded";
const NOT_OFFERED: &str = "NotOffered";
const NO_BACKUP: &str = "NoBackup";
const NOT_CONFIRMED: &str = "NotConfirmed";
const OTHER_BANK: &str = "OtherBank";
const SAVE_FAILED: &str = "SaveFailed";
const JOB_FAILED: &str = "JobFailed";
const JOB_LOST: &str = "JobLost";
const LOST: &str = "its Job is gone before it said how it ended: look at what the Tenant has before you use it";

impl Refusal {
    /// Whether no waiting mends it.
    fn is_final(&self) -> bool {
        [NOT_CONFIRMED, OTHER_BANK, TARGET_IS_SOURCE].contains(&self.reason)
    }
}

fn refusal(reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { reason, message: message.into() }
}

/// Decides.
#[must_use]
pub fn validate(found: &Found, now: Timestamp) -> Step {
    let status = found.restore.status.as_ref();
    if status.is_some_and(|status| status.completion_time.is_some()) {
        return Step::Settled;
    }
    let began = status.is_some_and(|status| status.start_time.is_some());
    match &found.job {
        Some(State::Working) => Step::Running,
        Some(State::Reported(report)) => Step::End(report.clone()),
        Some(State::Failed(why)) => Step::Fail(refusal(JOB_FAILED, format!("its Job failed: {why}"))),
        None if !began => match never(found, now) {
            Some(refusal) => Step::Refuse(refusal),
            None => match start(found) {
                Err(refusal) if refusal.is_final() => Step::Refuse(refusal),
                Err(refusal) => Step::Wait(refusal),
                Ok(_) if found.restore.spec.mode == Mode::InPlace => Step::Close,
                Ok(start) => Step::Start(Box::new(start)),
            },
        },
        None if found.restore.spec.mode == Mode::InPlace => replace(found),
        None => Step::Fail(refusal(JOB_LOST, LOST)),
    }
}

/// What is next on the way to put other data in the place of a Tenant's: nobody uses it, all of it is stored, and then
/// the Job.
fn replace(found: &Found) -> Step {
    let start = match start(found) {
        Ok(start) => Box::new(start),
        Err(refusal) => return Step::Wait(refusal),
    };
    let status = found.restore.status.as_ref();
    if status.is_some_and(|status| status.replaced.is_some()) {
        // If its Job was there and has gone, the next one finds rows, fails, and what was put aside comes back.
        return Step::Start(start);
    }
    if !found.closed {
        return Step::Close;
    }
    match &found.save {
        None => Step::Save(start),
        Some(State::Working) => Step::Running,
        Some(State::Reported(report)) => match (&report.artifact, &report.error) {
            (Some(artifact), None) => {
                let schema = start.target.as_ref().map(|place| aside(place, build::number(&found.restore)));
                Step::Saved { artifact: artifact.clone(), schema: schema.unwrap_or_default() }
            }
            (_, error) => Step::Fail(refusal(SAVE_FAILED, saving(error.as_deref().unwrap_or("it stored nothing")))),
        },
        Some(State::Failed(why)) => Step::Fail(refusal(SAVE_FAILED, saving(why))),
    }
}

/// What the schema is called that is put aside.
fn aside(place: &Place, number: u32) -> String {
    finaiflow_schema::provision::aside(&place.names, number).map(|name| name.to_string()).unwrap_or_default()
}

fn saving(why: &str) -> String {
    format!("the Tenant keeps its data, as that could not be backed up a last time: {why}")
}

/// What no waiting mends: the spec cannot change.
fn never(found: &Found, now: Timestamp) -> Option<Refusal> {
    let spec = &found.restore.spec;
    let created = found.restore.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
    if spec.mode == Mode::InPlace && spec.source.backup_ref.is_none() {
        let message = "mode InPlace needs spec.source.backupRef: the Backup that stores what is replaced";
        return Some(refusal(NO_BACKUP, message));
    }
    if spec.target.time.as_ref().is_some_and(|time| time.0 > created) {
        return Some(refusal(TIME_IN_FUTURE, "spec.target.time was still to come when the Restore was made"));
    }
    let wanted = spec.source.destination.as_ref()?;
    let backup = found.backup.as_deref()?;
    if backup.spec.destinations.iter().any(|destination| destination.name == *wanted) {
        return None;
    }
    let message = format!("Backup {} has no destination {wanted}", backup.name_any());
    Some(refusal(DESTINATION_NOT_FOUND, message))
}

fn start(found: &Found) -> Result<Start, Refusal> {
    if found.offers.is_none() {
        return Err(refusal(NOT_OFFERED, "the operator's configuration offers no backups"));
    }
    let source = source(found)?;
    if found.signers.is_none() {
        let message = format!(
            "there is no Secret {} in the operator's namespace to open the backups with: make it from the escrow",
            finaiflow_crds::names::backup_identity_name(&source.to_string())
        );
        return Err(refusal(IDENTITY_NOT_FOUND, message));
    }
    let target = match found.restore.spec.mode {
        Mode::Scratch => None,
        Mode::Clone | Mode::InPlace => Some(target(found, source)?),
    };
    if let Some(rival) = &found.rival {
        return Err(refusal(TARGET_BUSY, format!("Restore {rival} is at work on the Tenant")));
    }
    let anchor = found.bank.as_deref().and_then(anchor);
    Ok(Start { source, target, anchor })
}

fn source(found: &Found) -> Result<ClaimId, Refusal> {
    let source = &found.restore.spec.source;
    if let Some((class, manifest)) = source.class_name.as_ref().zip(source.manifest.as_ref()) {
        if !found.guarded {
            let message = "spec.source.manifest is not followed without the ValidatingAdmissionPolicy that says who may \
                set it; it comes with the chart finaiflow-crds";
            return Err(refusal(UNGUARDED, message));
        }
        if found.offers.as_ref().and_then(|offers| offers.class(class)).is_none() {
            return Err(refusal(CLASS_NOT_FOUND, format!("the operator's configuration has no backup class {class}")));
        }
        let claim = manifest.split('/').next().and_then(|claim| claim.parse().ok());
        return claim.ok_or_else(|| refusal(SOURCE_NOT_FOUND, "spec.source.manifest names no bank"));
    }
    let name = source.backup_ref.as_ref().map(|backup| backup.name.as_str()).unwrap_or_default();
    let missing = || refusal(SOURCE_NOT_FOUND, format!("there is no Backup {name} in the namespace"));
    let backup = found.backup.as_deref().ok_or_else(missing)?;
    let empty = || refusal(SOURCE_EMPTY, format!("Backup {name} has stored nothing yet"));
    let status = backup.status.as_ref().ok_or_else(empty)?;
    let claim = status.claim_id.as_ref().and_then(|claim| claim.parse().ok()).ok_or_else(empty)?;
    if status.recovery_point_time.is_none() {
        return Err(empty());
    }
    Ok(claim)
}

fn target(found: &Found, source: ClaimId) -> Result<Place, Refusal> {
    let name = found.restore.spec.target_tenant_ref.as_ref().map(|target| target.name.as_str()).unwrap_or_default();
    let missing = || refusal(TARGET_NOT_FOUND, format!("there is no Tenant {name} in the namespace"));
    let tenant = found.target.as_deref().ok_or_else(missing)?;
    let not_ready =
        || refusal(TARGET_NOT_READY, format!("Tenant {name} is not ready: its schema and its credentials come first"));
    let place = place(tenant).filter(|_| found.closed || is_provisioned(tenant)).ok_or_else(not_ready)?;
    let (spec, claim) = (&found.restore.spec, place.names.claim_id);
    if spec.mode == Mode::Clone && claim == source {
        let message = format!("Tenant {name} is the bank whose backup it is: a Clone goes into a Tenant without data");
        return Err(refusal(TARGET_IS_SOURCE, message));
    }
    if spec.mode == Mode::InPlace && spec.confirm_claim_id.as_ref() != Some(&claim.to_string()) {
        let message = format!("spec.confirmClaimID is not the claim of Tenant {name}: nothing is replaced");
        return Err(refusal(NOT_CONFIRMED, message));
    }
    if spec.mode == Mode::InPlace && claim != source {
        let message = format!("the Backup is of bank {source}, and Tenant {name} is bank {claim}: use mode Clone");
        return Err(refusal(OTHER_BANK, message));
    }
    Ok(place)
}

fn is_provisioned(tenant: &Tenant) -> bool {
    let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    tenant.metadata.deletion_timestamp.is_none()
        && [ConditionType::SchemaReady, ConditionType::CredentialsReady]
            .iter()
            .all(|kind| condition::is_true(conditions, *kind))
}

/// Where the data of a Tenant is; none if it never had any.
#[must_use]
pub fn place(tenant: &Tenant) -> Option<Place> {
    let status = tenant.status.as_ref()?;
    let claim = status.claim_id.as_ref()?.parse().ok()?;
    let names = TenantNames::derive(&claim, &tenant.name_any(), Some(&status.schema.as_ref()?.name)).ok()?;
    let server = status.database.as_ref()?.instance.clone();
    Some(Place { server, names, limits: limits(tenant) })
}

fn anchor(tenant: &Tenant) -> Option<Anchor> {
    let ledger = tenant.status.as_ref()?.ledger.as_ref()?;
    Some(Anchor { epoch: ledger.epoch, sequence: ledger.sequence, hash: ledger.hash.clone()? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use finaiflow_crds::{Backup, Restore};
    use serde_json::{Value, json};

    use super::*;
    use crate::backup::settings::{self, Settings};

    const OURS: &str = "0123456789abcdef";
    const OTHER: &str = "fedcba9876543210";

    /// RFC 7396.
    fn merge(target: &mut Value, patch: &Value) {
        let (Some(target), Some(patch)) = (target.as_object_mut(), patch.as_object()) else {
            *target = patch.clone();
            return;
        };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key).or_insert_with(|| json!({})), value);
            }
        }
    }

    fn tenant(claim: &str) -> Tenant {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let tenant = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme", "namespace": "banks"}, "spec": {},
            "status": {
                "claimID": claim, "schema": {"name": "t_acme_01234567", "version": 3},
                "database": {"class": "default", "instance": "primary"},
                "conditions": [condition("SchemaReady"), condition("CredentialsReady")],
                "ledger": {"epoch": 1, "sequence": 7, "hash": "ab", "balanced": true, "verifiedAt": "2026-01-01T00:00:00Z"},
            },
        });
        serde_json::from_value(tenant).unwrap()
    }

    /// A Restore by `mode` of a Backup that has something, with `patch` over it.
    fn found(mode: &str, patch: &Value) -> Found {
        let mut restore = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Restore",
            "metadata": {"name": "back", "namespace": "banks", "uid": "0000000a-0000-0000-0000-000000000000",
                "creationTimestamp": "2026-11-22T12:00:00Z"},
            "spec": {"source": {"backupRef": {"name": "acme"}}, "target": {"latest": true}, "mode": mode},
        });
        if mode != "Scratch" {
            restore["spec"]["targetTenantRef"] = json!({"name": "acme"});
        }
        if mode == "InPlace" {
            restore["spec"]["confirmClaimID"] = json!(OURS);
        }
        merge(&mut restore, patch);
        let backup = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Backup", "metadata": {"name": "acme", "namespace": "banks"},
            "spec": {"tenantRef": {"name": "acme"}, "destinations": [{"name": "local", "persistentVolumeClaim": {}}]},
            "status": {"claimID": OURS, "recoveryPointTime": "2026-11-22T11:00:00Z"},
        });
        let restore: Restore = serde_json::from_value(restore).unwrap();
        let backup: Backup = serde_json::from_value(backup).unwrap();
        Found {
            restore,
            backup: Some(Arc::new(backup)),
            target: Some(Arc::new(tenant(if mode == "InPlace" { OURS } else { OTHER }))),
            rival: None,
            offers: Some(serde_yaml::from_str(&settings::tests::example()).unwrap()),
            guarded: true,
            signers: Some(Vec::new()),
            bank: Some(Arc::new(tenant(OURS))),
            job: None,
            save: None,
            closed: false,
        }
    }

    fn now() -> Timestamp {
        "2026-11-22T12:00:01Z".parse().unwrap()
    }

    fn report(patch: &Value) -> Box<Report> {
        let mut report = json!({"time": "2026-11-22T12:00:00Z"});
        merge(&mut report, patch);
        Box::new(serde_json::from_value(report).unwrap())
    }

    fn reason(step: &Step) -> &'static str {
        match step {
            Step::Refuse(refusal) | Step::Wait(refusal) | Step::Fail(refusal) => refusal.reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_stands_in_the_way_is_named_and_waited_for() {
        type Change = fn(&mut Found);
        let cases: [(&str, Change); 8] = [
            ("NotOffered", |found| found.offers = None),
            ("SourceNotFound", |found| found.backup = None),
            ("SourceEmpty", |found| Arc::make_mut(found.backup.as_mut().unwrap()).status = None),
            ("IdentityNotFound", |found| found.signers = None),
            ("TargetNotFound", |found| found.target = None),
            ("TargetNotReady", |found| {
                Arc::make_mut(found.target.as_mut().unwrap()).status.as_mut().unwrap().conditions.clear();
            }),
            ("TargetNotReady", |found| {
                let deleted = found.restore.metadata.creation_timestamp.clone();
                Arc::make_mut(found.target.as_mut().unwrap()).metadata.deletion_timestamp = deleted;
            }),
            ("TargetBusy", |found| found.rival = Some("other".to_owned())),
        ];
        for (expected, change) in cases {
            let mut found = found("Clone", &json!({}));
            change(&mut found);
            let step = validate(&found, now());
            assert!(matches!(step, Step::Wait(_)), "{step:?}");
            assert_eq!(reason(&step), expected);
        }
        let manifest = json!({"spec": {"source": {"backupRef": null, "className": "far",
            "manifest": "0123456789abcdef/20261122t184412z-full-89abcdef"}}});
        let unguarded = Found { guarded: false, ..found("Clone", &manifest) };
        assert_eq!(reason(&validate(&unguarded, now())), "Unguarded");
        let elsewhere = Found { offers: Some(Settings::default()), ..found("Clone", &manifest) };
        assert_eq!(reason(&validate(&elsewhere, now())), "ClassNotFound");
        assert!(matches!(validate(&found("Clone", &manifest), now()), Step::Start(_)));
    }

    #[test]
    fn what_no_waiting_mends_is_refused_for_good() {
        let late = json!({"spec": {"target": {"latest": null, "time": "2026-11-22T12:00:01Z"}}});
        let elsewhere = json!({"spec": {"source": {"destination": "s3"}}});
        let unconfirmed = json!({"spec": {"confirmClaimID": OTHER}});
        let class =
            json!({"spec": {"source": {"backupRef": null, "className": "far", "manifest": "0123456789abcdef/x"}}});
        for (expected, mode, patch) in [
            ("TimeInFuture", "Clone", &late),
            ("DestinationNotFound", "Clone", &elsewhere),
            ("NotConfirmed", "InPlace", &unconfirmed),
            ("NoBackup", "InPlace", &class),
        ] {
            let step = validate(&found(mode, patch), now());
            assert!(matches!(step, Step::Refuse(_)), "{step:?}");
            assert_eq!(reason(&step), expected);
        }
        let mut same = found("Clone", &json!({}));
        same.target = Some(Arc::new(tenant(OURS)));
        assert_eq!(reason(&validate(&same, now())), "TargetIsSource");
        let mut other = found("InPlace", &json!({"spec": {"confirmClaimID": OTHER}}));
        other.target = Some(Arc::new(tenant(OTHER)));
        assert_eq!(reason(&validate(&other, now())), "OtherBank");
    }

    #[test]
    fn a_clone_needs_one_job() {
        let started = json!({"status": {"startTime": "2026-11-22T12:00:00Z"}});
        let step = validate(&found("Clone", &json!({})), now());
        let Step::Start(start) = step else { panic!("{step:?}") };
        let anchor = Anchor { epoch: 1, sequence: 7, hash: "ab".to_owned() };
        assert_eq!((start.source.to_string().as_str(), start.anchor), (OURS, Some(anchor)));
        assert_eq!(start.target.unwrap().names.claim_id.to_string(), OTHER);
        let Step::Start(scratch) = validate(&found("Scratch", &json!({})), now()) else { panic!() };
        assert_eq!(scratch.target, None);

        let with = |job| validate(&Found { job, ..found("Clone", &started) }, now());
        assert_eq!(with(Some(State::Working)), Step::Running);
        assert_eq!(with(Some(State::Reported(report(&json!({}))))), Step::End(report(&json!({}))));
        assert_eq!(reason(&with(Some(State::Failed("evicted".to_owned())))), "JobFailed");
        assert_eq!(reason(&with(None)), "JobLost");
        let ended = json!({"status": {"completionTime": "2026-11-22T12:00:00Z"}});
        assert_eq!(validate(&found("Clone", &ended), now()), Step::Settled);
    }

    #[test]
    fn nothing_is_replaced_before_it_is_stored() {
        assert_eq!(validate(&found("InPlace", &json!({})), now()), Step::Close);
        let started = json!({"status": {"startTime": "2026-11-22T12:00:00Z"}});
        assert_eq!(validate(&found("InPlace", &started), now()), Step::Close, "until the Tenant says so itself");
        let closed = |save| validate(&Found { closed: true, save, ..found("InPlace", &started) }, now());
        assert!(matches!(closed(None), Step::Save(_)));
        assert_eq!(closed(Some(State::Working)), Step::Running);
        let saved = report(&json!({"artifact": "20261122t184412z-full-89abcdef"}));
        let (artifact, schema) = ("20261122t184412z-full-89abcdef".to_owned(), "t_acme_01234567__pre_10".to_owned());
        assert_eq!(closed(Some(State::Reported(saved))), Step::Saved { artifact, schema });
        for job in [
            State::Failed("evicted".to_owned()),
            State::Reported(report(&json!({}))),
            State::Reported(report(&json!({"artifact": "20261122t184412z-full-89abcdef", "error": "no copy"}))),
        ] {
            assert_eq!(reason(&closed(Some(job))), "SaveFailed");
        }
        let replaced = json!({"status": {"startTime": "2026-11-22T12:00:00Z",
            "replaced": {"schema": "t_acme_01234567__pre_10", "artifact": "20261122t184412z-full-89abcdef"}}});
        let step = validate(&Found { closed: true, ..found("InPlace", &replaced) }, now());
        assert!(matches!(step, Step::Start(_)), "{step:?}");
    }
}
