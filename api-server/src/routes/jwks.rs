//! `GET /.well-known/jwks.json`

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::response::IntoResponse;
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::CurrentTenant;
use crate::openapi::{ANY, TENANT, TenantHeader, problems};

/// A JSON Web Key Set (RFC 7517).
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwks {
    /// Every key whose signatures are accepted.
    keys: Vec<Jwk>,
}

/// An Ed25519 public key (RFC 8037).
#[derive(Debug, Serialize, ToSchema)]
pub struct Jwk {
    /// Always `OKP`.
    kty: &'static str,
    /// Always `Ed25519`.
    crv: &'static str,
    /// Always `EdDSA`.
    alg: &'static str,
    /// Always `sig`.
    #[serde(rename = "use")]
    usage: &'static str,
    /// Names the key in the header of a token.
    kid: String,
    /// The key, in base64url.
    x: String,
}

impl From<(&str, &[u8])> for Jwk {
    fn from((kid, x): (&str, &[u8])) -> Self {
        let (kid, x) = (kid.to_owned(), BASE64URL_NOPAD.encode(x));
        Self { kty: "OKP", crv: "Ed25519", alg: "EdDSA", usage: "sig", kid, x }
    }
}

problems!(ANY, TENANT);

/// Read the tenant's public keys
///
/// With these a service can verify access tokens itself; it does not learn of revoked sessions that way.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", tag = "system", operation_id = "jwks", params(TenantHeader),
    responses((status = 200, description = "The keys", body = Jwks), Problems)
)]
pub(crate) async fn jwks(tenant: CurrentTenant) -> impl IntoResponse {
    ([(CACHE_CONTROL, "public, max-age=300")], Json(Jwks { keys: tenant.keys.public_keys().map(Jwk::from).collect() }))
}
