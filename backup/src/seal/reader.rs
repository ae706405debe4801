//! Sealed bytes in, content out.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use zstd::stream::raw::{DParameter, Decoder, Operation as _};

use super::frames::{FRAME, Frames, TAG};
use super::{Error, Identities, Label, MAGIC, MAX_WRAPPED_KEY, Result, keys};

const SEALED: usize = FRAME + TAG;
/// The compressor's window is 2 MiB; a content that asks for more than 8 MiB of memory is not ours.
const MAX_WINDOW_LOG: u32 = 23;

/// Opens a sealed object. Content is given out as frames prove authentic; that nothing is missing is known at the end
/// only, so nothing that was read may count before [`Self::read`] has returned 0.
pub struct Reader<R> {
    source: R,
    frames: Frames,
    /// Of the frame that comes next.
    frame: u32,
    /// Sealed bytes: a frame, and one byte more to know whether it is the last.
    sealed: Vec<u8>,
    /// The frame that was opened, compressed, and how much of it is decompressed.
    compressed: Vec<u8>,
    position: usize,
    last: bool,
    decompressor: Decoder<'static>,
    decompressed: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads the head of an object and unwraps its key.
    pub async fn open(mut source: R, identities: &Identities, label: &Label) -> Result<Self> {
        let mut decompressor = Decoder::new()?;
        decompressor.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
        let mut head = [0; MAGIC.len() + 4];
        fill(&mut source, &mut head).await?;
        let length = head.strip_prefix(MAGIC.as_slice()).and_then(|length| length.try_into().ok());
        let length = length.map_or(0, u32::from_le_bytes) as usize;
        if length == 0 || length > MAX_WRAPPED_KEY {
            return Err(Error::NotSealed);
        }
        let mut wrapped = vec![0; length];
        fill(&mut source, &mut wrapped).await?;
        let mut nonce_prefix = [0; 7];
        fill(&mut source, &mut nonce_prefix).await?;
        let secrets = keys::unwrap(identities, &wrapped, nonce_prefix, label)?;
        Ok(Self {
            source,
            frames: Frames::new(&secrets, label)?,
            frame: 0,
            sealed: Vec::with_capacity(SEALED + 1),
            compressed: Vec::with_capacity(FRAME),
            position: 0,
            last: false,
            decompressor,
            decompressed: false,
        })
    }

    /// Reads content into a buffer that is not empty; 0 says that all of it was read, and nothing is missing.
    pub async fn read(&mut self, content: &mut [u8]) -> Result<usize> {
        loop {
            let rest = &self.compressed[self.position..];
            if self.decompressed {
                return match (rest, self.last) {
                    ([], true) => Ok(0),
                    _ => Err(Error::Content("there is more after its compressed form")),
                };
            }
            if self.frame > 0 {
                let step = self.decompressor.run_on_buffers(rest, content);
                let step = step.map_err(|_| Error::Content("it cannot be decompressed"))?;
                self.position += step.bytes_read;
                self.decompressed = step.remaining == 0;
                if step.bytes_written > 0 {
                    return Ok(step.bytes_written);
                }
                if self.decompressed {
                    continue;
                }
                if self.position < self.compressed.len() {
                    return Err(Error::Content("it cannot be decompressed"));
                }
                if self.last {
                    return Err(Error::Content("its compressed form has no end"));
                }
            }
            self.next_frame().await?;
        }
    }

    /// Bytes of its buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.sealed.capacity() + self.compressed.capacity()
    }

    async fn next_frame(&mut self) -> Result<()> {
        let missing = SEALED + 1 - self.sealed.len();
        (&mut self.source).take(missing as u64).read_to_end(&mut self.sealed).await?;
        self.last = self.sealed.len() <= SEALED;
        let length = self.sealed.len().min(SEALED);
        // A frame holds at least a byte.
        if length <= TAG {
            return Err(Error::Truncated { frame: self.frame });
        }
        let sealed = &self.sealed[..length];
        if let Err(error) = self.frames.open(self.frame, self.last, sealed, &mut self.compressed) {
            // Right but for its place: with the other flag it would be authentic.
            return Err(match self.frames.open(self.frame, !self.last, sealed, &mut self.compressed) {
                Err(_) => error,
                Ok(()) if self.last => Error::Truncated { frame: self.frame + 1 },
                Ok(()) => Error::Trailing { frame: self.frame },
            });
        }
        self.sealed.drain(..length);
        self.position = 0;
        self.frame = self.frame.checked_add(1).ok_or(Error::TooLong)?;
        Ok(())
    }
}

async fn fill(source: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<()> {
    source.read_exact(buffer).await.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::NotSealed,
        _ => Error::Io(error),
    })
}
