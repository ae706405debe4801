//! The document in the `signing-keys` Secret: Ed25519 keys that sign access tokens.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::random::{Random, RandomError};

#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<Key>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    /// RFC 7638 thumbprint of the public key.
    kid: String,
    alg: String,
    state: State,
    /// Base64 of the DER.
    pkcs8: String,
    created_at: String,
}

#[derive(Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum State {
    Active,
    Pending,
    Retiring,
}

/// A document with one new, active key.
pub fn create(now: Timestamp, random: Random) -> Result<Vec<u8>> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&random.bytes::<32>()?).map_err(|_| RandomError)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| RandomError)?;
    let key = Key {
        kid: thumbprint(pair.public_key().as_ref()),
        alg: "EdDSA".to_owned(),
        state: State::Active,
        pkcs8: BASE64.encode(pkcs8.as_ref()),
        created_at: now.to_string(),
    };
    Ok(serde_json::to_vec(&Document { keys: vec![key] })?)
}

/// Whether the API server can sign with it: every key parses and exactly one is active.
#[must_use]
pub fn is_usable(document: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<Document>(document) else { return false };
    let parses = |key: &Key| {
        BASE64.decode(key.pkcs8.as_bytes()).is_ok_and(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).is_ok())
    };
    let active = document.keys.iter().filter(|key| key.state == State::Active).count();
    active == 1 && document.keys.iter().all(parses)
}

fn thumbprint(public_key: &[u8]) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, BASE64URL_NOPAD.encode(public_key));
    BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // Appendix A.3: the thumbprint of the key of appendix A.2.
        let x = BASE64URL_NOPAD.decode(b"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(thumbprint(&x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_new_document_has_one_active_key() {
        let random = Random::new(|buffer| {
            buffer.fill(7);
            Ok(())
        });
        let document = create(Timestamp::UNIX_EPOCH, random).unwrap();
        assert!(is_usable(&document));
        let parsed: Value = serde_json::from_slice(&document).unwrap();
        let key = &parsed["keys"][0];
        assert_eq!((&key["alg"], &key["state"]), (&json!("EdDSA"), &json!("active")));
        assert_eq!(key["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(BASE64.decode(key["pkcs8"].as_str().unwrap().as_bytes()).unwrap().len(), 48);
        let mut broken = parsed.clone();
        broken["keys"][0]["state"] = json!("retiring");
        assert!(!is_usable(broken.to_string().as_bytes()));
        assert!(!is_usable(b"{}") && !is_usable(b"{\"keys\":[]}") && !is_usable(b"keys"));
    }
}
