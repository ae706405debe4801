//! What can go wrong at a destination, told apart by what can be done about it.

use std::error::Error as _;
use std::io;

/// Shorthand for this module's results.
pub type Result<T> = std::result::Result<T, Error>;

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// There is no such file.
    NotFound,
    /// The credentials are refused, or lack a right; a lock forbids it.
    Denied,
    /// No room is left, or the quota is used up.
    Full,
    /// It does not answer, or says that it cannot just now. The one that waiting may heal.
    Unavailable,
    /// Something else lies there already.
    Exists,
    /// What lies there is not what was put there.
    Corrupt,
    /// The settings are wrong: no such bucket or directory, another region, a server that lacks a function.
    Unusable,
}

/// An error of a destination. Its text holds no credentials and no address: servers repeat much of a request in their answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct Error {
    /// What it comes to.
    pub trouble: Trouble,
    /// What was to be done, such as `list manifests`.
    pub at: String,
    /// What happened.
    pub why: String,
}

impl Error {
    pub(super) fn new(trouble: Trouble, at: &str, why: impl Into<String>) -> Self {
        Self { trouble, at: at.to_owned(), why: why.into() }
    }

    /// Whether the same call may succeed later with nothing repaired in between.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.trouble == Trouble::Unavailable
    }

    /// The destination's error behind an error of a stream that [`super::Vault`] gave out.
    #[must_use]
    pub fn of(error: io::Error, at: &str) -> Self {
        let text = error.to_string();
        let Some(inner) = error.into_inner() else { return Self::new(Trouble::Unavailable, at, text) };
        match inner.downcast::<Self>() {
            Ok(error) => *error,
            Err(inner) => match inner.downcast::<object_store::Error>() {
                Ok(error) => Self::classify(&error, at),
                Err(_) => Self::new(Trouble::Unavailable, at, text),
            },
        }
    }

    pub(super) fn classify(error: &object_store::Error, at: &str) -> Self {
        use object_store::Error as Store;
        if let Some(error) = io_error(error) {
            return Self::new(of_file(error), at, error.kind().to_string());
        }
        let answer = Answer::of(&chain(error));
        let trouble = match (answer.code.as_deref(), error) {
            (Some(code), _) if code.contains("Quota") || code.contains("StorageFull") => Trouble::Full,
            (Some("NoSuchKey"), _) => Trouble::NotFound,
            (Some("XAdminUserNotFound"), _) => Trouble::Denied,
            // It was completed or swept; another one may do.
            (Some("NoSuchUpload"), _) => Trouble::Unavailable,
            // Any other 404 is about a bucket, a user or a proxy, and must not pass for a file that is not there.
            (_, Store::NotFound { .. }) if answer.status.is_none() => Trouble::NotFound,
            (_, Store::AlreadyExists { .. } | Store::Precondition { .. }) => Trouble::Exists,
            (_, Store::PermissionDenied { .. } | Store::Unauthenticated { .. }) => Trouble::Denied,
            (_, Store::NotSupported { .. } | Store::NotImplemented { .. } | Store::InvalidPath { .. }) => {
                Trouble::Unusable
            }
            _ => match answer.status {
                Some(401 | 403) => Trouble::Denied,
                Some(507) => Trouble::Full,
                Some(408 | 429) => Trouble::Unavailable,
                Some(300..=499 | 501) => Trouble::Unusable,
                _ if answer.redirected => Trouble::Unusable,
                _ => Trouble::Unavailable,
            },
        };
        Self::new(trouble, at, answer.told())
    }
}

/// What may be told of a server's answer: its status and the code in it.
struct Answer {
    status: Option<u16>,
    code: Option<String>,
    redirected: bool,
}

