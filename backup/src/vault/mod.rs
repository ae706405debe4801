//! A destination: a directory on a volume, or a bucket of an S3 server; and in it, one bank's directory.
//!
//! Below `<prefix>/<claim id>/` lie `objects/<id>`, `manifests/<id>.json` and `tombstones/<id>.json`. An object is there
//! as a whole or not at all; a manifest or a tombstone is put once and never changes.
//!
//! What is put is durable when the call returns: a bucket promises so, and in a directory files and the directories that
//! name them are synced. What a killed program leaves of an unfinished object is invisible; see
//! [`Vault::sweep_unfinished`].

mod error;
mod settings;
mod upload;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use finaiflow_schema::names::ClaimId;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::{Path, PathPart};
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use time::OffsetDateTime;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::io::StreamReader;

use crate::manifest::ArtefactId;

pub use error::{Error, Result, Trouble};
pub use settings::{Bucket, Patience, Settings};
pub use upload::Upload;

/// Bytes that are sent or asked for at once. S3 takes 10,000 parts, so an object has at most 78 GiB.
const PART: usize = 8 * 1024 * 1024;
/// Parts of an object on their way at once, each of which is in memory.
const AT_ONCE: usize = 2;
/// More than any manifest, and little enough to be held.
const MAX_SMALL: u64 = 16 * 1024 * 1024;

/// The three kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Folder {
    /// Sealed objects.
    Objects,
    /// Signed manifests.
    Manifests,
    /// Artefacts that are being pruned.
    Tombstones,
}

impl Folder {
    const fn directory(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Manifests => "manifests",
            Self::Tombstones => "tombstones",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Objects => "",
            Self::Manifests | Self::Tombstones => ".json",
        }
    }

    /// The key of an artefact's file, below the bank's directory.
    #[must_use]
    pub fn key(self, id: ArtefactId) -> String {
        format!("{}/{id}{}", self.directory(), self.extension())
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.directory())
    }
}

/// A file that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The artefact.
    pub id: ArtefactId,
    /// Its length.
    pub bytes: u64,
    /// When it was put there, by the destination's clock, to the second.
    pub put_at: OffsetDateTime,
}

/// What lies in a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Files of artefacts, in no order that means anything.
    pub found: Vec<Found>,
    /// Names of files that are no artefact's. Nobody here put them there.
    pub strangers: Vec<String>,
}

/// The bytes of an object.
pub type Stream = Box<dyn AsyncRead + Send + Unpin>;

/// One bank's directory at a destination.
#[derive(Clone)]
pub struct Vault {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// Where that is in the file system, if it is there.
    directory: Option<PathBuf>,
    patience: Patience,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.root)
    }
}

impl Vault {
    /// Nothing is asked of the destination yet, but a directory has to be there.
    pub fn open(settings: &Settings, patience: Patience, claim: ClaimId) -> Result<Self> {
        let (store, prefix, directory) = settings.store(patience)?;
        let claim = claim.to_string();
        let directory = directory.map(|directory| directory.join(&claim));
        Ok(Self { store, root: prefix.join(PathPart::from(claim)), directory, patience })
    }

    /// Begins to put an object. It is there when [`Upload::complete`] has returned.
    #[must_use]
    pub fn upload(&self, id: ArtefactId) -> Upload {
        Upload::new(Arc::clone(&self.store), self.path(Folder::Objects, id), format!("put {}", Folder::Objects.key(id)))
    }

    /// Puts a manifest or a tombstone where none is. That the same bytes are there already is as good; other bytes are an
    /// error and stay as they are. Tries again while that may help.
    pub async fn put_once(&self, folder: Folder, id: ArtefactId, bytes: &[u8]) -> Result<()> {
        let (path, at) = (self.path(folder, id), format!("put {}", folder.key(id)));
        let until = Instant::now() + self.patience.total;
        let mut pause = self.patience.first_pause;
        loop {
            let put = self.store.put_opts(&path, PutPayload::from(bytes.to_vec()), PutMode::Create.into());
            let mut outcome = self.within(&at, put).await.map(drop);
            if outcome.as_ref().is_err_and(|error| error.trouble == Trouble::Exists) {
                outcome = match self.get(folder, id).await {
                    Ok(found) if found == bytes => self.sync(folder, &at).await,
                    Ok(_) => Err(Error::new(Trouble::Exists, &at, "something else lies there already")),
                    // Another's, which came to nothing.
                    Err(error) if error.trouble == Trouble::NotFound => {
                        Err(Error::new(Trouble::Unavailable, &at, "another is putting it"))
                    }
                    Err(error) => Err(error),
                };
            }
            match outcome {
                Err(error) if error.is_transient() && Instant::now() + pause < until => sleep(pause).await,
                outcome => return outcome,
            }
            pause = (pause * 2).min(self.patience.longest_pause);
        }
    }

