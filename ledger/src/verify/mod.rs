//! The proof that a tenant's ledger is what the rules allow, from its rows alone.
//!
//! The tables have no foreign keys and the balances are kept beside the entries, for speed; this is what makes up for
//! both. It reads one snapshot, holds no lock and needs no more than SELECT on the ledger's tables.
//!
//! What a journal says by itself and its place in the chain are proven by a [`Walk`] over all of them, page by page; what
//! the other tables make of the journals, by queries. An auditor can do the first without a database, from an export.

mod record;
mod recorded;
mod walk;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sqlx::{Connection, FromRow, PgConnection};
use time::OffsetDateTime;

pub use self::record::{Record, page};
pub use self::recorded::{Recorded, head, newest, record};
pub use self::walk::{Walk, Walked};
use crate::chain::{Anchor, Hash};
use crate::id::{AccountId, Sequence};

/// The most findings a report lists.
pub const MAX_FINDINGS: u16 = 100;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// When the snapshot was taken.
    pub started_at: OffsetDateTime,
    /// When the last check was done.
    pub finished_at: OffsetDateTime,
    /// Epoch of the ledger.
    pub epoch: u32,
    /// The last journal.
    pub sequence: Sequence,
    /// Its hash.
    pub hash: Hash,
    /// How many journals were walked through.
    pub journals: u64,
    /// What is wrong: at most [`MAX_FINDINGS`], and then one `more-findings` that counts the rest.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.findings.is_empty()
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check that failed.
    pub check: String,
    /// The account concerned, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// The journal concerned, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// For people. Amounts are minor units.
    pub detail: String,
}

/// What is wrong so far: all of it counted, a part of it kept.
#[derive(Debug, Default)]
struct Findings {
    kept: Vec<Finding>,
    of_check: HashMap<String, usize>,
    total: usize,
}

impl Findings {
    fn note(&mut self, check: &str, sequence: Option<i64>, detail: String) {
        self.push(Finding { check: check.to_owned(), account_id: None, sequence, detail });
    }

    fn push(&mut self, finding: Finding) {
        self.total += 1;
        let count = self.of_check.entry(finding.check.clone()).or_default();
        *count += 1;
        if *count <= MAX_FINDINGS.into() {
            self.kept.push(finding);
        }
    }

    /// At most [`MAX_FINDINGS`], every check's first ones before any check's second ones, and how many those are not.
    fn listed(self) -> Vec<Finding> {
        let mut ranks: HashMap<String, usize> = HashMap::new();
        let rank = |finding: Finding| {
            let rank = ranks.entry(finding.check.clone()).or_default();
            *rank += 1;
            (*rank, finding)
        };
        let mut ranked: Vec<_> = self.kept.into_iter().map(rank).collect();
        ranked.sort_by(|(rank, a), (other, b)| (rank, &a.check).cmp(&(other, &b.check)));
        let mut listed: Vec<_> = ranked.into_iter().map(|(_, finding)| finding).take(MAX_FINDINGS.into()).collect();
        let unlisted = self.total - listed.len();
        if unlisted > 0 {
            let detail = format!("{unlisted} more findings are not listed");
            listed.push(Finding { check: "more-findings".to_owned(), account_id: None, sequence: None, detail });
        }
        listed
    }
}

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    hash: Vec<u8>,
    started_at: OffsetDateTime,
}

// The head may be gone; that is a finding, not a failure.
const HEAD: &str = "
    SELECT coalesce(epoch, 0) AS epoch, coalesce(sequence, 0) AS sequence, coalesce(hash, '') AS hash, now() AS started_at
    FROM (SELECT 1) AS one LEFT JOIN ledger_head ON true LIMIT 1";

/// How many journals are read at a time.
const PAGE: u16 = 2000;

#[derive(FromRow)]
struct AnchorRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    hash: [u8; 32],
}

/// The newest verifications without findings.
const ANCHORS: &str = "
    SELECT DISTINCT epoch, sequence, hash
    FROM (SELECT epoch, sequence, hash FROM ledger_verifications
        WHERE balanced AND hash IS NOT NULL AND sequence > 0 ORDER BY id DESC LIMIT 1000) AS newest";

const BEFORE: &str = "SELECT epoch, sequence, hash FROM journals WHERE sequence < $1 ORDER BY sequence DESC LIMIT 1";

