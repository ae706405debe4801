//! The Leases by which replicas say that they are alive.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Whether a Lease speaks of somebody who is alive: it was renewed less than its duration ago.
#[must_use]
pub fn is_current(lease: &Lease, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let (Some(renewed), Some(seconds)) = (&spec.renew_time, spec.lease_duration_seconds) else { return false };
    renewed.0.saturating_add(SignedDuration::from_secs(i64::from(seconds))).is_ok_and(|until| until >= now)
}
