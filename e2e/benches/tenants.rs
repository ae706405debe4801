//! Many Tenants applied at once to the cluster of `make up`: how long until they are banks, what the time is spent on,
//! and the operator's memory. Prints the tables of docs/PERFORMANCE.md; removes what it made.
#![expect(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: it prints numbers far below 2^52, and fails by panicking"
)]

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use finaiflow_e2e::{BANKS, SYSTEM, Tenant, apply, kubectl, operator_metric, psql, unique};
use serde_json::{Value, json};

/// Steps of a visit as the operator names them; those that are indented are part of the one above.
const STEPS: [(&str, &str); 9] = [
    ("dereference", "dereference: read claim, schema version, Secrets and objects"),
    ("apply", "apply, of which"),
    ("claim", "  record the claim"),
    ("secrets", "  create five Secrets"),
    ("provision", "  roles and schema"),
    ("migrate", "  migrations and grants"),
    ("logins", "  passwords"),
    ("objects", "  Role, RoleBinding, NetworkPolicy, CronJob"),
    ("update_status", "update the status"),
];
const PODS: [&str; 3] = ["finaiflow-operator", "finaiflow-api", "finaiflow-postgres"];
const MIB: f64 = 1024.0 * 1024.0;

fn main() {
    let count: usize = env::var("FINAIFLOW_BENCH_TENANTS").map_or(300, |text| text.parse().unwrap());
    let prefix = format!("bench-{}", unique());
    let label = format!("bench={prefix}");
    let mut items: Vec<_> = (0..count).map(|n| Tenant::manifest(&format!("{prefix}-{n}"), &json!({}))).collect();
    for item in &mut items {
        item["metadata"]["labels"] = json!({"bench": prefix});
    }

    println!("{count} Tenants in one `kubectl apply`\n");
    let before = Sample::take();
    let started = Instant::now();
    let watch = Watch::start(&label);
    let _ = apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).unwrap();
    let applied = started.elapsed();
    let times = watch.until_ready(count, started);
    let after = Sample::take();
    report_times(applied, &times);
    report_steps(&before, &after, count);
    report_costs(&before, &after, count);

    let before = Sample::take();
    let started = Instant::now();
    let _ = kubectl(&["-n", BANKS, "delete", "tenant", "-l", &label, "--timeout=1800s"]);
    println!("\n`kubectl delete` of all of them: {:.1} s", started.elapsed().as_secs_f64());
    let after = Sample::take();
    println!("in the step delete: {:.0} ms per Tenant", after.since(&before, &sum("delete")) * 1000.0 / count as f64);
    println!("operator's memory: {:.1} MiB, at most {:.1} MiB", after.memory.0 / MIB, after.memory.1 / MIB);
}

/// `kubectl get --watch` of the Tenants.
struct Watch(Child);

