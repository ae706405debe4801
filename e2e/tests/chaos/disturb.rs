//! What goes wrong while the bank works.

use std::thread;
use std::time::{Duration, Instant};

use finaiflow_e2e::{BANKS, SYSTEM, Tenant, apply, kubectl, psql, try_kubectl};
use serde_json::{Value, json};

use crate::random::Random;

pub const OPERATOR: &str = "finaiflow-operator";
pub const API: &str = "finaiflow-api";
pub const POSTGRES: &str = "finaiflow-postgres";

/// One thing that goes wrong, or that is done on purpose at a bad moment.
#[derive(Clone, Copy, Debug)]
pub enum Disturbance {
    /// kill -9; the kubelet starts the program again in its pod.
    Kill(&'static str),
    /// The pod is gone without a goodbye; another takes its place.
    Delete(&'static str),
    /// kill -9 of all its pods at once.
    KillEvery(&'static str),
    /// kill -9 of one of PostgreSQL's sessions, upon which it ends all and recovers.
    KillSession,
    /// `kubectl rollout restart`.
    Roll(&'static str),
    /// From two replicas of the API server to three, or back.
    Scale,
    /// The Secret of a bank's login is deleted; the operator makes another login.
    LoseLogin,
    /// A bank's Tenant asks for another limit.
    ChangeLimit,
}

/// Each of them once; killed containers start again ever more slowly, so that PostgreSQL's is killed no more than twice.
const ALL: [Disturbance; 13] = [
    Disturbance::Kill(OPERATOR),
    Disturbance::Delete(OPERATOR),
    Disturbance::Kill(API),
    Disturbance::Delete(API),
    Disturbance::KillEvery(API),
    Disturbance::Kill(POSTGRES),
    Disturbance::Kill(POSTGRES),
    Disturbance::KillSession,
    Disturbance::Roll(API),
    Disturbance::Scale,
    Disturbance::Scale,
    Disturbance::LoseLogin,
    Disturbance::ChangeLimit,
];

/// Disturbs at random moments until `end`, each kind once per minute.
pub fn until(end: Instant, random: &mut Random, surgeon: &Surgeon, banks: &[&Tenant]) {
    let started = Instant::now();
    while Instant::now() < end {
        let mut round = ALL;
        random.shuffle(&mut round);
        for disturbance in round {
            thread::sleep(
                Duration::from_millis(500 + random.below(4_000)).min(end.saturating_duration_since(Instant::now())),
            );
            if Instant::now() >= end {
                return;
            }
            let done = cause(disturbance, random, surgeon, banks);
            eprintln!("chaos: {:5.1} s {disturbance:?}: {done:?}", started.elapsed().as_secs_f64());
        }
    }
}

/// May fail: what is to be killed may be down already.
fn cause(
    disturbance: Disturbance,
    random: &mut Random,
    surgeon: &Surgeon,
    banks: &[&Tenant],
) -> Result<String, String> {
    let any = |random: &mut Random, name| {
        let pods = pods(name);
        if pods.is_empty() { Err(format!("no pod of {name}")) } else { Ok(random.pick(&pods).clone()) }
    };
    match disturbance {
        Disturbance::Kill(name) => surgeon.kill(&any(random, name)?),
        Disturbance::KillEvery(name) => pods(name).iter().map(|pod| surgeon.kill(pod)).collect(),
        Disturbance::Delete(name) => {
            let pod = any(random, name)?;
            let pod = pod["metadata"]["name"].as_str().unwrap();
            try_kubectl(&["-n", SYSTEM, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false"])
        }
        Disturbance::KillSession => kill_session(),
        Disturbance::Roll(name) => try_kubectl(&["-n", SYSTEM, "rollout", "restart", &format!("deployment/{name}")]),
        Disturbance::Scale => {
            let path = "jsonpath={.spec.replicas}";
            let replicas = try_kubectl(&["-n", SYSTEM, "get", "deployment", API, "-o", path])?;
            scale(if replicas == "2" { 3 } else { 2 })
        }
        Disturbance::LoseLogin => {
            let secret = format!("{}.database", random.pick(banks).name);
            try_kubectl(&["-n", BANKS, "delete", "secret", &secret, "--wait=false"])
        }
        Disturbance::ChangeLimit => {
            let limits = json!({"limits": {"connections": 10 + random.below(20)}});
            apply(&Tenant::manifest(&random.pick(banks).name, &limits))
        }
    }
}

/// Asks for that many replicas of the API server.
pub fn scale(replicas: u8) -> Result<String, String> {
    try_kubectl(&["-n", SYSTEM, "scale", &format!("deployment/{API}"), &format!("--replicas={replicas}")])
}

/// Waits until everything runs again with two replicas of the API server.
pub fn recover() {
    let _ = scale(2).unwrap();
    for workload in ["statefulset/finaiflow-postgres", "deployment/finaiflow-operator", "deployment/finaiflow-api"] {
        let _ = kubectl(&["-n", SYSTEM, "rollout", "status", workload, "--timeout=180s"]);
    }
}

/// When the running PostgreSQL was started; it must say that it writes to the disk, and to a volume.
pub fn durable_postgres() -> String {
    let settings = psql(
        "select string_agg(name || '=' || setting, ' ' order by name) from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit')",
    );
    assert_eq!(settings, "fsync=on full_page_writes=on synchronous_commit=on");
    let volumes = kubectl(&[
        "-n",
        SYSTEM,
        "get",
        "pod",
        "finaiflow-postgres-0",
        "-o",
        "jsonpath={.spec.volumes[*].persistentVolumeClaim.claimName}",
    ]);
    assert_eq!(volumes, "data-finaiflow-postgres-0");
    psql("select pg_postmaster_start_time()")
}

fn kill_session() -> Result<String, String> {
    let session = "select pid from pg_stat_activity where usename like 'ff\\_%' order by random() limit 1";
    let psql = ["psql", "-U", "postgres", "-d", "finaiflow", "-qAtc", session];
    let pid = try_kubectl(&[&["-n", SYSTEM, "exec", "finaiflow-postgres-0", "--"], &psql[..]].concat())?;
    let kill = format!("kill -9 {pid}");
    try_kubectl(&["-n", SYSTEM, "exec", "finaiflow-postgres-0", "--", "sh", "-c", &kill])?;
    Ok(format!("session {pid}"))
}

/// The pods of a component that are not on their way out.
pub fn pods(name: &str) -> Vec<Value> {
    let label = format!("app.kubernetes.io/name={name}");
    let list: Value =
        serde_json::from_str(&kubectl(&["-n", SYSTEM, "get", "pods", "-l", &label, "-o", "json"])).unwrap();
    let pods = list["items"].as_array().unwrap().iter();
    pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).cloned().collect()
}

/// Which containers a component runs in: others after any restart.
pub fn containers(name: &str) -> Vec<String> {
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].to_string();
    let mut ids: Vec<_> = pods(name).iter().map(id).collect();
    ids.sort_unstable();
    ids
}

/// A pod that sees the processes of its node, the only one: kills a container's first process, and so all of it,
/// without asking anybody. (A force-deleted pod still gets SIGTERM and a moment.)
pub struct Surgeon;

const NAME: &str = "chaos-surgeon";

impl Surgeon {
    pub fn start() -> Self {
        let image = pods(POSTGRES)[0]["spec"]["containers"][0]["image"].clone();
        let _ = apply(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "namespace": "default"},
            "spec": {
                "hostPID": true, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{
                    "name": "surgeon", "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"], "securityContext": {"privileged": true, "runAsUser": 0},
                }],
            },
        }))
        .unwrap();
        let _ = kubectl(&["-n", "default", "wait", "--for=condition=Ready", &format!("pod/{NAME}"), "--timeout=60s"]);
        Self
    }

    /// kill -9 of the pod's container.
    pub fn kill(&self, pod: &Value) -> Result<String, String> {
        let Self = self;
        let name = pod["metadata"]["name"].as_str().unwrap();
        let container = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
        let Some((_, container)) = container.split_once("://") else { return Err(format!("{name} has no container")) };
        // The last of NSpid is the number in the container: 1 is its first process.
        let script = r#"for p in /proc/[0-9]*; do
            if grep -qs "$1" "$p/cgroup" && grep -qs '^NSpid:.*[[:space:]]1$' "$p/status"; then kill -9 "${p#/proc/}"; exit; fi
        done; exit 1"#;
        try_kubectl(&["-n", "default", "exec", NAME, "--", "sh", "-c", script, "sh", container])?;
        Ok(name.to_owned())
    }
}

impl Drop for Surgeon {
    fn drop(&mut self) {
        let _ = try_kubectl(&["-n", "default", "delete", "pod", NAME, "--grace-period=0", "--force", "--wait=false"]);
    }
}
