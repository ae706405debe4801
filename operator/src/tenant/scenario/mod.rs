//! Visits from end to end, with PostgreSQL and Kubernetes in memory.

mod adoption;
pub(crate) mod api;
mod conflicts;
mod crashes;
mod deletion;
mod drift;
mod farewell;
mod first;
mod protection;
mod sweep;

use std::sync::atomic::{AtomicU64, Ordering};

use finaiflow_crds::names::ANNOTATION_APPLIED;
use finaiflow_crds::{Backup, Restore, Tenant};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use self::api::Cluster;
use super::{Visit, report, visit};
use crate::catalog::fake::Fake;
use crate::config::Config;
use crate::config::tests::EXAMPLE;
use crate::context::Context;
use crate::error::Result;
use crate::random::Random;
use crate::story::{Fact, Story};

/// An installation whose parts can be looked into.
struct World {
    cluster: Cluster,
    catalog: Fake,
    ctx: Context<Fake>,
    tenants: Writer<Tenant>,
    leases: Writer<Lease>,
    backups: Writer<Backup>,
    restores: Writer<Restore>,
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

impl World {
    fn new() -> Self {
        let (cluster, catalog) = (Cluster::default(), Fake::default());
        let ((tenants, mut tenants_writer), (leases, mut leases_writer)) = (reflector::store(), reflector::store());
        tenants_writer.apply_watcher_event(&Event::Init);
        tenants_writer.apply_watcher_event(&Event::InitDone);
        leases_writer.apply_watcher_event(&Event::Init);
        leases_writer.apply_watcher_event(&Event::InitDone);
        let (backups, mut backups_writer) = reflector::store();
        let (restores, mut restores_writer) = reflector::store();
        backups_writer.apply_watcher_event(&Event::Init);
        backups_writer.apply_watcher_event(&Event::InitDone);
        restores_writer.apply_watcher_event(&Event::Init);
        restores_writer.apply_watcher_event(&Event::InitDone);
        let ctx = Context {
            client: cluster.client(),
            catalog: catalog.clone(),
            home: "finaiflow-system".to_owned(),
            config: Config::parse(EXAMPLE).unwrap(),
            installation: "installation".to_owned(),
            tenants,
            leases,
            backups,
            restores,
            now: || Timestamp::from_second(1_800_000_000).unwrap(),
            random: random(),
        };
        Self {
            cluster,
            catalog,
            ctx,
            tenants: tenants_writer,
            leases: leases_writer,
            backups: backups_writer,
            restores: restores_writer,
        }
    }

    /// The Tenant acme, visited until it waits for the API server.
    async fn provisioned(spec: Value) -> Self {
        let mut world = Self::new();
        world.cluster.create_tenant("acme", &spec);
        assert_eq!(world.visit("acme").await.unwrap(), Visit::Waiting);
        world
    }

    /// The Tenant acme, served and settled.
    async fn ready(spec: Value) -> Self {
        let mut world = Self::provisioned(spec).await;
        world.replica_applies_everything();
        assert_eq!(world.visit("acme").await.unwrap(), Visit::Done);
        world.cluster.writes();
        world
    }

    /// One visit as the controller does it, without retries.
    async fn visit(&mut self, name: &str) -> Result<Visit> {
        self.visit_and_tell(name).await.0
    }

    async fn visit_and_tell(&mut self, name: &str) -> (Result<Visit>, Vec<Fact>) {
        let Some(object) = self.cluster.tenant(name) else { return (Ok(Visit::Gone), Vec::new()) };
        let tenant: Tenant = serde_json::from_value(object).unwrap();
        self.tenants.apply_watcher_event(&Event::Apply(tenant.clone()));
        let story = Story::default();
        // Boxed as the controller does it.
        let result = Box::pin(visit(&self.ctx, &tenant, &story)).await;
        if let Err(error) = &result {
            // In the controller too its failure is only logged.
            let _ = report(&self.ctx, &tenant, error, &story).await;
        }
        (result, story.take().facts)
    }

    /// Visits until one succeeds, as backoff does; returns how many failed.
    async fn settle(&mut self, name: &str) -> usize {
        for failed in 0..10 {
            if self.visit(name).await.is_ok() {
                return failed;
            }
        }
        panic!("no visit succeeds");
    }

    fn replica_applies_everything(&mut self) {
        self.replica("replica-a", u64::MAX, &json!({}));
    }

    fn replica(&mut self, name: &str, applied: u64, failures: &Value) {
        let lease = json!({
            "metadata": {"name": name, "namespace": "finaiflow-system", "annotations": {
                ANNOTATION_APPLIED: applied.to_string(), "finaiflow.io/failures": failures.to_string()}},
            "spec": {"renewTime": "2027-01-15T08:00:00.000000Z", "leaseDurationSeconds": 15},
        });
        self.leases.apply_watcher_event(&Event::Apply(serde_json::from_value(lease).unwrap()));
    }

    /// A watch that has just begun.
    fn forget_tenants(&mut self) {
        self.tenants.apply_watcher_event(&Event::Init);
        self.tenants.apply_watcher_event(&Event::InitDone);
    }

    fn no_replica(&mut self) {
        self.leases.apply_watcher_event(&Event::Init);
        self.leases.apply_watcher_event(&Event::InitDone);
    }

    /// `status/reason` of a condition of acme; empty if absent.
    fn condition(&self, kind: &str) -> String {
        self.condition_of("acme", kind)
    }

    fn condition_of(&self, name: &str, kind: &str) -> String {
        let condition = self.find_condition(name, kind);
        if condition.is_null() {
            return String::new();
        }
        format!("{}/{}", condition["status"].as_str().unwrap(), condition["reason"].as_str().unwrap())
    }

    fn message(&self, name: &str, kind: &str) -> String {
        self.find_condition(name, kind)["message"].as_str().unwrap_or_default().to_owned()
    }

    fn find_condition(&self, name: &str, kind: &str) -> Value {
        let tenant = self.cluster.tenant(name).unwrap();
        let conditions = tenant["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
    }
}

fn reasons(facts: &[Fact]) -> Vec<&str> {
    facts.iter().map(Fact::reason).collect()
}