impl Watch {
    fn start(label: &str) -> Self {
        let columns = "custom-columns=NAME:.metadata.name,READY:.status.conditions[?(@.type==\"Ready\")].status";
        let args = ["-n", BANKS, "get", "tenants", "-l", label, "--watch", "--no-headers", "-o", columns];
        Self(Command::new("kubectl").args(args).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// For each Tenant, when it was first seen and when it was first Ready, since `started`; sorted by the latter.
    fn until_ready(mut self, count: usize, started: Instant) -> Vec<(Duration, Duration)> {
        let (mut seen, mut ready) = (HashMap::new(), HashMap::new());
        for line in BufReader::new(self.0.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let now = started.elapsed();
            let (name, state) = line.split_once(char::is_whitespace).unwrap();
            seen.entry(name.to_owned()).or_insert(now);
            if state.trim() == "True" {
                ready.entry(name.to_owned()).or_insert(now);
            }
            if ready.len() == count {
                break;
            }
        }
        self.0.kill().unwrap();
        let _ = self.0.wait().unwrap();
        assert_eq!(ready.len(), count, "the watch ended early");
        let mut times: Vec<_> = ready.into_iter().map(|(name, at)| (seen[&name], at)).collect();
        times.sort_unstable_by_key(|(_, ready)| *ready);
        times
    }
}

/// Counters at one moment.
struct Sample {
    metrics: HashMap<String, f64>,
    /// Resident bytes of the operator: now, at most.
    memory: (f64, f64),
    /// CPU seconds by component.
    cpu: HashMap<&'static str, f64>,
    /// PostgreSQL's committed transactions and bytes of its log.
    postgres: (f64, f64),
    /// Requests to the Kubernetes API by verb, of anybody, without watches.
    requests: HashMap<String, f64>,
}

impl Sample {
    fn take() -> Self {
        let names = STEPS.iter().map(|(step, _)| *step).chain(["delete"]).map(sum);
        let names = names.chain([VISITS.to_owned(), VISIT_SECONDS.to_owned()]);
        let memory = |name| operator_metric(name).unwrap();
        let numbers =
            psql("select xact_commit, pg_current_wal_lsn() - '0/0' from pg_stat_database where datname = 'finaiflow'");
        let (commits, bytes) = numbers.split_once('|').unwrap();
        Self {
            metrics: names.map(|name| (name.clone(), operator_metric(&name).unwrap_or_default())).collect(),
            memory: (memory("process_resident_memory_bytes"), memory("process_resident_memory_peak_bytes")),
            cpu: cpu(),
            postgres: (commits.parse().unwrap(), bytes.parse().unwrap()),
            requests: requests(),
        }
    }

    fn since(&self, before: &Self, metric: &str) -> f64 {
        self.metrics[metric] - before.metrics[metric]
    }
}

const VISITS: &str = r#"finaiflow_operator_reconcile_seconds_count{kind="Tenant"}"#;
const VISIT_SECONDS: &str = r#"finaiflow_operator_reconcile_seconds_sum{kind="Tenant"}"#;

fn sum(step: &str) -> String {
    format!(r#"finaiflow_operator_reconcile_step_seconds_sum{{kind="Tenant",step="{step}"}}"#)
}

/// As the kubelet measures it, every ten seconds or so.
fn cpu() -> HashMap<&'static str, f64> {
    let node = kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let summary = kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")]);
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let mut seconds = HashMap::new();
    for pod in summary["pods"].as_array().unwrap().iter().filter(|pod| pod["podRef"]["namespace"] == SYSTEM) {
        let name = pod["podRef"]["name"].as_str().unwrap();
        if let Some(component) = PODS.iter().find(|component| name.starts_with(*component)) {
            *seconds.entry(*component).or_default() +=
                pod["cpu"]["usageCoreNanoSeconds"].as_f64().unwrap_or_default() / 1e9;
        }
    }
    seconds
}

fn requests() -> HashMap<String, f64> {
    let mut counts: HashMap<String, f64> = HashMap::new();
    for line in
        kubectl(&["get", "--raw", "/metrics"]).lines().filter(|line| line.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| line.split_once(&format!("{name}=\""))?.1.split_once('"').map(|(value, _)| value);
        let (verb, count) = (label("verb").unwrap(), line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
        if verb != "WATCH" {
            let kind = format!("{verb} {}", label("resource").unwrap_or_default());
            *counts.entry(kind).or_default() += count;
        }
    }
    counts
}

fn report_times(applied: Duration, times: &[(Duration, Duration)]) {
    let seconds = |duration: Duration| duration.as_secs_f64();
    let percentile = |part: usize, values: &[f64]| values[(values.len() * part).div_ceil(100).max(1) - 1];
    let since_apply: Vec<_> = times.iter().map(|(_, ready)| seconds(*ready)).collect();
    let mut own: Vec<_> = times.iter().map(|(seen, ready)| seconds(ready.saturating_sub(*seen))).collect();
    own.sort_unstable_by(f64::total_cmp);
    println!(
        "`kubectl apply` itself: {:.1} s; all Ready after {:.1} s\n",
        seconds(applied),
        since_apply.last().unwrap()
    );
    println!("| seconds | p50 | p90 | p99 | max |\n|---|---|---|---|---|");
    for (what, values) in [("since the start of the command", since_apply), ("since the Tenant was created", own)] {
        let columns = [50, 90, 99, 100].map(|part| format!("{:.1}", percentile(part, &values)));
        println!("| {what} | {} |", columns.join(" | "));
    }
}

fn report_steps(before: &Sample, after: &Sample, count: usize) {
    let per_tenant = |metric: &str| after.since(before, metric) / count as f64;
    println!("\n| step | ms per Tenant, all visits together |\n|---|---|");
    for (step, what) in STEPS {
        let indent = if what.starts_with(' ') { "&nbsp;&nbsp;" } else { "" };
        println!("| {indent}{} | {:.0} |", what.trim_start(), per_tenant(&sum(step)) * 1000.0);
    }
    println!("| a Tenant's visits from begin to end | {:.0} |", per_tenant(VISIT_SECONDS) * 1000.0);
    println!("\nvisits per Tenant: {:.1}", per_tenant(VISITS));
}

fn report_costs(before: &Sample, after: &Sample, count: usize) {
    let per_tenant = |what: f64| what / count as f64;
    println!(
        "operator's memory: {:.1} MiB before, {:.1} MiB after, at most {:.1} MiB",
        before.memory.0 / MIB,
        after.memory.0 / MIB,
        after.memory.1 / MIB
    );
    for component in PODS {
        let used = after.cpu.get(component).copied().unwrap_or_default()
            - before.cpu.get(component).copied().unwrap_or_default();
        println!("CPU of {component}: {used:.0} s");
    }
    println!(
        "PostgreSQL per Tenant: {:.0} transactions, {:.0} kB of log",
        per_tenant(after.postgres.0 - before.postgres.0),
        per_tenant(after.postgres.1 - before.postgres.1) / 1000.0
    );
    let mut requests: Vec<_> = after
        .requests
        .iter()
        .map(|(kind, now)| (per_tenant(now - before.requests.get(kind).copied().unwrap_or_default()), kind))
        .collect();
    requests.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let all: f64 = requests.iter().map(|(per_tenant, _)| per_tenant).sum();
    println!("requests to the Kubernetes API per Tenant, of everybody: {all:.1}");
    for (per_tenant, kind) in requests.iter().filter(|(per_tenant, _)| *per_tenant > 0.2) {
        println!("  {per_tenant:5.1} {kind}");
    }
}
