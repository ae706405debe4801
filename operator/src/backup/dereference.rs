//! Step 1: gathers a Backup's surroundings. Writes nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use finaiflow_crds::backup::Run;
use finaiflow_crds::names::{
    LABEL_CLAIM, SecretPurpose, backup_identity_name, backup_job_name, backup_secret_name, backup_volume_name,
};
use finaiflow_crds::{Backup, Tenant};
use futures::future::try_join_all;
use futures::try_join;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};

use super::Context;
use crate::error::{Error, Result};
use crate::tenant::dereference::read;

/// A Backup and its surroundings.
#[derive(Debug, Clone)]
pub struct Found {
    /// The Backup.
    pub backup: Arc<Backup>,
    /// The operator's namespace.
    pub home: String,
    /// The bank, if it is known.
    pub claim: Option<String>,
    /// The Tenant of that name, whatever bank it is.
    pub named: Option<Arc<Tenant>>,
    /// The Tenant, if there is one and it is that bank.
    pub tenant: Option<Arc<Tenant>>,
    /// `<namespace>/<name>` of the Backup that acts for the bank, if it is not this one.
    pub actor: Option<String>,
    /// The Tenant's Secrets with the backup login and the data key.
    pub sources: Sources,
    /// What there is of the bank in the operator's namespace, whoever made it.
    pub live: Live,
    /// The bank's jobs.
    pub jobs: Vec<Arc<Job>>,
    /// Their pods.
    pub pods: Vec<Arc<Pod>>,
}

/// The Tenant's Secrets that jobs need.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The backup login.
    pub login: Option<Secret>,
    /// The data key.
    pub data_key: Option<Secret>,
}

/// What there is in the operator's namespace.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// The jobs' Secret.
    pub secret: Option<Secret>,
    /// What opens backups.
    pub identity: Option<Secret>,
    /// The volumes of the spec's destinations, by their name there.
    pub volumes: BTreeMap<String, PersistentVolumeClaim>,
    /// The jobs.
    pub cron_jobs: BTreeMap<Run, CronJob>,
}

/// The Backup as it is watched now, or None if it is gone.
#[must_use]
pub fn current(ctx: &Context, watched: &Backup) -> Option<Arc<Backup>> {
    ctx.backups.get(&ObjectRef::from_obj(watched)).filter(|backup| backup.uid() == watched.uid())
}

/// Reads what the Backup points to.
pub async fn dereference(ctx: &Context, backup: Arc<Backup>) -> Result<Found> {
    let mut found = Found::without_objects(ctx, backup);
    if found.actor.is_none()
        && ctx.settings.is_some()
        && let Some(claim) = &found.claim
    {
        let live = live(&ctx.client, &ctx.home, claim, &found.backup);
        (found.sources, found.live) = try_join!(sources(&ctx.client, found.tenant.as_deref()), live)?;
    }
    Ok(found)
}

impl Found {
    /// What is known without a question to anybody.
    #[must_use]
    pub fn without_objects(ctx: &Context, backup: Arc<Backup>) -> Self {
        let tenants = ctx.tenants.state();
        let named = tenant_of(&tenants, &backup);
        let claim = claim_of(&backup, named.as_deref());
        let of_bank = |labels: &BTreeMap<String, String>| claim.is_some() && labels.get(LABEL_CLAIM) == claim.as_ref();
        Self {
            tenant: named.clone().filter(|tenant| claim.is_some() && claim_of_tenant(tenant) == claim),
            actor: actor(&backup, claim.as_deref(), &ctx.backups.state(), &tenants),
            jobs: ctx.jobs.state().into_iter().filter(|job| of_bank(job.labels())).collect(),
            pods: ctx.pods.state().into_iter().filter(|pod| of_bank(pod.labels())).collect(),
            sources: Sources::default(),
            live: Live::default(),
            home: ctx.home.clone(),
            named,
            claim,
            backup,
        }
    }
}

/// The bank that a Backup is of: what was backed up once decides.
fn claim_of(backup: &Backup, tenant: Option<&Tenant>) -> Option<String> {
    let known = backup.status.as_ref().and_then(|status| status.claim_id.clone());
    known.or_else(|| claim_of_tenant(tenant?))
}

