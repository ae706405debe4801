//! Access tokens: EdDSA JWTs (RFC 9068) that name a user, a session and the tenant's claim.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, Header, crypto};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::id;
use crate::domain::signing_keys::SigningKeys;

/// The `aud` of every access token.
pub const AUDIENCE: &str = "finaiflow-api";

/// Media type in the header, so that no other kind of JWT passes as an access token.
const TYPE: &str = "at+jwt";

/// Tolerated difference between the clocks of replicas.
const LEEWAY: Duration = Duration::seconds(5);

/// Longest token that is looked at; ours are about 500 bytes.
const MAX_LEN: usize = 2048;

/// Why a token is refused. Clients learn only that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three base64url parts holding exactly the expected members.
    #[error("malformed token")]
    Malformed,
    /// Another algorithm or token type.
    #[error("not an access token")]
    Type,
    /// The key is not one of this tenant's.
    #[error("unknown key")]
    Key,
    /// The signature does not match.
    #[error("bad signature")]
    Signature,
    /// Another issuer, audience or tenant.
    #[error("token of another tenant or audience")]
    Audience,
    /// Outside its time, or valid for longer than the tenant's policy allows.
    #[error("expired token")]
    Time,
}

/// Who a token must come from and what policy it must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The tenant's issuer URL, `iss`.
    pub url: String,
    /// The tenant's claim id, `tid`.
    pub claim_id: String,
    /// Lifetime of the tenant's access tokens.
    pub lifetime: Duration,
}

/// The user and session a token speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    /// The user.
    pub user_id: Uuid,
    /// The session, which may be revoked before the token expires.
    pub session_id: Uuid,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictHeader {
    alg: String,
    typ: String,
    kid: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    tid: String,
    sid: String,
    jti: Uuid,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// Signs a token for `subject` that is valid from `now` for the issuer's lifetime.
pub fn issue(
    keys: &SigningKeys,
    issuer: &Issuer,
    subject: Subject,
    jti: Uuid,
    now: OffsetDateTime,
) -> Result<String, jsonwebtoken::errors::Error> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some(TYPE.to_owned());
    header.kid = Some(keys.active_kid().to_owned());
    let claims = Claims {
        iss: issuer.url.clone(),
        aud: AUDIENCE.to_owned(),
        sub: id::encode(id::USER, subject.user_id),
        tid: issuer.claim_id.clone(),
        sid: id::encode(id::SESSION, subject.session_id),
        jti,
        iat: now.unix_timestamp(),
        nbf: now.unix_timestamp(),
        exp: (now + issuer.lifetime).unix_timestamp(),
    };
    jsonwebtoken::encode(&header, &claims, keys.encoding())
}

/// A token whose signature and contents have been checked; only its time still matters.
#[derive(Debug, Clone)]
pub struct Verified {
    issuer: Issuer,
    subject: Subject,
    claims: Arc<Value>,
    not_before: OffsetDateTime,
    expires_at: OffsetDateTime,
}

