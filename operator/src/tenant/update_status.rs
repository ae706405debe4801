//! Step 5: says what is true. A status derives from what was applied, or from why nothing could be.

use finaiflow_crds::condition::{self, ConditionType, Truth};
use finaiflow_crds::names::{MANAGER_STATUS, TENANT_FINALIZER};
use finaiflow_crds::tenant::{DatabaseStatus, LedgerStatus, SchemaStatus};
use finaiflow_crds::{Backup, Tenant, TenantStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::apply::Applied;
use super::protection;
use super::serving::{self, Verdict};
use crate::catalog::{Ledger, Verification};
use crate::error::{Attempt, Error, Result};
use crate::replica::Replica;
use crate::story::{self, Fact, Story};

/// Reason of conditions that nothing is known about yet.
const PENDING: &str = "Pending";
const PROVISIONING: &str = "Provisioning";
const PROVISIONED: &str = "Provisioned";
const RECONCILED: &str = "Reconciled";
const RESTORING: &str = "Restoring";
const LAST_BACKUP: &str = "LastBackup";
const SUSPENDED: &str = "Suspended";
const HOSTS_DENIED: &str = "HostsDenied";
/// Reason of Serving, and of Ready, until every live replica has served the Tenant once.
const NOT_YET_SERVED: &str = "NotYetServed";
const SERVED: &str = "Served";
const PROPAGATING: &str = "Propagating";
const REPLICA_FAILED: &str = "ReplicaFailed";
const NO_REPLICA: &str = "NoReplica";
const NOT_YET_VERIFIED: &str = "NotYetVerified";
const BALANCED: &str = "Balanced";
const IMBALANCE_FOUND: &str = "ImbalanceFound";
const ANCHOR_BROKEN: &str = "AnchorBroken";
const VERIFICATION_FAILED: &str = "VerificationFailed";
const NO_BACKUP: &str = "NoBackup";

/// Conditions that are always present, with what they say before anything is known.
const ALWAYS: [(ConditionType, Truth, &str); 6] = [
    (ConditionType::Ready, Truth::False, PROVISIONING),
    (ConditionType::SchemaReady, Truth::Unknown, PENDING),
    (ConditionType::CredentialsReady, Truth::Unknown, PENDING),
    (ConditionType::Serving, Truth::Unknown, NOT_YET_SERVED),
    (ConditionType::LedgerVerified, Truth::Unknown, NOT_YET_VERIFIED),
    (ConditionType::Protected, Truth::False, NO_BACKUP),
];

/// The surroundings a status depends on.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Base URL of the API.
    pub endpoint: &'a str,
    /// The API server's replicas that are alive.
    pub replicas: &'a [Replica],
    /// The Backup that acts for the Tenant.
    pub backup: Option<&'a Backup>,
    /// The time in whole seconds.
    pub now: Timestamp,
}

/// Sets conditions of one generation at one time.
struct Writer {
    conditions: Vec<Condition>,
    generation: Option<i64>,
    now: Timestamp,
}

impl Writer {
    fn new(tenant: &Tenant, now: Timestamp) -> Self {
        let conditions = tenant.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let mut writer = Self { conditions, generation: tenant.metadata.generation, now };
        for (kind, truth, reason) in ALWAYS {
            if condition::find(&writer.conditions, kind).is_none() {
                writer.set(kind, truth, reason, "");
            }
        }
        writer
    }

    fn set(&mut self, kind: ConditionType, truth: Truth, reason: &str, message: &str) {
        condition::set(&mut self.conditions, kind, truth, reason, message, self.generation, self.now);
    }

    fn remove(&mut self, kind: ConditionType) {
        condition::remove(&mut self.conditions, kind);
    }
}

/// The status of a Tenant before its first visit has done anything; None if it has been visited.
#[must_use]
pub fn first(tenant: &Tenant, now: Timestamp) -> Option<TenantStatus> {
    if tenant.status.as_ref().is_some_and(|status| !status.conditions.is_empty()) {
        return None;
    }
    let mut writer = Writer::new(tenant, now);
    writer.set(ConditionType::Reconciling, Truth::True, PROVISIONING, "schema, roles and Secrets are being made");
    let status = tenant.status.clone().unwrap_or_default();
    Some(TenantStatus { observed_generation: tenant.metadata.generation, conditions: writer.conditions, ..status })
}

