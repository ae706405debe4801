//! What monitoring sees of Backups.

use std::sync::Arc;

use finaiflow_crds::Backup;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::update_status::acts;

/// Of each Backup that acts.
pub struct Gauges {
    objective: IntGaugeVec,
    recovery_point_age: IntGaugeVec,
    verified_age: IntGaugeVec,
    lag: IntGaugeVec,
    bytes: IntGaugeVec,
}

impl Gauges {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |suffix: &str, help, more: &[&str]| {
            let labels = [&["namespace", "backup"], more].concat();
            let gauges = IntGaugeVec::new(Opts::new(format!("finaiflow_backup_{suffix}"), help), &labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        Ok(Self {
            objective: gauges("rpo_objective_seconds", "How old the newest backup may be at each destination", &[])?,
            recovery_point_age: gauges(
                "recovery_point_age_seconds",
                "How old what a restore brings back is, or how long there is no backup",
                &["destination"],
            )?,
            verified_age: gauges(
                "last_verified_age_seconds",
                "How long ago a verification last found everything good, or how long none has",
                &[],
            )?,
            lag: gauges(
                "lag_seconds",
                "How much older the newest backup is than the newest anywhere",
                &["destination"],
            )?,
            bytes: gauges("bytes", "What the backups take", &["destination"])?,
        })
    }

    /// Shows what is known now.
    pub fn show(&self, backups: &[Arc<Backup>], now: Timestamp) {
        for gauges in [&self.objective, &self.recovery_point_age, &self.verified_age, &self.lag, &self.bytes] {
            gauges.reset();
        }
        for backup in backups {
            self.show_one(backup, now);
        }
    }

    fn show_one(&self, backup: &Backup, now: Timestamp) {
        let Some(status) = &backup.status else { return };
        let (namespace, name) = (backup.namespace().unwrap_or_default(), backup.name_any());
        let age = |time: Option<&Time>| {
            let since = time.map(|time| time.0).or_else(|| Some(backup.creation_timestamp()?.0));
            since.map(|since| now.duration_since(since).as_secs())
        };
        // Of a bank that is gone, or that another Backup acts for, nothing can be missed here.
        if !acts(status) {
            return;
        }
        let labels = [namespace.as_str(), name.as_str()];
        let set = |gauges: &IntGaugeVec, labels: &[&str], value: Option<i64>| {
            if let Some(value) = value {
                gauges.with_label_values(labels).set(value);
            }
        };
        set(&self.objective, &labels, Some(60 * i64::from(backup.spec.objectives.rpo_minutes)));
        set(&self.verified_age, &labels, age(status.last_verified_time.as_ref()));
        for at in &status.destinations {
            let labels = [labels[0], labels[1], &at.name];
            set(&self.recovery_point_age, &labels, age(at.restorable_to.as_ref()));
            set(&self.lag, &labels, at.lag_seconds);
            set(&self.bytes, &labels, at.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_somebody_has_to_look_at_is_shown() {
        let registry = Registry::new();
        let gauges = Gauges::new(&registry).unwrap();
        let backup = |name: &str, rpo: &str, reason: &str| {
            let condition = json!({"type": "RPOMet", "status": rpo, "reason": reason, "message": "",
                "lastTransitionTime": "2027-01-15T08:00:00Z"});
            let backup = json!({
                "apiVersion": "finaiflow.io/v1alpha1", "kind": "Backup",
                "metadata": {"name": name, "namespace": "banks", "creationTimestamp": "2027-01-15T07:00:00Z"},
                "spec": {"tenantRef": {"name": "acme"}, "destinations": []},
                "status": {"conditions": [condition], "destinations": [
                    {"name": "near", "restorableTo": "2027-01-15T07:59:00Z", "lagSeconds": 0, "bytes": 9}, {"name": "far"}]},
            });
            Arc::new(serde_json::from_value::<Backup>(backup).unwrap())
        };
        let now = "2027-01-15T08:00:00Z".parse().unwrap();
        let all = [backup("nightly", "False", "ObjectiveMissed"), backup("idle", "Unknown", "NotActing")];
        gauges.show(&[backup("gone", "True", "ObjectiveMet")], now);
        gauges.show(&all, now);
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                r#"finaiflow_backup_bytes{backup="nightly",destination="near",namespace="banks"} 9"#,
                r#"finaiflow_backup_lag_seconds{backup="nightly",destination="near",namespace="banks"} 0"#,
                r#"finaiflow_backup_last_verified_age_seconds{backup="nightly",namespace="banks"} 3600"#,
                r#"finaiflow_backup_recovery_point_age_seconds{backup="nightly",destination="far",namespace="banks"} 3600"#,
                r#"finaiflow_backup_recovery_point_age_seconds{backup="nightly",destination="near",namespace="banks"} 60"#,
                r#"finaiflow_backup_rpo_objective_seconds{backup="nightly",namespace="banks"} 3600"#,
            ]
        );
    }
}
