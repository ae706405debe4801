//! The sealed object: compressed, encrypted to public keys, written and read as a stream in constant memory.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `FINAIBK1` |
//! | 4 | length of the next field, little-endian |
//! | so many | an age file for the recipients: the data key (32 bytes) and SHA-256 of the label |
//! | 7 | prefix of the nonces |
//! | the rest | frames: 64 KiB of the compressed content each, the last one 1 byte to 64 KiB, and a tag of 16 bytes |
//!
//! The content is one zstd frame with its checksum. Frames are AES-256-GCM after STREAM (Hoang, Reyhanitabar, Rogaway
//! and Vizár 2015): the nonce is the prefix, the frame's number (32 bits, big-endian) and a byte that is 1 in the last
//! frame. So none can be changed, left out, moved or added, and an end that is not the writer's is seen. The [`Label`] is
//! authenticated with every frame, and stands beside the key to tell another's object from a damaged one.
//!
//! The seal keeps a secret and shows damage; it does not prove an author, as anybody may encrypt to public keys. The
//! manifest's signature does.

mod frames;
mod keys;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::{fmt, io};

use finaiflow_schema::names::ClaimId;

use crate::manifest::ArtefactId;

pub use keys::{Identities, Recipients, open_bytes, seal_bytes, seal_with};
pub use reader::Reader;
pub use writer::{Sealed, Writer};

const MAGIC: &[u8; 8] = b"FINAIBK1";
/// A dozen recipients take 2 KiB.
const MAX_WRAPPED_KEY: usize = 64 * 1024;

/// What an object is, authenticated with each of its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The bank.
    pub claim: ClaimId,
    /// The artefact; its id holds its kind.
    pub artefact: ArtefactId,
}

/// The label as it is authenticated: claim id, artefact id and kind, a line each.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}", self.claim, self.artefact, self.artefact.kind())
    }
}

/// Fresh random bits for one object. Used for a second one, they would give away both.
pub struct Secrets {
    /// The data key.
    pub key: [u8; 32],
    /// What all nonces begin with.
    pub nonce_prefix: [u8; 7],
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// Why something cannot be sealed or opened. No variant carries key material or content.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody could open it.
    #[error("no recipient is named")]
    NoRecipient,
    /// Only X25519 recipients are known.
    #[error("`{0}` is not an age recipient of the form age1…")]
    Recipient(String),
    /// The text is secret, so its place only.
    #[error("line {0} is not an age identity of the form AGE-SECRET-KEY-1…")]
    Identity(usize),
    /// Another file, or its beginning is gone.
    #[error("this is no sealed object: it does not begin with FINAIBK1 and a wrapped key")]
    NotSealed,
    /// It is for other recipients.
    #[error("none of the identities opens the wrapped key")]
    WrongIdentity,
    /// The age file is damaged.
    #[error("the wrapped key is damaged")]
    WrappedKey,
    /// Authentic, but sealed under another label.
    #[error("this object was sealed as another artefact or for another bank")]
    OtherLabel,
    /// Changed, moved, of another object, or cut off within.
    #[error("frame {frame} is not authentic: it was changed, moved or cut off")]
    Damaged {
        /// 0 is the first.
        frame: u32,
    },
    /// All frames are authentic, but the last ones are missing.
    #[error("the object ends before frame {frame}: it was cut off")]
    Truncated {
        /// The first one missing.
        frame: u32,
    },
    /// There is more after the last frame.
    #[error("bytes follow after frame {frame}, the last one")]
    Trailing {
        /// The last one.
        frame: u32,
    },
    /// Authentic, but its writer did not follow the format.
    #[error("the content is malformed: {0}")]
    Content(&'static str),
    /// 2³² frames, 256 TiB.
    #[error("the content is too long for one object")]
    TooLong,
    /// Encryption itself failed.
    #[error("the cipher failed")]
    Cipher(#[from] aws_lc_rs::error::Unspecified),
    /// From the stream that is written to or read from; see [`crate::vault::Error::of`].
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Shorthand for this module's results.
pub type Result<T> = std::result::Result<T, Error>;
