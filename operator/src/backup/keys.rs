//! The keys of a bank's backups: an age identity that opens them, and an Ed25519 key that signs what is said of them.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32, Hrp};
use data_encoding::BASE64;

use crate::random::{Random, RandomError};

const IDENTITY: Hrp = Hrp::parse_unchecked("age-secret-key-");
const RECIPIENT: Hrp = Hrp::parse_unchecked("age");

/// A secret key that opens what is encrypted to the public one, each as age writes it.
pub struct Identity {
    /// `AGE-SECRET-KEY-1…`.
    pub secret: String,
    /// `age1…`.
    pub recipient: String,
}

impl Identity {
    /// Draws one.
    pub fn draw(random: Random) -> Result<Self, RandomError> {
        Self::from_bytes(&random.bytes()?)
    }

    fn from_bytes(bytes: &[u8; 32]) -> Result<Self, RandomError> {
        let key = PrivateKey::from_private_key(&X25519, bytes).map_err(|_| RandomError)?;
        let public = key.compute_public_key().map_err(|_| RandomError)?;
        Ok(Self {
            secret: bech32::encode_upper::<Bech32>(IDENTITY, bytes).map_err(|_| RandomError)?,
            recipient: bech32::encode_lower::<Bech32>(RECIPIENT, public.as_ref()).map_err(|_| RandomError)?,
        })
    }
}

/// The public key that belongs to a secret one; None if it is none.
#[must_use]
pub fn recipient(secret: &str) -> Option<String> {
    let bytes = decode(IDENTITY, &secret.trim().to_ascii_lowercase())?;
    Some(Identity::from_bytes(&bytes).ok()?.recipient)
}

/// Whether it is an age public key.
#[must_use]
pub fn is_recipient(key: &str) -> bool {
    decode(RECIPIENT, key).is_some()
}

fn decode(kind: Hrp, text: &str) -> Option<[u8; 32]> {
    let checked = CheckedHrpstring::new::<Bech32>(text).ok().filter(|checked| checked.hrp() == kind)?;
    checked.byte_iter().collect::<Vec<_>>().try_into().ok()
}

/// Draws a key that signs: PKCS#8 in base64.
pub fn draw_signing_key(random: Random) -> Result<String, RandomError> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&random.bytes::<32>()?).map_err(|_| RandomError)?;
    Ok(BASE64.encode(pair.to_pkcs8().map_err(|_| RandomError)?.as_ref()))
}

/// The public key of a key that signs, in base64; None if it is none.
#[must_use]
pub fn signer(signing_key: &str) -> Option<String> {
    let document = BASE64.decode(signing_key.trim().as_bytes()).ok()?;
    Some(BASE64.encode(Ed25519KeyPair::from_pkcs8(&document).ok()?.public_key().as_ref()))
}

/// Draws the key by which one restore alone carries the bank's data key, in base64.
pub fn draw_carrier(random: Random) -> Result<String, RandomError> {
    Ok(BASE64.encode(&random.bytes::<32>()?))
}

/// The data key of bank `claim` as a restore's report carries it ([`finaiflow_crds::backup::Report::data_key`]); None if it is not
/// what that restore sealed.
#[must_use]
pub fn carried(carrier: &str, claim: &str, sealed: &str) -> Option<Vec<u8>> {
    let (carrier, sealed) = (BASE64.decode(carrier.as_bytes()).ok()?, BASE64.decode(sealed.as_bytes()).ok()?);
    let (nonce, sealed) = sealed.split_first_chunk()?;
    let (nonce, mut sealed) = (Nonce::assume_unique_for_key(*nonce), sealed.to_vec());
    let key = RandomizedNonceKey::new(&AES_256_GCM, &carrier).ok()?;
    Some(key.open_in_place(nonce, Aad::from(claim), &mut sealed).ok()?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_age_writes_them() {
        let identity = Identity::from_bytes(&std::array::from_fn(|byte| u8::try_from(byte).unwrap())).unwrap();
        let secret = "AGE-SECRET-KEY-1QQQSYQCYQ5RQWZQFPG9SCRGWPUGPZYSNZS23V9CCRYDPK8QARC0SWRYDWG";
        assert_eq!(identity.secret, secret);
        assert_eq!(identity.recipient, "age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh");
        assert!(is_recipient(&identity.recipient) && !is_recipient(&identity.secret));
        assert_eq!(recipient(&identity.secret), Some(identity.recipient.clone()));
        assert_eq!(recipient(&identity.recipient), None);
        let mut wrong = identity.recipient;
        wrong.replace_range(10..11, if wrong.as_bytes()[10] == b'q' { "p" } else { "q" });
        assert!(!is_recipient(&wrong));
    }

    #[test]
    fn a_signing_key_has_one_public_key() {
        let seven = Random::new(|buffer| {
            buffer.fill(7);
            Ok(())
        });
        let key = draw_signing_key(seven).unwrap();
        assert_eq!(draw_signing_key(seven).unwrap(), key);
        let public = BASE64.decode(signer(&key).unwrap().as_bytes()).unwrap();
        assert_eq!(public.len(), 32);
        assert_eq!(signer("bm90IGEga2V5"), None);
    }

    #[test]
    fn a_data_key_is_carried_to_whom_it_is_for() {
        let drawn = draw_carrier(Random::new(|buffer| {
            buffer.fill(9);
            Ok(())
        }))
        .unwrap();
        let mut sealed = b"the data key".to_vec();
        let key = RandomizedNonceKey::new(&AES_256_GCM, &[9; 32]).unwrap();
        let nonce = key.seal_in_place_append_tag(Aad::from("0123456789abcdef"), &mut sealed).unwrap();
        let mut report = [nonce.as_ref().as_slice(), &sealed].concat();
        let text = BASE64.encode(&report);
        assert_eq!(carried(&drawn, "0123456789abcdef", &text), Some(b"the data key".to_vec()));
        assert_eq!(carried(&drawn, "fedcba9876543210", &text), None, "of another bank");
        assert_eq!(carried(&BASE64.encode(&[8; 32]), "0123456789abcdef", &text), None, "of another restore");
        *report.last_mut().unwrap() ^= 1;
        assert_eq!(carried(&drawn, "0123456789abcdef", &BASE64.encode(&report)), None);
        assert_eq!(carried(&drawn, "0123456789abcdef", "c2hvcnQ="), None);
    }
}
