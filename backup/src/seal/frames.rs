//! The cipher: a key, a nonce per frame, and the label with each.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{Error, Label, Result, Secrets};

/// Bytes of content in every frame but the last.
pub const FRAME: usize = 64 * 1024;
pub const TAG: usize = 16;

pub struct Frames {
    key: LessSafeKey,
    prefix: [u8; 7],
    label: String,
}

impl Frames {
    pub fn new(secrets: &Secrets, label: &Label) -> Result<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secrets.key)?);
        Ok(Self { key, prefix: secrets.nonce_prefix, label: label.to_string() })
    }

    /// Encrypts in place and appends the tag.
    pub fn seal(&self, frame: u32, last: bool, content: &mut Vec<u8>) -> Result<()> {
        Ok(self.key.seal_in_place_append_tag(self.nonce(frame, last), Aad::from(&self.label), content)?)
    }

    /// Decrypts into `content`, which is left empty unless the frame is authentic.
    pub fn open(&self, frame: u32, last: bool, sealed: &[u8], content: &mut Vec<u8>) -> Result<()> {
        content.clear();
        let (text, tag) = sealed.split_at_checked(sealed.len().wrapping_sub(TAG)).ok_or(Error::Damaged { frame })?;
        content.resize(text.len(), 0);
        let nonce = self.nonce(frame, last);
        self.key.open_separate_gather(nonce, Aad::from(&self.label), text, tag, content).map_err(|_| {
            content.clear();
            Error::Damaged { frame }
        })
    }

    fn nonce(&self, frame: u32, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..7].copy_from_slice(&self.prefix);
        nonce[7..11].copy_from_slice(&frame.to_be_bytes());
        nonce[11] = last.into();
        Nonce::assume_unique_for_key(nonce)
    }
}
