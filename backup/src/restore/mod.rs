//! Restoring artefacts.

mod again;
mod plan;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use finaiflow_ledger::chain::Anchor;
use finaiflow_ledger::id::Sequence;
use finaiflow_schema::migrate;
use finaiflow_schema::names::TenantNames;
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, ReadBuf};

pub use plan::{Ahead, Plan, PlanError, Target};

use crate::manifest::Manifest;
use crate::progress::Progress;
use crate::rows::{self, Load, Since, Tally};
use crate::seal::{self, Identities, Label};
use crate::sections::{self, Section};
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
    /// The schema's version could not be read.
    #[error(transparent)]
    Schema(#[from] finaiflow_schema::Error),
    /// Another version of the schema.
    #[error("the backup is of schema version {found}, the schema to fill is of version {known}")]
    Version {
        /// The backup's.
        found: i32,
        /// The schema's; 0 if it has not been migrated.
        known: i32,
    },
    /// Somebody has written the ledger anew, hashes and all.
    #[error("journal {} is not the one that was kept outside the database", i64::from(*.0))]
    Forged(Sequence),
    /// The object is not the one that its manifest speaks of.
    #[error("the object is not the one that the manifest speaks of: {0}")]
    OtherObject(&'static str),
}

/// What becomes of a restored bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is looked at: all is as it was.
    Look,
    /// It goes on. Its ledger begins a new epoch, and nothing that was waiting to be sent is sent.
    Work {
        /// The newest head of the ledger that was kept of what is given up for it. If what is restored has come that far
        /// in the same epoch, it has to go through it.
        abandoned: Option<Anchor>,
    },
}

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The moment.
    pub recovery_point: OffsetDateTime,
    /// The ledger's head then; before the first journal, sequence 0.
    pub head: Anchor,
    /// Its head now: where it goes on.
    pub goes_on: Anchor,
}

/// The bank that a restore's login is for.
pub async fn whose(conn: &mut PgConnection) -> Result<TenantNames, Error> {
    let (login, schema): (String, Option<String>) = sqlx::query_as("SELECT session_user::text, current_schema()::text")
        .fetch_one(conn)
        .await
        .map_err(rows::Error::from)?;
    let claim = login.strip_prefix("ff_").and_then(|login| login.strip_suffix("_restore")?.parse().ok());
    let (claim, schema) = claim.zip(schema).ok_or(rows::Error::NoSchema)?;
    Ok(TenantNames::derive(&claim, "restored", Some(&schema)).map_err(finaiflow_schema::Error::from)?)
}

/// Fills the schema of `names`, which has been migrated and has no rows. The connection's role has to be a member of the
/// owner, and need not be more.
///
/// All of it is there in the end, or nothing. Whoever is stopped before he learns which, asks again.
pub async fn restore(
    conn: &mut PgConnection,
    names: &TenantNames,
    vault: &Vault,
    plan: &Plan<'_>,
    identities: &Identities,
    used: Use,
) -> Result<Restored, Error> {
    match fill(conn, names, vault, plan, identities, used).await {
        Err(Error::Rows(rows::Error::NotEmpty(table))) if used != Use::Look => {
            let done = again::restored(conn, names, plan).await?;
            done.ok_or_else(|| rows::Error::NotEmpty(table).into())
        }
        filled => filled,
    }
}

async fn fill(
    conn: &mut PgConnection,
    names: &TenantNames,
    vault: &Vault,
    plan: &Plan<'_>,
    identities: &Identities,
    used: Use,
) -> Result<Restored, Error> {
    let (found, known) = (plan.last().schema_version, migrate::current(conn, names).await?);
    if known != Some(found) {
        return Err(Error::Version { found, known: known.unwrap_or_default() });
    }
    let mut load = Load::begin(conn, names).await?;
    let mut before: Option<&Manifest> = None;
    for artefact in plan.path() {
        let since = before.map(Since::new).transpose()?;
        read(&mut load, vault, artefact.manifest(), identities, Part::All(since.as_ref())).await?;
        before = Some(artefact.manifest());
    }
    compare(&mut load, plan.last()).await?;
    if let Some(ahead) = plan.ahead() {
        read(&mut load, vault, ahead.artefact.manifest(), identities, Part::Books).await?;
        load.advance(&plan.last().ledger, ahead.to).await?;
    }
    let (head, time) = load.head().await?;
    let recovery_point = if plan.ahead().is_some() { time } else { plan.last().created_at };
    let goes_on = match used {
        Use::Look => head,
        Use::Work { abandoned } => {
            if let Some(anchor) = abandoned
                && load.denies(anchor).await?
            {
                return Err(Error::Forged(anchor.sequence));
            }
            load.go_on(abandoned).await?
        }
    };
    load.finish().await?;
    Ok(Restored { recovery_point, head, goes_on })
}

/// What is taken of an artefact.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// All, since another one.
    All(Option<&'a Since>),
    /// Journals and what goes with them, for later.
    Books,
}

async fn read(
    load: &mut Load<'_>,
    vault: &Vault,
    manifest: &Manifest,
    identities: &Identities,
    part: Part<'_>,
) -> Result<(), Error> {
    let mut progress = Progress::default();
    let into = async |section: &Section, reader: &mut Reader<'_>| {
        let table = match part {
            Part::All(since) => Some(load.table(section, since).await?),
            Part::Books => load.stage(section).await?,
        };
        let Some(mut table) = table else { return Ok(None) };
        while let Some(text) = reader.chunk().await? {
            table.add(text).await?;
            progress.add(text.len(), &section.table, table.rows());
        }
        Ok(Some(table.finish().await?))
    };
    each_section(vault, manifest, identities, into).await?;
    if matches!(part, Part::All(_)) {
        load.end().await?;
    }
    Ok(())
}

/// Whether an artefact's object is there, can be opened and holds the rows that its manifest counts.
pub async fn check(vault: &Vault, manifest: &Manifest, identities: &Identities) -> Result<(), Error> {
    let into = async |_: &Section, reader: &mut Reader<'_>| {
        let mut tally = Tally::default();
        while let Some(text) = reader.chunk().await? {
            tally.add(text);
        }
        Ok(Some(tally))
    };
    each_section(vault, manifest, identities, into).await
}

type Reader<'o> = sections::Reader<&'o mut Hashed<vault::Stream>>;

/// Reads an object to its end. `into` takes a section's rows and counts them, or leaves them.
async fn each_section(
    vault: &Vault,
    manifest: &Manifest,
    identities: &Identities,
    mut into: impl AsyncFnMut(&Section, &mut Reader<'_>) -> Result<Option<Tally>, Error>,
) -> Result<(), Error> {
    let (bytes, stream) = vault.read(manifest.id).await?;
    if bytes != manifest.object.bytes {
        return Err(Error::OtherObject("its length differs"));
    }
    let mut object = Hashed { source: stream, digest: Sha256::default() };
    let label = Label { claim: manifest.claim_id, artefact: manifest.id };
    let mut reader = sections::Reader::new(seal::Reader::open(&mut object, identities, &label).await?);
    while let Some(section) = reader.section().await? {
        let Some(tally) = into(&section, &mut reader).await? else { continue };
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
    Ok(())
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
