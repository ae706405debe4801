//! `GET /api/v1/audit-chain/export`

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use finaiflow_ledger::verify;

use super::{FIRST, sequence};
use crate::extract::{Caller, Filter, Params, Query};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems};
use crate::problem::{Code, Problem};
use crate::store::StoreError;
use crate::tenant::Role;

const MEDIA_TYPE: &str = "application/x-ndjson";
const DEFAULT_LIMIT: u16 = 1_000;
const MAX_LIMIT: u16 = 10_000;

/// `?from=` and `?limit=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    from: i64,
    limit: u16,
}

impl Filter for Part {
    fn read(params: &mut Params) -> Self {
        let limit = params.take("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            limit.ok_or_else(|| format!("must be an integer from 1 to {MAX_LIMIT}"))
        });
        Self { from: sequence(params, "from").unwrap_or(FIRST), limit: limit.unwrap_or(DEFAULT_LIMIT) }
    }
}

/// For the OpenAPI generator.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters to the OpenAPI generator")]
struct PartParams {
    /// The first journal.
    #[param(required = false, minimum = 1, maximum = 281_474_976_710_655_i64, example = 1)]
    from: Option<i64>,
    /// How many journals at most.
    #[param(required = false, minimum = 1, maximum = 10_000, default = 1_000)]
    limit: Option<u16>,
}

problems!(ANY, TENANT, CALLER, &[Code::Forbidden, Code::ValidationFailed]);

/// Export the chain
///
/// One journal a line with its entries, in order; nothing after the last one. Free text is left out, and the commitment
/// to it takes its place, so that an export holds no words of any customer. `finaiflow-api audit-chain verify` proves
/// it without a database. Go on from the last line's `sequence` + 1.
#[utoipa::path(
    get, path = "/api/v1/audit-chain/export", tag = "audit-chain", operation_id = "export_chain",
    security(("bearer" = [])),
    params(TenantHeader, PartParams),
    responses((status = 200, description = "The journals", content_type = MEDIA_TYPE, body = String), Problems)
)]
pub(crate) async fn export(caller: Caller, Query(part): Query<Part>) -> Result<Response, Problem> {
    caller.require(Role::Auditor)?;
    let mut connection = caller.tenant.pool.acquire().await.map_err(StoreError::from)?;
    let (records, _) = verify::page(&mut connection, part.from - 1, part.limit).await.map_err(StoreError::from)?;
    let mut lines = String::new();
    for record in &records {
        // Plain structs always have a JSON form.
        lines += &serde_json::to_string(record).unwrap_or_default();
        lines.push('\n');
    }
    Ok(([(CONTENT_TYPE, MEDIA_TYPE)], lines).into_response())
}
