//! What a request asks for, as 32 bytes: the same key with another fingerprint is another request.

use aws_lc_rs::hmac;
use serde::Serialize;
use uuid::Uuid;

use crate::tenant::DataKey;

const REQUEST: &[u8] = b"finaiflow/idempotency/v1\0";
const PRINCIPAL: &[u8] = b"finaiflow/registrant/v1\0";

/// Fingerprint of a request. `body` is the typed request, so white space and the order of members do not matter.
///
/// Keyed with the tenant's data key: a registration contains a password, and a plain digest in the database would be
/// a fast hash of it.
pub fn request(key: &DataKey, method: &str, path: &str, body: &impl Serialize) -> Result<[u8; 32], serde_json::Error> {
    let body = serde_json::to_vec(body)?;
    Ok(mac(key, REQUEST, &[method.as_bytes(), path.as_bytes(), &body]))
}

/// The principal under which the keys of somebody who has no user yet are kept.
#[must_use]
pub fn registrant(key: &DataKey, email_normalized: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&mac(key, PRINCIPAL, &[email_normalized.as_bytes()])[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Length-prefixed parts, so that no two lists of parts look alike.
fn mac(key: &DataKey, label: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    context.update(label);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.sign().as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(byte: u8) -> DataKey {
        DataKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn every_part_and_the_key_count() {
        let base = request(&key(1), "POST", "/a", &json!({"amount": 1})).unwrap();
        assert_eq!(request(&key(1), "POST", "/a", &json!({"amount": 1})).unwrap(), base);
        assert_ne!(request(&key(2), "POST", "/a", &json!({"amount": 1})).unwrap(), base);
        assert_ne!(request(&key(1), "PUT", "/a", &json!({"amount": 1})).unwrap(), base);
        assert_ne!(request(&key(1), "POST", "/b", &json!({"amount": 1})).unwrap(), base);
        assert_ne!(request(&key(1), "POST", "/a", &json!({"amount": 2})).unwrap(), base);
        assert_ne!(request(&key(1), "POS", "T/a", &json!({"amount": 1})).unwrap(), base);
    }

    #[test]
    fn a_registrant_is_told_by_address_and_tenant() {
        let ada = registrant(&key(1), "ada@example.com");
        assert_eq!(registrant(&key(1), "ada@example.com"), ada);
        assert_ne!(registrant(&key(1), "bob@example.com"), ada);
        assert_ne!(registrant(&key(2), "ada@example.com"), ada);
        assert_eq!(ada.get_version_num(), 8);
    }
}
