//! The pair of tokens that login and refresh answer with.

use serde::Serialize;
use utoipa::ToSchema;

use crate::app::AppState;
use crate::clock;
use crate::domain::access_token::{self, Subject};
use crate::domain::refresh::RefreshToken;
use crate::problem::Problem;
use crate::tenant::Tenant;

/// Proof of a session.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Sent as `Authorization: Bearer`; opaque to clients.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl")]
    access_token: String,
    /// Exchanged once for the next pair when the access token expires.
    #[schema(example = "frt_3q2-7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    refresh_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 1800)]
    expires_in: i64,
}

impl Tokens {
    /// Signs an access token for the session and puts the refresh token beside it.
    pub(crate) fn issue(
        state: &AppState,
        tenant: &Tenant,
        subject: Subject,
        refresh: &RefreshToken,
    ) -> Result<Self, Problem> {
        let (issuer, now) = (state.issuer(tenant), state.now());
        let access_token = access_token::issue(&tenant.keys, &issuer, subject, clock::new_id(now)?, now)
            .map_err(|error| Problem::internal(format_args!("signing an access token: {error}")))?;
        Ok(Self {
            access_token,
            refresh_token: refresh.expose(),
            token_type: "Bearer",
            expires_in: issuer.lifetime.whole_seconds(),
        })
    }
}
