//! What is known about a request before any handler sees it.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, Uri};

use crate::app::AppState;
use crate::store::audit::Origin;
use crate::tenant::{Directory, Tenant, TenantError};

/// Names the tenant where the host does not.
pub const TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
/// Names the request in logs and answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C trace context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const MAX_REQUEST_ID: usize = 128;

/// The circumstances of a request; the outermost layer puts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct Context {
    /// The client's `X-Request-ID` if it is usable, else a new one.
    pub request_id: Arc<str>,
    /// 32 hex digits, from `traceparent` if it is valid, else new.
    pub trace_id: Arc<str>,
    /// Address of the client: the peer's, or what trusted proxies say of it.
    pub ip: Option<IpAddr>,
    /// The tenant the request is for.
    pub tenant: Result<Arc<Tenant>, TenantError>,
}

/// Ids for a request that brings none.
#[derive(Debug, Clone)]
pub struct FreshIds {
    /// For `request_id`.
    pub request_id: String,
    /// For `trace_id`.
    pub trace_id: String,
}

impl Context {
    /// Reads the circumstances from a request's head.
    #[must_use]
    pub fn read(uri: &Uri, headers: &HeaderMap, extensions: &Extensions, state: &AppState, fresh: FreshIds) -> Self {
        Self {
            request_id: request_id(headers).map_or_else(|| fresh.request_id.into(), Arc::from),
            trace_id: trace_id(headers).map_or_else(|| fresh.trace_id.into(), Arc::from),
            ip: extensions
                .get::<ConnectInfo<SocketAddr>>()
                .map(|ConnectInfo(peer)| state.guard().client(peer.ip(), headers)),
            tenant: tenant(uri, headers, state.directory()),
        }
    }

    /// Where the request came from, for the audit trail.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { ip: self.ip, request_id: Arc::clone(&self.request_id) }
    }
}

impl<S: Sync> FromRequestParts<S> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let unknown = || Self {
            request_id: Arc::from(""),
            trace_id: Arc::from(""),
            ip: None,
            tenant: Err(TenantError::Required),
        };
        Ok(parts.extensions.get().cloned().unwrap_or_else(unknown))
    }
}

/// The authority of an absolute request target wins over `Host` (RFC 9112, section 3.2.2).
fn tenant(uri: &Uri, headers: &HeaderMap, directory: &Directory) -> Result<Arc<Tenant>, TenantError> {
    let host = uri.host().or_else(|| headers.get(HOST)?.to_str().ok());
    let mut named = headers.get_all(TENANT_ID).iter();
    match (named.next(), named.next()) {
        (_, Some(_)) => Err(TenantError::Ambiguous),
        (Some(name), None) => directory.resolve(host, Some(name.to_str().map_err(|_| TenantError::NotFound)?)),
        (None, None) => directory.resolve(host, None),
    }
}

fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let usable = (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then_some(id)
}

/// The trace id of a version 00 `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`, lower case, ids not zero.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let parts: Vec<&str> = headers.get(TRACEPARENT)?.to_str().ok()?.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let hex =
        |text: &str, length| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let valid = version == "00" && hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && !zero(trace) && !zero(parent);
    valid.then_some(trace)
}

#[cfg(test)]
mod tests {
    use finaiflow_telemetry::metrics::Metrics;

    use super::*;
    use crate::clock;
    use crate::rate_limit::Guard;
    use crate::tenant::{Entry, State};

    fn read(headers: &[(HeaderName, &str)]) -> Context {
        let directory = Arc::new(Directory::new(Some("bank.local")));
        directory.mark_synced();
        directory.replace("acme", Entry { hosts: Vec::new(), state: State::Suspended });
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        let fresh = FreshIds { request_id: "fresh".to_owned(), trace_id: "f".repeat(32) };
        let telemetry = Metrics::new();
        let guard = Arc::new(Guard::off(telemetry.registry()).unwrap());
        let state = AppState::new(directory, "https://issuer.test", clock::system(), guard, telemetry).unwrap();
        Context::read(&Uri::from_static("/"), &map, &Extensions::new(), &state, fresh)
    }

    #[test]
    fn a_usable_request_id_is_kept() {
        assert_eq!(read(&[(REQUEST_ID, "abc-1")]).request_id.as_ref(), "abc-1");
        for unusable in ["", "a b", &"x".repeat(129)] {
            assert_eq!(read(&[(REQUEST_ID, unusable)]).request_id.as_ref(), "fresh", "{unusable}");
        }
    }

    #[test]
    fn only_a_valid_traceparent_is_continued() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let valid = format!("00-{trace}-00f067aa0ba902b7-01");
        assert_eq!(read(&[(TRACEPARENT, &valid)]).trace_id.as_ref(), trace);
        for invalid in [
            valid.replace("00-4b", "01-4b"),
            valid.to_uppercase(),
            valid.replace(trace, &"0".repeat(32)),
            valid.replace("00f067aa0ba902b7", &"0".repeat(16)),
            format!("{valid}-x"),
            trace.to_owned(),
        ] {
            assert_eq!(read(&[(TRACEPARENT, &invalid)]).trace_id.as_ref(), "f".repeat(32), "{invalid}");
        }
    }

    #[test]
    fn the_tenant_comes_from_host_or_header() {
        let tenant = |headers: &[(HeaderName, &str)]| read(headers).tenant.map(|tenant| tenant.name.clone());
        assert_eq!(tenant(&[(HOST, "acme.bank.local")]), Err(TenantError::Suspended));
        assert_eq!(tenant(&[(HOST, "10.0.0.1"), (TENANT_ID, "acme")]), Err(TenantError::Suspended));
        assert_eq!(tenant(&[(TENANT_ID, "acme"), (TENANT_ID, "acme")]), Err(TenantError::Ambiguous));
        assert_eq!(tenant(&[(HOST, "10.0.0.1")]), Err(TenantError::Required));
    }
}
