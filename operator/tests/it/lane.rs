//! A world with proxies in which one Tenant after the other lives, and something goes wrong on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use finaiflow_crds::Tenant;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::between::{Between, Call, Fault, Kind, Point};
use crate::world::{World, eventually};

/// A Tenant that nothing happens to.
pub const BYSTANDER: &str = "bystander";

/// What is done to a Tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    Update,
    Delete,
}

pub const STEPS: [Step; 3] = [Step::Create, Step::Update, Step::Delete];

/// What goes wrong in each step of a Tenant's life.
pub type Mishaps = [Option<(Point, Fault)>; 3];

pub struct Lane {
    pub world: World,
    pub between: Arc<Between>,
}

impl Lane {
    /// Lanes in which nothing has happened yet, not even an operator.
    pub async fn new(count: usize) -> Vec<Self> {
        let worlds = World::apart(count).await;
        let lane = |(world, between): (World, _)| async move {
            world.replica().await;
            Self { world, between }
        };
        join_all(worlds.into_iter().map(lane)).await
    }

    /// Starts the operator, with a bystander.
    pub async fn start(&mut self) {
        self.world.start(&[&self.world.banks.clone()]);
        self.act(Step::Create, BYSTANDER, "Delete").await;
        self.settled(Step::Create, BYSTANDER).await;
        self.nothing_is_written(&[BYSTANDER]).await;
    }

    pub async fn act(&self, step: Step, name: &str, policy: &str) {
        let world = &self.world;
        let api: Api<Tenant> = world.api(&world.banks);
        match step {
            Step::Create => world.create(&world.banks, name, json!({"deletionPolicy": policy})).await,
            Step::Update => {
                let change = json!({"spec": {"limits": {"connections": 7, "statementTimeoutSeconds": 5},
                    "hosts": [format!("{name}.bank.local")], "timeZone": "Europe/Zurich"}});
                api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
            }
            Step::Delete => {
                api.delete(name, &DeleteParams::default()).await.unwrap();
            }
        }
    }

    /// Waits until the Tenant is as its spec says, or gone.
    pub async fn settled(&self, step: Step, name: &str) {
        let api: Api<Tenant> = self.world.api(&self.world.banks);
        eventually(&format!("{name} settles"), async || {
            let Some(tenant) = api.get_opt(name).await.unwrap() else {
                return if step == Step::Delete { Ok(()) } else { Err("gone".to_owned()) };
            };
            let status = tenant.status.unwrap_or_default();
            if step != Step::Delete && status.observed_generation == tenant.metadata.generation {
                match judge(&status.conditions) {
                    Judgement::Settled => return Ok(()),
                    Judgement::WaitsForReplica => self.replica_follows().await,
                    Judgement::UnderWay => {}
                }
            }
            Err(format!("{:?} {}", status.conditions, self.world.log()))
        })
        .await;
    }

    /// As a replica does that has just loaded a change.
    async fn replica_follows(&self) {
        static APPLIED: AtomicU64 = AtomicU64::new(u64::MAX);
        self.world.replica_applied(APPLIED.fetch_sub(1, Ordering::Relaxed)).await;
    }

    /// Takes a step in which something goes wrong, until it has settled. Returns the calls of it.
    async fn step(&mut self, step: Step, name: &str, policy: &str, mishap: Option<&(Point, Fault)>) -> Vec<Call> {
        println!("{name}: {step:?} {mishap:?}");
        let act = async |lane: &Self| lane.act(step, name, policy).await;
        let calls = self.through(mishap, act, async |lane: &Self| lane.settled(step, name).await).await;
        self.nothing_is_written(&[if step == Step::Delete { BYSTANDER } else { name }]).await;
        calls
    }

