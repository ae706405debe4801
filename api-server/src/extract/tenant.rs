//! The tenant of a request.

use std::convert::Infallible;
use std::ops::Deref;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::extract::Context;
use crate::problem::Problem;
use crate::tenant::Tenant;

/// The tenant named by host or header; requests without one are refused.
#[derive(Debug, Clone)]
pub struct CurrentTenant(pub Arc<Tenant>);

impl Deref for CurrentTenant {
    type Target = Tenant;

    fn deref(&self) -> &Tenant {
        &self.0
    }
}

impl<S: Sync> FromRequestParts<S> for CurrentTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(context): Result<_, Infallible> = Context::from_request_parts(parts, state).await;
        Ok(Self(context.tenant?))
    }
}