fn claim_of_tenant(tenant: &Tenant) -> Option<String> {
    tenant.status.as_ref()?.claim_id.clone()
}

fn tenant_of(tenants: &[Arc<Tenant>], backup: &Backup) -> Option<Arc<Tenant>> {
    let is_it = |tenant: &&Arc<Tenant>| {
        tenant.metadata.namespace == backup.metadata.namespace
            && tenant.metadata.name.as_ref() == Some(&backup.spec.tenant_ref.name)
    };
    tenants.iter().find(is_it).map(Arc::clone)
}

/// The Backup that acts for the bank, if it is another one: one whose Tenant is there, and of those the oldest. One that
/// is being deleted acts until it is gone.
fn actor(backup: &Backup, claim: Option<&str>, backups: &[Arc<Backup>], tenants: &[Arc<Tenant>]) -> Option<String> {
    let is_rival = |(rival, tenant): &(&Arc<Backup>, Option<Arc<Tenant>>)| {
        let same_tenant =
            rival.namespace() == backup.namespace() && rival.spec.tenant_ref.name == backup.spec.tenant_ref.name;
        // A Backup whose Tenant has become another bank does not stand in the way of one for the new bank.
        match (claim, claim_of(rival, tenant.as_deref())) {
            (Some(claim), Some(other)) => claim == other,
            _ => same_tenant,
        }
    };
    let rivals = backups.iter().map(|rival| (rival, tenant_of(tenants, rival))).filter(is_rival);
    let (first, _) = rivals.min_by(|(a, a_tenant), (b, b_tenant)| {
        let is_gone = |tenant: &Option<Arc<Tenant>>| tenant.is_none();
        is_gone(a_tenant).cmp(&is_gone(b_tenant)).then_with(|| age(a, b))
    })?;
    (first.uid() != backup.uid()).then(|| key(first))
}

fn age(a: &Backup, b: &Backup) -> Ordering {
    let rank = |backup: &Backup| (backup.creation_timestamp(), backup.namespace(), backup.name_any());
    rank(a).cmp(&rank(b))
}

/// `<namespace>/<name>`.
#[must_use]
pub fn key(backup: &Backup) -> String {
    format!("{}/{}", backup.namespace().unwrap_or_default(), backup.name_any())
}

async fn sources(client: &Client, tenant: Option<&Tenant>) -> Result<Sources> {
    let Some(tenant) = tenant else { return Ok(Sources::default()) };
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let (login, data_key) = try_join!(
        read(client, &namespace, SecretPurpose::BackupDatabase.secret_name(&name)),
        read(client, &namespace, SecretPurpose::DataKey.secret_name(&name)),
    )?;
    Ok(Sources { login, data_key })
}

async fn live(client: &Client, home: &str, claim: &str, backup: &Backup) -> Result<Live> {
    let volumes = backup.spec.destinations.iter().filter(|destination| destination.class_name.is_none());
    let volumes = try_join_all(volumes.map(|destination| async move {
        let found = read(client, home, backup_volume_name(claim, &destination.name)).await?;
        Ok::<_, Error>(found.map(|volume| (destination.name.clone(), volume)))
    }));
    let (secret, identity, volumes, cron_jobs) = try_join!(
        read(client, home, backup_secret_name(claim)),
        read(client, home, backup_identity_name(claim)),
        volumes,
        cron_jobs(client, home, claim),
    )?;
    Ok(Live { secret, identity, volumes: volumes.into_iter().flatten().collect(), cron_jobs })
}

/// The bank's CronJobs.
pub async fn cron_jobs(client: &Client, home: &str, claim: &str) -> Result<BTreeMap<Run, CronJob>> {
    let found = try_join_all(Run::ALL.map(|run| async move {
        let cron_job = read(client, home, backup_job_name(claim, run)).await?;
        Ok::<_, Error>(cron_job.map(|cron_job| (run, cron_job)))
    }));
    let found: Vec<Option<(Run, CronJob)>> = found.await?;
    Ok(found.into_iter().flatten().collect())
}
