//! The clock, read here only.

use k8s_openapi::jiff::Timestamp;

/// The time as conditions carry it: whole seconds.
#[must_use]
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the composition root's clock")]
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
