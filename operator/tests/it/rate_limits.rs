//! What the operator says of RateLimitPolicies, and that it says nothing when there is nothing new.

use std::sync::Arc;

use finaiflow_crds::rate_limit_policy::digest;
use finaiflow_crds::{RateLimitPolicy, Tenant, names};
use finaiflow_operator::clock;
use finaiflow_operator::observe::Observer;
use finaiflow_operator::random::Random;
use finaiflow_operator::rate_limit_policy::{Context, Visit, visit};
use finaiflow_operator::story::Story;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::story::store;
use crate::world::{World, eventually, unique};

const SAMPLE: &str = include_str!("../../../config/samples/rate-limit-policy.yaml");
const LIVE: &str = "2100-01-01T00:00:00.000000Z";

fn named(tenant: &str, requests: u32) -> Value {
    json!({"targetRefs": [{"kind": "Tenant", "name": tenant}],
        "limits": [{"name": "x", "rates": [{"requests": requests, "periodSeconds": 1}]}]})
}

impl World {
    async fn apply_policy(&self, name: &str, spec: &Value) -> RateLimitPolicy {
        let policy = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"name": name}, "spec": spec});
        let parameters = PatchParams::apply("it").force();
        self.api(&self.banks).patch(name, &parameters, &Patch::Apply(policy)).await.unwrap()
    }

    async fn policy(&self, name: &str) -> RateLimitPolicy {
        self.api(&self.banks).get(name).await.unwrap()
    }

    async fn delete_policy(&self, name: &str) {
        self.api::<RateLimitPolicy>(&self.banks).delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn lease(&self, name: &str, policies: Option<&str>, renewed: &str, seconds: i32) {
        let annotations = policies.map(|digest| json!({names::ANNOTATION_POLICIES: digest}));
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "labels": {names::LABEL_COMPONENT: names::API_SERVER}, "annotations": annotations},
            "spec": {"holderIdentity": "it", "renewTime": renewed, "leaseDurationSeconds": seconds},
        });
        let api: Api<Lease> = self.api(&self.system);
        api.patch(name, &PatchParams::apply("it").force(), &Patch::Apply(lease)).await.unwrap();
    }

    /// One visit of a policy as it was watched.
    async fn visit_policy(&self, watched: &RateLimitPolicy) -> Visit {
        let observer = Observer::new(self.client.clone(), None, &prometheus::Registry::new()).unwrap();
        let ctx = Context {
            client: self.client.clone(),
            home: self.system.clone(),
            policies: store(vec![watched.clone()]).0,
            tenants: store(Vec::<Tenant>::new()).0,
            leases: store(Vec::<Lease>::new()).0,
            observer: Arc::new(observer),
            now: clock::now,
            random: Random::system(),
        };
        visit(&ctx, watched, &Story::default()).await.unwrap()
    }

    /// Plays replicas that enforce every policy as it is.
    async fn enforce(&self, replicas: &[&str]) {
        let all: Api<RateLimitPolicy> = Api::all(self.client.clone());
        let digest = digest(&all.list(&ListParams::default()).await.unwrap().items);
        for replica in replicas {
            self.lease(replica, Some(&digest), LIVE, 15).await;
        }
    }

    /// Waits until a condition of a policy's generation is `<status> <reason>`; returns its message.
    async fn says(&self, name: &str, kind: &str, expected: &str) -> String {
        eventually(&format!("{name} is {kind} {expected}"), async || {
            let policy = self.policy(name).await;
            let status = policy.status.unwrap_or_default();
            let found = status.conditions.iter().find(|condition| condition.type_ == kind);
            found
                .filter(|_| status.observed_generation == policy.metadata.generation)
                .filter(|condition| format!("{} {}", condition.status, condition.reason) == expected)
                .map(|condition| condition.message.clone())
                .ok_or_else(|| format!("{:?}", status.conditions))
        })
        .await
    }

    async fn version(&self, name: &str) -> Option<String> {
        self.policy(name).await.resource_version()
    }

    /// Has a policy visited by a change that means nothing; returns its version after that.
    async fn touch_policy(&self, name: &str) -> Option<String> {
        let before = self.visits(name);
        let annotation = json!({"metadata": {"annotations": {"it": unique()}}});
        let api: Api<RateLimitPolicy> = self.api(&self.banks);
        let touched = api.patch(name, &PatchParams::default(), &Patch::Merge(annotation)).await.unwrap();
        self.visited(name, before).await;
        touched.resource_version()
    }

    async fn visited(&self, name: &str, before: usize) {
        let visited = async || if self.visits(name) > before { Ok(()) } else { Err(self.log()) };
        eventually(&format!("a visit of {name}"), visited).await;
    }
}

