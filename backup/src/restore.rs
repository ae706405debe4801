//! Restoring artefacts.

use finaiflow_schema::names::TenantNames;
use finaiflow_schema::{migrate, provision};
use sqlx::PgConnection;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use crate::manifest::{ArtefactId, Manifest, SignedManifest};
use crate::rows::{self, Load, Since};
use crate::seal::{self, Identities, Label};
use crate::sections;
use crate::sha256::Sha256;
use crate::vault::{self, Vault};

/// Why there is no restored bank. No rows are left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows do not fit, or are not those that were backed up.
    #[error(transparent)]
    Rows(#[from] rows::Error),
    /// The object cannot be opened.
    #[error(transparent)]
    Seal(#[from] seal::Error),
    /// The destination.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The schema could not be made.
    #[error("the schema cannot be made: {0}")]
    Schema(#[from] finaiflow_schema::Error),
    /// Another program's schema.
    #[error("the backup is of schema version {found}; this program makes version {known}")]
    Version {
        /// The backup's.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// No artefact was named.
    #[error("there is nothing to restore")]
    Nothing,
    /// The artefacts are no chain.
    #[error("{0} does not follow the artefact before it")]
    Order(ArtefactId),
    /// The object is not the one that its manifest speaks of.
    #[error("the object is not the one that the manifest speaks of: {0}")]
    OtherObject(&'static str),
}

/// Makes the schema of `names`, whose roles have been made, and fills it with a full artefact and what follows it, in that
/// order ([`crate::manifest::chain::Chains::path`]). The connection's role has to be a member of the owner.
pub async fn restore(
    conn: &mut PgConnection,
    names: &TenantNames,
    vault: &Vault,
    artefacts: &[&SignedManifest],
    identities: &Identities,
) -> Result<(), Error> {
    let Some(last) = artefacts.last().map(|last| last.manifest()) else { return Err(Error::Nothing) };
    let (found, known) = (last.schema_version, migrate::head_version());
    if found != known {
        return Err(Error::Version { found, known });
    }
    migrate::migrate(conn, names).await?;
    let mut load = Load::begin(conn, names).await?;
    let mut before: Option<&SignedManifest> = None;
    for artefact in artefacts {
        if artefact.manifest().parent != before.map(SignedManifest::as_parent) {
            return Err(Error::Order(artefact.manifest().id));
        }
        fill(&mut load, vault, artefact.manifest(), before.map(SignedManifest::manifest), identities).await?;
        before = Some(*artefact);
    }
    compare(&mut load, last).await?;
    load.finish().await?;
    Ok(provision::ensure_grants(conn, names).await.map(drop)?)
}

async fn fill(
    load: &mut Load<'_>,
    vault: &Vault,
    manifest: &Manifest,
    before: Option<&Manifest>,
    identities: &Identities,
) -> Result<(), Error> {
    let since = before.map(Since::new).transpose()?;
    let (bytes, stream) = vault.read(manifest.id).await?;
    if bytes != manifest.object.bytes {
        return Err(Error::OtherObject("its length differs"));
    }
    let mut object = Hashed { source: stream, digest: Sha256::default() };
    let label = Label { claim: manifest.claim_id, artefact: manifest.id };
    let mut reader = sections::Reader::new(seal::Reader::open(&mut object, identities, &label).await?);
    while let Some(section) = reader.section().await? {
        let mut table = load.table(&section, since.as_ref()).await?;
        while let Some(text) = reader.chunk().await? {
            table.add(text).await?;
        }
        let tally = table.finish().await?;
        let told = manifest.tables.iter().find(|told| told.name == section.table.as_str());
        let same = told.is_some_and(|told| (told.rows, told.digest) == (tally.rows(), tally.digest()));
        if !same || !tally.is_whole() {
            return Err(rows::Error::Differs(section.table.to_string()).into());
        }
    }
    drop(reader);
    if object.digest.finish() != manifest.object.sha256 {
        return Err(Error::OtherObject("its SHA-256 differs"));
    }
    Ok(load.end().await?)
}

/// What was loaded beside what was there when the artefact was taken, as far as its manifest tells.
async fn compare(load: &mut Load<'_>, manifest: &Manifest) -> Result<(), Error> {
    let mut moment = load.moment().await?;
    for section in moment.sections(None) {
        let told = manifest.tables.iter().find(|told| told.name == section.table.as_str());
        let Some((rows, digest)) = told.and_then(|told| told.total_rows.zip(told.total_digest)) else { continue };
        let tally = moment.copy(&section, None, async |_| Ok::<_, rows::Error>(())).await?;
        if (tally.rows(), tally.digest()) != (rows, digest) {
            return Err(rows::Error::Differs(section.table.to_string()).into());
        }
    }
    let (found, told) = (&moment.ledger, &manifest.ledger);
    if (found.epoch, found.sequence, found.hash) != (told.epoch, told.sequence, told.hash) {
        return Err(rows::Error::Differs("ledger_head".to_owned()).into());
    }
    if moment.balances != manifest.balances {
        return Err(rows::Error::Differs("account_balances".to_owned()).into());
    }
    Ok(())
}

/// A source, and the SHA-256 of what came from it.
struct Hashed<R> {
    source: R,
    digest: Sha256,
}

impl<R: AsyncRead + Unpin> AsyncRead for Hashed<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.source).poll_read(context, buffer))?;
        self.digest.update(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}
