//! What a job is told, made ready to work with.

use std::path::{Path, PathBuf};
use std::{fs, io};

use finaiflow_crds::backup::{Bucket, JobSettings, Place};
use finaiflow_schema::names::{ClaimId, NameError};

use crate::manifest::{KeyError, SigningKey, Tenant, TrustedKeys};
use crate::seal::{self, Recipients};
use crate::vault::{self, Patience, Settings, Vault};

/// Why a job cannot work with what it is told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of that form.
    #[error("the job's settings cannot be read: {0}")]
    Settings(#[from] serde_json::Error),
    /// No claim id.
    #[error("the job's settings: {0}")]
    Claim(#[from] NameError),
    /// No keys to believe.
    #[error("the job's trusted keys: {0}")]
    Trusted(KeyError),
    /// No keys to seal for.
    #[error("the job's recipients: {0}")]
    Recipients(#[from] seal::Error),
    /// No key to sign with.
    #[error("signing-key: {0}")]
    SigningKey(KeyError),
    /// A Secret is not mounted as it should be.
    #[error("{0} cannot be read: {1}")]
    File(PathBuf, io::ErrorKind),
    /// Not one of those in the settings.
    #[error("there is no destination {0}")]
    NoDestination(String),
}

/// Whose backups these are, and where they lie.
#[derive(Debug)]
pub struct Job {
    /// The bank.
    pub claim: ClaimId,
    /// Its Tenant.
    pub tenant: Tenant,
    /// Those who can open what is taken.
    pub recipients: Recipients,
    /// Those whose manifests are believed.
    pub trusted: TrustedKeys,
    /// In the order of the spec.
    pub destinations: Vec<Destination>,
    /// What it was told.
    pub settings: JobSettings,
}

/// A destination.
#[derive(Debug)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// How many days back a restore from there must be possible.
    pub retention_days: i32,
    /// Where it is, or why that cannot be used.
    pub vault: vault::Result<Vault>,
}

impl Job {
    /// Reads settings. Nothing is asked of the destinations yet.
    pub fn parse(settings: &str, patience: Patience) -> Result<Self, Error> {
        let settings: JobSettings = serde_json::from_str(settings)?;
        let claim: ClaimId = settings.claim_id.parse()?;
        let destinations = settings.destinations.iter().map(|told| Destination {
            name: told.name.clone(),
            retention_days: told.retention_days,
            vault: open(&told.place).and_then(|place| Vault::open(&place, patience, claim)),
        });
        Ok(Self {
            claim,
            tenant: Tenant { namespace: settings.namespace.clone(), name: settings.tenant.clone() },
            recipients: Recipients::parse(settings.recipients.iter().map(String::as_str))?,
            trusted: TrustedKeys::parse(settings.trusted_keys.iter().map(String::as_str)).map_err(Error::Trusted)?,
            destinations: destinations.collect(),
            settings,
        })
    }

    /// The destination of that name.
    pub fn destination(&self, name: &str) -> Result<&Destination, Error> {
        let named = self.destinations.iter().find(|destination| destination.name == name);
        named.ok_or_else(|| Error::NoDestination(name.to_owned()))
    }
}

/// The key that signs manifests, of a directory with a job's keys.
pub fn signing_key(keys: &Path) -> Result<SigningKey, Error> {
    let path = keys.join("signing-key");
    let text = fs::read_to_string(&path).map_err(|error| Error::File(path, error.kind()))?;
    SigningKey::parse(&text).map_err(Error::SigningKey)
}

/// The bytes of the bank's data key, if it has one.
pub fn kek(keys: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = keys.join("kek");
    match fs::read(&path) {
        Ok(kek) => Ok(Some(kek)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::File(path, error.kind())),
    }
}

fn open(place: &Place) -> vault::Result<Settings> {
    let Bucket { endpoint, region, bucket, prefix, allow_http, credentials } = match place {
        Place::Directory(directory) => return Ok(Settings::Directory(directory.clone())),
        Place::Bucket(bucket) => bucket,
    };
    let read = |name: &str| match fs::read_to_string(credentials.join(name)) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(error) => Err(vault::Error::of(error.kind().into(), &format!("read {name}"))),
    };
    Ok(Settings::Bucket(vault::Bucket {
        endpoint: endpoint.clone(),
        region: region.clone(),
        bucket: bucket.clone(),
        prefix: prefix.clone(),
        access_key_id: read("accessKeyId")?,
        secret_access_key: read("secretAccessKey")?,
        allow_http: *allow_http,
    }))
}
