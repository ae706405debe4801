//! Visits of Backups from end to end, with Kubernetes in memory.

mod making;
mod reports;

use std::cell::Cell;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

use finaiflow_crds::backup::{JobSettings, Run};
use finaiflow_crds::{Backup, Tenant};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::pod;
use super::settings::tests::example;
use super::{Context, Visit, report, visit};
use crate::error::Result;
use crate::random::Random;
use crate::story::{Fact, Story};
use crate::tenant::scenario::api::Cluster;

const HOME: &str = "finaiflow-system";
const CLAIM: &str = "0123456789abcdef";
const BACKUPS: &str = "/apis/finaiflow.io/v1alpha1/namespaces/banks/backups";
const TENANTS: &str = "/apis/finaiflow.io/v1alpha1/namespaces/banks/tenants";

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000 + NOW.get()).unwrap()
}

/// The time that many seconds from the beginning.
fn at(second: i64) -> String {
    Timestamp::from_second(1_800_000_000 + second).unwrap().to_string()
}

/// Different at every draw.
fn random() -> Random {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Random::new(|buffer| {
        let draw = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        buffer.iter_mut().zip(draw.to_le_bytes().iter().cycle()).for_each(|(byte, random)| *byte = *random);
        Ok(())
    })
}

struct World {
    cluster: Cluster,
    ctx: Context,
    backups: Writer<Backup>,
    tenants: Writer<Tenant>,
    jobs: Writer<Job>,
    pods: Writer<Pod>,
}

/// Two destinations: a volume and a bucket.
fn spec() -> Value {
    json!({"tenantRef": {"name": "acme"}, "destinations": [
        {"name": "local", "persistentVolumeClaim": {}}, {"name": "far", "className": "far"}]})
}

impl World {
    fn new() -> Self {
        NOW.set(0);
        let cluster = Cluster::default();
        let (backups, backups_writer) = reflector::store();
        let (tenants, tenants_writer) = reflector::store();
        let (jobs, jobs_writer) = reflector::store();
        let (pods, pods_writer) = reflector::store();
        let ctx = Context {
            client: cluster.client(),
            home: HOME.to_owned(),
            settings: Some(serde_yaml::from_str(&example()).unwrap()),
            backups,
            tenants,
            jobs,
            pods,
            now,
            random: random(),
        };
        Self { cluster, ctx, backups: backups_writer, tenants: tenants_writer, jobs: jobs_writer, pods: pods_writer }
    }

    /// The Tenant acme, provisioned.
    fn with_tenant() -> Self {
        let world = Self::new();
        world.tenant(CLAIM);
        let secret = |purpose: &str, key: &str, value: &str| {
            let object = json!({"metadata": {"name": format!("acme.{purpose}"), "namespace": "banks",
                "annotations": {"finaiflow.io/claim-id": CLAIM}},
                "data": {key: data_encoding::BASE64.encode(value.as_bytes())}});
            world.cluster.by_hand(&format!("/api/v1/namespaces/banks/secrets/acme.{purpose}"), Some(object));
        };
        secret("backup-database", "DATABASE_URL", "postgres://one");
        secret("data-key", "kek", "k".repeat(32).as_str());
        world
    }

    /// The same, and a Backup of it that is settled.
    async fn settled() -> Self {
        let mut world = Self::with_tenant();
        world.create("nightly", &spec());
        world.visit("nightly").await.0.unwrap();
        world.cluster.writes();
        world
    }

    fn tenant(&self, claim: &str) {
        let tenant = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "namespace": "banks"}, "spec": {}, "status": {"claimID": claim}});
        self.cluster.by_hand(&format!("{TENANTS}/acme"), Some(tenant));
    }

    fn create(&self, name: &str, spec: &Value) {
        let backup = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "Backup",
            "metadata": {"name": name, "namespace": "banks", "generation": 1, "creationTimestamp": at(NOW.get())},
            "spec": spec});
        self.cluster.by_hand(&format!("{BACKUPS}/{name}"), Some(backup));
    }

    fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut backup = self.backup(name);
        edit(&mut backup);
        self.cluster.by_hand(&format!("{BACKUPS}/{name}"), Some(backup));
    }

    fn backup(&self, name: &str) -> Value {
        self.cluster.get(&format!("{BACKUPS}/{name}")).unwrap()
    }

    /// One visit as the controller does it, without retries.
    async fn visit(&mut self, name: &str) -> (Result<Visit>, Vec<Fact>) {
        self.watch();
        let Some(watched) = self.cluster.get(&format!("{BACKUPS}/{name}")) else {
            return (Ok(Visit::Gone), Vec::new());
        };
        let (watched, story): (Backup, _) = (serde_json::from_value(watched).unwrap(), Story::default());
        let result = Box::pin(visit(&self.ctx, &watched, &story)).await;
        if let Err(error) = result.as_ref()
            && !error.reason().is_terminal()
        {
            self.watch();
            // In the controller too its failure is only logged.
            let _ = report(&self.ctx, &watched, error, &story).await;
        }
        (result, story.take().facts)
    }

    /// Everything is seen as it is.
    fn watch(&mut self) {
        let state = self.cluster.state.lock().unwrap();
        let of = |path: &str| -> Vec<Value> {
            let at_path = state.objects.iter().filter(|(key, _)| key.contains(path));
            at_path.map(|(_, object)| object.clone()).collect()
        };
        let found = [of("/backups/"), of("/tenants/"), of("/jobs/"), of("/pods/")];
        drop(state);
        let [backups, tenants, jobs, pods] = found;
        fill(&mut self.backups, backups);
        fill(&mut self.tenants, tenants);
        fill(&mut self.jobs, jobs);
        fill(&mut self.pods, pods);
    }

    /// `status/reason` of a condition; empty if absent.
    fn condition(&self, name: &str, kind: &str) -> String {
        let found = self.find(name, kind);
        if found.is_null() {
            return String::new();
        }
        format!("{}/{}", found["status"].as_str().unwrap(), found["reason"].as_str().unwrap())
    }

    fn message(&self, name: &str, kind: &str) -> String {
        self.find(name, kind)["message"].as_str().unwrap_or_default().to_owned()
    }

    fn find(&self, name: &str, kind: &str) -> Value {
        let conditions = self.backup(name)["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }

    fn home(&self, kind: &str, name: &str) -> Option<Value> {
        self.cluster.get(&path(kind, name))
    }

    fn cron_job(&self, run: Run) -> Option<CronJob> {
        let found = self.home("cronjobs", &format!("backup-{CLAIM}-{}", run.as_str()))?;
        Some(serde_json::from_value(found).unwrap())
    }

    fn settings(&self, run: Run) -> JobSettings {
        pod::settings(&self.cron_job(run).unwrap()).unwrap()
    }

    fn secret(&self, name: &str, key: &str) -> String {
        let data = self.home("secrets", name).unwrap()["data"][key].as_str().unwrap().to_owned();
        String::from_utf8(data_encoding::BASE64.decode(data.as_bytes()).unwrap()).unwrap()
    }
}

fn path(kind: &str, name: &str) -> String {
    let group = if ["jobs", "cronjobs"].contains(&kind) { "/apis/batch/v1" } else { "/api/v1" };
    format!("{group}/namespaces/{HOME}/{kind}/{name}")
}

fn fill<K>(writer: &mut Writer<K>, objects: Vec<Value>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

fn reasons(facts: &[Fact]) -> Vec<&str> {
    facts.iter().map(Fact::reason).collect()
}
