//! The only place that reads the clock and the random generator; everything else takes their values as arguments.

use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use k8s_openapi::jiff::Timestamp;
use time::OffsetDateTime;
use uuid::Uuid;

/// Tells the time, in UTC and whole microseconds (what PostgreSQL stores).
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// The clock of the machine.
#[must_use]
pub fn system() -> Clock {
    #[expect(clippy::disallowed_methods, reason = "the composition root hands this clock to everything else")]
    Arc::new(|| truncate(OffsetDateTime::now_utc()))
}

/// The same instant without its nanoseconds, so that a time is equal before and after it was stored.
#[must_use]
pub fn truncate(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_nanosecond(time.microsecond() * 1_000).unwrap_or(time)
}

/// Microseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn micros(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000).unwrap_or_default()
}

/// The same instant as Kubernetes objects hold it.
#[must_use]
pub fn timestamp(time: OffsetDateTime) -> Timestamp {
    i64::try_from(micros(time)).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok()).unwrap_or_default()
}

/// Bytes from the system's cryptographic generator.
pub fn random<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// A new time-ordered id (UUID version 7) for the given instant.
pub fn new_id(now: OffsetDateTime) -> Result<Uuid, Unspecified> {
    let millis = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random()?).into_uuid())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn ids_of_later_instants_sort_later() {
        let early = new_id(datetime!(2026-01-01 00:00:00 UTC)).unwrap();
        let late = new_id(datetime!(2026-01-01 00:00:00.002 UTC)).unwrap();
        assert!(early < late);
        assert_eq!(early.get_version_num(), 7);
    }

    #[test]
    fn times_are_whole_microseconds() {
        let time = datetime!(2026-01-01 00:00:00.123_456_789 UTC);
        assert_eq!(truncate(time), datetime!(2026-01-01 00:00:00.123_456 UTC));
    }
}
