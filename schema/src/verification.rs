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
    /// That journal's hash in hexadecimal; none from before there were hashes.
    pub hash: Option<String>,
    /// Whether every check passed.
    pub balanced: bool,
    /// Array of `{check, account_id?, sequence?, detail}`.
    pub findings: JsonValue,
    /// When it ended, in whole seconds since 1970.
    pub finished_at: i64,
}

/// What a journal says of its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Place {
    /// Incarnation of the ledger.
    pub epoch: i32,
    /// Its hash in hexadecimal.
    pub hash: String,
}

/// The place of a journal; none if it is not there. The schema must have hashes, since version 4.
pub async fn place(conn: &mut PgConnection, names: &TenantNames, sequence: i64) -> Result<Option<Place>> {
    let sql =
        format!("SELECT epoch, encode(hash, 'hex') AS hash FROM {}.journals WHERE sequence = $1", quote(&names.schema));
    Ok(sqlx::query_as(AssertSqlSafe(sql)).bind(sequence).fetch_optional(conn).await?)
}

/// The newest one of a migrated tenant.
pub async fn newest(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Verification>> {
    let sql = format!(
        "SELECT epoch, sequence, balanced, findings, floor(extract(epoch FROM finished_at))::bigint AS finished_at,
                substr(to_jsonb(v) ->> 'hash', 3) AS hash -- as JSON, because version 3 has no such column
         FROM {}.ledger_verifications v ORDER BY id DESC LIMIT 1",
        quote(&names.schema)
    );
    Ok(sqlx::query_as(AssertSqlSafe(sql)).fetch_optional(conn).await?)
}
