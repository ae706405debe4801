//! Content in, sealed bytes out.

use finaiflow_ledger::chain::Hash;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use zstd::stream::raw::{CParameter, Encoder, Operation as _, OutBuffer};

use super::frames::{FRAME, Frames};
use super::{Error, Label, MAGIC, Recipients, Result, Secrets, keys};
use crate::sha256::Sha256;

const LEVEL: i32 = 3;

/// What the manifest says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sealed {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it, as it lies at the destination.
    pub sha256: Hash,
}

/// Seals what is written to it. Without [`Self::finish`], what has come out is refused as cut off; so it is after an
/// error, or when a future of it was dropped before its end.
pub struct Writer<W> {
    sink: W,
    frames: Frames,
    frame: u32,
    compressor: Encoder<'static>,
    /// Compressed and not yet sealed, at most a frame and what one step of the compressor adds.
    pending: Vec<u8>,
    sealed: Vec<u8>,
    digest: Sha256,
    bytes: u64,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes the head of an object. `secrets` are for this object alone.
    pub async fn new(sink: W, recipients: &Recipients, label: &Label, secrets: &Secrets) -> Result<Self> {
        let mut compressor = Encoder::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        let wrapped = keys::wrap(recipients, &secrets.key, label)?;
        let length = u32::try_from(wrapped.len()).map_err(|_| Error::TooLong)?;
        let mut writer = Self {
            sink,
            frames: Frames::new(secrets, label)?,
            frame: 0,
            compressor,
            pending: Vec::with_capacity(2 * FRAME),
            sealed: [MAGIC.as_slice(), &length.to_le_bytes(), &wrapped, &secrets.nonce_prefix].concat(),
            digest: Sha256::default(),
            bytes: 0,
        };
        writer.pass_on().await?;
        Ok(writer)
    }

    /// Adds to the content.
    pub async fn write(&mut self, mut content: &[u8]) -> Result<()> {
        while !content.is_empty() {
            let from = self.pending.len();
            self.pending.resize(from + FRAME, 0);
            let status = self.compressor.run_on_buffers(content, &mut self.pending[from..])?;
            self.pending.truncate(from + status.bytes_written);
            content = &content[status.bytes_read..];
            self.emit_full_frames().await?;
        }
        Ok(())
    }

    /// Writes the last frame and flushes. What holds the object durably is up to the sink, which comes back.
    pub async fn finish(mut self) -> Result<(W, Sealed)> {
        loop {
            let from = self.pending.len();
            self.pending.resize(from + FRAME, 0);
            let mut output = OutBuffer::around(&mut self.pending[from..]);
            let left = self.compressor.finish(&mut output, true)?;
            let written = output.pos();
            self.pending.truncate(from + written);
            self.emit_full_frames().await?;
            if left == 0 {
                break;
            }
        }
        self.emit(self.pending.len(), true).await?;
        self.sink.flush().await?;
        Ok((self.sink, Sealed { bytes: self.bytes, sha256: self.digest.finish() }))
    }

    /// Bytes of its buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.pending.capacity() + self.sealed.capacity()
    }

    /// What is left may be the last frame, which is never empty.
    async fn emit_full_frames(&mut self) -> Result<()> {
        while self.pending.len() > FRAME {
            self.emit(FRAME, false).await?;
        }
        Ok(())
    }

    async fn emit(&mut self, length: usize, last: bool) -> Result<()> {
        self.sealed.clear();
        self.sealed.extend(self.pending.drain(..length));
        self.frames.seal(self.frame, last, &mut self.sealed)?;
        self.frame = self.frame.checked_add(1).ok_or(Error::TooLong)?;
        self.pass_on().await
    }

    async fn pass_on(&mut self) -> Result<()> {
        self.sink.write_all(&self.sealed).await?;
        self.digest.update(&self.sealed);
        self.bytes += self.sealed.len() as u64;
        Ok(())
    }
}
