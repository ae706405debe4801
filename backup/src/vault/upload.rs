//! An object on its way to a destination.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::io::AsyncWrite;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::{AT_ONCE, Error, PART, Result, Trouble};

type Stored<T> = object_store::Result<T>;

/// Takes an object's bytes, and sends them part by part. Until [`Self::complete`] nothing can be seen of it; dropped
/// before, or after an error, it is aborted as far as the destination can be reached.
///
/// Errors of the stream hold what [`Error::of`] finds. After one, nothing more is taken.
pub struct Upload {
    /// At most a part.
    buffer: Vec<u8>,
    state: State,
    at: String,
}

enum State {
    Ready(Parts),
    Sending(BoxFuture<'static, (Parts, Stored<()>)>),
    /// A part was lost.
    Failed(Parts),
    Ended,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, at: String) -> Self {
        let parts = Parts { store, path, upload: None, sending: JoinSet::new() };
        Self { buffer: Vec::new(), state: State::Ready(parts), at }
    }

    /// Sends what is left, and makes of all a durable object; or aborts.
    pub async fn complete(mut self) -> Result<()> {
        let (at, buffer) = (std::mem::take(&mut self.at), std::mem::take(&mut self.buffer));
        let (mut parts, sent) = match std::mem::replace(&mut self.state, State::Ended) {
            State::Ready(parts) => (parts, Ok(())),
            State::Sending(sending) => sending.await,
            State::Failed(parts) => {
                parts.abort().await.map_err(|error| Error::classify(&error, &at))?;
                return Err(Error::new(Trouble::Unavailable, &at, "a part of it was lost before"));
            }
            State::Ended => return Err(Error::new(Trouble::Unavailable, &at, "it has ended")),
        };
        let completed = match sent {
            Ok(()) => parts.complete(buffer).await,
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // The error that matters is the first one.
            let _ = parts.abort().await;
        }
        completed.map_err(|error| Error::classify(&error, &at))
    }

    /// Takes back what was sent.
    pub async fn abort(mut self) -> Result<()> {
        let at = std::mem::take(&mut self.at);
        match std::mem::replace(&mut self.state, State::Ended).into_parts().await {
            Some(parts) => parts.abort().await.map_err(|error| Error::classify(&error, &at)),
            None => Ok(()),
        }
    }

    /// Until the part that was handed over last is on its way, and the one before it there.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sending = match &mut self.state {
            State::Ready(_) => return Poll::Ready(Ok(())),
            State::Sending(sending) => sending,
            State::Failed(_) | State::Ended => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the upload failed before")));
            }
        };
        let (parts, sent) = ready!(sending.as_mut().poll(cx));
        self.state = if sent.is_ok() { State::Ready(parts) } else { State::Failed(parts) };
        Poll::Ready(sent.map_err(|error| io::Error::other(Error::classify(&error, &self.at))))
    }
}

impl AsyncWrite for Upload {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_sent(cx))?;
            let room = PART - self.buffer.len();
            if room > 0 {
                let taken = &bytes[..bytes.len().min(room)];
                self.buffer.extend_from_slice(taken);
                return Poll::Ready(Ok(taken.len()));
            }
            let State::Ready(mut parts) = std::mem::replace(&mut self.state, State::Ended) else { continue };
            let part = std::mem::take(&mut self.buffer);
            self.state = State::Sending(Box::pin(async move {
                let sent = parts.send(part).await;
                (parts, sent)
            }));
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    /// Does not complete it: whoever shuts streams down on errors, too, would make an object of a half.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Ended);
        if let (false, Ok(runtime)) = (matches!(state, State::Ended), Handle::try_current()) {
            runtime.spawn(async move {
                if let Some(parts) = state.into_parts().await {
                    let _ = parts.abort().await;
                }
            });
        }
    }
}

impl State {
    async fn into_parts(self) -> Option<Parts> {
        match self {
            Self::Ready(parts) | Self::Failed(parts) => Some(parts),
            Self::Sending(sending) => Some(sending.await.0),
            Self::Ended => None,
        }
    }
}

/// What was sent.
struct Parts {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// None before the first part: an object of one part is put at once.
    upload: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<Stored<()>>,
}

impl Parts {
    async fn send(&mut self, part: Vec<u8>) -> Stored<()> {
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => self.store.put_multipart(&self.path).await?,
        };
        let waited = self.wait(AT_ONCE - 1).await;
        if waited.is_ok() {
            self.sending.spawn(upload.put_part(PutPayload::from(part)));
        }
        self.upload = Some(upload);
        waited
    }

    async fn complete(&mut self, last: Vec<u8>) -> Stored<()> {
        if self.upload.is_none() {
            return self.store.put(&self.path, PutPayload::from(last)).await.map(drop);
        }
        if !last.is_empty() {
            self.send(last).await?;
        }
        self.wait(0).await?;
        match &mut self.upload {
            Some(upload) => upload.complete().await.map(drop),
            None => Ok(()),
        }
    }

    /// Until no more than so many are on their way.
    async fn wait(&mut self, most: usize) -> Stored<()> {
        while self.sending.len() > most {
            if let Some(sent) = self.sending.join_next().await {
                sent??;
            }
        }
        Ok(())
    }

    async fn abort(mut self) -> Stored<()> {
        self.sending.shutdown().await;
        match &mut self.upload {
            Some(upload) => upload.abort().await,
            None => Ok(()),
        }
    }
}
