//! What a ledger verification left behind.

use sqlx::types::JsonValue;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use crate::error::Result;
use crate::names::{TenantNames, quote};

/// One ledger verification's result.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct Verification {
    /// Incarnation of the ledger.
    pub epoch: i32,
    /// The newest journal it saw.
    pub sequence: i64,
    /// Whether every check passed.
    pub balanced: bool,
    /// Array of `{check, account_id?, sequence?, detail}`.
    pub findings: JsonValue,
    /// When it ended, in whole seconds since 1970.
    pub finished_at: i64,
}

/// The newest one of a migrated tenant.
pub async fn newest(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Verification>> {
    let sql = format!(
        "SELECT epoch, sequence, balanced, findings, floor(extract(epoch FROM finished_at))::bigint AS finished_at
         FROM {}.ledger_verifications ORDER BY id DESC LIMIT 1",
        quote(&names.schema)
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(conn).await?)
}
