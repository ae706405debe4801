//! What the layer counts. Policies and limits are labels: there are as many series as the platform team declares.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::Stats;

/// From a decision in memory to one that waited for the store.
const SECONDS: [f64; 10] = [0.000_001, 0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0];

/// What became of a request under one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    Limited,
    ShadowLimited,
    Bypassed,
    Denied,
    Error,
}

impl Decision {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Limited => "limited",
            Self::ShadowLimited => "shadow_limited",
            Self::Bypassed => "bypassed",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

/// What is to be told of each call of the store: how long it took, and whether there was an answer.
pub(super) fn store_timer(registry: &Registry) -> Result<impl Fn(Duration, bool) + use<>, prometheus::Error> {
    let options = HistogramOpts::new("finaiflow_ratelimit_store_seconds", "Time of a call of Redis, answered or not.");
    let seconds = Histogram::with_opts(options.buckets(SECONDS.to_vec()))?;
    registry.register(Box::new(seconds.clone()))?;
    let errors =
        IntCounter::new("finaiflow_ratelimit_store_errors_total", "Calls of Redis without an answer in time.")?;
    registry.register(Box::new(errors.clone()))?;
    Ok(move |took: Duration, answered: bool| {
        seconds.observe(took.as_secs_f64());
        if !answered {
            errors.inc();
        }
    })
}

#[derive(Debug)]
pub(super) struct Metrics {
    decisions: IntCounterVec,
    check: Histogram,
    enabled: IntGauge,
    under_way: IntGauge,
    shed: IntCounter,
    keys: IntGauge,
    evictions: IntGauge,
    overflows: IntGauge,
    store_up: IntGauge,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let decisions = IntCounterVec::new(
            Opts::new("finaiflow_ratelimit_decisions_total", "Requests by policy, limit and decision."),
            &["policy", "limit", "decision"],
        )?;
        registry.register(Box::new(decisions.clone()))?;
        let options = HistogramOpts::new("finaiflow_ratelimit_check_seconds", "Time to decide about a request.");
        let check = Histogram::with_opts(options.buckets(SECONDS.to_vec()))?;
        registry.register(Box::new(check.clone()))?;
        let shed = IntCounter::new("finaiflow_requests_shed_total", "Requests refused as too many were under way.")?;
        registry.register(Box::new(shed.clone()))?;
        Ok(Self {
            decisions,
            check,
            shed,
            enabled: gauge("finaiflow_ratelimit_enabled", "1 if limits refuse requests, 0 if they are switched off.")?,
            under_way: gauge("finaiflow_requests_under_way", "Requests that this replica works on.")?,
            keys: gauge("finaiflow_ratelimit_keys", "Keys that are counted in memory.")?,
            evictions: gauge("finaiflow_ratelimit_evictions", "Idle keys that gave way to others, since the start.")?,
            overflows: gauge(
                "finaiflow_ratelimit_overflows",
                "Counts under a shared key as memory was full, since the start.",
            )?,
            store_up: gauge(
                "finaiflow_ratelimit_store_up",
                "1 while requests are counted in Redis, with the other replicas.",
            )?,
        })
    }

    pub(super) fn decided(&self, policy: &str, limit: &str, decision: Decision) {
        self.decisions.with_label_values(&[policy, limit, decision.as_str()]).inc();
    }

    pub(super) fn checked(&self, took: Duration) {
        self.check.observe(took.as_secs_f64());
    }

    pub(super) fn shed(&self) {
        self.shed.inc();
    }

    pub(super) fn enabled(&self, enabled: bool) {
        self.enabled.set(enabled.into());
    }

    pub(super) fn engine(&self, stats: &Stats, under_way: u32) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.under_way.set(under_way.into());
        self.keys.set(i64::try_from(stats.cells).unwrap_or(i64::MAX));
        self.evictions.set(number(stats.evictions));
        self.overflows.set(number(stats.overflows));
        self.store_up.set(stats.store.is_some_and(|store| store.available).into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_the_dashboard_and_the_documentation_show_is_there() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let _timer = store_timer(&registry).unwrap();
        metrics.decided("banks/acme", "login", Decision::Limited);
        let known: BTreeSet<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        let dashboard = include_str!("../../../config/grafana/rate-limits.json");
        let word = |text: &str| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned();
        let shown = dashboard.split("finaiflow_").skip(1).map(|rest| format!("finaiflow_{}", word(rest)));
        let shown: BTreeSet<_> = shown.map(|name| name.trim_end_matches("_bucket").to_owned()).collect();
        assert!(shown.len() > 5, "{shown:?}");
        assert_eq!(shown.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
        let documented = include_str!("../../../docs/RATE_LIMITS.md");
        for name in &known {
            let short = name.trim_start_matches("finaiflow_ratelimit_");
            assert!(documented.contains(short), "{name} is not documented");
        }
    }
}
