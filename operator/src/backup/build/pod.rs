//! The pods of the jobs.

use std::collections::BTreeMap;

use finaiflow_crds::Backup;
use finaiflow_crds::backup::{JobSettings, Run, VerificationMode};
use finaiflow_crds::names::{BACKUP, backup_identity_name, backup_secret_name, backup_volume_name};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction, KeyToPath,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
    SeccompProfile, SecretKeySelector, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::backup::settings::Settings;
use crate::backup::validate::{DATABASE_URL, IDENTITY, SIGNING_KEY, Valid};
use crate::job;
use crate::tenant::build::KEK;

/// Same as the images' user.
const USER: i64 = 65_532;
/// PostgreSQL's own.
const POSTGRES: i64 = 999;
/// Environment variable with the [`JobSettings`].
pub const SETTINGS: &str = "FINAIFLOW_JOB";
const SCRATCH: &str = "/scratch";
/// Nothing in it outlives the pod, so nothing waits for the disk. Reached through a socket that only the pod has.
const SCRATCH_SERVER: &str = "initdb --pgdata=/scratch/data --username=postgres --auth=trust --encoding=UTF8 --locale=C \
--no-sync && exec postgres -D /scratch/data -c listen_addresses= -c unix_socket_directories=/scratch -c fsync=off \
-c full_page_writes=off -c synchronous_commit=off -c max_wal_size=4GB";

/// Where a destination's volume is mounted.
#[must_use]
pub fn volume_path(destination: &str) -> String {
    format!("/destinations/{destination}")
}

/// Where the credentials of a destination's bucket are mounted.
#[must_use]
pub fn credentials_path(destination: &str) -> String {
    format!("/credentials/{destination}")
}

/// What a live CronJob's jobs are told.
#[must_use]
pub fn settings(cron_job: &CronJob) -> Option<JobSettings> {
    let containers = &cron_job.spec.as_ref()?.job_template.spec.as_ref()?.template.spec.as_ref()?.containers;
    let env = containers.iter().find(|container| container.name == BACKUP)?.env.as_ref()?;
    serde_json::from_str(env.iter().find(|variable| variable.name == SETTINGS)?.value.as_ref()?).ok()
}

/// A directory or file in a container.
struct Mount {
    volume: Volume,
    mount: VolumeMount,
}

/// The pod of a run, which is told `settings`.
#[must_use]
pub fn build(backup: &Backup, valid: &Valid, run: Run, settings: String) -> PodTemplateSpec {
    let takes = matches!(run, Run::Full | Run::Incremental | Run::Segment);
    let mode = backup.spec.verification.mode;
    let restores = run == Run::Drill || run == Run::Verify && mode == VerificationMode::Restore;
    let mounts = mounts(backup, valid, run, restores);
    let mut env = vec![variable(SETTINGS, settings)];
    if takes {
        env.push(from_secret(DATABASE_URL, backup_secret_name(&valid.claim)));
    }
    if restores {
        env.push(variable("SCRATCH_DATABASE_URL", format!("postgres://postgres@localhost/postgres?host={SCRATCH}")));
    }
    let (volumes, mounts) = mounts.into_iter().map(|Mount { volume, mount }| (volume, mount)).unzip();
    let container = Container {
        name: BACKUP.to_owned(),
        image: Some(valid.settings.image.clone()),
        image_pull_policy: Some(valid.settings.image_pull_policy.clone()),
        command: Some(command(run, mode)),
        env: Some(env),
        volume_mounts: Some(mounts),
        resources: Some(resources(("50m", "64Mi"), "512Mi")),
        security_context: Some(restricted()),
        ..Container::default()
    };
    let spec = PodSpec {
        restart_policy: Some("Never".to_owned()),
        service_account_name: Some(BACKUP.to_owned()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            // Volumes are the jobs' to write.
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        init_containers: restores.then(|| vec![scratch_server(&valid.settings)]),
        containers: vec![container],
        volumes: Some(volumes),
        ..PodSpec::default()
    };
    PodTemplateSpec { metadata: None, spec: Some(spec) }
}

fn command(run: Run, mode: VerificationMode) -> Vec<String> {
    let words: &[&str] = match run {
        Run::Full | Run::Incremental | Run::Segment => &["take", run.as_str()],
        Run::Prune | Run::Drill => &[run.as_str()],
        Run::Verify if mode == VerificationMode::Checksum => &["verify", "--mode", "checksum"],
        Run::Verify => &["verify", "--mode", "restore"],
    };
    job::command(words.iter().copied())
}

/// What signs is where backups are taken, and what opens them where they are proven: no pod has both.
fn mounts(backup: &Backup, valid: &Valid, run: Run, restores: bool) -> Vec<Mount> {
    let claim = &valid.claim;
    let mut mounts = vec![empty("tmp", "/tmp")];
    match run {
        Run::Full | Run::Incremental | Run::Segment => {
            mounts.push(secret("keys", backup_secret_name(claim), Some(&[SIGNING_KEY, KEK]), "/keys"));
        }
        Run::Verify | Run::Drill => {
            mounts.push(secret("identity", backup_identity_name(claim), Some(&[IDENTITY]), "/identity"));
        }
        Run::Prune => {}
    }
    if restores {
        mounts.push(empty("scratch", SCRATCH));
    }
    for destination in &backup.spec.destinations {
        let name = &destination.name;
        match destination.class_name.as_ref().and_then(|class| valid.classes.get(class)) {
            Some(class) => mounts.push(secret(
                &format!("credentials-{name}"),
                class.credentials_secret_name.clone(),
                None,
                &credentials_path(name),
            )),
            None => mounts.push(volume(
                &format!("destination-{name}"),
                Volume {
                    persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                        claim_name: backup_volume_name(claim, name),
                        read_only: None,
                    }),
                    ..Volume::default()
                },
                &volume_path(name),
                false,
            )),
        }
    }
    mounts
}

