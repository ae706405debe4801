//! What the tests share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use finaiflow_backup::manifest::{ArtefactId, Kind};
use finaiflow_backup::seal::{self, Identities, Label, Secrets};
use finaiflow_backup::vault::{Folder, Patience, Settings, Vault};
use finaiflow_schema::names::ClaimId;
use time::OffsetDateTime;

pub const PART: usize = 8 * 1024 * 1024;

pub fn claim() -> ClaimId {
    ClaimId::from_random(0x0123_4567_89ab_cdef)
}

pub fn id(number: u32) -> ArtefactId {
    ArtefactId::new(OffsetDateTime::UNIX_EPOCH, Kind::Full, number)
}

pub fn label(number: u32) -> Label {
    Label { claim: claim(), artefact: id(number) }
}

pub fn identities() -> Identities {
    use age::secrecy::ExposeSecret as _;
    Identities::parse(age::x25519::Identity::generate().to_string().expose_secret()).unwrap()
}

/// Long for a server that answers, short for a test of one that does not.
pub fn patience() -> Patience {
    Patience {
        request: Duration::from_secs(2),
        total: Duration::from_secs(4),
        first_pause: Duration::from_millis(5),
        longest_pause: Duration::from_millis(20),
    }
}

/// What no compressor makes smaller, and no two parts of which are alike.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}

/// Puts an object of several parts, as `id(1)`, and reads it back.
pub async fn comes_back_as_it_was_sealed(vault: &Vault) {
    let (identities, content) = (identities(), noise(2 * PART + 12_345));
    let secrets = Secrets { key: [1; 32], nonce_prefix: [2; 7] };
    let upload = vault.upload(id(1));
    let mut writer = seal::Writer::new(upload, &identities.recipients(), &label(1), &secrets).await.unwrap();
    for piece in content.chunks(100_000) {
        writer.write(piece).await.unwrap();
    }
    let (upload, sealed) = writer.finish().await.unwrap();
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found, []);
    upload.complete().await.unwrap();

    let listing = vault.list(Folder::Objects).await.unwrap();
    assert_eq!((listing.found[0].id, listing.found[0].bytes, listing.found.len()), (id(1), sealed.bytes, 1));
    let (bytes, stream) = vault.read(id(1)).await.unwrap();
    assert_eq!(bytes, sealed.bytes);
    let mut reader = seal::Reader::open(stream, &identities, &label(1)).await.unwrap();
    let (mut read, mut buffer) = (Vec::new(), vec![0; 70_000]);
    loop {
        match reader.read(&mut buffer).await.unwrap() {
            0 => break,
            length => read.extend_from_slice(&buffer[..length]),
        }
    }
    assert!(read == content);
}

/// An empty directory of a test's own.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn settings(&self) -> Settings {
        Settings::Directory(self.0.clone())
    }

    pub fn vault(&self) -> Vault {
        Vault::open(&self.settings(), Patience::default(), claim()).unwrap()
    }

    /// A folder of the bank's.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.0.join(claim().to_string()).join(name)
    }

    /// Names of all files in it, staged ones, too.
    pub fn files(&self, name: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder(name)) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
