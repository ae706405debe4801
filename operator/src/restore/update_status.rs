//! Step 5: says what is true of a Restore.

use finaiflow_crds::Restore;
use finaiflow_crds::backup::Report;
use finaiflow_crds::condition::{self, ConditionType, Truth};
use finaiflow_crds::names::MANAGER_STATUS;
use finaiflow_crds::restore::{Mode, Plan, Replaced, RestoreStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::validate::Refusal;
use crate::error::{Attempt, Result};
use crate::story::{Fact, Story};

const RESTORING: &str = "Restoring";
const RESTORED: &str = "Restored";
const FOUND: &str = "Found";
const RESTORE_FAILED: &str = "RestoreFailed";

/// Where a Restore stands.
#[derive(Debug, Clone, Copy)]
pub enum Standing<'a> {
    /// Something has to come first.
    Waiting(&'a Refusal),
    /// The Tenant is being closed.
    Closing,
    /// A Job is at work.
    Running,
    /// What is to be replaced is stored as `artifact`, and will be put aside as `schema`.
    Saved {
        /// Id of the backup.
        artifact: &'a str,
        /// Name of the schema.
        schema: &'a str,
    },
    /// It has ended without having done anything that is known of.
    Failed(&'a Refusal),
    /// Its Job has said how it ended.
    Ended(&'a Report),
}

/// The status of a Restore, as it follows from where it stands.
#[must_use]
pub fn status(restore: &Restore, standing: Standing<'_>, now: Timestamp) -> RestoreStatus {
    let mut status = restore.status.clone().unwrap_or_default();
    status.observed_generation = restore.metadata.generation;
    let (planned, succeeded, abnormal) = match standing {
        Standing::Waiting(Refusal { reason, message }) => {
            let verdict = (Truth::Unknown, *reason, message.clone());
            (Some(verdict.clone()), verdict, Some(ConditionType::Reconciling))
        }
        Standing::Closing | Standing::Running | Standing::Saved { .. } => {
            status.start_time.get_or_insert(Time(now));
            let message = match standing {
                Standing::Closing => "the Tenant is being closed".to_owned(),
                Standing::Saved { artifact, schema } => {
                    status.replaced = Some(Replaced { schema: schema.to_owned(), artifact: artifact.to_owned() });
                    format!("what the Tenant had is stored as {artifact}")
                }
                _ => "its Job is at work".to_owned(),
            };
            let planned = (Truth::Unknown, RESTORING, "the backups are read by its Job".to_owned());
            (Some(planned), (Truth::Unknown, RESTORING, message), Some(ConditionType::Reconciling))
        }
        Standing::Failed(Refusal { reason, message }) => {
            status.completion_time = Some(Time(now));
            let verdict = (Truth::False, *reason, message.clone());
            (Some(verdict.clone()), verdict, Some(ConditionType::Stalled))
        }
        Standing::Ended(report) => {
            status.completion_time = Some(Time(now));
            status.plan.clone_from(&report.plan);
            status.findings.clone_from(&report.findings);
            let planned = report.plan.as_ref().map(found);
            if let Some(why) = failure(report) {
                let verdict = (Truth::False, RESTORE_FAILED, why);
                (planned.or_else(|| Some(verdict.clone())), verdict, Some(ConditionType::Stalled))
            } else {
                status.restored.clone_from(&report.restored);
                let began = status.start_time.as_ref().map_or(now, |began| began.0);
                status.rto_seconds = Some((now.as_second() - began.as_second()).max(0));
                (planned, (Truth::True, RESTORED, restored(restore, report)), None)
            }
        }
    };
    if succeeded.0 == Truth::False {
        // What was put aside is back, or never was.
        status.replaced = None;
    }
    let generation = restore.metadata.generation;
    let mut set = |kind, (truth, reason, message): (Truth, &str, String)| {
        condition::set(&mut status.conditions, kind, truth, reason, &message, generation, now);
    };
    if let Some(planned) = planned {
        set(ConditionType::Planned, planned);
    }
    set(ConditionType::Ready, succeeded.clone());
    set(ConditionType::Succeeded, succeeded.clone());
    if let Some(kind) = abnormal {
        set(kind, (Truth::True, succeeded.1, succeeded.2));
    }
    for kind in [ConditionType::Reconciling, ConditionType::Stalled] {
        if abnormal != Some(kind) {
            condition::remove(&mut status.conditions, kind);
        }
    }
    status
}

fn found(plan: &Plan) -> (Truth, &'static str, String) {
    let message = format!("{} and {} before it, from {}", plan.artifact, plan.artifacts - 1, plan.destination);
    (Truth::True, FOUND, message)
}

/// Why the data is not there, if it is not: what was found wrong counts as much as what went wrong.
#[must_use]
pub fn failure(report: &Report) -> Option<String> {
    if let Some(error) = &report.error {
        return Some(error.clone());
    }
    if let [first, rest @ ..] = report.findings.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        return Some(format!("{}: {}{more}", first.check, first.message));
    }
    report.restored.is_none().then(|| "its Job says neither what it restored nor why not".to_owned())
}

fn restored(restore: &Restore, report: &Report) -> String {
    let moment = report
        .restored
        .as_ref()
        .map(|restored| format!("{} (journal {})", restored.recovery_point_time.0, restored.sequence));
    let target = restore.spec.target_tenant_ref.as_ref().map(|target| target.name.as_str()).unwrap_or_default();
    let moment = moment.unwrap_or_default();
    match restore.spec.mode {
        Mode::Scratch => format!("the data of {moment} was restored, checked and thrown away"),
        Mode::Clone | Mode::InPlace => format!("Tenant {target} has the data of {moment}"),
    }
}

/// Writes a status if it differs, and tells what is new.
pub async fn write(client: &Client, restore: &Restore, status: RestoreStatus, story: &Story) -> Result<()> {
    if restore.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<Restore> = Api::namespaced(client.clone(), &restore.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": Restore::api_version(&()), "kind": Restore::kind(&()),
        // Not of another one with its name.
        "metadata": {"name": restore.name_any(), "uid": restore.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER_STATUS).force();
    api.patch_status(&restore.name_any(), &parameters, &Patch::Apply(patch))
        .await
        .attempt(|| "write the status".to_owned())?;
    let old = restore.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    if let Some(news) = crate::story::news(old, &status.conditions, ConditionType::Succeeded) {
        let (reason, warning) = match news.status.as_str() {
            "True" => ("Restored", false),
            "False" => ("RestoreFailed", true),
            _ if news.reason == RESTORING => ("RestoreStarted", false),
            _ => ("RestoreWaits", false),
        };
        story.tell(Fact::Backup { reason, warning, message: news.message.clone() });
    }
    Ok(())
}