/// The status while a Restore replaces the data: the API server lets go of the Tenant.
#[must_use]
pub fn restoring(tenant: &Tenant, message: &str, now: Timestamp) -> TenantStatus {
    closed(tenant, &[ConditionType::Restoring, ConditionType::Reconciling], RESTORING, message, now)
}

/// The status while the last backup of a Tenant that is being deleted is taken.
#[must_use]
pub fn leaving(tenant: &Tenant, waits: &str, now: Timestamp) -> TenantStatus {
    let message = format!("{waits}; then schema, data and keys are dropped");
    closed(tenant, &[ConditionType::Reconciling], LAST_BACKUP, &message, now)
}

fn closed(tenant: &Tenant, present: &[ConditionType], reason: &str, message: &str, now: Timestamp) -> TenantStatus {
    let mut writer = Writer::new(tenant, now);
    writer.set(ConditionType::Ready, Truth::False, reason, message);
    for kind in present {
        writer.set(*kind, Truth::True, reason, message);
    }
    writer.remove(ConditionType::Stalled);
    let status = tenant.status.clone().unwrap_or_default();
    TenantStatus { observed_generation: tenant.metadata.generation, conditions: writer.conditions, ..status }
}

/// The status after everything was applied.
#[must_use]
pub fn applied(tenant: &Tenant, applied: &Applied, view: View<'_>) -> TenantStatus {
    let old = tenant.status.clone().unwrap_or_default();
    let mut writer = Writer::new(tenant, view.now);
    writer.remove(ConditionType::Restoring);
    let schema = SchemaStatus { name: applied.names.schema.to_string(), version: applied.version };
    writer.set(
        ConditionType::SchemaReady,
        Truth::True,
        PROVISIONED,
        &format!("schema {} is at version {}", schema.name, schema.version),
    );
    writer.set(ConditionType::CredentialsReady, Truth::True, PROVISIONED, "logins and keys match their Secrets");
    ledger_verified(&mut writer, old.ledger.as_ref(), applied);
    let (truth, reason, message) = protection::judge(view.backup);
    writer.set(ConditionType::Protected, truth, reason, &message);
    let mut status = TenantStatus {
        observed_generation: tenant.metadata.generation,
        conditions: Vec::new(),
        claim_id: Some(applied.names.claim_id.to_string()),
        hosts: applied.hosts.granted.clone(),
        schema: Some(schema),
        database: Some(DatabaseStatus {
            class: tenant.spec.database_class_name.clone(),
            instance: applied.server.clone(),
        }),
        secrets: applied.secrets.clone(),
        ledger: ledger(old.ledger.as_ref(), &applied.ledger),
        backup: protection::stored(view.backup),
        endpoint: Some(view.endpoint.to_owned()),
    };
    let unchanged = TenantStatus { conditions: Vec::new(), ledger: None, backup: None, ..old.clone() }
        == TenantStatus { ledger: None, backup: None, ..status.clone() };
    serving(&mut writer, tenant, unchanged, view.replicas);
    ready(&mut writer, tenant, applied);
    status.conditions = writer.conditions;
    status
}

/// The status after a failure: what was true stays, except what the failure falsifies.
#[must_use]
pub fn failed(tenant: &Tenant, error: &Error, now: Timestamp) -> TenantStatus {
    let mut writer = Writer::new(tenant, now);
    let (reason, mut message) = (error.reason(), error.message(&tenant.namespace().unwrap_or_default()));
    if tenant.metadata.deletion_timestamp.is_some() {
        message = held_back(tenant, error, &message);
    }
    let (word, terminal) = (reason.as_str(), reason.is_terminal());
    if let Some(kind) = reason.falsifies() {
        writer.set(kind, Truth::False, word, &message);
    }
    writer.set(ConditionType::Ready, Truth::False, word, &message);
    let (present, absent) = if terminal {
        (ConditionType::Stalled, ConditionType::Reconciling)
    } else {
        (ConditionType::Reconciling, ConditionType::Stalled)
    };
    writer.set(present, Truth::True, word, &message);
    writer.remove(absent);
    let status = tenant.status.clone().unwrap_or_default();
    TenantStatus { observed_generation: tenant.metadata.generation, conditions: writer.conditions, ..status }
}

/// Why a Tenant that is being deleted is still there, and how to let it go all the same.
fn held_back(tenant: &Tenant, error: &Error, message: &str) -> String {
    let why = match error {
        Error::Catalog { server, source } => format!("the deletion waits for server {server}: {source}"),
        _ => format!("the deletion waits: {message}"),
    };
    format!(
        "{why}; to let the Tenant go at once, with schema and data left in PostgreSQL, remove its finalizer \
         {TENANT_FINALIZER}: kubectl -n {} edit tenant {}",
        tenant.namespace().unwrap_or_default(),
        tenant.name_any()
    )
}

