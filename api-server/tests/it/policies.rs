//! RateLimitPolicies of a bank, what its replicas say of them, and clients who ask for more than they get.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finaiflow_crds::RateLimitPolicy;
use finaiflow_crds::rate_limit_policy::digest;
use futures::future::join_all;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep_until;

use crate::fleet::{Answer, Connection, Fleet, Process, Request, get};
use crate::tenants_bank::{Bank, eventually};

/// Connections of a flood to each replica.
const CONNECTIONS: u32 = 4;

impl Fleet {
    /// An installation whose replicas enforce policies, and without one nothing that a test would notice.
    pub fn limited(bank: &Bank) -> Self {
        let mut fleet = Self::of(bank);
        fleet.settings = vec![("RATE_LIMIT_ENABLED", "true".to_owned()), ("RATE_LIMIT_REQUESTS", "1000000".to_owned())];
        fleet
    }
}

impl Bank {
    pub fn policies(&self) -> Api<RateLimitPolicy> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// Applies a policy in the bank's namespace, for the bank unless `spec` says what for.
    pub async fn declare(&self, name: &str, spec: &Value) {
        let mut spec = spec.clone();
        if spec.get("targetRefs").is_none() && spec.get("targetSelector").is_none() {
            spec["targetRefs"] = json!([{"kind": "Tenant", "name": self.name}]);
        }
        let policy = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy",
            "metadata": {"name": name, "namespace": self.namespace}, "spec": spec,
        });
        let params = PatchParams::apply("api-test").force();
        self.policies().patch(name, &params, &Patch::Apply(&policy)).await.unwrap();
    }

    pub async fn withdraw(&self, name: &str) {
        self.policies().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The digest of the policies of the whole cluster as they are.
    pub async fn digest(&self) -> String {
        let all = Api::<RateLimitPolicy>::all(self.admin.clone()).list(&ListParams::default()).await.unwrap();
        digest(&all.items)
    }

    /// Waits until the replicas enforce all policies as they are.
    pub async fn enforced_by(&self, replicas: &[&Process]) {
        for replica in replicas {
            let same = || async {
                let digest = self.digest().await;
                (replica.explain("path=/").await["policy_digest"] == digest).then_some(())
            };
            eventually("the replica enforces the policies", same).await;
        }
    }
}

impl Process {
    pub async fn ask(&self, request: &Request) -> Answer {
        Connection::open(self.port).await.unwrap().send(request).await.unwrap()
    }

    /// `GET /rate-limits/explain?...`, for operators.
    pub async fn explain(&self, question: &str) -> Value {
        self.operator(&format!("/rate-limits/explain?{question}")).await
    }

    /// `GET path` of what is for operators.
    pub async fn operator(&self, path: &str) -> Value {
        let answer = Connection::open(self.admin).await.unwrap().send(&get(path)).await.unwrap();
        answer.expect(200).clone()
    }

    /// The sum of the series of a metric whose labels have all of these words.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.ask(&get("/metrics")).await.text;
        let series = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    }
}

/// A limit of one rate.
pub fn limit(name: &str, requests: u64, period_seconds: u64, keys: &[&str]) -> Value {
    let mut limit = json!({"name": name, "rates": [{"requests": requests, "periodSeconds": period_seconds}]});
    if !keys.is_empty() {
        limit["keys"] = keys.iter().map(|kind| json!({"type": kind})).collect();
    }
    limit
}

/// The limits that an answer was counted by, in the order of its header.
pub fn limits(answer: &Answer) -> Vec<String> {
    let quotas = answer.header("ratelimit-policy").split(", ").filter(|quota| !quota.is_empty());
    quotas.map(|quota| quota.split('"').nth(1).unwrap().to_owned()).collect()
}

/// What became of a flood.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers by status.
    pub answers: BTreeMap<u16, u32>,
    /// From before the first request to after the last answer.
    pub time: Duration,
}

impl Tally {
    pub fn of(&self, status: u16) -> u32 {
        self.answers.get(&status).copied().unwrap_or_default()
    }

    /// What was admitted, as a part of `burst + rate · time`: the most that may be.
    pub fn part_of(&self, rate: f64, burst: f64) -> f64 {
        f64::from(self.of(200)) / (burst + rate * self.time.as_secs_f64())
    }
}

/// Sends so many requests a second to each port for that time, whether they are answered soon or late: who is late
/// catches up.
pub async fn flood(request: &Request, rates: &[(u16, f64)], time: Duration) -> Tally {
    let began = Instant::now();
    let connections = rates.iter().flat_map(|rate| (0..CONNECTIONS).map(move |number| (*rate, number)));
    let send = connections.map(|((port, rate), number)| {
        let request = request.clone();
        let every = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
        tokio::spawn(async move {
            let mut connection = Connection::open(port).await.unwrap();
            let mut answers = BTreeMap::<_, u32>::new();
            let mut at = began + every * number / CONNECTIONS;
            while at < began + time {
                sleep_until(at.into()).await;
                let answer = connection.send(&request).await.unwrap();
                *answers.entry(answer.status).or_default() += 1;
                at += every;
            }
            answers
        })
    });
    let mut tally = Tally::default();
    for answers in join_all(send).await {
        for (status, count) in answers.unwrap() {
            *tally.answers.entry(status).or_default() += count;
        }
    }
    tally.time = began.elapsed();
    tally
}