#[tokio::test]
async fn a_policy_is_programmed_once_every_replica_tells_so() {
    let mut world = World::running().await;
    world.create(&world.banks, "acme", json!({})).await;
    for replica in ["finaiflow-api-0", "finaiflow-api-1"] {
        world.lease(replica, None, LIVE, 15).await;
    }
    let sample: Value = serde_yaml::from_str(SAMPLE).unwrap();
    let mut spec = sample["spec"].clone();
    world.apply_policy("sample", &spec).await;
    world.says("sample", "Accepted", "True Accepted").await;
    let waiting = world.says("sample", "Programmed", "False Reconciling").await;
    assert_eq!(waiting, "0 of 2 replicas enforce it; waiting for finaiflow-api-0, finaiflow-api-1");
    world.enforce(&["finaiflow-api-0"]).await;
    world.says("sample", "Ready", "False PartiallyProgrammed").await;
    world.enforce(&["finaiflow-api-1"]).await;
    world.says("sample", "Ready", "True Programmed").await;

    // An edit is in force when both have it, and not before.
    spec["limits"][0]["rates"][0]["requests"] = json!(10);
    world.apply_policy("sample", &spec).await;
    world.says("sample", "Ready", "False Reconciling").await;
    world.enforce(&["finaiflow-api-0", "finaiflow-api-1"]).await;
    world.says("sample", "Ready", "True Programmed").await;
    let status = world.policy("sample").await.status.unwrap();
    let replicas = status.replicas.unwrap();
    assert_eq!((status.targets, replicas.total, replicas.updated), (Some(1), 2, 2));

    // With nothing new there is nothing to say, neither now nor by the next operator.
    let version = world.touch_policy("sample").await;
    assert_eq!(world.version("sample").await, version);
    let before = world.visits("sample");
    world.kill();
    world.start_again();
    world.visited("sample", before).await;
    assert_eq!(world.touch_policy("sample").await, world.version("sample").await);
    let mut events: Vec<_> = world.events("sample").await.into_iter().map(|(reason, _)| reason).collect();
    events.dedup();
    assert_eq!(events, ["Accepted", "Programmed"]);
    world.end().await;
}

#[tokio::test]
async fn policies_are_told_of_their_tenants_and_of_each_other() {
    let world = World::running().await;
    world.apply_policy("early", &named("acme", 10)).await;
    world.says("early", "Ready", "False TargetNotFound").await;
    world.create(&world.banks, "acme", json!({})).await;
    world.create(&world.banks, "globex", json!({"tier": "gold"})).await;
    world.says("early", "Ready", "False NoReplica").await;
    // Of those of one second the name decides.
    world.apply_policy("late", &named("acme", 20)).await;
    let message = world.says("late", "Accepted", "False Conflicted").await;
    assert!(message.contains(&format!("{}/early (as specific, and older)", world.banks)), "{message}");
    let mut gold = json!({"targetSelector": {"matchLabels": {names::LABEL_TIER: "gold"}}, "maxInFlight": 10});
    world.apply_policy("gold", &gold).await;
    world.enforce(&["finaiflow-api-0"]).await;
    for policy in ["early", "gold"] {
        world.says(policy, "Ready", "True Programmed").await;
    }

    // What happens to others is no news, though all are visited.
    let (version, visits) = (world.version("early").await, world.visits("early"));
    gold["maxInFlight"] = json!(20);
    world.apply_policy("gold", &gold).await;
    world.says("gold", "Ready", "False Reconciling").await;
    world.visited("early", visits).await;
    world.enforce(&["finaiflow-api-0"]).await;
    world.says("gold", "Ready", "True Programmed").await;
    assert_eq!(world.version("early").await, version);

    world.delete_policy("early").await;
    world.says("late", "Ready", "False Reconciling").await;
    world.enforce(&["finaiflow-api-0"]).await;
    world.says("late", "Ready", "True Programmed").await;
    world.apply_policy("own", &named("globex", 5)).await;
    let message = world.says("gold", "Ready", "False Overridden").await;
    assert!(message.contains(&format!("{}/own", world.banks)), "{message}");
    world.says("late", "Ready", "True Programmed").await;

    // A Tenant that leaves the tier is no longer the selector's.
    let tier = json!({"spec": {"tier": "standard"}});
    let tenants: Api<Tenant> = world.api(&world.banks);
    tenants.patch("globex", &PatchParams::default(), &Patch::Merge(tier)).await.unwrap();
    eventually("no target is left", async || match world.policy("gold").await.status.unwrap_or_default() {
        status if status.targets == Some(0) => Ok(()),
        status => Err(format!("{status:?}")),
    })
    .await;
    world.end().await;
}

#[tokio::test]
async fn a_replica_that_died_is_not_waited_for() {
    let world = World::running().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.apply_policy("limits", &named("acme", 10)).await;
    world.enforce(&["finaiflow-api-0"]).await;
    world.says("limits", "Ready", "True Programmed").await;
    // Long enough to be seen, and then not renewed.
    world.lease("finaiflow-api-1", None, &format!("{:.6}", clock::now()), 20).await;
    world.says("limits", "Programmed", "False PartiallyProgrammed").await;
    world.says("limits", "Programmed", "True Programmed").await;
    assert_eq!(world.policy("limits").await.status.unwrap().replicas.unwrap().total, 1);
    world.end().await;
}

#[tokio::test]
async fn of_what_has_changed_meanwhile_nothing_is_said() {
    let world = World::new().await;
    let older = world.apply_policy("limits", &named("acme", 10)).await;
    let newer = world.apply_policy("limits", &named("acme", 20)).await;
    assert_eq!(world.visit_policy(&older).await, Visit::Late);
    assert_eq!(world.policy("limits").await.status, None);
    assert_eq!(world.visit_policy(&newer).await, Visit::Done);
    let told = world.policy("limits").await;
    assert_eq!(told.status.as_ref().unwrap().observed_generation, Some(2));
    // What is written twice is the same: the visit that follows from the first has nothing to say.
    assert_eq!(world.visit_policy(&told).await, Visit::Done);
    assert_eq!(world.version("limits").await, told.resource_version());
    world.delete_policy("limits").await;
    assert_eq!(world.visit_policy(&newer).await, Visit::Late);
    let again = world.apply_policy("limits", &named("acme", 20)).await;
    assert_eq!(world.visit_policy(&newer).await, Visit::Late);
    assert_eq!(world.policy("limits").await.resource_version(), again.resource_version());
    world.end().await;
}
