//! When an object is visited again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);
const STEADY: Duration = Duration::from_mins(10);
/// A Tenant that waits for an API server is looked at again even if no Lease changes: one may have expired.
const WAITING: Duration = Duration::from_secs(20);

/// Counts each object's failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Another failure: how many came in a row before it.
    pub fn failed(&self, object: &str) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(object.to_owned()).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    /// A success, or the object is gone.
    pub fn forget(&self, object: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }
}

/// `min(1 s * 2^failures, 5 min)` ± 20 %. `jitter` is any random byte.
#[must_use]
pub fn retry(failures: u32, jitter: u8) -> Duration {
    spread(FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST), jitter)
}

/// 10 minutes ± 20 %.
#[must_use]
pub fn steady(jitter: u8) -> Duration {
    spread(STEADY, jitter)
}

/// 20 seconds ± 20 %.
#[must_use]
pub fn waiting(jitter: u8) -> Duration {
    spread(WAITING, jitter)
}

fn spread(delay: Duration, jitter: u8) -> Duration {
    delay.mul_f64(0.8 + 0.4 * f64::from(jitter) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_five_minutes() {
        let seconds: Vec<_> = [0, 1, 2, 8, 9, 40, u32::MAX].map(|n| retry(n, 0).as_secs_f64()).to_vec();
        assert_eq!(seconds, [0.8, 1.6, 3.2, 204.8, 240.0, 240.0, 240.0]);
        assert_eq!(retry(9, u8::MAX), Duration::from_mins(6));
        assert_eq!(steady(0), Duration::from_mins(8));
        assert_eq!(steady(u8::MAX), Duration::from_mins(12));
    }

    #[test]
    fn a_success_starts_over() {
        let backoff = Backoff::default();
        assert_eq!([backoff.failed("a"), backoff.failed("a"), backoff.failed("b")], [0, 1, 0]);
        backoff.forget("a");
        assert_eq!([backoff.failed("a"), backoff.failed("b")], [0, 1]);
    }
}
