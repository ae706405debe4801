//! `GET /api/v1/audit-chain/head`

use axum::Json;
use finaiflow_ledger::chain::Hash;
use finaiflow_ledger::verify;
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use crate::extract::Caller;
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::store::StoreError;
use crate::tenant::Role;

/// Where the chain ends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChainHead)]
pub struct HeadView {
    /// Grows when the ledger is restored.
    #[schema(example = 1)]
    epoch: u32,
    /// The last journal; 0 before the first one.
    #[schema(example = 42)]
    sequence: i64,
    /// Its hash; zeros before the first one.
    #[schema(value_type = values::ChainHash)]
    hash: Hash,
    /// When the ledger last moved.
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    /// Where the newest verification without findings saw the chain end; kept outside the database as well, in the
    /// Tenant's `status.ledger`.
    #[schema(required = true)]
    anchored: Option<AnchorView>,
}

/// A point of the chain that was verified.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChainAnchor)]
pub struct AnchorView {
    /// The journal.
    #[schema(example = 40)]
    sequence: i64,
    /// Its hash.
    #[schema(value_type = values::ChainHash)]
    hash: Hash,
    /// When the verification ended.
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

problems!(ANY, TENANT, CALLER, &[Code::Forbidden]);

/// Read where the chain ends
///
/// Whoever keeps epoch, sequence and hash can prove later that nothing up to there was changed, removed or added.
#[utoipa::path(
    get, path = "/api/v1/audit-chain/head", tag = "audit-chain", operation_id = "get_chain_head",
    security(("bearer" = [])),
    params(TenantHeader),
    responses((status = 200, description = "The end of the chain", body = HeadView), Problems)
)]
pub(crate) async fn head(caller: Caller) -> Result<Json<HeadView>, Problem> {
    caller.require(Role::Auditor)?;
    let pool = &caller.tenant.pool;
    let verified = verify::newest(pool, true).await.map_err(StoreError::from)?;
    let head = verify::head(pool).await.map_err(StoreError::from)?;
    let anchored = verified.and_then(|verified| {
        let (sequence, at) = (verified.sequence.into(), verified.finished_at.to_offset(UtcOffset::UTC));
        Some(AnchorView { sequence, hash: verified.hash()?, at })
    });
    let (sequence, time) = (head.sequence.into(), head.time.to_offset(UtcOffset::UTC));
    Ok(Json(HeadView { epoch: head.epoch, sequence, hash: head.hash, time, anchored }))
}