/// Serving is judged against the Tenant as it was when it last changed. Once True it stays so while nothing changes
/// and no replica complains; a replica that has just started is not behind.
fn serving(writer: &mut Writer, tenant: &Tenant, unchanged: bool, replicas: &[Replica]) {
    let old = condition::find(&writer.conditions, ConditionType::Serving);
    let was_true = old.is_some_and(|old| old.status == Truth::True.as_str());
    let served_once = served_once(&writer.conditions);
    let key = key(tenant);
    let verdict = match (unchanged, was_true) {
        (true, true) => serving::judge(replicas, &key, None),
        (true, false) => serving::judge(replicas, &key, serving::version(tenant.metadata.resource_version.as_deref())),
        // The replicas cannot have applied what is only being written.
        (false, _) if replicas.is_empty() => Verdict::NoReplica,
        (false, _) => Verdict::Behind("the change is on its way to the API server".to_owned()),
    };
    let (truth, reason, message) = match verdict {
        Verdict::Served => (Truth::True, SERVED, "every live replica of the API server serves the Tenant".to_owned()),
        Verdict::NoReplica => (Truth::Unknown, NO_REPLICA, "no replica of the API server is alive".to_owned()),
        Verdict::Failed(why) => (Truth::False, REPLICA_FAILED, why),
        Verdict::Behind(why) => (Truth::False, PROPAGATING, why),
    };
    let reason = if served_once || truth == Truth::True { reason } else { NOT_YET_SERVED };
    writer.set(ConditionType::Serving, truth, reason, &message);
}

/// Whether the API server has ever served the Tenant.
fn served_once(conditions: &[Condition]) -> bool {
    condition::find(conditions, ConditionType::Serving).is_some_and(|serving| serving.reason != NOT_YET_SERVED)
}

fn ready(writer: &mut Writer, tenant: &Tenant, applied: &Applied) {
    writer.remove(ConditionType::Stalled);
    let denied = &applied.hosts.denied;
    let (truth, reason, message) = if tenant.spec.suspend {
        (Truth::True, SUSPENDED, "the tenant is suspended: the API server answers 403".to_owned())
    } else if !served_once(&writer.conditions) {
        let serving = condition::find(&writer.conditions, ConditionType::Serving);
        (Truth::False, NOT_YET_SERVED, serving.map(|serving| serving.message.clone()).unwrap_or_default())
    } else if denied.is_empty() {
        (Truth::True, RECONCILED, "everything the spec asks for is in place".to_owned())
    } else {
        (Truth::True, HOSTS_DENIED, format!("in place except hosts that were not granted: {}", denied.join(", ")))
    };
    writer.set(ConditionType::Ready, truth, reason, &message);
    if truth == Truth::True {
        writer.remove(ConditionType::Reconciling);
    } else {
        writer.set(ConditionType::Reconciling, Truth::True, reason, &message);
    }
}

fn ledger_verified(writer: &mut Writer, anchor: Option<&LedgerStatus>, applied: &Applied) {
    let newest = applied.ledger.verification.as_ref();
    let failed = applied.failed_job.as_ref().filter(|job| newest.is_none_or(|newest| newest.finished_at < job.at));
    let (truth, reason, message) = match (failed, newest) {
        (Some(job), _) => (Truth::Unknown, VERIFICATION_FAILED, format!("the verification did not run: {}", job.why)),
        (None, None) => (Truth::Unknown, NOT_YET_VERIFIED, "no verification has run yet".to_owned()),
        (None, Some(newest)) if newest.balanced => (Truth::True, BALANCED, balanced(newest)),
        (None, Some(newest)) => (Truth::False, IMBALANCE_FOUND, findings(newest)),
    };
    // Whatever a verification says, or has stopped to say.
    let (truth, reason, message) = match broken(anchor, &applied.ledger) {
        Some(broken) => (Truth::False, ANCHOR_BROKEN, broken),
        None => (truth, reason, message),
    };
    writer.set(ConditionType::LedgerVerified, truth, reason, &message);
}

fn balanced(newest: &Verification) -> String {
    format!("the ledger was verified up to sequence {} of epoch {}", newest.sequence, newest.epoch)
}

