//! Keeps signature checks and session look-ups off the path of every request.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use moka::future::Cache;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::access_token::{Issuer, Subject, TokenError, Verified};
use crate::store::{StoreError, sessions};
use crate::tenant::Tenant;

/// How long a verified signature is remembered.
const TOKEN_TTL: Duration = Duration::from_secs(5);
/// How long another replica may not notice that a session was revoked.
const SESSION_TTL: Duration = Duration::from_secs(1);
/// Bounds memory: an entry takes about half a kilobyte.
const CAPACITY: u64 = 50_000;

/// Why a token was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The token itself.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Its session is over.
    #[error("the session is over")]
    Session,
    /// The session could not be looked up.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
}

/// A session of a claim.
type Session = (String, Uuid);

/// What was found out about a session.
#[derive(Debug, Clone, Copy)]
struct Seen {
    live: bool,
    /// Before the question was put: how old the answer is cannot be told from when it arrived.
    asked_at: Instant,
}

/// Who sent a request: of a valid token with a live session.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The user and the session.
    pub subject: Subject,
    /// Everything the token says.
    pub claims: Arc<Value>,
}

/// Verified tokens and live sessions of this replica. Tokens are kept by digest only.
#[derive(Debug, Clone)]
pub struct AccessCache {
    tokens: Cache<[u8; 32], Verified>,
    sessions: Cache<Session, Seen>,
}

impl Default for AccessCache {
    fn default() -> Self {
        Self {
            tokens: Cache::builder().max_capacity(CAPACITY).time_to_live(TOKEN_TTL).build(),
            sessions: Cache::builder().max_capacity(CAPACITY).time_to_live(SESSION_TTL).build(),
        }
    }
}

impl AccessCache {
    /// Whose access token of `tenant` it is, if the token is valid and its session live.
    pub async fn authenticate(
        &self,
        tenant: &Tenant,
        issuer: &Issuer,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<Authenticated, AccessError> {
        let arrived = Instant::now();
        let verified = self.verify(tenant, issuer, token).await?;
        let subject = verified.subject(issuer, now)?;
        let session = (issuer.claim_id.clone(), subject.session_id);
        let live = self.is_live(session, arrived, || sessions::is_live(&tenant.pool, subject, now)).await?;
        let claims = Arc::clone(verified.claims());
        live.then_some(Authenticated { subject, claims }).ok_or(AccessError::Session)
    }

    /// Whether a session was live less than [`SESSION_TTL`] before the request arrived, or later. Requests share a
    /// look-up, but not one that was put so long ago that the session may have been revoked in plain sight.
    async fn is_live<F>(
        &self,
        session: Session,
        arrived: Instant,
        look_up: impl Fn() -> F,
    ) -> Result<bool, Arc<StoreError>>
    where
        F: Future<Output = Result<bool, StoreError>>,
    {
        loop {
            let ask = async {
                let asked_at = Instant::now();
                Ok(Seen { live: look_up().await?, asked_at })
            };
            let seen = self.sessions.try_get_with_by_ref(&session, ask).await?;
            if arrived.saturating_duration_since(seen.asked_at) < SESSION_TTL {
                return Ok(seen.live);
            }
            self.sessions.invalidate(&session).await;
        }
    }

    async fn verify(&self, tenant: &Tenant, issuer: &Issuer, token: &str) -> Result<Verified, TokenError> {
        // With other keys the tenant may no longer accept the token.
        let mut digest = Context::new(&SHA256);
        digest.update(tenant.keys.fingerprint());
        digest.update(token.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(digest.finish().as_ref());
        if let Some(verified) = self.tokens.get(&key).await {
            return Ok(verified);
        }
        let verified = Verified::check(&tenant.keys, issuer, token)?;
        self.tokens.insert(key, verified.clone()).await;
        Ok(verified)
    }

    /// Forgets what is known about a session, after it was revoked here.
    pub async fn forget(&self, claim_id: &str, session: Uuid) {
        self.sessions.invalidate(&(claim_id.to_owned(), session)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::{advance, sleep};

    use super::*;

    fn session() -> Session {
        ("00112233445566aa".to_owned(), Uuid::from_u128(1))
    }

    async fn live(cache: &AccessCache, look_up: impl Future<Output = bool>) -> bool {
        let look_up = std::cell::RefCell::new(Some(look_up));
        let once = || {
            let look_up = look_up.borrow_mut().take();
            async { Ok(look_up.unwrap().await) }
        };
        cache.is_live(session(), Instant::now(), once).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_as_old_as_its_question() {
        let cache = AccessCache::default();
        let slow = async {
            sleep(SESSION_TTL / 2).await;
            true
        };
        assert!(live(&cache, slow).await);
        advance(SESSION_TTL / 4).await;
        assert!(live(&cache, async { panic!("remembered") }).await);
        advance(SESSION_TTL / 4).await;
        assert!(!live(&cache, ready(false)).await, "revoked since the question");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shared_answer_that_is_too_old_is_asked_for_again() {
        let cache = AccessCache::default();
        let hanging = async {
            sleep(2 * SESSION_TTL).await;
            true
        };
        let late = async {
            sleep(SESSION_TTL).await;
            live(&cache, ready(false)).await
        };
        let (first, late) = tokio::join!(live(&cache, hanging), late);
        assert!(first, "it arrived before the session can have been seen to be revoked");
        assert!(!late, "but this one did not");
    }
}
