//! Policies, Tenants and replicas, and what the status of a policy says of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use finaiflow_crds::rate_limit_policy::{RateLimitPolicyStatus, digest};
use finaiflow_crds::{RateLimitPolicy, Tenant};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::dereference::Found;
use super::update_status::{is_due, status};
use super::validate::{target, validate};
use crate::replica::Replica;

const HOME: &str = "finaiflow-system";

/// A cluster at one time.
struct World {
    policies: BTreeMap<String, Arc<RateLimitPolicy>>,
    tenants: Vec<Arc<Tenant>>,
    replicas: Vec<Replica>,
    second: i64,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A policy for Tenants, with limits of these names.
fn named(tenants: &[&str], limits: &[&str]) -> Value {
    let references: Vec<_> = tenants.iter().map(|name| json!({"kind": "Tenant", "name": name})).collect();
    let limit = |name: &&str| json!({"name": name, "rates": [{"requests": 10, "periodSeconds": 1}]});
    json!({"targetRefs": references, "limits": limits.iter().map(limit).collect::<Vec<_>>()})
}

/// The same for Tenants of the tier gold.
fn gold(limits: &[&str]) -> Value {
    with(
        named(&[], limits),
        &json!({"targetRefs": [], "targetSelector": {"matchLabels": {"finaiflow.io/tier": "gold"}}}),
    )
}

fn with(mut spec: Value, more: &Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn say(conditions: &[Condition]) -> Vec<String> {
    conditions.iter().map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message)).collect()
}

fn condition(status: &RateLimitPolicyStatus, kind: &str) -> String {
    let found =
        say(&status.conditions).into_iter().find_map(|said| Some(said.strip_prefix(kind)?.get(1..)?.to_owned()));
    found.unwrap_or_default()
}

/// `<name>[/<section>] <condition>`.
fn ancestors(status: &RateLimitPolicyStatus) -> Vec<String> {
    let ancestors = status.ancestors.iter().map(|ancestor| {
        let section = ancestor.ancestor_ref.section_name.map(|section| format!("/{section}")).unwrap_or_default();
        format!("{}{section} {}", ancestor.ancestor_ref.name, say(&ancestor.conditions).join(", "))
    });
    ancestors.collect()
}

impl World {
    /// Tenants of the tier gold, and two replicas that enforce nothing yet.
    fn new(tenants: &[&str]) -> Self {
        let tenant = |name: &&str| {
            let tenant = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
                "metadata": {"name": name, "namespace": "banks"}, "spec": {"tier": "gold"}});
            Arc::new(serde_json::from_value(tenant).unwrap())
        };
        let replica = |name: &str| Replica { name: name.to_owned(), ..Replica::default() };
        Self {
            policies: BTreeMap::new(),
            tenants: tenants.iter().map(tenant).collect(),
            replicas: ["r1", "r2"].map(replica).into(),
            second: 0,
        }
    }

    /// Creates the policy `<namespace>/<name>`, later than those before it, or edits it.
    fn apply(&mut self, key: &str, spec: &Value) {
        self.second += 1;
        let spec = serde_json::from_value(spec.clone()).unwrap();
        let policy = if let Some(policy) = self.policies.get(key) {
            let mut policy = RateLimitPolicy { spec, ..RateLimitPolicy::clone(policy) };
            *policy.metadata.generation.as_mut().unwrap() += 1;
            policy
        } else {
            let (namespace, name) = key.split_once('/').unwrap();
            let mut policy = RateLimitPolicy::new(name, spec);
            policy.metadata.namespace = Some(namespace.to_owned());
            policy.metadata.uid = Some(key.to_owned());
            policy.metadata.generation = Some(1);
            policy.metadata.creation_timestamp = Some(Time(at(self.second)));
            policy
        };
        self.policies.insert(key.to_owned(), Arc::new(policy));
    }

    fn digest(&self) -> String {
        digest(self.policies.values().map(Arc::as_ref))
    }

    /// These replicas enforce every policy as it is.
    fn enforce(&mut self, names: &[&str]) {
        let digest = self.digest();
        for replica in self.replicas.iter_mut().filter(|replica| names.contains(&replica.name.as_str())) {
            replica.policies = Some(digest.clone());
        }
    }

    /// Visits a policy; returns its status, and whether it was written.
    fn visit(&mut self, key: &str) -> (RateLimitPolicyStatus, bool) {
        self.second += 1;
        let policy = Arc::clone(&self.policies[key]);
        let is_for = |tenant: &&Arc<Tenant>| match &policy.spec.target_selector {
            Some(selector) => target(tenant).has(selector),
            None => policy.spec.target_refs.iter().any(|reference| reference.name == tenant.name_any()),
        };
        let found = Found {
            rivals: self.policies.values().map(Arc::clone).collect(),
            tenants: self.tenants.iter().filter(is_for).map(Arc::clone).collect(),
            replicas: self.replicas.clone(),
            digest: self.digest(),
            policy: Arc::clone(&policy),
        };
        let status = status(&found, validate(&found, HOME), at(self.second));
        let written = policy.status.as_ref() != Some(&status);
        let policy = RateLimitPolicy { status: Some(status.clone()), ..RateLimitPolicy::clone(&policy) };
        self.policies.insert(key.to_owned(), Arc::new(policy));
        (status, written)
    }

    fn status(&mut self, key: &str) -> RateLimitPolicyStatus {
        self.visit(key).0
    }

    /// The policies that a change of Leases or of the set would have visited, and that say something else then.
    fn due(&self) -> Vec<&str> {
        let digest = self.digest();
        let due = self.policies.iter().filter(|(_, policy)| is_due(policy, &self.replicas, &digest));
        due.map(|(key, _)| key.as_str()).collect()
    }
}