impl Answer {
    /// The client has no type for it, so its text is read.
    fn of(text: &str) -> Self {
        let after = |mark: &str| text.split_once(mark).map(|(_, rest)| rest);
        let status = after("status code: ").and_then(|rest| rest.get(..3)?.parse().ok());
        let code = after("<Code>").and_then(|rest| rest.split_once("</Code>")).map(|(code, _)| code);
        let code = code.filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric()));
        Self { status, code: code.map(ToOwned::to_owned), redirected: text.contains("redirect without LOCATION") }
    }

    fn told(&self) -> String {
        match (self.status, &self.code) {
            (Some(status), Some(code)) => format!("the server answered {status} {code}"),
            (Some(status), None) => format!("the server answered {status}"),
            (None, Some(code)) => format!("the server answered {code}"),
            (None, None) if self.redirected => "the server is for another region".to_owned(),
            (None, None) => "no answer".to_owned(),
        }
    }
}

fn of_file(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::NotFound => Trouble::NotFound,
        io::ErrorKind::AlreadyExists => Trouble::Exists,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Trouble::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Trouble::Full,
        // A file system without hard links, by which a file is put where none is.
        io::ErrorKind::Unsupported => Trouble::Unusable,
        _ => Trouble::Unavailable,
    }
}

/// The file system's error, if it is one.
fn io_error(error: &object_store::Error) -> Option<&io::Error> {
    use object_store::Error as Store;
    let local = matches!(error, Store::Generic { store: "LocalFileSystem", .. })
        || matches!(error, Store::NotFound { source, .. } | Store::AlreadyExists { source, .. } if source.is::<io::Error>());
    causes(error).find_map(|cause| cause.downcast_ref()).filter(|_| local)
}

/// What an error says of the ones beneath it.
fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

fn chain(error: &object_store::Error) -> String {
    causes(error).fold(error.to_string(), |text, cause| text + "\n" + &cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the store wraps errors of files.
    #[derive(Debug, thiserror::Error)]
    #[error("/secret/place: {0}")]
    struct Wrapped(#[source] io::Error);

    fn of_a_directory(kind: io::ErrorKind) -> Error {
        let source = Box::new(Wrapped(io::Error::from(kind)));
        Error::classify(&object_store::Error::Generic { store: "LocalFileSystem", source }, "put it")
    }

    #[test]
    fn errors_of_files_are_told_apart() {
        for (kind, trouble) in [
            (io::ErrorKind::StorageFull, Trouble::Full),
            (io::ErrorKind::QuotaExceeded, Trouble::Full),
            (io::ErrorKind::PermissionDenied, Trouble::Denied),
            (io::ErrorKind::ReadOnlyFilesystem, Trouble::Denied),
            (io::ErrorKind::Unsupported, Trouble::Unusable),
            (io::ErrorKind::Other, Trouble::Unavailable),
        ] {
            let error = of_a_directory(kind);
            assert_eq!((error.trouble, error.is_transient()), (trouble, trouble == Trouble::Unavailable));
            assert!(!format!("{error} {error:?}").contains("/secret/place"));
        }
        assert_eq!(of_a_directory(io::ErrorKind::StorageFull).to_string(), "put it: no storage space");
    }

    #[test]
    fn an_error_comes_through_a_stream() {
        let full = of_a_directory(io::ErrorKind::StorageFull);
        let error = Error::of(io::Error::other(full), "seal it");
        assert_eq!((error.trouble, error.at.as_str()), (Trouble::Full, "put it"));
        let missing = object_store::Error::NotFound { path: "x".into(), source: "gone".into() };
        assert_eq!(Error::of(missing.into(), "read it").trouble, Trouble::NotFound);
        assert!(Error::of(io::Error::from(io::ErrorKind::BrokenPipe), "read it").is_transient());
    }

    #[test]
    fn a_bucket_named_like_an_answer_is_none() {
        let source = "GET http://s3/redirect-507/<Code>A b</Code>: connection refused".into();
        let error = Error::classify(&object_store::Error::Generic { store: "S3", source }, "list it");
        assert_eq!((error.is_transient(), error.why.as_str()), (true, "no answer"));
    }
}
