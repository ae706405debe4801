//! A tenant's Ed25519 token keys, read from its `signing-keys` Secret.

use std::fmt;

use aws_lc_rs::digest::{Digest, SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde::Deserialize;

/// The key that signs and all keys whose signatures are accepted.
#[derive(Clone)]
pub struct SigningKeys {
    active_kid: String,
    active: EncodingKey,
    published: Vec<PublicKey>,
    fingerprint: Digest,
}

#[derive(Clone)]
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

impl SigningKeys {
    /// Reads the Secret's `keys.json`; every key must parse and exactly one must be active.
    pub fn from_json(document: &[u8]) -> Result<Self, SigningKeysError> {
        let fingerprint = digest(&SHA256, document);
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
            Ok([(active_kid, active)]) => Ok(Self { active_kid, active, published, fingerprint }),
            Err(signers) => Err(SigningKeysError::Active(signers.len())),
        }
    }

    /// Id of the key that signs.
    #[must_use]
    pub fn active_kid(&self) -> &str {
        &self.active_kid
    }

    /// Tells these keys and their states from any others.
    pub(crate) fn fingerprint(&self) -> &[u8] {
        self.fingerprint.as_ref()
    }

    pub(crate) fn encoding(&self) -> &EncodingKey {
        &self.active
    }

    pub(crate) fn decoding(&self, kid: &str) -> Option<&DecodingKey> {
        self.published.iter().find(|key| key.kid == kid).map(|key| &key.decoding)
    }

    /// Id and public half (32 bytes) of every key whose signatures are accepted.
    pub fn public_keys(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.published.iter().map(|key| (key.kid.as_str(), key.x.as_slice()))
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let published: Vec<_> = self.published.iter().map(|key| &key.kid).collect();
        f.debug_struct("SigningKeys")
            .field("active", &self.active_kid)
            .field("published", &published)
            .finish_non_exhaustive()
    }
}

/// Keys for tests, here and in the integration tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn document(states: &[&str]) -> String {
        let key = |(number, state): (usize, &&str)| {
            let der = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
            let pkcs8 = BASE64.encode(der.as_ref());
            serde_json::json!({"kid": format!("k{number}"), "alg": "EdDSA", "state": state, "pkcs8": pkcs8,
                "created_at": "2026-01-01T00:00:00Z"})
        };
        serde_json::json!({"keys": states.iter().enumerate().map(key).collect::<Vec<_>>()}).to_string()
    }

    pub(crate) fn keys() -> SigningKeys {
        SigningKeys::from_json(document(&["retiring", "active", "pending"]).as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{document, keys};
    use super::*;

    #[test]
    fn every_state_is_published_and_one_signs() {
        let keys = keys();
        assert_eq!(keys.active_kid(), "k1");
        let published: Vec<_> = keys.public_keys().collect();
        assert_eq!(published.iter().map(|(kid, _)| *kid).collect::<Vec<_>>(), ["k0", "k1", "k2"]);
        assert!(published.iter().all(|(_, x)| x.len() == 32));
        assert!(keys.decoding("k2").is_some());
        assert!(keys.decoding("k3").is_none());
    }

    #[test]
    fn exactly_one_key_must_be_active() {
        for states in [&["pending"][..], &["active", "active"], &[]] {
            assert!(matches!(SigningKeys::from_json(document(states).as_bytes()), Err(SigningKeysError::Active(_))));
        }
    }

    #[test]
    fn errors_and_debug_output_hold_no_key_material() {
        let secret = BASE64.encode(b"not a key but a secret");
        let document = format!(r#"{{"keys":[{{"kid":"k0","state":"active","pkcs8":"{secret}"}}]}}"#);
        let error = SigningKeys::from_json(document.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret));
        let unknown_state = document.replace("active", &secret);
        let error = SigningKeys::from_json(unknown_state.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret));
        assert_eq!(format!("{:?}", keys()), r#"SigningKeys { active: "k1", published: ["k0", "k1", "k2"], .. }"#);
    }
}