    /// Does something in which something goes wrong, until it has settled. Returns the calls of it.
    pub async fn through(
        &mut self,
        mishap: Option<&(Point, Fault)>,
        act: impl AsyncFnOnce(&Self),
        settled: impl AsyncFn(&Self),
    ) -> Vec<Call> {
        let mark = self.between.mark();
        if let Some((point, fault)) = mishap {
            self.between.arm(point.clone(), *fault);
        }
        act(self).await;
        if let Some((point, Fault::Hold)) = mishap
            && self.comes_to_a_hold(point, &settled).await
        {
            self.world.kill();
            self.between.release();
            self.start_again().await;
        }
        settled(self).await;
        let is_read = mishap.is_some_and(|(point, _)| point.kind == Some(Kind::Read));
        assert!(!self.between.disarm() || is_read, "it is through without {mishap:?}");
        self.between.since(mark)
    }

    /// Whether the point is reached. How many visits something takes, and so how many reads, is a matter of time: it may
    /// settle without it.
    async fn comes_to_a_hold(&self, point: &Point, settled: &impl AsyncFn(&Self)) -> bool {
        if point.kind == Some(Kind::Read) {
            tokio::select! {
                () = self.between.holds() => return true,
                () = settled(self) => {}
            }
            if self.between.disarm() {
                println!("{point:?} was not reached");
                return false;
            }
        }
        self.between.holds().await;
        true
    }

    async fn start_again(&mut self) {
        self.world.clear_log();
        self.world.start_again();
        // The sweep of a new leader is no visit: what it finds, perhaps of a Tenant that just goes, it removes too.
        eventually("the bystander is visited and the first sweep over", async || {
            let swept = self.world.log().contains("\"swept\"");
            if swept && self.world.visits(BYSTANDER) > 0 { Ok(()) } else { Err(self.world.log()) }
        })
        .await;
    }

    /// That two visits of settled Tenants write nothing. What the visit before them still tells are events.
    pub async fn nothing_is_written(&self, names: &[&str]) {
        let visits = async || join_all(names.iter().map(|name| self.world.visit(name))).await;
        let mark = self.between.mark();
        visits().await;
        let quiet = self.between.mark();
        visits().await;
        visits().await;
        let written = |mark| self.between.since(mark).into_iter().filter(|call| call.wrote);
        let late: Vec<_> = written(mark).filter(|call| !call.what.contains("/events")).chain(written(quiet)).collect();
        assert!(late.is_empty(), "{names:?}: {late:?}");
    }

    /// A Tenant's whole life. Returns the calls of each step.
    pub async fn life(&mut self, name: &str, policy: &str, mishaps: &Mishaps) -> [Vec<Call>; 3] {
        let created = self.step(Step::Create, name, policy, mishaps[0].as_ref()).await;
        self.world.is_true(name).await;
        let updated = self.step(Step::Update, name, policy, mishaps[1].as_ref()).await;
        self.world.is_true(name).await;
        let deleted = self.step(Step::Delete, name, policy, mishaps[2].as_ref()).await;
        self.is_given_up(name, policy).await;
        [created, updated, deleted]
    }

    /// That what a deleted Tenant had is gone, or kept, by its policy. Kubernetes collects what it owned in its own time.
    pub async fn is_given_up(&self, name: &str, policy: &str) {
        assert_eq!(self.world.orphans_in_postgres().await, Vec::<String>::new(), "{name}");
        let state = format!("SELECT state FROM finaiflow_system.claims WHERE name = '{name}'");
        let expected = if policy == "Delete" { "dropped" } else { "released" };
        assert_eq!(self.world.query(&state).await, [expected], "{name}");
    }

    /// Nothing is left that nobody has, the bystander is well, and the world ends.
    pub async fn end(self) {
        self.world.no_orphans().await;
        self.world.is_true(BYSTANDER).await;
        self.world.end().await;
    }
}

enum Judgement {
    Settled,
    WaitsForReplica,
    UnderWay,
}

fn judge(conditions: &[Condition]) -> Judgement {
    let is = |kind: &str, status: &str| conditions.iter().any(|found| found.type_ == kind && found.status == status);
    if is("Ready", "True") && is("Serving", "True") {
        Judgement::Settled
    } else if is("SchemaReady", "True") && is("Serving", "False") {
        Judgement::WaitsForReplica
    } else {
        Judgement::UnderWay
    }
}