fn volume(name: &str, volume: Volume, path: &str, read_only: bool) -> Mount {
    Mount {
        volume: Volume { name: name.to_owned(), ..volume },
        mount: VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        },
    }
}

fn secret(name: &str, secret: String, keys: Option<&[&str]>, path: &str) -> Mount {
    let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None };
    let source = SecretVolumeSource {
        secret_name: Some(secret),
        items: keys.map(|keys| keys.iter().map(item).collect()),
        ..SecretVolumeSource::default()
    };
    volume(name, Volume { secret: Some(source), ..Volume::default() }, path, true)
}

fn empty(name: &str, path: &str) -> Mount {
    volume(name, Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }, path, false)
}

/// A PostgreSQL that is there before the job begins and goes when it ends.
fn scratch_server(settings: &Settings) -> Container {
    let command = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    Container {
        name: "postgres".to_owned(),
        image: Some(settings.postgres_image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        restart_policy: Some("Always".to_owned()),
        command: command(&["sh", "-c", SCRATCH_SERVER]),
        startup_probe: Some(Probe {
            exec: Some(ExecAction { command: command(&["pg_isready", "--quiet", "--host", SCRATCH]) }),
            period_seconds: Some(1),
            failure_threshold: Some(300),
            ..Probe::default()
        }),
        volume_mounts: Some(vec![empty("scratch", SCRATCH).mount]),
        resources: Some(resources(("100m", "256Mi"), "1Gi")),
        security_context: Some(SecurityContext {
            run_as_user: Some(POSTGRES),
            run_as_group: Some(POSTGRES),
            ..restricted()
        }),
        ..Container::default()
    }
}

fn restricted() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn resources((cpu, memory): (&str, &str), limit: &str) -> ResourceRequirements {
    let amount = |name: &str, amount: &str| (name.to_owned(), Quantity(amount.to_owned()));
    ResourceRequirements {
        requests: Some([amount("cpu", cpu), amount("memory", memory)].into()),
        limits: Some(BTreeMap::from([amount("memory", limit)])),
        ..ResourceRequirements::default()
    }
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value), value_from: None }
}

fn from_secret(key: &str, secret: String) -> EnvVar {
    EnvVar {
        name: key.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector { name: secret, key: key.to_owned(), optional: None }),
            ..EnvVarSource::default()
        }),
    }
}