impl Verified {
    /// Checks everything that does not depend on the time.
    pub fn check(keys: &SigningKeys, issuer: &Issuer, token: &str) -> Result<Self, TokenError> {
        if token.len() > MAX_LEN {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header: StrictHeader = part(header)?;
        if header.alg != "EdDSA" || header.typ != TYPE {
            return Err(TokenError::Type);
        }
        let key = keys.decoding(&header.kid).ok_or(TokenError::Key)?;
        match crypto::verify(signature, message.as_bytes(), key, Algorithm::EdDSA) {
            Ok(true) => Self::accept(&part(payload)?, part(payload)?, issuer),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }

    fn accept(claims: &Claims, told: Value, issuer: &Issuer) -> Result<Self, TokenError> {
        if claims.iss != issuer.url || claims.aud != AUDIENCE || claims.tid != issuer.claim_id {
            return Err(TokenError::Audience);
        }
        let subject = Subject {
            user_id: id::decode(id::USER, &claims.sub).ok_or(TokenError::Malformed)?,
            session_id: id::decode(id::SESSION, &claims.sid).ok_or(TokenError::Malformed)?,
        };
        let instant = |seconds| OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| TokenError::Malformed);
        let (issued_at, expires_at) = (instant(claims.iat)?, instant(claims.exp)?);
        if expires_at - issued_at > issuer.lifetime {
            return Err(TokenError::Time);
        }
        let not_before = instant(claims.nbf)?.max(issued_at);
        Ok(Self { issuer: issuer.clone(), subject, claims: Arc::new(told), not_before, expires_at })
    }

    /// Everything the token says.
    #[must_use]
    pub fn claims(&self) -> &Arc<Value> {
        &self.claims
    }

    /// The subject, if the token was checked for this issuer and is within its time.
    pub fn subject(&self, issuer: &Issuer, now: OffsetDateTime) -> Result<Subject, TokenError> {
        if self.issuer != *issuer {
            return Err(TokenError::Audience);
        }
        let in_time = self.not_before - LEEWAY <= now && now < self.expires_at + LEEWAY;
        in_time.then_some(self.subject).ok_or(TokenError::Time)
    }
}

fn part<T: DeserializeOwned>(encoded: &str) -> Result<T, TokenError> {
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::domain::signing_keys::testing::keys;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn issuer() -> Issuer {
        Issuer {
            url: "https://bank.example/tenants/acme".to_owned(),
            claim_id: "00112233445566aa".to_owned(),
            lifetime: Duration::minutes(30),
        }
    }

    fn subject() -> Subject {
        Subject { user_id: Uuid::from_u128(1), session_id: Uuid::from_u128(2) }
    }

    fn verify(keys: &SigningKeys, token: &str, now: OffsetDateTime) -> Result<Subject, TokenError> {
        Verified::check(keys, &issuer(), token)?.subject(&issuer(), now)
    }

    /// Signs arbitrary header and claims with the active key.
    fn forge(keys: &SigningKeys, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = crypto::sign(message.as_bytes(), keys.encoding(), Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn header(keys: &SigningKeys) -> Value {
        json!({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.active_kid()})
    }

    fn claims() -> Value {
        json!({
            "iss": issuer().url, "aud": AUDIENCE, "sub": id::encode(id::USER, subject().user_id), "tid": issuer().claim_id,
            "sid": id::encode(id::SESSION, subject().session_id), "jti": Uuid::from_u128(3),
            "iat": NOW.unix_timestamp(), "nbf": NOW.unix_timestamp(), "exp": NOW.unix_timestamp() + 1800,
        })
    }

    #[test]
    fn an_issued_token_names_its_subject_until_it_expires() {
        let keys = keys();
        let token = issue(&keys, &issuer(), subject(), Uuid::from_u128(3), NOW).unwrap();
        assert_eq!(verify(&keys, &token, NOW), Ok(subject()));
        assert_eq!(verify(&keys, &token, NOW + Duration::minutes(30)), Ok(subject()), "leeway");
        assert_eq!(verify(&keys, &token, NOW + Duration::seconds(1806)), Err(TokenError::Time));
        assert_eq!(verify(&keys, &token, NOW - Duration::seconds(6)), Err(TokenError::Time));
    }

    #[test]
    fn only_the_exact_header_is_accepted() {
        let keys = keys();
        assert!(verify(&keys, &forge(&keys, &header(&keys), &claims()), NOW).is_ok());
        for (member, value, expected) in [
            ("alg", json!("HS256"), TokenError::Type),
            ("alg", json!("none"), TokenError::Type),
            ("typ", json!("JWT"), TokenError::Type),
            ("kid", json!("another"), TokenError::Key),
            ("crit", json!(["exp"]), TokenError::Malformed),
            ("jku", json!("https://evil.example"), TokenError::Malformed),
            ("jwk", json!({}), TokenError::Malformed),
        ] {
            let mut header = header(&keys);
            header[member] = value;
            assert_eq!(verify(&keys, &forge(&keys, &header, &claims()), NOW), Err(expected), "{member}");
        }
    }

    #[test]
    fn each_claim_is_required_and_checked() {
        let keys = keys();
        for (member, value, expected) in [
            ("iss", json!("https://bank.example/tenants/globex"), TokenError::Audience),
            ("aud", json!("another"), TokenError::Audience),
            ("tid", json!("ffffffffffffffff"), TokenError::Audience),
            ("sub", json!("ses_aaaaaaaaaaaaaaaaaaaaaaaaaa"), TokenError::Malformed),
            ("sid", json!("x"), TokenError::Malformed),
            ("nbf", json!(NOW.unix_timestamp() + 60), TokenError::Time),
            ("exp", json!(NOW.unix_timestamp() + 1801), TokenError::Time),
            ("exp", json!(NOW.unix_timestamp() - 6), TokenError::Time),
        ] {
            let mut altered = claims();
            altered[member] = value;
            assert_eq!(verify(&keys, &forge(&keys, &header(&keys), &altered), NOW), Err(expected), "{member}");
        }
        for member in ["iss", "aud", "sub", "tid", "sid", "jti", "iat", "nbf", "exp"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(member);
            let outcome = verify(&keys, &forge(&keys, &header(&keys), &without), NOW);
            assert_eq!(outcome, Err(TokenError::Malformed), "{member}");
        }
    }

    #[test]
    fn a_changed_token_is_refused() {
        let keys = keys();
        let token = issue(&keys, &issuer(), subject(), Uuid::from_u128(3), NOW).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = forge(&keys, &header(&keys), &claims());
        let foreign_signature = other.rsplit_once('.').unwrap().1;
        let bytes = token.as_bytes();
        assert_eq!(verify(&keys, &format!("{message}.{foreign_signature}"), NOW), Err(TokenError::Signature));
        for broken in [message, signature, "", "..", "a.b", &token[1..], &"x".repeat(MAX_LEN + 1)] {
            assert!(verify(&keys, broken, NOW).is_err(), "{broken}");
        }
        for at in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
            if flipped != bytes {
                assert!(verify(&keys, &String::from_utf8(flipped).unwrap(), NOW).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_cached_verification_holds_for_its_issuer_only() {
        let keys = keys();
        let token = issue(&keys, &issuer(), subject(), Uuid::from_u128(3), NOW).unwrap();
        let verified = Verified::check(&keys, &issuer(), &token).unwrap();
        let other = Issuer { claim_id: "ffffffffffffffff".to_owned(), ..issuer() };
        assert_eq!(verified.subject(&other, NOW), Err(TokenError::Audience));
    }
}
