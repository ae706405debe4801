//! Refresh tokens: opaque, rotated at each use, with a successor that is computed rather than drawn.
//!
//! Because the successor follows from the token, a retry (a lost answer, a second tab) within the grace period gets
//! the same one and no branch arises; a use after it means that somebody else holds a copy.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use data_encoding::BASE64URL_NOPAD;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::tenant::DataKey;

/// How long after its first use a token may be used again, by the same client retrying.
pub const GRACE: Duration = Duration::seconds(10);

/// A session ends at the latest this long after login, however often it is refreshed, unless the tenant's idle
/// lifetime is longer.
const ABSOLUTE_LIFETIME: Duration = Duration::days(30);

/// Marks the token for secret scanners.
const PREFIX: &str = "frt_";

const SUCCESSOR: &[u8] = b"finaiflow/refresh-successor/v1";

/// A refresh token in clear. Only its digest is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken([u8; 32]);

impl RefreshToken {
    /// The first token of a session, from random bytes.
    #[must_use]
    pub fn first(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The token in a client's text; `None` for anything that cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.strip_prefix(PREFIX)?.as_bytes()).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The text for the client.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&self.0))
    }

    /// SHA-256 of the token: enough for 256 random bits.
    #[must_use]
    pub fn digest(&self) -> Vec<u8> {
        digest(&SHA256, &self.0).as_ref().to_vec()
    }

    /// The token that replaces this one as number `seq` of its session.
    pub fn successor(&self, key: &DataKey, session: Uuid, seq: i32) -> Result<Self, Unspecified> {
        let seq = seq.to_be_bytes();
        let info = [SUCCESSOR, session.as_bytes(), seq.as_slice()];
        let mut next = [0; 32];
        Salt::new(HKDF_SHA256, key.expose()).extract(&self.0).expand(&info, HKDF_SHA256)?.fill(&mut next)?;
        Ok(Self(next))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(redacted)")
    }
}

/// The end points of a session's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Ends the session unless it is refreshed before.
    pub idle: OffsetDateTime,
    /// Ends the session in any case.
    pub absolute: OffsetDateTime,
}

impl Lifetime {
    /// The life of a session that begins now.
    #[must_use]
    pub fn begin(now: OffsetDateTime, idle: Duration) -> Self {
        let absolute = now + ABSOLUTE_LIFETIME.max(idle);
        Self { idle: now + idle, absolute }
    }

    /// The life after a refresh now: the absolute end stays.
    #[must_use]
    pub fn extend(self, now: OffsetDateTime, idle: Duration) -> Self {
        Self { idle: (now + idle).min(self.absolute), ..self }
    }
}

/// A stored token and its session, as read under the session's row lock.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// When the token was first exchanged.
    pub first_used_at: Option<OffsetDateTime>,
    /// Whether the session was revoked or its user disabled.
    pub revoked: bool,
    /// The session's life.
    pub lifetime: Lifetime,
}

/// What becomes of a presented token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// First use: store the successor.
    Rotate,
    /// A retry: answer with the same successor.
    Repeat,
    /// Used again after the grace period: revoke the session.
    Reuse,
    /// The session is over.
    Over,
}

/// Decides about a token at `now`.
#[must_use]
pub fn decide(stored: &Stored, now: OffsetDateTime) -> Verdict {
    if stored.revoked || now >= stored.lifetime.idle || now >= stored.lifetime.absolute {
        return Verdict::Over;
    }
    match stored.first_used_at {
        None => Verdict::Rotate,
        Some(used) if now - used <= GRACE => Verdict::Repeat,
        Some(_) => Verdict::Reuse,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn stored(first_used_at: Option<OffsetDateTime>) -> Stored {
        Stored { first_used_at, revoked: false, lifetime: Lifetime::begin(NOW, Duration::days(7)) }
    }

    #[test]
    fn grace_counts_from_the_first_use() {
        assert_eq!(decide(&stored(None), NOW), Verdict::Rotate);
        assert_eq!(decide(&stored(Some(NOW)), NOW + GRACE), Verdict::Repeat);
        assert_eq!(decide(&stored(Some(NOW)), NOW + GRACE + Duration::microseconds(1)), Verdict::Reuse);
    }

    #[test]
    fn a_session_that_is_over_neither_rotates_nor_reports_reuse() {
        let revoked = Stored { revoked: true, ..stored(None) };
        assert_eq!(decide(&revoked, NOW), Verdict::Over);
        assert_eq!(decide(&stored(None), NOW + Duration::days(7)), Verdict::Over);
        assert_eq!(decide(&stored(Some(NOW)), NOW + Duration::days(7)), Verdict::Over);
    }

    #[test]
    fn refreshing_cannot_outlive_the_absolute_end() {
        let begun = Lifetime::begin(NOW, Duration::days(7));
        assert_eq!(begun.absolute, NOW + Duration::days(30));
        let extended = begun.extend(NOW + Duration::days(6), Duration::days(7));
        assert_eq!(extended.idle, NOW + Duration::days(13));
        let late = begun.extend(NOW + Duration::days(29), Duration::days(7));
        assert_eq!(late, Lifetime { idle: begun.absolute, absolute: begun.absolute });
        assert_eq!(Lifetime::begin(NOW, Duration::days(90)).absolute, NOW + Duration::days(90));
    }

    #[test]
    fn a_successor_is_repeatable_and_bound_to_token_key_session_and_number() {
        let key = |byte| DataKey::from_bytes(&[byte; 32]).unwrap();
        let token = RefreshToken::first([1; 32]);
        let next = |key: &DataKey, session, seq| token.successor(key, Uuid::from_u128(session), seq).unwrap();
        let base = next(&key(1), 1, 2);
        assert_eq!(next(&key(1), 1, 2), base);
        assert_ne!(next(&key(2), 1, 2), base);
        assert_ne!(next(&key(1), 2, 2), base);
        assert_ne!(next(&key(1), 1, 3), base);
        assert_ne!(RefreshToken::first([2; 32]).successor(&key(1), Uuid::from_u128(1), 2).unwrap(), base);
    }

    #[test]
    fn texts_round_trip_and_others_are_refused() {
        let token = RefreshToken::first([9; 32]);
        assert_eq!(RefreshToken::parse(&token.expose()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "RefreshToken(redacted)");
        for text in ["", "frt_", "frt_AAAA", &token.expose()[4..], &format!("{}A", token.expose())] {
            assert_eq!(RefreshToken::parse(text), None, "{text}");
        }
    }
}