    /// Reads a small file as a whole.
    pub async fn get(&self, folder: Folder, id: ArtefactId) -> Result<Vec<u8>> {
        let (path, at) = (self.path(folder, id), format!("get {}", folder.key(id)));
        let got = self.within(&at, self.store.get(&path)).await?;
        if got.meta.size > MAX_SMALL {
            return Err(Error::new(Trouble::Corrupt, &at, format!("{} bytes are too many", got.meta.size)));
        }
        let size = got.meta.size;
        let bytes = self.within(&at, got.bytes()).await?;
        if bytes.len() as u64 != size {
            return Err(cut(&at));
        }
        Ok(bytes.into())
    }

    /// Reads an object as a stream, and tells its length. Errors of the stream hold an [`Error`], see [`Error::of`].
    pub async fn read(&self, id: ArtefactId) -> Result<(u64, Stream)> {
        let (path, at) = (self.path(Folder::Objects, id), format!("get {}", Folder::Objects.key(id)));
        let size = match self.within(&at, self.store.head(&path)).await {
            // To HEAD, a server cannot say what it is that it does not find.
            Err(error) if error.trouble == Trouble::Unusable => {
                self.within(&at, self.store.get(&path)).await?.meta.size
            }
            head => head?.size,
        };
        let vault = self.clone();
        // Part by part, so that a connection that breaks costs one part, however long the object is.
        let parts = stream::iter((0..size).step_by(PART)).map(move |from| {
            let (vault, path, at) = (vault.clone(), path.clone(), at.clone());
            async move {
                let range = from..size.min(from + PART as u64);
                let length = range.end - range.start;
                let part = vault.within(&at, vault.store.get_range(&path, range)).await?;
                if part.len() as u64 == length { Ok(part) } else { Err(cut(&at)) }
            }
        });
        Ok((size, Box::new(StreamReader::new(parts.buffered(AT_ONCE).map_err(io::Error::other).boxed()))))
    }

    /// What lies in a folder; all of it, or an error.
    pub async fn list(&self, folder: Folder) -> Result<Listing> {
        let (prefix, at) = (self.folder(folder), format!("list {folder}"));
        // The store takes a directory that is gone for an empty one. Without the bank's that is right, as nothing may
        // have been put yet; without its parent the volume is gone.
        if self.directory.as_ref().and_then(|bank| bank.parent()).is_some_and(|volume| !volume.is_dir()) {
            return Err(Error::new(Trouble::Unusable, &at, "the directory is not there"));
        }
        let files: Vec<_> = self.within(&at, self.store.list(Some(&prefix)).try_collect()).await?;
        let mut listing = Listing::default();
        for file in files {
            let name = file.location.prefix_match(&prefix).into_iter().flatten();
            let name = name.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/");
            let put_at = OffsetDateTime::from_unix_timestamp(file.last_modified.timestamp());
            match (name.strip_suffix(folder.extension()).and_then(|id| id.parse().ok()), put_at) {
                (Some(id), Ok(put_at)) => listing.found.push(Found { id, bytes: file.size, put_at }),
                _ => listing.strangers.push(name),
            }
        }
        Ok(listing)
    }

    /// Takes a file away; that it is not there is as good.
    pub async fn delete(&self, folder: Folder, id: ArtefactId) -> Result<()> {
        let (path, at) = (self.path(folder, id), format!("delete {}", folder.key(id)));
        match self.within(&at, self.store.delete(&path)).await {
            Err(error) if error.trouble != Trouble::NotFound => Err(error),
            _ => self.sync(folder, &at).await,
        }
    }

    /// Removes what killed programs left of objects that they were putting, begun before `before`. Tells how many. In a
    /// bucket that is the server's: give it a lifecycle rule that aborts unfinished uploads.
    pub async fn sweep_unfinished(&self, before: OffsetDateTime) -> Result<usize> {
        let Some(directory) = self.directory.clone() else { return Ok(0) };
        let sweep = move || {
            let mut swept = 0;
            for folder in [Folder::Objects, Folder::Manifests, Folder::Tombstones] {
                swept += settings::sweep(&directory.join(folder.directory()), before)?;
            }
            Ok(swept)
        };
        blocking(sweep).await.map_err(|error| Error::of(error, "sweep unfinished objects"))
    }

    /// Makes durable that a file is gone, or was there: the store syncs what it puts, and no more.
    async fn sync(&self, folder: Folder, at: &str) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let directory = directory.join(folder.directory());
        let sync = move || match std::fs::File::open(directory) {
            Ok(directory) => directory.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        blocking(sync).await.map_err(|error| Error::of(error, at))
    }

    /// The store tries again within the same bound; this one holds, whatever it does.
    async fn within<T>(&self, at: &str, call: impl Future<Output = object_store::Result<T>>) -> Result<T> {
        match timeout(self.patience.total, call).await {
            Ok(outcome) => outcome.map_err(|error| Error::classify(&error, at)),
            Err(_) => Err(Error::new(Trouble::Unavailable, at, format!("no answer within {:?}", self.patience.total))),
        }
    }

    fn folder(&self, folder: Folder) -> Path {
        self.root.clone().join(PathPart::from(folder.directory()))
    }

    fn path(&self, folder: Folder, id: ArtefactId) -> Path {
        self.folder(folder).join(PathPart::from(format!("{id}{}", folder.extension())))
    }
}

fn cut(at: &str) -> Error {
    Error::new(Trouble::Corrupt, at, "it ended before its end")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
