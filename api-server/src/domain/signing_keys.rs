//! A tenant's Ed25519 token keys, read from its `signing-keys` Secret.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};

/// The key that signs and all keys whose signatures are accepted.
pub struct SigningKeys {
    active_kid: String,
    active: EncodingKey,
    published: Vec<PublicKey>,
}

struct PublicKey {
    kid: String,
    x: Vec<u8>,
    decoding: DecodingKey,
}

/// Why a `keys.json` cannot be used; no variant carries key material.
#[derive(Debug, thiserror::Error)]
pub enum SigningKeysError {
    /// Not the expected JSON document; only the position is told because the text is secret.
    #[error("keys.json is not a key document (line {line}, column {column})")]
    Document {
        /// 1-based line of the first fault.
        line: usize,
        /// 1-based column of the first fault.
        column: usize,
    },
    /// A key that is not base64 PKCS#8 Ed25519.
    #[error("key {0} is not an Ed25519 PKCS#8 key")]
    Key(String),
    /// Tokens need exactly one signer.
    #[error("{0} active keys instead of one")]
    Active(usize),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<StoredKey>,
}

#[derive(Deserialize)]
struct StoredKey {
    kid: String,
    state: KeyState,
    pkcs8: String,
}

/// `pending` and `retiring` keys verify but do not sign.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum KeyState {
    Active,
    Pending,
    Retiring,
}

/// A public key in the form of RFC 8037.
#[derive(Debug, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    x: String,
}

impl SigningKeys {
    /// Reads the Secret's `keys.json`; every key must parse and exactly one must be active.
    pub fn from_json(document: &[u8]) -> Result<Self, SigningKeysError> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| SigningKeysError::Document { line: error.line(), column: error.column() })?;
        let mut signers = Vec::new();
        let mut published = Vec::with_capacity(document.keys.len());
        for key in document.keys {
            let invalid = || SigningKeysError::Key(key.kid.clone());
            let der = BASE64.decode(key.pkcs8.as_bytes()).map_err(|_| invalid())?;
            let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| invalid())?;
            let x = pair.public_key().as_ref().to_vec();
            if key.state == KeyState::Active {
                signers.push((key.kid.clone(), EncodingKey::from_ed_der(&der)));
            }
            published.push(PublicKey { kid: key.kid, decoding: DecodingKey::from_ed_der(&x), x });
        }
        match <[_; 1]>::try_from(signers) {
            Ok([(active_kid, active)]) => Ok(Self { active_kid, active, published }),
            Err(signers) => Err(SigningKeysError::Active(signers.len())),
        }
    }

    /// Id of the key that signs.
    #[must_use]
    pub fn active_kid(&self) -> &str {
        &self.active_kid
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.active
    }

    pub(crate) fn decoding(&self, kid: &str) -> Option<&DecodingKey> {
        self.published.iter().find(|key| key.kid == kid).map(|key| &key.decoding)
    }

    /// The public halves, as a JSON Web Key Set lists them.
    #[must_use]
    pub fn jwks(&self) -> Vec<Jwk> {
        let jwk = |key: &PublicKey| Jwk {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            usage: "sig",
            kid: key.kid.clone(),
            x: BASE64URL_NOPAD.encode(&key.x),
        };
        self.published.iter().map(jwk).collect()
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published: Vec<_> = self.published.iter().map(|key| &key.kid).collect();
        f.debug_struct("SigningKeys").field("active", &self.active_kid).field("published", &published).finish()
    }
}
