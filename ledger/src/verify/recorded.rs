//! What verifications leave behind, and the end of the chain as it is.

use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use time::OffsetDateTime;

use super::{Finding, Report};
use crate::chain::Hash;
use crate::id::Sequence;
use crate::rules::Head;

/// A verification that has ended.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Recorded {
    /// Epoch of the ledger.
    #[sqlx(try_from = "i32")]
    pub epoch: u32,
    /// The last journal it saw.
    #[sqlx(try_from = "i64")]
    pub sequence: Sequence,
    #[sqlx(try_from = "Option<[u8; 32]>")]
    hash: Stored,
    /// Whether nothing was wrong.
    pub balanced: bool,
    /// What was wrong.
    #[sqlx(json)]
    pub findings: Vec<Finding>,
    /// When it ended.
    pub finished_at: OffsetDateTime,
}

/// A hash in a column; none from before there were hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored(Option<Hash>);

impl From<Option<[u8; 32]>> for Stored {
    fn from(bytes: Option<[u8; 32]>) -> Self {
        Self(bytes.map(Hash))
    }
}

impl Recorded {
    /// The last journal's hash; none from before there were hashes.
    #[must_use]
    pub fn hash(&self) -> Option<Hash> {
        self.hash.0
    }
}

const NEWEST: &str = "
    SELECT epoch, sequence, hash, balanced, findings, finished_at FROM ledger_verifications
    WHERE balanced OR NOT $1 ORDER BY id DESC LIMIT 1";

/// The newest verification, or the newest that found nothing wrong.
pub async fn newest(pool: &PgPool, balanced: bool) -> Result<Option<Recorded>, sqlx::Error> {
    sqlx::query_as(NEWEST).bind(balanced).fetch_optional(pool).await
}

#[derive(FromRow)]
struct HeadRow {
    #[sqlx(try_from = "i32")]
    epoch: u32,
    #[sqlx(try_from = "i64")]
    sequence: Sequence,
    head_time: OffsetDateTime,
    hash: [u8; 32],
}

/// The end of the ledger.
pub async fn head(pool: &PgPool) -> Result<Head, sqlx::Error> {
    let row: HeadRow =
        sqlx::query_as("SELECT epoch, sequence, head_time, hash FROM ledger_head").fetch_one(pool).await?;
    Ok(Head { epoch: row.epoch, sequence: row.sequence, time: row.head_time, hash: Hash(row.hash) })
}

/// Leaves `report` where the operator reads it.
pub async fn record(connection: &mut PgConnection, report: &Report) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO ledger_verifications (started_at, finished_at, epoch, sequence, hash, balanced, findings)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(report.started_at)
    .bind(report.finished_at)
    .bind(report.epoch.cast_signed())
    .bind(i64::from(report.sequence))
    .bind(report.hash.0.as_slice())
    .bind(report.balanced())
    .bind(Json(&report.findings))
    .execute(connection)
    .await?;
    Ok(())
}