impl From<AnchorRow> for Anchor {
    fn from(AnchorRow { epoch, sequence, hash }: AnchorRow) -> Self {
        Self { epoch, sequence, hash: Hash(hash) }
    }
}

#[derive(FromRow)]
struct FindingRow {
    name: String,
    account_id: Option<i64>,
    account_epoch: Option<i32>,
    sequence: Option<i64>,
    detail: String,
    total: i64,
}

impl From<FindingRow> for Finding {
    fn from(row: FindingRow) -> Self {
        let place =
            |epoch, id| Some(AccountId { epoch: u32::try_from(epoch).ok()?, sequence: Sequence::try_from(id).ok()? });
        Self {
            check: row.name,
            account_id: row.account_epoch.zip(row.account_id).and_then(|(epoch, id)| place(epoch, id)),
            sequence: row.sequence,
            detail: row.detail,
        }
    }
}

/// Checks the whole ledger of the tenant `connection` belongs to. The chain has to pass through where earlier
/// verifications have seen it end.
///
/// An error means the ledger could not be read, not that it is wrong.
pub async fn run(connection: &mut PgConnection) -> Result<Report, sqlx::Error> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let head: HeadRow = sqlx::query_as(HEAD).fetch_one(&mut *snapshot).await?;
    let anchors = anchors(&mut snapshot).await?;
    let Walked { journals, mut findings, .. } = walk(&mut snapshot, Walk::new(None, anchors), None).await?;
    let rows: Vec<FindingRow> =
        sqlx::query_as(include_str!("checks.sql")).bind(i64::from(MAX_FINDINGS)).fetch_all(&mut *snapshot).await?;
    let finished_at = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *snapshot).await?;
    snapshot.commit().await?;
    let total = rows.first().map_or(0, |row| usize::try_from(row.total).unwrap_or(usize::MAX));
    findings.total += total.saturating_sub(rows.len());
    for row in rows {
        findings.push(row.into());
    }
    let HeadRow { epoch, sequence, hash, started_at } = head;
    let hash = Hash(hash.try_into().unwrap_or_default());
    Ok(Report { started_at, finished_at, epoch, sequence, hash, journals, findings: findings.listed() })
}

/// Checks the journals from `from` to `to` by themselves and as links of the chain, on what the one before them says.
pub async fn range(connection: &mut PgConnection, from: Sequence, to: Sequence) -> Result<Walked, sqlx::Error> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let before: Option<AnchorRow> = sqlx::query_as(BEFORE).bind(i64::from(from)).fetch_optional(&mut *snapshot).await?;
    let mut anchors = anchors(&mut snapshot).await?;
    anchors.retain(|anchor| (from..=to).contains(&anchor.sequence));
    let walked = walk(&mut snapshot, Walk::new(before.map(Anchor::from), anchors), Some(to)).await?;
    snapshot.commit().await?;
    Ok(walked)
}

/// Checks the journals after one that is known up to `to`, in the caller's transaction.
pub async fn onward(connection: &mut PgConnection, after: Anchor, to: Sequence) -> Result<Walked, sqlx::Error> {
    // Nothing comes before the first one.
    let start = (after.sequence > Sequence::ZERO).then_some(after);
    walk(connection, Walk::new(start, Vec::new()), Some(to)).await
}

async fn anchors(connection: &mut PgConnection) -> Result<Vec<Anchor>, sqlx::Error> {
    let rows: Vec<AnchorRow> = sqlx::query_as(ANCHORS).fetch_all(connection).await?;
    Ok(rows.into_iter().map(Anchor::from).collect())
}

/// Takes `walk` through the journals after its start, up to `to` if that is given.
async fn walk(connection: &mut PgConnection, mut walk: Walk, to: Option<Sequence>) -> Result<Walked, sqlx::Error> {
    let mut after = Some(i64::from(walk.start()));
    while let Some(place) = after {
        let (records, more) = page(connection, place, PAGE).await?;
        let within = |record: &&Record| to.is_none_or(|to| record.sequence <= to);
        records.iter().take_while(within).for_each(|record| walk.step(record));
        after = more.filter(|more| to.is_none_or(|to| *more < i64::from(to)));
    }
    Ok(walk.finish())
}
