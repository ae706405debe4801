//! SHA-256 in the one form that manifests know.

use aws_lc_rs::digest::{Context, Digest, SHA256, digest};
use finaiflow_ledger::chain::Hash;

/// A digest in the making.
#[derive(Clone)]
pub struct Sha256(Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256 {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(self) -> Hash {
        hash(&self.0.finish())
    }
}

/// The digest of these bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    hash(&digest(&SHA256, bytes))
}

fn hash(digest: &Digest) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    Hash(hash)
}
