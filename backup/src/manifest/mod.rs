//! What is said of an artefact: a signed file, written once, after the object it speaks of. No manifest, no backup.

pub mod chain;
mod id;
mod signed;

use std::fmt;
use std::str::FromStr;

use finaiflow_ledger::chain::Hash;
use finaiflow_ledger::id::Sequence;
use finaiflow_schema::names::ClaimId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

pub use id::{ArtefactId, ArtefactIdError, Kind};
pub use signed::{KeyError, KeyId, ManifestError, SignedManifest, SigningKey, TrustedKeys};

/// The form of manifest that this program writes, and the only one it reads.
pub const VERSION: u32 = 1;

/// Everything that is known of an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The artefact.
    pub id: ArtefactId,
    /// What it holds, as its id says.
    pub kind: Kind,
    /// The bank.
    pub claim_id: ClaimId,
    /// The Tenant that it had when this was taken.
    pub tenant: Tenant,
    /// When the snapshot was taken, by the database's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Version of the tenant schema.
    pub schema_version: i32,
    /// SHA-256 over the checksums of the migrations that were applied.
    pub schema_fingerprint: Hash,
    /// Where it was taken.
    pub postgres: Server,
    /// The snapshot, as `pg_current_snapshot()` writes it.
    pub snapshot: String,
    /// What it holds the changes since; none in a full one.
    pub parent: Option<Parent>,
    /// The journals in it.
    pub ledger: Span,
    /// The rows in it.
    pub tables: Vec<Table>,
    /// What was booked in each currency, from the first journal on.
    pub balances: Vec<Balance>,
    /// The sealed object.
    pub object: Object,
    /// The bytes of the tenant's data-key Secret as an age file, in base64; none if it has no such Secret.
    pub kek: Option<String>,
    /// Those who can open it.
    pub recipients: Vec<String>,
    /// Version of the program that took it.
    pub program: String,
}

/// A Tenant by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A PostgreSQL server. Transaction ids mean something within one system and timeline only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Of `pg_control_system()`, as decimal digits.
    pub system_identifier: String,
    /// Of `pg_control_checkpoint()`.
    pub timeline: u32,
    /// `server_version_num`, such as 150008.
    pub server_version: u32,
}

/// The artefact before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// Its id.
    pub id: ArtefactId,
    /// SHA-256 of its manifest's file.
    pub sha256: Hash,
}

/// Journals after `from_sequence` up to `sequence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The ledger's epoch.
    pub epoch: u32,
    /// The last journal that is *not* in it: 0 in a full one, else the parent's `sequence`.
    pub from_sequence: Sequence,
    /// The last journal as of the snapshot; 0 before the first.
    pub sequence: Sequence,
    /// When that was booked.
    #[serde(with = "time::serde::rfc3339::option")]
    pub head_time: Option<OffsetDateTime>,
    /// Its hash.
    pub hash: Hash,
}

/// Rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name, without the schema.
    pub name: String,
    /// How its rows live.
    pub class: String,
    /// How many are in the artefact.
    pub rows: u64,
    /// Sum of their hashes.
    pub digest: Sum,
    /// How many the table has as of the snapshot, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_rows: Option<u64>,
    /// Sum of their hashes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_digest: Option<Sum>,
}

/// What was booked in a currency, in minor units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// ISO 4217.
    pub currency: String,
    /// Sum of the debits.
    pub debits: Sum,
    /// Sum of the credits.
    pub credits: Sum,
}

/// The sealed object of an artefact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Where it lies, below the bank's directory: `objects/<id>`.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it, as it lies there.
    pub sha256: Hash,
}

/// A sum over rows, which outgrows 64 bits. A decimal number as text, because JSON's numbers end at 2⁵³ for many readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sum(pub i128);

/// A text that is not a whole number of at most 128 bits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a whole number of at most 128 bits")]
pub struct SumError(String);

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Sum {
    type Err = SumError;

    fn from_str(text: &str) -> Result<Self, SumError> {
        text.parse().map(Self).map_err(|_| SumError(text.to_owned()))
    }
}

impl TryFrom<String> for Sum {
    type Error = SumError;

    fn try_from(text: String) -> Result<Self, SumError> {
        text.parse()
    }
}

impl From<Sum> for String {
    fn from(sum: Sum) -> Self {
        sum.to_string()
    }
}

impl Manifest {
    /// What a manifest cannot say, whoever signed it.
    fn contradiction(&self) -> Option<&'static str> {
        let from_the_start = self.ledger.from_sequence == Sequence::ZERO;
        if self.kind != self.id.kind() {
            Some("its kind is not that of its id")
        } else if self.object.key != format!("objects/{}", self.id) {
            Some("its object is another's")
        } else if self.parent.is_some() == (self.kind == Kind::Full) {
            Some("a full artefact has no parent, every other has one")
        } else if self.kind == Kind::Full && !from_the_start {
            Some("a full artefact holds all journals")
        } else if self.ledger.sequence < self.ledger.from_sequence {
            Some("its journals end before they begin")
        } else if self.recipients.is_empty() {
            Some("nobody can open it")
        } else {
            None
        }
    }
}

/// Manifests for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// What a test does to a manifest before it is signed.
    pub(crate) type Change = fn(&mut Manifest);

    pub(crate) fn claim() -> ClaimId {
        ClaimId::from_random(0x0123_4567_89ab_cdef)
    }

    pub(crate) fn signing_key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    pub(crate) fn trusted() -> TrustedKeys {
        TrustedKeys::parse([signing_key(1).public_key().as_str()]).unwrap()
    }

    /// The `number`th artefact of the bank, after its parent if it has one.
    pub(crate) fn manifest(number: u32, kind: Kind, parent: Option<&SignedManifest>) -> Manifest {
        let created_at = OffsetDateTime::from_unix_timestamp(1_795_373_052 + i64::from(number) * 900).unwrap();
        let id = ArtefactId::new(created_at, kind, number);
        let from_sequence = parent.map_or(Sequence::ZERO, |parent| parent.manifest().ledger.sequence);
        Manifest {
            version: VERSION,
            id,
            kind,
            claim_id: claim(),
            tenant: Tenant { namespace: "banks".into(), name: "acme".into() },
            created_at,
            schema_version: 7,
            schema_fingerprint: Hash([7; 32]),
            postgres: Server { system_identifier: "7300000000000000001".into(), timeline: 1, server_version: 150_008 },
            snapshot: "731:731:".into(),
            parent: parent.map(SignedManifest::as_parent),
            ledger: Span {
                epoch: 1,
                from_sequence,
                sequence: Sequence::try_from(i64::from(from_sequence) + 10).unwrap(),
                head_time: Some(created_at),
                hash: Hash([9; 32]),
            },
            tables: vec![Table {
                name: "journals".into(),
                class: "money".into(),
                rows: 10,
                digest: Sum(-12_345_678_901_234_567_890_123),
                total_rows: None,
                total_digest: None,
            }],
            balances: vec![Balance { currency: "USD".into(), debits: Sum(100), credits: Sum(100) }],
            object: Object { key: format!("objects/{id}"), bytes: 1234, sha256: Hash([3; 32]) },
            kek: None,
            recipients: vec!["age1example".into()],
            program: "0.1.0".into(),
        }
    }

    pub(crate) fn signed(manifest: &Manifest) -> SignedManifest {
        SignedManifest::sign(manifest.clone(), &signing_key(1)).unwrap()
    }
}