#[test]
fn a_status_is_true_as_a_whole() {
    let mut world = World::new(&["acme"]);
    world.apply("banks/a", &named(&["acme"], &["x"]));
    world.enforce(&["r1", "r2"]);
    let (status, written) = world.visit("banks/a");
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": "True", "reason": reason, "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2027-01-15T08:00:02Z"})
    };
    let programmed = "every live replica of the API server enforces it";
    let expected = json!({
        "observedGeneration": 1,
        "conditions": [condition("Ready", "Programmed", programmed),
            condition("Accepted", "Accepted", "attached to every target"),
            condition("Programmed", "Programmed", programmed)],
        "targets": 1,
        "ancestors": [{
            "ancestorRef": {"group": "finaiflow.io", "kind": "Tenant", "namespace": "banks", "name": "acme"},
            "controllerName": "finaiflow.io/operator",
            "conditions": [condition("Accepted", "Accepted", "all of the policy counts")],
        }],
        "replicas": {"total": 2, "updated": 2, "names": ["r1", "r2"]},
    });
    assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    assert!(written);
    assert!(!world.visit("banks/a").1, "nothing has changed");
}

#[test]
fn what_no_replica_could_enforce_waits_for_a_person() {
    let mut world = World::new(&["acme"]);
    let mut costly = named(&["acme"], &["x"]);
    costly["limits"][0]["cost"] = json!(11);
    world.apply("banks/costly", &costly);
    let status = world.status("banks/costly");
    let why = "False Invalid: limit x: the cost is more than a rate ever admits";
    for kind in ["Ready", "Accepted", "Programmed"] {
        assert_eq!(condition(&status, kind), why);
    }
    assert_eq!(condition(&status, "Stalled"), why.replace("False", "True"));
    assert_eq!((status.targets, status.ancestors, status.replicas), (None, vec![], None));

    let server = with(named(&[], &["x"]), &json!({"targetRefs": [{"kind": "ApiServer", "name": "default"}]}));
    world.apply("banks/server", &server);
    let why = "False Invalid: policies for the API server count only in the namespace that it runs in";
    assert_eq!(condition(&world.status("banks/server"), "Ready"), why);
    world.apply(&format!("{HOME}/server"), &server);
    world.enforce(&["r1", "r2"]);
    let status = world.status(&format!("{HOME}/server"));
    assert_eq!(condition(&status, "Programmed"), "True Programmed: every live replica of the API server enforces it");
    assert_eq!(ancestors(&status), ["default Accepted=True Accepted: all of the policy counts"]);

    // Once it is mended it is as any other.
    world.apply("banks/costly", &named(&["acme"], &["x"]));
    world.enforce(&["r1", "r2"]);
    let status = world.status("banks/costly");
    assert_eq!(
        status.conditions.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
        ["Ready", "Accepted", "Programmed"]
    );
    assert_eq!(status.observed_generation, Some(2));
}

#[test]
fn missing_targets_are_named_and_waited_for() {
    let mut world = World::new(&["acme"]);
    world.apply("banks/none", &named(&["zeta", "globex"], &["x"]));
    world.apply("banks/one", &named(&["acme", "globex"], &["x"]));
    world.enforce(&["r1", "r2"]);
    let none = world.status("banks/none");
    let why = "False TargetNotFound: namespace banks has no Tenant globex, zeta";
    assert_eq!([condition(&none, "Accepted"), condition(&none, "Programmed")], [why, why]);
    assert_eq!(condition(&none, "Reconciling"), why.replace("False", "True"));
    assert_eq!((none.targets, none.replicas), (Some(0), None));
    let one = world.status("banks/one");
    assert_eq!(
        condition(&one, "Accepted"),
        "True Accepted: attached to every target except Tenant globex (TargetNotFound)"
    );
    assert_eq!(condition(&one, "Ready"), "True Programmed: every live replica of the API server enforces it");
    assert_eq!(
        ancestors(&one),
        [
            "globex Accepted=False TargetNotFound: there is no such Tenant",
            "acme Accepted=True Accepted: all of the policy counts"
        ]
    );
    assert_eq!(one.targets, Some(1));
}

