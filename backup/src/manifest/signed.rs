//! The manifest's file: the manifest as text, and an Ed25519 signature over the very bytes of that text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use data_encoding::{BASE64, HEXLOWER};
use finaiflow_ledger::chain::Hash;
use finaiflow_schema::names::ClaimId;
use serde::{Deserialize, Serialize};

use super::{ArtefactId, Manifest, Parent, VERSION};
use crate::sha256::sha256;

/// Why a file is not the manifest that it is taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of that form.
    #[error("it is not a signed manifest (line {line}, column {column})")]
    Form {
        /// 1-based line of the first fault.
        line: usize,
        /// 1-based column of the first fault.
        column: usize,
    },
    /// Signed, but by whom nobody here trusts.
    #[error("it is signed with key {0}, which is not trusted")]
    UntrustedKey(String),
    /// Changed since it was signed, or never signed.
    #[error("its signature is not valid")]
    Signature,
    /// Written by a newer program.
    #[error("it is of version {0}, this program knows {VERSION}")]
    UnknownVersion(u32),
    /// Signed and valid, but the manifest of another artefact: a replay.
    #[error("it is the manifest of {0}, put in this place")]
    OtherArtefact(ArtefactId),
    /// Signed and valid, but another bank's: a replay.
    #[error("it is a manifest of bank {0}")]
    OtherBank(ClaimId),
    /// Signed, and wrong in itself.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl From<serde_json::Error> for ManifestError {
    fn from(error: serde_json::Error) -> Self {
        Self::Form { line: error.line(), column: error.column() }
    }
}

/// A key that is none. The text may be secret, so it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in base64: PKCS#8 to sign, 32 bytes to verify")]
pub struct KeyError;

/// Names a public key: the first 8 bytes of its SHA-256, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String);

impl KeyId {
    fn of(public_key: &[u8]) -> Self {
        Self(HEXLOWER.encode(&sha256(public_key).0[..8]))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key that manifests are signed with.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads a PKCS#8 document in base64.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let document = BASE64.decode(text.trim().as_bytes()).map_err(|_| KeyError)?;
        Ed25519KeyPair::from_pkcs8(&document).map(Self).map_err(|_| KeyError)
    }

    /// Makes a key of random bits.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map(Self).map_err(|_| KeyError)
    }

    /// What [`TrustedKeys`] reads.
    #[must_use]
    pub fn public_key(&self) -> String {
        BASE64.encode(self.0.public_key().as_ref())
    }

    /// Names its public key.
    #[must_use]
    pub fn id(&self) -> KeyId {
        KeyId::of(self.0.public_key().as_ref())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id())
    }
}

/// The public keys whose manifests are believed.
#[derive(Debug, Clone)]
pub struct TrustedKeys(BTreeMap<String, Vec<u8>>);

impl TrustedKeys {
    /// Reads public keys, 32 bytes in base64 each; at least one.
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let parse = |key: &str| {
            let key = BASE64.decode(key.trim().as_bytes()).map_err(|_| KeyError)?;
            if key.len() == 32 { Ok((KeyId::of(&key).0, key)) } else { Err(KeyError) }
        };
        let keys = keys.into_iter().map(parse).collect::<Result<BTreeMap<_, _>, _>>()?;
        if keys.is_empty() { Err(KeyError) } else { Ok(Self(keys)) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    manifest: String,
    key_id: String,
    signature: String,
}

/// What has to be known before the rest can be read.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// A manifest that is what it is taken for, and its file. Cheap to clone: a destination may hold ten thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Arc<Manifest>,
    file: Arc<[u8]>,
    sha256: Hash,
}

impl SignedManifest {
    /// Signs a manifest.
    pub fn sign(manifest: Manifest, key: &SigningKey) -> Result<Self, ManifestError> {
        check(&manifest)?;
        let text = serde_json::to_string(&manifest)?;
        let signature = BASE64.encode(key.0.sign(text.as_bytes()).as_ref());
        let file = serde_json::to_vec(&File { manifest: text, key_id: key.id().0, signature })?;
        Ok(Self { manifest: manifest.into(), sha256: sha256(&file), file: file.into() })
    }

    /// Reads the file that lies in an artefact's place in a bank's directory.
    pub fn open(file: Vec<u8>, trusted: &TrustedKeys, claim: ClaimId, id: ArtefactId) -> Result<Self, ManifestError> {
        let signed: File = serde_json::from_slice(&file)?;
        let key = trusted.0.get(&signed.key_id).ok_or(ManifestError::UntrustedKey(signed.key_id))?;
        let signature = BASE64.decode(signed.signature.as_bytes()).map_err(|_| ManifestError::Signature)?;
        let text = signed.manifest.as_bytes();
        UnparsedPublicKey::new(&ED25519, key).verify(text, &signature).map_err(|_| ManifestError::Signature)?;
        let Version { version } = serde_json::from_slice(text)?;
        if version != VERSION {
            return Err(ManifestError::UnknownVersion(version));
        }
        let manifest: Manifest = serde_json::from_slice(text)?;
        if manifest.claim_id != claim {
            return Err(ManifestError::OtherBank(manifest.claim_id));
        }
        if manifest.id != id {
            return Err(ManifestError::OtherArtefact(manifest.id));
        }
        check(&manifest)?;
        Ok(Self { manifest: manifest.into(), sha256: sha256(&file), file: file.into() })
    }

    /// What it says.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file, byte for byte.
    #[must_use]
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// SHA-256 of the file.
    #[must_use]
    pub const fn sha256(&self) -> Hash {
        self.sha256
    }

    /// The link to it that its children carry.
    #[must_use]
    pub fn as_parent(&self) -> Parent {
        Parent { id: self.manifest.id, sha256: self.sha256 }
    }
}

fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    manifest.contradiction().map_or(Ok(()), |what| Err(ManifestError::Contradiction(what)))
}

#[cfg(test)]
mod tests {
    use finaiflow_ledger::id::Sequence;

    use super::super::testing::{Change, claim, manifest, signed, signing_key, trusted};
    use super::super::{Kind, Span};
    use super::*;

    fn open(file: &[u8]) -> Result<SignedManifest, ManifestError> {
        let id = manifest(0, Kind::Full, None).id;
        SignedManifest::open(file.to_vec(), &trusted(), claim(), id)
    }

    /// The file of a text that is signed as it is.
    fn file_of(text: &str, key: &SigningKey) -> Vec<u8> {
        let signature = BASE64.encode(key.0.sign(text.as_bytes()).as_ref());
        serde_json::to_vec(&File { manifest: text.to_owned(), key_id: key.id().0, signature }).unwrap()
    }

    #[test]
    fn what_is_signed_is_read() {
        let base = signed(&manifest(0, Kind::Full, None));
        assert_eq!(open(base.file()), Ok(base.clone()));
        let next = signed(&manifest(1, Kind::Segment, Some(&base)));
        let read = SignedManifest::open(next.file().to_vec(), &trusted(), claim(), next.manifest().id).unwrap();
        assert_eq!(read.manifest().parent, Some(base.as_parent()));
        let text: File = serde_json::from_slice(next.file()).unwrap();
        assert!(text.manifest.contains(r#""digest":"-12345678901234567890123""#), "{}", text.manifest);
        assert!(text.manifest.contains(r#""created_at":"2026-11-22T18:59:12Z""#), "{}", text.manifest);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let signed = signed(&manifest(0, Kind::Full, None));
        for position in 0..signed.file().len() * 8 {
            let mut file = signed.file().to_vec();
            file[position / 8] ^= 1 << (position % 8);
            assert!(open(&file).is_err(), "bit {position}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        let signed = signed(&manifest(0, Kind::Full, None));
        for length in 0..signed.file().len() {
            assert!(matches!(open(&signed.file()[..length]), Err(ManifestError::Form { .. })), "{length} bytes");
        }
    }

    #[test]
    fn only_trusted_keys_sign() {
        let other = signing_key(2);
        let forged = SignedManifest::sign(manifest(0, Kind::Full, None), &other).unwrap();
        assert_eq!(open(forged.file()), Err(ManifestError::UntrustedKey(other.id().to_string())));
        let mut claimed: File = serde_json::from_slice(forged.file()).unwrap();
        claimed.key_id = signing_key(1).id().to_string();
        assert_eq!(open(&serde_json::to_vec(&claimed).unwrap()), Err(ManifestError::Signature));
    }

    #[test]
    fn a_replay_is_named() {
        let signed = signed(&manifest(0, Kind::Full, None));
        let (id, other) = (signed.manifest().id, manifest(1, Kind::Full, None).id);
        let bank = ClaimId::from_random(1);
        let open = |claim, id| SignedManifest::open(signed.file().to_vec(), &trusted(), claim, id).unwrap_err();
        assert_eq!(open(claim(), other), ManifestError::OtherArtefact(id));
        assert_eq!(open(bank, id), ManifestError::OtherBank(claim()));
    }

    #[test]
    fn another_version_is_named_before_its_fields_are_read() {
        let text = r#"{"version":2,"what":"nobody knows"}"#;
        assert_eq!(open(&file_of(text, &signing_key(1))), Err(ManifestError::UnknownVersion(2)));
        let text = serde_json::to_string(&manifest(0, Kind::Full, None)).unwrap();
        let unknown = text.replacen('{', r#"{"what":1,"#, 1);
        assert!(matches!(open(&file_of(&unknown, &signing_key(1))), Err(ManifestError::Form { .. })));
    }

    #[test]
    fn contradictions_are_neither_signed_nor_read() {
        let base = signed(&manifest(0, Kind::Full, None));
        let wrong: [(&str, Change); 6] = [
            ("kind", |it| it.kind = Kind::Segment),
            ("another's", |it| it.object.key = "objects/20261122t184412z-full-00000009".into()),
            ("parent", |it| it.parent = Some(signed(&manifest(9, Kind::Full, None)).as_parent())),
            ("all journals", |it| it.ledger.from_sequence = it.ledger.sequence),
            ("before they begin", |it| {
                *it = manifest(1, Kind::Segment, Some(&signed(&manifest(0, Kind::Full, None))));
                it.ledger = Span { sequence: Sequence::ZERO, ..it.ledger.clone() };
            }),
            ("nobody", |it| it.recipients.clear()),
        ];
        for (what, change) in wrong {
            let mut manifest = base.manifest().clone();
            change(&mut manifest);
            let refused = SignedManifest::sign(manifest.clone(), &signing_key(1)).unwrap_err();
            assert!(refused.to_string().contains(what), "{what}: {refused}");
            let file = file_of(&serde_json::to_string(&manifest).unwrap(), &signing_key(1));
            assert_eq!(SignedManifest::open(file, &trusted(), claim(), manifest.id), Err(refused), "{what}");
        }
    }

    #[test]
    fn keys_are_read_and_not_shown() {
        let key = signing_key(1);
        let pkcs8 = BASE64.encode(key.0.to_pkcs8v1().unwrap().as_ref());
        assert_eq!(SigningKey::parse(&format!("{pkcs8}\n")).unwrap().public_key(), key.public_key());
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
        for text in ["", "AAAA", "not base64"] {
            assert_eq!(SigningKey::parse(text).unwrap_err(), KeyError);
            assert_eq!(TrustedKeys::parse([text]).unwrap_err(), KeyError);
        }
        assert_eq!(TrustedKeys::parse([]).unwrap_err(), KeyError);
    }
}
