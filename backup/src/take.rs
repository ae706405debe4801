//! Taking artefacts.

use finaiflow_ledger::id::Sequence;
use finaiflow_schema::names::ClaimId;
use finaiflow_schema::tables::{Class, TABLES};
use sqlx::PgConnection;

use crate::manifest::{
    ArtefactId, Kind, Manifest, ManifestError, Object, SignedManifest, SigningKey, Span, Sum, Table, Tenant, VERSION,
};
use crate::progress::Progress;
use crate::rows::{self, Moment, Since, Tally};
use crate::seal::{self, Label, Recipients, Sealed, Secrets};
use crate::sections;
use crate::vault::{self, Folder, Vault};

/// Why there is no new artefact. What was written of one is not a backup: it has no manifest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows could not be read.
    #[error(transparent)]
    Rows(#[from] rows::Error),
    /// They could not be sealed, or sent.
    #[error(transparent)]
    Seal(#[from] seal::Error),
    /// The destination.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// What changed since that artefact cannot be told: a full one has to come first.
    #[error("nothing can follow {id}: {reason}")]
    NoParent {
        /// The artefact.
        id: ArtefactId,
        /// Why not.
        reason: &'static str,
    },
    /// The manifest could not be signed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Whose backup it is, for whom, and by whom.
#[derive(Debug)]
pub struct Order<'a> {
    /// Everything, or what changed.
    pub kind: Kind,
    /// Since when; none for everything.
    pub parent: Option<&'a SignedManifest>,
    /// The bank.
    pub claim: ClaimId,
    /// Its Tenant.
    pub tenant: Tenant,
    /// Those who can open it.
    pub recipients: &'a Recipients,
    /// Says that it is genuine.
    pub signing_key: &'a SigningKey,
    /// The bytes of the data-key Secret: without it, ciphertext in the rows stays ciphertext.
    pub kek: Option<&'a [u8]>,
    /// Random bits of the artefact's name.
    pub name: u32,
    /// Random bits that seal it.
    pub secrets: Secrets,
}

/// Takes what an order asks for. `conn` and `other` are sessions of the backup login. The artefact exists once its manifest
/// has been put, which is the last thing done.
pub async fn take(
    conn: &mut PgConnection,
    other: &mut PgConnection,
    vault: &Vault,
    order: &Order<'_>,
) -> Result<SignedManifest, Error> {
    let mut moment = Moment::open(conn, None).await?;
    moment.outlive_crashes(other).await?;
    let parent = order.parent.map(SignedManifest::manifest);
    if let Some(parent) = parent {
        follows(&moment, order, parent)?;
    }
    let since = parent.map(Since::new).transpose()?;
    let id = ArtefactId::new(moment.taken_at, order.kind, order.name);
    let label = Label { claim: order.claim, artefact: id };
    let object = seal::Writer::new(vault.upload(id), order.recipients, &label, &order.secrets).await?;
    let mut writer = sections::Writer::new(object);
    let mut tables = Vec::new();
    let mut progress = Progress::default();
    for section in moment.sections(since.as_ref()) {
        writer.begin(&section).await?;
        let mut rows = 0;
        let copied = moment.copy(&section, since.as_ref(), async |text| {
            // A piece is a row.
            rows += 1;
            progress.add(text.len(), &section.table, rows);
            writer.write(text).await.map_err(Error::from)
        });
        let tally = copied.await?;
        writer.end().await?;
        tables.push(table(section.table.as_str(), &tally, parent));
    }
    let (upload, sealed) = writer.finish().await?;
    upload.complete().await?;
    let manifest = manifest(&moment, id, order, tables, &sealed)?;
    moment.close().await?;
    let signed = SignedManifest::sign(manifest, order.signing_key)?;
    vault.put_once(Folder::Manifests, id, signed.file()).await?;
    Ok(signed)
}

/// Whether a difference to `parent` would be all there is to know.
fn follows(moment: &Moment<'_>, order: &Order<'_>, parent: &Manifest) -> Result<(), Error> {
    let reason = if !order.kind.may_follow(parent.kind) {
        "an artefact of its kind is no beginning for this one"
    } else if parent.claim_id != order.claim {
        "it is another bank's"
    } else if parent.postgres.system_identifier != moment.server.system_identifier {
        "it was taken from another PostgreSQL"
    } else if parent.postgres.timeline != moment.server.timeline {
        "this PostgreSQL is on another timeline, where transactions have other numbers"
    } else if parent.schema_fingerprint != moment.schema_fingerprint {
        "the schema has been migrated"
    } else if parent.ledger.epoch != moment.ledger.epoch || parent.ledger.sequence > moment.ledger.sequence {
        "the ledger has been restored to an earlier journal"
    } else {
        return Ok(());
    };
    Err(Error::NoParent { id: parent.id, reason })
}

fn manifest(
    moment: &Moment<'_>,
    id: ArtefactId,
    order: &Order<'_>,
    tables: Vec<Table>,
    sealed: &Sealed,
) -> Result<Manifest, Error> {
    let kek = order.kek.map(|kek| seal::seal_bytes(order.recipients, kek)).transpose()?;
    let from_sequence = order.parent.map_or(Sequence::default(), |parent| parent.manifest().ledger.sequence);
    Ok(Manifest {
        version: VERSION,
        id,
        kind: id.kind(),
        claim_id: order.claim,
        tenant: order.tenant.clone(),
        created_at: moment.taken_at,
        schema_version: moment.schema_version,
        schema_fingerprint: moment.schema_fingerprint,
        postgres: moment.server.clone(),
        snapshot: moment.snapshot.clone(),
        parent: order.parent.map(SignedManifest::as_parent),
        ledger: Span { from_sequence, ..moment.ledger.clone() },
        tables,
        balances: moment.balances.clone(),
        object: Object { key: Folder::Objects.key(id), bytes: sealed.bytes, sha256: sealed.sha256 },
        kek: kek.map(|kek| data_encoding::BASE64.encode(&kek)),
        recipients: order.recipients.names(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// What is said of a table. All of its rows are known to a full artefact, and to an increment where rows are only added.
fn table(name: &str, tally: &Tally, parent: Option<&Manifest>) -> Table {
    let class = TABLES.iter().find(|table| table.name == name).map(|table| table.class);
    let (mut total_rows, mut total_digest) = (Some(tally.rows()), Some(tally.digest()));
    if let Some(parent) = parent {
        let before = parent.tables.iter().find(|table| table.name == name);
        let before = before.filter(|_| matches!(class, Some(Class::Money | Class::Append)));
        total_rows = before.and_then(|table| table.total_rows).map(|rows| rows + tally.rows());
        total_digest = before.and_then(|table| table.total_digest).map(|sum| Sum(sum.0 + tally.digest().0));
    }
    Table {
        name: name.to_owned(),
        class: class.map(Class::as_str).unwrap_or_default().to_owned(),
        rows: tally.rows(),
        digest: tally.digest(),
        total_rows,
        total_digest,
    }
}