#[test]
fn a_selector_needs_no_tenant_and_tells_of_sixteen() {
    let mut world = World::new(&[]);
    world.apply("banks/gold", &gold(&["x"]));
    world.enforce(&["r1", "r2"]);
    let status = world.status("banks/gold");
    assert_eq!(condition(&status, "Accepted"), "True Accepted: no Tenant of the namespace has these labels yet");
    assert_eq!(condition(&status, "Ready"), "True Programmed: every live replica of the API server enforces it");
    assert_eq!((status.targets, status.ancestors), (Some(0), vec![]));

    let names: Vec<_> = (0..20).map(|number| format!("bank-{number:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.tenants = World::new(&names).tenants;
    world.apply("banks/own", &named(&["bank-18"], &["y"]));
    world.apply("banks/other", &with(named(&["bank-19"], &["x"]), &json!({"strategy": "MergeDefaults"})));
    world.apply("banks/gold", &with(gold(&["x", "z"]), &json!({"strategy": "MergeDefaults"})));
    let status = world.status("banks/gold");
    assert_eq!((status.targets, status.ancestors.len()), (Some(20), 16));
    assert_eq!(
        ancestors(&status)[..2],
        [
            "bank-19 Accepted=True Accepted: banks/other counts instead of x",
            "bank-00 Accepted=True Accepted: all of the policy counts"
        ]
    );
}

#[test]
fn the_oldest_wins_and_its_end_frees_the_other_once_the_replicas_know() {
    let mut world = World::new(&["acme"]);
    world.apply("banks/old", &named(&["acme"], &["x"]));
    world.apply("banks/new", &with(named(&["acme"], &["y"]), &json!({"denyCIDRs": ["192.0.2.0/24"]})));
    world.enforce(&["r1", "r2"]);
    assert_eq!(
        condition(&world.status("banks/old"), "Ready"),
        "True Programmed: every live replica of the API server enforces it"
    );
    let status = world.status("banks/new");
    let why = "False Conflicted: at every target another policy counts instead: banks/old (as specific, and older); only \
               its denyCIDRs count";
    assert_eq!([condition(&status, "Accepted"), condition(&status, "Programmed")], [why, why]);
    assert_eq!(condition(&status, "Stalled"), "");
    assert_eq!((status.targets, status.replicas.clone()), (Some(1), None));
    assert_eq!(
        ancestors(&status),
        ["acme Accepted=False Conflicted: banks/old (as specific, and older) counts instead of y"]
    );

    world.policies.remove("banks/old");
    let status = world.status("banks/new");
    assert_eq!(condition(&status, "Accepted"), "True Accepted: attached to every target");
    assert_eq!(condition(&status, "Programmed"), "False Reconciling: 0 of 2 replicas enforce it; waiting for r1, r2");
    world.enforce(&["r1", "r2"]);
    assert_eq!(world.due(), ["banks/new"]);
    assert_eq!(world.status("banks/new").replicas.unwrap().updated, 2);
    assert_eq!(world.due(), Vec::<&str>::new());
}

#[test]
fn an_overridden_policy_names_the_winners_and_is_at_rest() {
    let mut world = World::new(&["acme", "globex"]);
    world.apply("banks/gold", &gold(&["x"]));
    world.apply("banks/acme", &named(&["acme"], &["y"]));
    world.apply("banks/globex", &named(&["globex"], &["y"]));
    world.enforce(&["r1", "r2"]);
    let status = world.status("banks/gold");
    let why = "at every target another policy counts instead: banks/acme, banks/globex";
    assert_eq!(
        say(&status.conditions),
        [
            format!("Ready=False Overridden: {why}"),
            "Accepted=True Accepted: attached to every target".to_owned(),
            format!("Programmed=False Overridden: {why}"),
        ]
    );
    assert_eq!(
        ancestors(&status),
        [
            "acme Accepted=True Overridden: banks/acme counts instead of x",
            "globex Accepted=True Overridden: banks/globex counts instead of x"
        ]
    );
    // Where one Tenant is left to it, it is in force.
    world.policies.remove("banks/globex");
    world.enforce(&["r1", "r2"]);
    assert_eq!(
        condition(&world.status("banks/gold"), "Ready"),
        "True Programmed: every live replica of the API server enforces it"
    );
}

#[test]
fn what_of_a_policy_does_not_count_is_told_with_its_places() {
    let mut world = World::new(&["acme"]);
    world.apply("banks/acme", &named(&["acme"], &["x", "y"]));
    let mut login = named(&["acme"], &["z"]);
    login["targetRefs"][0]["sectionName"] = json!("auth");
    world.apply("banks/login", &login);
    world.apply(
        &format!("{HOME}/cap"),
        &with(
            named(&[], &["x"]),
            &json!({"targetRefs": [{"kind": "ApiServer", "name": "default"}], "strategy": "MergeOverrides"}),
        ),
    );
    world.enforce(&["r1", "r2"]);
    let status = world.status("banks/acme");
    assert_eq!(
        ancestors(&status),
        [
            "acme Accepted=True Accepted: banks/login counts instead of x, y for auth; finaiflow-system/cap counts instead \
          of x for accounts, transfers, system"
        ]
    );
    assert_eq!(condition(&status, "Ready"), "True Programmed: every live replica of the API server enforces it");
    assert_eq!(ancestors(&world.status("banks/login")), ["acme/auth Accepted=True Accepted: all of the policy counts"]);
    assert_eq!(
        ancestors(&world.status(&format!("{HOME}/cap"))),
        ["default Accepted=True Accepted: all of the policy counts"]
    );

    // More of it counts now, which replicas that have not heard of it do not know.
    world.policies.remove("banks/login");
    assert_eq!(world.status("banks/acme").replicas.unwrap().updated, 0);
}

#[test]
fn programmed_is_what_every_live_replica_tells() {
    let mut world = World::new(&["acme"]);
    world.apply("banks/a", &named(&["acme"], &["x"]));
    let programmed = |world: &mut World| condition(&world.status("banks/a"), "Programmed");
    assert_eq!(programmed(&mut world), "False Reconciling: 0 of 2 replicas enforce it; waiting for r1, r2");
    world.enforce(&["r2"]);
    assert_eq!(world.due(), ["banks/a"]);
    let status = world.status("banks/a");
    let why = "1 of 2 replicas enforce it; waiting for r1";
    assert_eq!(condition(&status, "Ready"), format!("False PartiallyProgrammed: {why}"));
    assert_eq!(condition(&status, "Reconciling"), format!("True PartiallyProgrammed: {why}"));
    assert_eq!(status.replicas.unwrap().names, ["r2"]);
    // One that is gone is not waited for.
    world.replicas.remove(0);
    assert_eq!(world.due(), ["banks/a"]);
    assert_eq!(programmed(&mut world), "True Programmed: every live replica of the API server enforces it");
    world.replicas.clear();
    assert_eq!(programmed(&mut world), "False NoReplica: no replica of the API server is alive");

    let many: Vec<_> = (10..50).map(|number| Replica { name: format!("r{number}"), ..Replica::default() }).collect();
    world.replicas = many;
    assert_eq!(
        programmed(&mut world),
        "False Reconciling: 0 of 40 replicas enforce it; waiting for r10, r11, r12, r13, r14 and 35 more"
    );
    let names: Vec<_> = world.replicas.iter().map(|replica| replica.name.clone()).collect();
    world.enforce(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let replicas = world.status("banks/a").replicas.unwrap();
    assert_eq!((replicas.total, replicas.updated, replicas.names.len()), (40, 40, 32));
}

#[test]
fn an_edit_of_another_policy_is_no_news() {
    let mut world = World::new(&["acme", "globex"]);
    world.apply("banks/a", &named(&["acme"], &["x"]));
    world.apply("banks/b", &named(&["globex"], &["x"]));
    world.enforce(&["r1", "r2"]);
    world.visit("banks/a");
    world.visit("banks/b");
    world.apply("banks/b", &named(&["globex"], &["y"]));
    assert!(!world.visit("banks/a").1);
    assert_eq!(
        condition(&world.status("banks/b"), "Programmed"),
        "False Reconciling: 0 of 2 replicas enforce it; waiting for r1, r2"
    );
    for replica in ["r2", "r1"] {
        world.enforce(&[replica]);
        assert_eq!(world.due(), ["banks/b"]);
        assert!(!world.visit("banks/a").1 && world.visit("banks/b").1);
    }
    assert_eq!(world.due(), Vec::<&str>::new());

    // But one that came in between has yet to get the whole set, and one that tells nothing enforces nothing.
    world.replicas.push(Replica { name: "r3".to_owned(), ..Replica::default() });
    assert_eq!(world.status("banks/a").replicas.unwrap().updated, 2);
    world.replicas[0].policies = None;
    assert_eq!(world.status("banks/a").replicas.unwrap().names, ["r2"]);
}
