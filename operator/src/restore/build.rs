//! Step 3: writes down the Jobs of a Restore, and the Secret with the way in. Pure.
//!
//! Its Job is a drill of the Backup that does not throw away what it has restored; so both are one template.

use std::collections::BTreeSet;

use finaiflow_crds::backup::{Anchor, JobDestination, JobSettings, Place as JobPlace, Run};
use finaiflow_crds::names::{
    ANNOTATION_CLAIM, GROUP, LABEL_MANAGED_BY, LABEL_RESTORE, LABEL_RESTORE_NAMESPACE, MANAGED_BY,
};
use finaiflow_crds::restore::{Mode, Target};
use finaiflow_crds::{Backup, Restore};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, Secret, SecretKeySelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::json;

use super::dereference::Found;
use super::validate::{Place, Start};
use crate::backup::build::{bucket, pod};
use crate::backup::validate::{DATABASE_URL, Valid};
use crate::config::Config;
use crate::error::{Error, Reason, Result};
use crate::job;

const SCRATCH_DATABASE_URL: &str = "SCRATCH_DATABASE_URL";
/// What the Job seals the bank's data key with, in base64.
pub const CARRIER_KEY: &str = "CARRIER_KEY";

/// Name of the Job that restores, and of the Secret that it mounts.
#[must_use]
pub fn name(restore: &Restore) -> String {
    format!("restore-{}", restore.uid().unwrap_or_default())
}

/// Name of the Job that backs up what is to be replaced.
#[must_use]
pub fn save_name(restore: &Restore) -> String {
    format!("{}-save", name(restore))
}

/// The number that the schema with what is replaced is put aside under.
#[must_use]
pub fn number(restore: &Restore) -> u32 {
    let uid = restore.uid().unwrap_or_default();
    uid.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// The Job that restores, from a drill.
#[must_use]
pub fn restoring(restore: &Restore, home: &str, start: &Start, drill: JobTemplateSpec) -> Option<Job> {
    let name = name(restore);
    let mut spec = drill.spec?;
    let container = job::container(&mut spec)?;
    container.command = Some(command(restore));
    let env = container.env.get_or_insert_default();
    tell(env, start.anchor.clone())?;
    if start.target.is_some() {
        // Where a Tenant gets the data there is nothing to throw away.
        env.retain(|variable| variable.name != SCRATCH_DATABASE_URL);
        env.extend([DATABASE_URL, CARRIER_KEY].map(|key| from_secret(key, name.clone())));
        spec.template.spec.as_mut()?.init_containers = None;
    }
    Some(made(restore, home, name, spec))
}

/// As the template of a drill, for a bank that has no Backup here any more.
pub fn reader(found: &Found, config: &Config, claim: &str, class: &str) -> Result<JobTemplateSpec> {
    let missing = || Error::refused(Reason::NotOffered, format!("the configuration has no backup class {class}"));
    let settings = config.backups.as_ref().ok_or_else(missing)?;
    let class = settings.class(class).ok_or_else(missing)?;
    let restore = &found.restore;
    let spec = json!({"tenantRef": {"name": restore.name_any()}, "destinations": [{"name": class.name, "className": class.name}]});
    let backup = Backup::new(&restore.name_any(), serde_json::from_value(spec)?);
    let signers = found.signers.iter().flatten();
    let trusted: BTreeSet<_> = signers.chain(&settings.trusted_keys).cloned().collect();
    let told = JobSettings {
        claim_id: claim.to_owned(),
        namespace: restore.namespace().unwrap_or_default(),
        tenant: restore.name_any(),
        recipients: settings.escrow_recipients.clone(),
        trusted_keys: trusted.into_iter().collect(),
        destinations: vec![JobDestination {
            name: class.name.clone(),
            retention_days: 0,
            place: JobPlace::Bucket(bucket(&class.name, class)),
        }],
        anchor: None,
    };
    let valid = Valid {
        claim: claim.to_owned(),
        settings: settings.clone(),
        classes: [(class.name.clone(), class.clone())].into(),
        ..Valid::default()
    };
    let template = pod::build(&backup, &valid, Run::Drill, serde_json::to_string(&told)?);
    Ok(JobTemplateSpec { metadata: None, spec: Some(JobSpec { template, ..JobSpec::default() }) })
}

/// The Job that backs up what is to be replaced, from an incremental one.
#[must_use]
pub fn save(restore: &Restore, home: &str, incremental: JobTemplateSpec) -> Option<Job> {
    Some(made(restore, home, save_name(restore), incremental.spec?))
}

fn made(restore: &Restore, home: &str, name: String, spec: JobSpec) -> Job {
    let labels =
        [(LABEL_RESTORE, restore.name_any()), (LABEL_RESTORE_NAMESPACE, restore.namespace().unwrap_or_default())];
    job::once(home, name, &labels, spec)
}

/// Tells the job where the ledger is anchored.
fn tell(env: &mut [EnvVar], anchor: Option<Anchor>) -> Option<()> {
    let told = env.iter_mut().find(|variable| variable.name == pod::SETTINGS)?;
    let settings: JobSettings = serde_json::from_str(told.value.as_deref()?).ok()?;
    told.value = Some(serde_json::to_string(&JobSettings { anchor, ..settings }).ok()?);
    Some(())
}

fn command(restore: &Restore) -> Vec<String> {
    let target = target(restore);
    let destination = restore.spec.source.destination.iter().flat_map(|name| ["--destination", name.as_str()]);
    job::command(["restore", "--target", target.as_str()].into_iter().chain(destination))
}

fn target(restore: &Restore) -> String {
    let (target, manifest) = (&restore.spec.target, restore.spec.source.manifest.as_ref());
    let artifact = manifest.and_then(|manifest| manifest.split('/').nth(1));
    match target {
        Target { time: Some(time), .. } => format!("time={}", time.0),
        Target { ledger_sequence: Some(sequence), .. } => format!("sequence={sequence}"),
        Target { artifact: Some(artifact), .. } => format!("artifact={artifact}"),
        // What is stored of what is to be replaced is not meant.
        _ if restore.spec.mode == Mode::InPlace => {
            let began = restore.status.as_ref().and_then(|status| status.start_time.as_ref());
            began.map_or_else(|| "latest".to_owned(), |began| format!("time={}", began.0))
        }
        _ => artifact.map_or_else(|| "latest".to_owned(), |artifact| format!("artifact={artifact}")),
    }
}

/// The Secret with the login that restores, and the key that the bank's data key comes back under.
#[must_use]
pub fn secret(restore: &Restore, home: &str, place: &Place, url: String, carrier: String) -> Secret {
    let metadata = ObjectMeta {
        name: Some(name(restore)),
        namespace: Some(home.to_owned()),
        labels: Some([(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned())].into()),
        annotations: Some([(ANNOTATION_CLAIM.to_owned(), place.names.claim_id.to_string())].into()),
        ..ObjectMeta::default()
    };
    let data = [(DATABASE_URL, url), (CARRIER_KEY, carrier)];
    Secret {
        metadata,
        type_: Some(format!("{GROUP}/restore-database")),
        data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).into()),
        ..Secret::default()
    }
}

fn from_secret(key: &str, secret: String) -> EnvVar {
    let selector = SecretKeySelector { name: secret, key: key.to_owned(), optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: key.to_owned(), value: None, value_from: Some(source) }
}
