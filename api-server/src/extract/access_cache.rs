//! Keeps signature checks and session look-ups off the path of every request.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use moka::future::Cache;
use time::OffsetDateTime;
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

/// Verified tokens and live sessions of this replica. Tokens are kept by digest only.
#[derive(Debug, Clone)]
pub struct AccessCache {
    tokens: Cache<[u8; 32], Verified>,
    sessions: Cache<(String, Uuid), bool>,
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
    /// The subject of an access token of `tenant`, if the token is valid and its session live.
    pub async fn authenticate(
        &self,
        tenant: &Tenant,
        issuer: &Issuer,
        token: &str,
        now: OffsetDateTime,
    ) -> Result<Subject, AccessError> {
        let verified = self.verify(tenant, issuer, token).await?;
        let subject = verified.subject(issuer, now)?;
        let session = (issuer.claim_id.clone(), subject.session_id);
        let look_up = sessions::is_live(&tenant.pool, subject, now);
        let live = self.sessions.try_get_with(session, look_up).await?;
        live.then_some(subject).ok_or(AccessError::Session)
    }

    async fn verify(&self, tenant: &Tenant, issuer: &Issuer, token: &str) -> Result<Verified, TokenError> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
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
