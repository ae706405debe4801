//! What clients are told about their quota.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use finaiflow_crds::rate_limit_policy::ResponseHeaders;

use super::guard::Ruled;
use super::{Micros, Rate, Row};

/// The quotas that were counted against (draft-ietf-httpapi-ratelimit-headers).
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of them (the same draft).
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Requests in a window, of the quota with the least left.
pub const LEGACY_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
/// What is left of it.
pub const LEGACY_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
/// Seconds until it is whole again.
pub const LEGACY_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Adds the headers that each rule's policy asks for.
pub(super) fn write(ruled: &[Ruled], headers: &mut HeaderMap) {
    let quotas = |style| ruled.iter().filter(move |it| it.rule.headers == style).flat_map(quotas);
    let (mut policy, mut left) = (Vec::new(), Vec::new());
    for (name, rate, row) in quotas(ResponseHeaders::Standard) {
        policy.push(format!("\"{name}\";q={};w={}", rate.requests(), rate.period_seconds()));
        left.push(format!("\"{name}\";r={};t={}", row.remaining, seconds(reset(row))));
    }
    if !policy.is_empty() {
        set(headers, RATE_LIMIT_POLICY, &policy.join(", "));
        set(headers, RATE_LIMIT, &left.join(", "));
    }
    if let Some((_, rate, row)) = quotas(ResponseHeaders::Legacy).min_by_key(|(_, _, row)| row.remaining) {
        set(headers, LEGACY_LIMIT, &rate.requests().to_string());
        set(headers, LEGACY_REMAINING, &row.remaining.to_string());
        set(headers, LEGACY_RESET, &seconds(reset(row)).to_string());
    }
}

/// The rates of a rule by the names that tell them apart.
fn quotas(ruled: &Ruled) -> impl Iterator<Item = (String, &Rate, &Row)> {
    let several = ruled.rule.rates.len() > 1;
    ruled.rule.rates.iter().zip(&ruled.rows).enumerate().map(move |(index, ((rate, _), row))| {
        let name = &ruled.rule.name;
        (if several { format!("{name}-{}", index + 1) } else { name.clone() }, rate, row)
    })
}

/// When there is more: for a refused request, when it would be admitted.
fn reset(row: &Row) -> Micros {
    if row.retry_after > 0 { row.retry_after } else { row.full_after }
}

/// Whole seconds, rounded up: who comes back after them is not too early.
pub(super) fn seconds(time: Micros) -> u64 {
    time.div_ceil(1_000_000)
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
