//! Turns what a visit told into metrics, events and log lines, so that the steps hold none of it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::Tenant;
use finaiflow_crds::condition::{self, ConditionType};
use finaiflow_crds::names::MANAGER_OPERATOR;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::object::HasStatus;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, Resource, ResourceExt};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, exponential_buckets,
};

use crate::error::Error;
use crate::story::{Fact, Story};
use crate::tenant::sweep::Orphan;

/// Events refuse longer notes.
const NOTE_MAX: usize = 1024;

/// Publishes what visits tell.
pub struct Observer {
    recorder: Recorder,
    total: IntCounterVec,
    seconds: HistogramVec,
    step_seconds: HistogramVec,
    errors: IntCounterVec,
    objects: IntGaugeVec,
    orphans: IntCounterVec,
    drift: IntCounter,
    last_success: IntGaugeVec,
    leader: IntGauge,
}

impl Observer {
    /// Registers the metrics. Events are reported by `pod`.
    pub fn new(client: Client, pod: Option<String>, registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |suffix: &str| format!("finaiflow_operator_{suffix}");
        let buckets = exponential_buckets(0.01, 2.0, 13)?;
        let counters = |suffix, help, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name(suffix), help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let gauges = |suffix, help, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name(suffix), help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let histograms = |suffix, help, labels: &[&str]| {
            let options = HistogramOpts::new(name(suffix), help).buckets(buckets.clone());
            let histograms = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histograms.clone()))?;
            Ok::<_, prometheus::Error>(histograms)
        };
        let drift = IntCounter::new(name("drift_corrections_total"), "Visits that put right what others had changed")?;
        registry.register(Box::new(drift.clone()))?;
        let leader = IntGauge::new(name("leader"), "1 while this process leads")?;
        registry.register(Box::new(leader.clone()))?;
        Ok(Self {
            recorder: Recorder::new(client, Reporter { controller: MANAGER_OPERATOR.to_owned(), instance: pod }),
            total: counters("reconcile_total", "Visits by result", &["kind", "result"])?,
            seconds: histograms("reconcile_seconds", "Duration of visits", &["kind"])?,
            step_seconds: histograms("reconcile_step_seconds", "Duration of a visit's steps", &["kind", "step"])?,
            errors: counters("reconcile_errors_total", "Failed visits by reason", &["kind", "reason"])?,
            objects: gauges("objects", "Objects by their Ready condition", &["kind", "ready"])?,
            orphans: counters("orphans_total", "What was left behind and swept, by kind", &["kind"])?,
            last_success: gauges("last_success_timestamp_seconds", "When a visit last succeeded", &["kind"])?,
            drift,
            leader,
        })
    }

    /// This process leads from now on, until it ends.
    pub fn lead(&self) {
        self.leader.set(1);
    }

    /// Publishes a visit of an object.
    pub async fn publish<K, V>(&self, object: &K, story: &Story, result: &Result<V, Error>, took: Duration, now: i64)
    where
        K: Resource<DynamicType = ()>,
        V: Debug,
    {
        let (told, kind) = (story.take(), K::kind(&()));
        self.measure(&kind, result, took, now);
        for (step, took) in told.steps {
            self.step_seconds.with_label_values(&[&*kind, step]).observe(took.as_secs_f64());
        }
        for fact in &told.facts {
            if matches!(fact, Fact::DriftCorrected(_) | Fact::SchemaLost(_)) {
                self.drift.inc();
            }
            self.event(object, fact).await;
        }
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        match result {
            Ok(visit) => tracing::debug!(%kind, namespace, name, ?visit, ?took, "visited"),
            Err(error) => {
                tracing::warn!(%kind, namespace, name, reason = error.reason().as_str(), %error, "visit failed");
            }
        }
    }

    fn measure<V>(&self, kind: &str, result: &Result<V, Error>, took: Duration, now: i64) {
        self.seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
        let word = match result {
            Ok(_) => {
                self.last_success.with_label_values(&[kind]).set(now);
                "success"
            }
            Err(error) => {
                self.errors.with_label_values(&[kind, error.reason().as_str()]).inc();
                "error"
            }
        };
        self.total.with_label_values(&[kind, word]).inc();
    }

    async fn event<K: Resource<DynamicType = ()>>(&self, object: &K, fact: &Fact) {
        let kind = K::kind(&());
        tracing::info!(%kind, namespace = object.namespace(), name = object.name_any(), event = fact.reason(), "{fact}");
        let event = Event {
            type_: if fact.is_warning() { EventType::Warning } else { EventType::Normal },
            reason: fact.reason().to_owned(),
            note: Some(cut(fact.to_string())),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        self.record(event, &object.object_ref(&())).await;
    }

    /// An event that is refused stops nothing.
    async fn record(&self, event: Event, about: &ObjectReference) {
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(%error, event = event.reason, "event not published");
        }
    }

    /// Publishes what a sweep found. A Tenant that is gone can still have an event.
    pub async fn orphan(&self, orphan: &Orphan) {
        tracing::warn!(kind = orphan.kind(), "{orphan}");
        self.orphans.with_label_values(&[orphan.kind()]).inc();
        let Orphan::Claim(claim) = orphan else { return };
        let tenant = ObjectReference {
            uid: Some(claim.last_uid.clone()),
            ..ObjectRef::<Tenant>::new(&claim.name).within(&claim.namespace).into()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "Orphaned".to_owned(),
            note: Some(cut(format!("{orphan}."))),
            action: "Sweep".to_owned(),
            secondary: None,
        };
        self.record(event, &tenant).await;
    }

    /// Counts all objects of a kind by their Ready condition.
    pub fn count<K>(&self, objects: &[Arc<K>], conditions: fn(&K::Status) -> &[Condition])
    where
        K: Resource<DynamicType = ()> + HasStatus,
    {
        let mut counts = BTreeMap::from([("True", 0), ("False", 0), ("Unknown", 0)]);
        for object in objects {
            let conditions = object.status().map(conditions).unwrap_or_default();
            let ready = condition::find(conditions, ConditionType::Ready).map(|ready| ready.status.as_str());
            let word = match ready {
                Some("True") => "True",
                Some("False") => "False",
                _ => "Unknown",
            };
            *counts.entry(word).or_default() += 1;
        }
        for (ready, count) in counts {
            self.objects.with_label_values(&[&*K::kind(&()), ready]).set(count);
        }
    }
}

