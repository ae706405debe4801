//! The signed-in user of a request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use finaiflow_ledger::command::Authority;
use finaiflow_ledger::query::Scope;

use crate::app::AppState;
use crate::domain::access_token::Subject;
use crate::extract::access_cache::{AccessError, Authenticated};
use crate::extract::{Context, CurrentTenant};
use crate::problem::{Code, Problem};
use crate::store::audit::Origin;
use crate::tenant::{Role, Tenant};

/// A user of the request's tenant with a live session.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant of the request and of the token.
    pub tenant: Arc<Tenant>,
    /// The user and the session.
    pub subject: Subject,
    /// Where the request came from.
    pub origin: Origin,
}

impl Caller {
    /// What the Tenant says the user is at the bank, as of this request.
    fn role(&self) -> Option<Role> {
        self.tenant.settings.staff.get(&self.subject.user_id).copied()
    }

    /// Whose accounts the user may read.
    #[must_use]
    pub fn scope(&self) -> Scope {
        if self.role().is_some() { Scope::Tenant } else { Scope::Owner(self.subject.user_id) }
    }

    /// Whose accounts the user may act on.
    #[must_use]
    pub fn authority(&self) -> Authority {
        if self.role() == Some(Role::Teller) { Authority::Staff } else { Authority::Owner }
    }

    /// Refuses whoever does not have this role or a higher one.
    pub fn require(&self, role: Role) -> Result<(), Problem> {
        if self.role() >= Some(role) { Ok(()) } else { Err(Problem::new(Code::Forbidden, "this is for staff")) }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let CurrentTenant(tenant) = CurrentTenant::from_request_parts(parts, state).await?;
        let Ok(context) = Context::from_request_parts(parts, state).await;
        // Told already where a limit counts users.
        if let Some(Authenticated { subject, .. }) = parts.extensions.get() {
            return Ok(Self { tenant, subject: *subject, origin: context.origin() });
        }
        let token = bearer(&parts.headers)?;
        let issuer = state.issuer(&tenant);
        match state.access().authenticate(&tenant, &issuer, token, state.now()).await {
            Ok(Authenticated { subject, .. }) => Ok(Self { tenant, subject, origin: context.origin() }),
            Err(AccessError::Store(error)) => Err(Problem::from(&*error)),
            Err(error) => {
                tracing::debug!(%error, "access token refused");
                Err(Problem::new(Code::Unauthenticated, "the access token is not valid"))
            }
        }
    }
}

/// The access token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let missing = || Problem::new(Code::Unauthenticated, "send the access token as Authorization: Bearer");
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn exactly_one_bearer_token_is_read() {
        assert_eq!(bearer(&headers(&["Bearer abc"])), Ok("abc"));
        assert_eq!(bearer(&headers(&["bearer  abc"])), Ok("abc"));
        for refused in [&[][..], &["abc"], &["Basic abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&headers(refused)).unwrap_err().code(), Code::Unauthenticated, "{refused:?}");
        }
    }
}
