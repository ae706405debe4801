//! Reading a tenant's Secrets into what serving it needs.

use std::collections::BTreeMap;
use std::time::Duration;

use finaiflow_crds::names::{ANNOTATION_CLAIM, ANNOTATION_GENERATION, SecretPurpose};
use finaiflow_schema::names::ClaimId;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::time::timeout;

use super::connection;
use super::plan::{Holding, Need};
use crate::domain::signing_keys::{SigningKeys, SigningKeysError};
use crate::tenant::{DataKey, DataKeyError};

/// The Kubernetes client retries for minutes; a tenant that cannot be loaded is to be reported within seconds.
const LIMIT: Duration = Duration::from_secs(15);
const APPLICATION_NAME: &str = "finaiflow-api";

/// Why a tenant cannot be loaded now. Holds names and keys of entries, never their contents.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("status.secrets lists no {0} Secret")]
    Unlisted(SecretPurpose),
    #[error("Secret {name}: {reason}")]
    Read { name: String, reason: String },
    #[error("Secret {name} is not of type {expected}")]
    Type { name: String, expected: String },
    #[error("Secret {name} is not annotated as belonging to claim {claim}")]
    Claim { name: String, claim: ClaimId },
    #[error("Secret {name} is of an older generation than status.secrets says")]
    Generation { name: String },
    #[error("Secret {name} has no usable entry {entry}")]
    Entry { name: String, entry: &'static str },
    #[error("Secret {name}: {source}")]
    SigningKeys { name: String, source: SigningKeysError },
    #[error("Secret {name}: {source}")]
    DataKey { name: String, source: DataKeyError },
    #[error("the new database login does not work: {0}")]
    Login(sqlx::Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Timeout,
}

/// What the Secrets of a tenant say, and the pool opened with it.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) holding: Holding,
    pub(super) pool: PgPool,
    pub(super) signing_keys: SigningKeys,
    pub(super) data_key: DataKey,
}

/// Reads what is needed; the rest is taken over from `held`. A pool that replaces one is known to log in.
pub(super) async fn load(
    secrets: Api<Secret>,
    need: Need,
    held: Option<Loaded>,
    max: u32,
) -> Result<Loaded, LoadError> {
    timeout(LIMIT, read(secrets, need, held, max)).await.map_err(|_| LoadError::Timeout)?
}

async fn read(secrets: Api<Secret>, need: Need, held: Option<Loaded>, max: u32) -> Result<Loaded, LoadError> {
    let mut entries = BTreeMap::new();
    let mut holding = need.holding;
    for (purpose, name) in need.secrets {
        let secret = secrets.get(&name).await.map_err(|error| LoadError::Read { reason: reason(error), name })?;
        let generation = check(&secret, purpose, &holding)?;
        holding.generations.insert(purpose, generation);
        entries.insert(purpose, Entries { name: secret.name_any(), data: secret.data.unwrap_or_default() });
    }
    let kept = held.as_ref();
    let signing_keys = match (entries.get(&SecretPurpose::SigningKeys), kept) {
        (Some(entries), _) => entries.signing_keys()?,
        (None, Some(kept)) => kept.signing_keys.clone(),
        (None, None) => return Err(LoadError::Unlisted(SecretPurpose::SigningKeys)),
    };
    let data_key = match (entries.get(&SecretPurpose::DataKey), kept) {
        (Some(entries), _) => entries.data_key()?,
        (None, Some(kept)) => kept.data_key.clone(),
        (None, None) => return Err(LoadError::Unlisted(SecretPurpose::DataKey)),
    };
    let options = match (entries.get(&SecretPurpose::Database), kept) {
        (Some(entries), _) => entries.connect_options()?,
        (None, Some(kept)) => (*kept.pool.connect_options()).clone(),
        (None, None) => return Err(LoadError::Unlisted(SecretPurpose::Database)),
    };
    let pool = match kept {
        Some(kept) if !need.connect => kept.pool.clone(),
        Some(_) => {
            let pool = connection::open(options, max);
            pool.acquire().await.map_err(LoadError::Login)?;
            pool
        }
        None => connection::open(options, max),
    };
    Ok(Loaded { holding, pool, signing_keys, data_key })
}

/// The generation of a Secret that is what it is meant to be. It may be newer than the status, which is written later.
fn check(secret: &Secret, purpose: SecretPurpose, holding: &Holding) -> Result<i64, LoadError> {
    let name = secret.name_any();
    let expected = purpose.secret_type();
    if secret.type_.as_deref() != Some(&expected) {
        return Err(LoadError::Type { name, expected });
    }
    let annotations = secret.annotations();
    if annotations.get(ANNOTATION_CLAIM) != Some(&holding.claim.to_string()) {
        return Err(LoadError::Claim { name, claim: holding.claim });
    }
    annotations
        .get(ANNOTATION_GENERATION)
        .and_then(|generation| generation.parse().ok())
        .filter(|generation| holding.generations.get(&purpose).is_none_or(|wanted| generation >= wanted))
        .ok_or(LoadError::Generation { name })
}

/// What the API server says, or only that it did not: other errors may quote what was received.
fn reason(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        _ => "the Kubernetes API gave no usable answer".to_owned(),
    }
}

struct Entries {
    name: String,
    data: BTreeMap<String, ByteString>,
}

impl Entries {
    fn bytes(&self, entry: &'static str) -> Result<&[u8], LoadError> {
        let bytes = self.data.get(entry).map(|bytes| bytes.0.as_slice());
        bytes.ok_or_else(|| LoadError::Entry { name: self.name.clone(), entry })
    }

    fn parse<T: std::str::FromStr>(&self, entry: &'static str) -> Result<T, LoadError> {
        let text = str::from_utf8(self.bytes(entry)?).ok();
        text.and_then(|text| text.parse().ok()).ok_or_else(|| LoadError::Entry { name: self.name.clone(), entry })
    }

    fn signing_keys(&self) -> Result<SigningKeys, LoadError> {
        SigningKeys::from_json(self.bytes("keys.json")?)
            .map_err(|source| LoadError::SigningKeys { name: self.name.clone(), source })
    }

    fn data_key(&self) -> Result<DataKey, LoadError> {
        DataKey::from_bytes(self.bytes("kek")?).map_err(|source| LoadError::DataKey { name: self.name.clone(), source })
    }

    /// The login. Behind a pooler (`pooled: true`) a server connection changes hands between transactions, so no
    /// statement may stay prepared.
    fn connect_options(&self) -> Result<PgConnectOptions, LoadError> {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.parse::<String>("host")?)
            .port(self.parse("port")?)
            .database(&self.parse::<String>("dbname")?)
            .username(&self.parse::<String>("username")?)
            .password(&self.parse::<String>("password")?)
            .ssl_mode(self.parse::<PgSslMode>("sslmode")?)
            .application_name(APPLICATION_NAME)
            .extra_float_digits(None);
        let pooled = self.data.contains_key("pooled") && self.parse("pooled")?;
        Ok(if pooled { options.statement_cache_capacity(0) } else { options })
    }
}