fn cut(mut note: String) -> String {
    note.truncate(note.floor_char_boundary(NOTE_MAX));
    note
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use kube::client::Body;
    use prometheus::{Encoder, TextEncoder};
    use serde_json::json;

    use super::*;
    use crate::error::Reason;
    use crate::tenant::Visit;

    fn tenant(ready: &str) -> Tenant {
        let condition = json!({"type": "Ready", "status": ready, "reason": "X", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant", "metadata": {"name": "a", "namespace": "b"},
            "spec": {}, "status": {"conditions": [condition]},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn visits_are_counted_by_what_came_of_them() {
        let refuse = |_: http::Request<Body>| async {
            let status = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden"});
            let answer = http::Response::builder().status(403).body(Body::from(status.to_string().into_bytes()));
            Ok::<_, Infallible>(answer.unwrap())
        };
        let registry = Registry::new();
        let client = Client::new(tower::service_fn(refuse), "default");
        let observer = Observer::new(client, None, &registry).unwrap();
        let story = Story::default();
        story.step("apply", async {}).await;
        story.tell(Fact::DriftCorrected(vec!["role x".to_owned()]));
        // An event that is refused stops nothing.
        observer.publish(&tenant("True"), &story, &Ok(Visit::Done), Duration::from_millis(5), 1_800_000_000).await;
        let failure: Result<Visit, _> = Err(Error::refused(Reason::KeyLost, "gone"));
        observer.publish(&tenant("True"), &story, &failure, Duration::from_millis(5), 1).await;
        let tenants = ["True", "True", "False"].map(|ready| Arc::new(tenant(ready)));
        observer.count(&tenants, |status| &status.conditions);

        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            r#"finaiflow_operator_reconcile_total{kind="Tenant",result="success"} 1"#,
            r#"finaiflow_operator_reconcile_total{kind="Tenant",result="error"} 1"#,
            r#"finaiflow_operator_reconcile_errors_total{kind="Tenant",reason="KeyLost"} 1"#,
            r#"finaiflow_operator_reconcile_seconds_count{kind="Tenant"} 2"#,
            r#"finaiflow_operator_reconcile_step_seconds_count{kind="Tenant",step="apply"} 1"#,
            "finaiflow_operator_drift_corrections_total 1",
            "finaiflow_operator_leader 0",
            r#"finaiflow_operator_last_success_timestamp_seconds{kind="Tenant"} 1800000000"#,
            r#"finaiflow_operator_objects{kind="Tenant",ready="True"} 2"#,
            r#"finaiflow_operator_objects{kind="Tenant",ready="False"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
