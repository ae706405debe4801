//! The job that verifies the tenant's ledger.

use std::collections::BTreeMap;

use finaiflow_crds::Tenant;
use finaiflow_crds::cron::spread;
use finaiflow_crds::names::{SecretPurpose, ledger_verification_name};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, JobSpec, JobTemplateSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements,
    SeccompProfile, SecretKeySelector, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{labels, metadata};
use crate::catalog::{ClaimId, TenantNames};
use crate::config::LedgerVerification;

const DEADLINE_SECONDS: i64 = 1800;
/// Long enough for somebody to read the pod's log.
const KEEP_SECONDS: i32 = 86_400;
/// Same as the images' user.
const USER: i64 = 65_532;

pub fn build(tenant: &Tenant, names: &TenantNames, settings: &LedgerVerification) -> CronJob {
    let name = tenant.name_any();
    let schedule = tenant.spec.ledger_verification.schedule.clone();
    let labelled = ObjectMeta { labels: Some(labels(tenant)), ..ObjectMeta::default() };
    CronJob {
        metadata: metadata(tenant, ledger_verification_name(&name)),
        spec: Some(CronJobSpec {
            schedule: schedule.unwrap_or_else(|| daily(names.claim_id)),
            time_zone: Some(tenant.spec.time_zone.clone()),
            concurrency_policy: Some("Forbid".to_owned()),
            // A suspended bank is still verified.
            suspend: Some(false),
            successful_jobs_history_limit: Some(1),
            failed_jobs_history_limit: Some(1),
            starting_deadline_seconds: Some(3600),
            job_template: JobTemplateSpec {
                metadata: Some(labelled.clone()),
                spec: Some(JobSpec {
                    backoff_limit: Some(2),
                    active_deadline_seconds: Some(DEADLINE_SECONDS),
                    ttl_seconds_after_finished: Some(KEEP_SECONDS),
                    template: PodTemplateSpec { metadata: Some(labelled), spec: Some(pod(&name, settings)) },
                    ..JobSpec::default()
                }),
            },
        }),
        status: None,
    }
}

/// Every day at a time of its own, so that tenants spread.
fn daily(claim: ClaimId) -> String {
    let claim = claim.to_string();
    format!("{} {} * * *", spread(&claim, 0, 60), spread(&claim, 4, 24))
}

fn pod(tenant: &str, settings: &LedgerVerification) -> PodSpec {
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![Container {
            name: "verify".to_owned(),
            image: Some(settings.image.clone()),
            image_pull_policy: Some(settings.image_pull_policy.clone()),
            command: Some(vec!["/usr/local/bin/finaiflow-api".to_owned(), "verify-ledger".to_owned()]),
            env: Some(vec![database_url(tenant)]),
            resources: Some(ResourceRequirements {
                requests: Some(amounts("50m", "64Mi")),
                limits: Some(amounts("1", "256Mi")),
                ..ResourceRequirements::default()
            }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
                ..SecurityContext::default()
            }),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

fn database_url(tenant: &str) -> EnvVar {
    EnvVar {
        name: "DATABASE_URL".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: SecretPurpose::MaintenanceDatabase.secret_name(tenant),
                key: "DATABASE_URL".to_owned(),
                optional: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn amounts(cpu: &str, memory: &str) -> BTreeMap<String, Quantity> {
    [("cpu".to_owned(), Quantity(cpu.to_owned())), ("memory".to_owned(), Quantity(memory.to_owned()))].into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::super::tests::{config, names, owned, tenant};
    use super::*;

    const EXPECTED_SPEC: &str = "
schedule: 51 7 * * *
timeZone: Europe/Zurich
concurrencyPolicy: Forbid
suspend: false
successfulJobsHistoryLimit: 1
failedJobsHistoryLimit: 1
startingDeadlineSeconds: 3600
jobTemplate:
  metadata: {labels: &labels {app.kubernetes.io/managed-by: finaiflow-operator, finaiflow.io/tenant: acme}}
  spec:
    backoffLimit: 2
    activeDeadlineSeconds: 1800
    ttlSecondsAfterFinished: 86400
    template:
      metadata: {labels: *labels}
      spec:
        restartPolicy: Never
        automountServiceAccountToken: false
        enableServiceLinks: false
        securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
        containers:
          - name: verify
            image: localhost/finaiflow-api:dev
            imagePullPolicy: IfNotPresent
            command: [/usr/local/bin/finaiflow-api, verify-ledger]
            env:
              - name: DATABASE_URL
                valueFrom: {secretKeyRef: {name: acme.maintenance-database, key: DATABASE_URL}}
            resources: {requests: {cpu: 50m, memory: 64Mi}, limits: {cpu: '1', memory: 256Mi}}
            securityContext:
              allowPrivilegeEscalation: false
              readOnlyRootFilesystem: true
              capabilities: {drop: [ALL]}
";

    #[test]
    fn the_job_is_restricted_and_holds_no_token() {
        let cron_job = build(&tenant(&json!({"timeZone": "Europe/Zurich"})), &names(), &config().ledger_verification);
        let spec: Value = serde_yaml::from_str(EXPECTED_SPEC).unwrap();
        assert_eq!(
            to_value(cron_job).unwrap(),
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": owned("acme-verify"), "spec": spec})
        );
    }

    #[test]
    fn a_schedule_of_the_spec_is_taken_as_it_is() {
        let spec = json!({"ledgerVerification": {"schedule": "@hourly"}, "suspend": true});
        let spec = build(&tenant(&spec), &names(), &config().ledger_verification).spec.unwrap();
        assert_eq!((spec.schedule.as_str(), spec.suspend), ("@hourly", Some(false)));
    }
}
