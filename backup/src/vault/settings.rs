//! Where a destination is, and how long one waits for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use time::OffsetDateTime;

use super::{Error, Result, Trouble};

/// Where backups go.
#[derive(Debug, Clone)]
pub enum Settings {
    /// A directory that is there, such as a volume's.
    Directory(PathBuf),
    /// A bucket.
    Bucket(Bucket),
}

/// A bucket of an S3 server.
#[derive(Clone)]
pub struct Bucket {
    /// The server's URL; none for Amazon's.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: String,
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with, without a slash at either end; may be empty.
    pub prefix: String,
    /// Id of the access key.
    pub access_key_id: String,
    /// The access key.
    pub secret_access_key: String,
    /// Whether the endpoint may be plain HTTP, where what is sent is sealed, but credentials are only signed with.
    pub allow_http: bool,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// How long a destination is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one request, which moves 8 MiB at most.
    pub request: Duration,
    /// For a call with all its tries, or for one part of an object.
    pub total: Duration,
    /// Before the second try; twice as long before each further one.
    pub first_pause: Duration,
    /// The most between two tries.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_mins(1),
            total: Duration::from_mins(3),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(15),
        }
    }
}

impl Settings {
    /// The store, what keys in it begin with, and the directory if it is one.
    pub(super) fn store(&self, patience: Patience) -> Result<(Arc<dyn ObjectStore>, Path, Option<PathBuf>)> {
        match self {
            Self::Directory(directory) => {
                let store = LocalFileSystem::new_with_prefix(directory)
                    .map_err(|_| Error::new(Trouble::Unusable, "open the directory", "it is not there"))?;
                Ok((Arc::new(store.with_fsync(true)), Path::ROOT, Some(directory.clone())))
            }
            Self::Bucket(bucket) => {
                let unusable = |why| Error::new(Trouble::Unusable, "open the bucket", why);
                // Told here, as the client takes it for a server that does not answer.
                if !bucket.allow_http && bucket.endpoint.as_ref().is_some_and(|url| !url.starts_with("https://")) {
                    return Err(unusable("its endpoint is no https:// URL, and plain HTTP is not allowed"));
                }
                let prefix = Path::parse(&bucket.prefix).map_err(|_| unusable("the prefix cannot be a path"))?;
                let store = bucket.builder(patience).build().map_err(|_| unusable("the settings do not fit"))?;
                Ok((Arc::new(store), prefix, None))
            }
        }
    }
}

impl Bucket {
    fn builder(&self, patience: Patience) -> AmazonS3Builder {
        let builder = AmazonS3Builder::new()
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key_id)
            .with_secret_access_key(&self.secret_access_key)
            // A bucket with a default retention takes nothing that comes without.
            .with_checksum_algorithm(Checksum::SHA256)
            // Not every server knows how to delete many at once, and one is deleted at a time.
            .with_disable_bulk_delete(true)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: patience.first_pause,
                    max_backoff: patience.longest_pause,
                    base: 2.,
                },
                // The time is what bounds them.
                max_retries: usize::MAX,
                retry_timeout: patience.total.saturating_sub(patience.request),
            })
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(self.allow_http)
                    .with_timeout(patience.request)
                    .with_connect_timeout(patience.request.min(Duration::from_secs(5))),
            );
        match &self.endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.trim_end_matches('/')),
            None => builder,
        }
    }
}

/// Removes staged files of a directory: the store puts `#` and a number behind the name that they are to get.
pub(super) fn sweep(directory: &std::path::Path, before: OffsetDateTime) -> io::Result<usize> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut swept = 0;
    for entry in entries {
        let entry = entry?;
        let staged =
            entry.file_name().to_string_lossy().rsplit_once('#').is_some_and(|(_, n)| n.parse::<u32>().is_ok());
        if staged && OffsetDateTime::from(entry.metadata()?.modified()?) < before {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => swept += 1,
            }
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket() -> Bucket {
        Bucket {
            endpoint: Some("https://s3.example.com".into()),
            region: "eu-test-1".into(),
            bucket: "backups".into(),
            prefix: "pre/fix".into(),
            access_key_id: "the-id".into(),
            secret_access_key: "the-key".into(),
            allow_http: false,
        }
    }

    fn refused(bucket: Bucket) -> Option<Trouble> {
        Settings::Bucket(bucket).store(Patience::default()).err().map(|error| error.trouble)
    }

    #[test]
    fn settings_that_cannot_work_are_refused_at_once() {
        for endpoint in [None, bucket().endpoint] {
            assert_eq!(refused(Bucket { endpoint, ..bucket() }), None);
        }
        let plain = Bucket { endpoint: Some("http://s3.example.com".into()), ..bucket() };
        assert_eq!(refused(plain.clone()), Some(Trouble::Unusable));
        assert_eq!(refused(Bucket { allow_http: true, ..plain }), None);
        assert_eq!(refused(Bucket { prefix: "a/../b".into(), ..bucket() }), Some(Trouble::Unusable));
        assert_eq!(refused(Bucket { prefix: String::new(), ..bucket() }), None);
    }

    #[test]
    fn credentials_are_not_shown() {
        let shown = format!("{:?}", Settings::Bucket(bucket()));
        assert!(!shown.contains("the-id") && !shown.contains("the-key"), "{shown}");
    }
}
