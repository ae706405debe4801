//! Public keys that seal, and the identities that open.

use std::fmt;
use std::io::{Read as _, Write as _};

use age::{DecryptError, Decryptor, EncryptError, Encryptor, x25519};
use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};

use super::{Error, Label, Result, Secrets};
use crate::sha256::sha256;

/// Those who can open what is sealed: age X25519 public keys, at least one.
#[derive(Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Reads keys of the form `age1…`.
    pub fn parse<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let parse = |key: &str| key.trim().parse().map_err(|_| Error::Recipient(key.to_owned()));
        let keys = keys.into_iter().map(parse).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() { Err(Error::NoRecipient) } else { Ok(Self(keys)) }
    }

    /// The keys as text, for the manifest.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Secret keys, each of which may open what is sealed.
#[derive(Clone)]
pub struct Identities(Vec<x25519::Identity>);

impl Identities {
    /// Reads a file as `age-keygen` writes it: a key a line, empty lines and those that begin with `#` left out.
    pub fn parse(file: &str) -> Result<Self> {
        let lines = file.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let keys = keys.map(|(number, line)| line.parse().map_err(|_| Error::Identity(number)));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        if keys.is_empty() { Err(Error::WrongIdentity) } else { Ok(Self(keys)) }
    }

    /// The public keys that belong to them.
    #[must_use]
    pub fn recipients(&self) -> Recipients {
        Recipients(self.0.iter().map(x25519::Identity::to_public).collect())
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

/// Encrypts a small secret to all recipients: a binary age file. The age crate draws the randomness for it by itself.
pub fn seal_bytes(recipients: &Recipients, secret: &[u8]) -> Result<Vec<u8>> {
    let encryptor =
        Encryptor::with_recipients(recipients.0.iter().map(|key| key as _)).map_err(|error| match error {
            EncryptError::Io(error) => Error::Io(error),
            _ => Error::NoRecipient,
        })?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed)?;
    writer.write_all(secret)?;
    writer.finish()?;
    Ok(sealed)
}

/// Decrypts what [`seal_bytes`] made.
pub fn open_bytes(identities: &Identities, sealed: &[u8]) -> Result<Vec<u8>> {
    let failed = |error| match error {
        DecryptError::NoMatchingKeys => Error::WrongIdentity,
        _ => Error::WrappedKey,
    };
    let decryptor = Decryptor::new_buffered(sealed).map_err(failed)?;
    let mut reader = decryptor.decrypt(identities.0.iter().map(|key| key as _)).map_err(failed)?;
    let mut secret = Vec::new();
    reader.read_to_end(&mut secret).map_err(|_| Error::WrappedKey)?;
    Ok(secret)
}

/// Encrypts a small secret to whoever has the key, and binds it to what it is about: nonce (12 bytes), ciphertext and tag (16
/// bytes) of AES-256-GCM.
pub fn seal_with(key: &[u8; 32], about: &[u8], secret: &[u8]) -> Result<Vec<u8>> {
    let mut sealed = secret.to_vec();
    let nonce = RandomizedNonceKey::new(&AES_256_GCM, key)?.seal_in_place_append_tag(Aad::from(about), &mut sealed)?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

/// The data key and what it is for, encrypted to the recipients.
pub fn wrap(recipients: &Recipients, key: &[u8; 32], label: &Label) -> Result<Vec<u8>> {
    seal_bytes(recipients, &[*key, fingerprint(label)].concat())
}

/// The data key, if it is for that label.
pub fn unwrap(identities: &Identities, wrapped: &[u8], nonce_prefix: [u8; 7], label: &Label) -> Result<Secrets> {
    let opened = open_bytes(identities, wrapped)?;
    let (key, found) = opened.split_first_chunk::<32>().ok_or(Error::WrappedKey)?;
    if found != fingerprint(label) {
        return Err(Error::OtherLabel);
    }
    Ok(Secrets { key: *key, nonce_prefix })
}

fn fingerprint(label: &Label) -> [u8; 32] {
    sha256(label.to_string().as_bytes()).0
}
