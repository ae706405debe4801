//! The proof that a tenant's ledger is what the rules allow, from its rows alone.
//!
//! The tables have no foreign keys and the balances are kept beside the entries, for speed; this is what makes up for
//! both. It reads one snapshot and needs no more than SELECT on the ledger's tables.

use serde::Serialize;
use sqlx::types::Json;
use sqlx::{Connection, FromRow, PgConnection};
use time::OffsetDateTime;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check that failed.
    pub check: String,
    /// The account concerned, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// The journal concerned, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// For people. Amounts are minor units.
    pub detail: String,
}

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    started_at: OffsetDateTime,
}

// The head may be gone; that is a finding, not a failure.
const HEAD: &str = "
    SELECT coalesce(max(epoch), 0) AS epoch, coalesce(max(sequence), 0) AS sequence, now() AS started_at
    FROM ledger_head";

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

/// Checks the whole ledger of the tenant `connection` belongs to.
///
/// An error means the ledger could not be read, not that it is wrong.
pub async fn run(connection: &mut PgConnection) -> Result<Report, sqlx::Error> {
    let mut snapshot = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let head: HeadRow = sqlx::query_as(HEAD).fetch_one(&mut *snapshot).await?;
    let rows: Vec<FindingRow> =
        sqlx::query_as(include_str!("verify.sql")).bind(i64::from(MAX_FINDINGS)).fetch_all(&mut *snapshot).await?;
    let finished_at = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut *snapshot).await?;
    snapshot.commit().await?;
    let unlisted = rows.first().map_or(0, |row| row.total - i64::from(MAX_FINDINGS));
    let mut findings: Vec<_> = rows.into_iter().map(Finding::from).collect();
    if unlisted > 0 {
        let detail = format!("{unlisted} more findings are not listed");
        findings.push(Finding { check: "more-findings".to_owned(), account_id: None, sequence: None, detail });
    }
    let HeadRow { epoch, sequence, started_at } = head;
    Ok(Report { started_at, finished_at, epoch, sequence, findings })
}

/// Leaves `report` where the operator reads it.
pub async fn record(connection: &mut PgConnection, report: &Report) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO ledger_verifications (started_at, finished_at, epoch, sequence, balanced, findings)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(report.started_at)
    .bind(report.finished_at)
    .bind(report.epoch.cast_signed())
    .bind(i64::from(report.sequence))
    .bind(report.balanced())
    .bind(Json(&report.findings))
    .execute(connection)
    .await?;
    Ok(())
}