fn findings(newest: &Verification) -> String {
    let text = |finding: &Value, key: &str| finding[key].as_str().map(str::to_owned);
    let describe = |finding: &Value| {
        let place = text(finding, "account_id").or_else(|| Some(format!("sequence {}", finding["sequence"].as_i64()?)));
        let what = text(finding, "detail").or_else(|| text(finding, "check")).unwrap_or_default();
        place.map_or_else(|| what.clone(), |place| format!("{place}: {what}"))
    };
    let found: Vec<_> = newest.findings.as_array().into_iter().flatten().map(describe).collect();
    format!("{} findings up to sequence {}: {}", found.len(), newest.sequence, found.join("; "))
}

/// How the ledger no longer passes through its anchor, if it does not. What verifies a ledger may lie in the database with
/// it; the anchor does not, so whoever writes history anew there is found out here.
fn broken(anchor: Option<&LedgerStatus>, ledger: &Ledger) -> Option<String> {
    let LedgerStatus { epoch, sequence, hash: Some(hash), .. } = anchor? else { return None };
    match &ledger.at_anchor {
        Some(place) if (place.epoch, &place.hash) == (*epoch, hash) => None,
        Some(place) => Some(format!(
            "journal {sequence} had hash {hash} in epoch {epoch} when it was anchored, now it has {} in epoch {}",
            place.hash, place.epoch
        )),
        None => Some(format!("journal {sequence} of epoch {epoch}, anchored with hash {hash}, is not there")),
    }
}

/// The newest verification's result, and the anchor: that of a verification without findings takes its place if the ledger
/// has gone on from it.
fn ledger(old: Option<&LedgerStatus>, found: &Ledger) -> Option<LedgerStatus> {
    let Some(newest) = &found.verification else { return old.cloned() };
    let (balanced, verified_at) = (newest.balanced, Time(newest.finished_at));
    let anchor = old.filter(|old| old.hash.is_some());
    let kept = anchor.filter(|anchor| {
        !balanced
            || newest.hash.is_none()
            || (newest.epoch, newest.sequence) < (anchor.epoch, anchor.sequence)
            || broken(old, found).is_some()
    });
    Some(match kept {
        Some(anchor) => LedgerStatus { balanced, verified_at, ..anchor.clone() },
        None => LedgerStatus {
            epoch: newest.epoch,
            sequence: newest.sequence,
            hash: newest.hash.clone().filter(|_| balanced && newest.sequence > 0),
            balanced,
            verified_at,
        },
    })
}

/// `<namespace>/<name>`, as replicas write it.
#[must_use]
pub fn key(tenant: &Tenant) -> String {
    format!("{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())
}

/// Writes the status if it says something new, and tells what people want to hear of it.
pub async fn write(client: &Client, tenant: &Tenant, status: TenantStatus, story: &Story) -> Result<()> {
    let old = tenant.status.clone().unwrap_or_default();
    if status == old {
        return Ok(());
    }
    let api: Api<Tenant> = Api::namespaced(client.clone(), &tenant.namespace().unwrap_or_default());
    let intent = json!({
        "apiVersion": Tenant::api_version(&()), "kind": Tenant::kind(&()),
        "metadata": {"name": tenant.name_any(), "uid": tenant.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER_STATUS).force();
    api.patch_status(&tenant.name_any(), &parameters, &Patch::Apply(intent))
        .await
        .attempt(|| "write the status".to_owned())?;
    for fact in transitions(&old.conditions, &status.conditions) {
        story.tell(fact);
    }
    Ok(())
}

/// What changed between two sets of conditions that is worth an event.
fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Fact> {
    let changed = |kind| story::news(old, new, kind);
    let mut facts = Vec::new();
    if let Some(new) = changed(ConditionType::Ready) {
        if new.status == Truth::True.as_str() {
            facts.push(Fact::Ready(new.message.clone()));
        } else if ![PROVISIONING, NOT_YET_SERVED].contains(&new.reason.as_str()) {
            facts.push(Fact::NotReady { reason: new.reason.clone(), message: new.message.clone() });
        }
    }
    if let Some(new) = changed(ConditionType::LedgerVerified) {
        match new.reason.as_str() {
            BALANCED => facts.push(Fact::LedgerVerified(new.message.clone())),
            IMBALANCE_FOUND | ANCHOR_BROKEN => facts.push(Fact::LedgerImbalance(new.message.clone())),
            VERIFICATION_FAILED => facts.push(Fact::VerificationFailed(new.message.clone())),
            _ => {}
        }
    }
    facts
}
