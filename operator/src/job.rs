//! Jobs that run once in the operator's namespace, made like those of a bank's CronJobs.

use std::collections::BTreeMap;

use finaiflow_crds::backup::{REPORT_MAX, Report, Run};
use finaiflow_crds::names::{BACKUP, LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY, backup_job_name};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};

use crate::backup::report;
use crate::error::{Attempt, Error, Reason, Result};

/// Long enough for somebody to read the pod's log.
const KEEP_SECONDS: i32 = 7 * 86_400;
const DEADLINE_SECONDS: i64 = 24 * 3600;
const RETRIES: i32 = 2;

const PROGRAM: &str = "/usr/local/bin/finaiflow-backup";

/// How a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// At work, or about to be.
    Working,
    /// It has ended, and said how.
    Reported(Box<Report>),
    /// It has ended without a word of its own.
    Failed(String),
}

/// The jobs of a namespace.
#[derive(Clone, Copy)]
pub struct Jobs<'a> {
    /// The Kubernetes API.
    pub client: &'a Client,
    /// The operator's namespace.
    pub home: &'a str,
}

impl Jobs<'_> {
    /// How a job stands; None if there is none of the name.
    pub async fn state(&self, name: &str) -> Result<Option<State>> {
        let Some(job) = self.jobs().get_opt(name).await.attempt(|| format!("read job {name}"))? else {
            return Ok(None);
        };
        let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ended =
            |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
        let failed = ended("Failed");
        if failed.is_none() && ended("Complete").is_none() {
            return Ok(Some(State::Working));
        }
        let why = failed.and_then(|failed| failed.message.clone().or_else(|| failed.reason.clone()));
        let said = self.last_words(&job).await?;
        Ok(Some(match said.as_deref().map(serde_json::from_str) {
            Some(Ok(report)) => State::Reported(Box::new(report)),
            // The error would quote what it met.
            Some(Err(_)) => State::Failed("what it says is no report".to_owned()),
            None => State::Failed(why.unwrap_or_else(|| "it said nothing".to_owned())),
        }))
    }

    /// What the newest pod of a job said when it ended.
    async fn last_words(&self, job: &Job) -> Result<Option<String>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.home);
        let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={}", job.name_any()));
        let mut pods = pods.list(&of_job).await.attempt(|| format!("list pods of job {}", job.name_any()))?.items;
        pods.retain(|pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref()));
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.creation_timestamp()));
        let said = pods.iter().find_map(|pod| report::ended(pod)?.message.clone());
        Ok(said.filter(|said| !said.is_empty() && said.len() <= REPORT_MAX))
    }

    /// What the jobs of a bank's CronJob are made of.
    pub async fn template(&self, claim: &str, run: Run) -> Result<JobTemplateSpec> {
        let cron_jobs: Api<CronJob> = Api::namespaced(self.client.clone(), self.home);
        let name = backup_job_name(claim, run);
        let cron_job = cron_jobs.get(&name).await.attempt(|| format!("read cron job {name}"))?;
        cron_job.spec.map(|spec| spec.job_template).ok_or_else(no_template)
    }

    /// Makes a job; one that is there is as good.
    pub async fn create(&self, job: Option<Job>) -> Result<()> {
        let job = job.ok_or_else(no_template)?;
        match self.jobs().create(&PostParams::default(), &job).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            result => result.map(drop).attempt(|| format!("create job {}", job.name_any())),
        }
    }

    /// Ends a job and takes it away; that there is none is as good.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let Some(found) = self.jobs().get_metadata_opt(name).await.attempt(|| format!("read job {name}"))? else {
            return Ok(());
        };
        let this = Preconditions { uid: found.metadata.uid, resource_version: None };
        match self.jobs().delete(name, &DeleteParams::background().preconditions(this)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            result => result.map(drop).attempt(|| format!("delete job {name}")),
        }
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), self.home)
    }
}

/// A command line of the program that jobs run.
pub fn command<'w>(words: impl IntoIterator<Item = &'w str>) -> Vec<String> {
    std::iter::once(PROGRAM).chain(words).map(str::to_owned).collect()
}

/// The container of that program.
pub fn container(spec: &mut JobSpec) -> Option<&mut Container> {
    let containers = &mut spec.template.spec.as_mut()?.containers;
    containers.iter_mut().find(|container| container.name == BACKUP)
}

fn no_template() -> Error {
    Error::refused(Reason::InternalError, "a job of the Backup is not as the operator makes it")
}

/// A job that runs once. Its labels are not those of a Backup's runs, whose reports are the Backup's.
#[must_use]
pub fn once(home: &str, name: String, labels: &[(&str, String)], mut spec: JobSpec) -> Job {
    // The second is what network policies select.
    let ours = [(LABEL_MANAGED_BY, MANAGED_BY.to_owned()), (LABEL_NAME, BACKUP.to_owned())];
    let labels: BTreeMap<_, _> =
        ours.iter().chain(labels).map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: Some(home.to_owned()),
        labels: Some(labels.clone()),
        ..ObjectMeta::default()
    };
    spec.template.metadata = Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() });
    spec.backoff_limit = Some(RETRIES);
    spec.active_deadline_seconds = Some(DEADLINE_SECONDS);
    spec.ttl_seconds_after_finished = Some(KEEP_SECONDS);
    Job { metadata, spec: Some(spec), status: None }
}
