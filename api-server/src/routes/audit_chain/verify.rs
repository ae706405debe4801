//! `GET /api/v1/audit-chain/verify`

use axum::Json;
use axum::extract::State;
use finaiflow_ledger::chain::Hash;
use finaiflow_ledger::id::{AccountId, Sequence};
use finaiflow_ledger::verify::{self, Finding, Recorded};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use super::{FIRST, sequence};
use crate::app::AppState;
use crate::extract::{Caller, Filter, Params, Query};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::store::StoreError;
use crate::tenant::Role;

/// The most journals that are verified while the caller waits.
const MAX_RANGE: i64 = 10_000;

/// `?from=` and `?to=`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    from: Option<i64>,
    to: Option<i64>,
}

impl Filter for Range {
    fn read(params: &mut Params) -> Self {
        Self { from: sequence(params, "from"), to: sequence(params, "to") }
    }
}

impl Range {
    /// None if no range is asked for; one that is half open is as long as may be.
    fn bounds(self) -> Result<Option<(Sequence, Sequence)>, Problem> {
        let (from, to) = match (self.from, self.to) {
            (None, None) => return Ok(None),
            (Some(from), None) => (from, (from + MAX_RANGE - 1).min(Sequence::MAX.into())),
            (None, Some(to)) => ((to - MAX_RANGE + 1).max(FIRST), to),
            (Some(from), Some(to)) => (from, to),
        };
        let refused = |_| Problem::invalid_field("/from", "must be the sequence of a journal");
        if (from..from + MAX_RANGE).contains(&to) {
            Ok(Some((from.try_into().map_err(refused)?, to.try_into().map_err(refused)?)))
        } else {
            Err(Problem::invalid_field("/to", format!("must be at least from, and at most {} above it", MAX_RANGE - 1)))
        }
    }
}

/// For the OpenAPI generator.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes parameters to the OpenAPI generator")]
struct RangeParams {
    /// The first journal to verify now. Without it and `to`, what the last whole verification found is told.
    #[param(required = false, minimum = 1, maximum = 281_474_976_710_655_i64, example = 1)]
    from: Option<i64>,
    /// The last one; at most 9,999 above `from`.
    #[param(required = false, minimum = 1, maximum = 281_474_976_710_655_i64, example = 100)]
    to: Option<i64>,
}

/// What a verification found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChainVerification)]
pub struct VerificationView {
    /// Whether nothing was wrong.
    balanced: bool,
    /// The last journal that was verified; 0 if there was none.
    #[schema(example = 42)]
    sequence: i64,
    /// Its hash.
    #[schema(value_type = Option<values::ChainHash>, required = true)]
    hash: Option<Hash>,
    /// What was wrong: at most 100 findings of each check.
    findings: Vec<FindingView>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    verified_at: OffsetDateTime,
}

/// One thing that is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChainFinding)]
pub struct FindingView {
    /// Name of the check that failed.
    #[schema(example = "chain")]
    check: String,
    /// The account concerned, if there is one.
    #[schema(value_type = Option<values::AccountId>, required = true)]
    account_id: Option<AccountId>,
    /// The journal concerned, if there is one.
    #[schema(required = true, example = 42)]
    sequence: Option<i64>,
    /// For people. Amounts are minor units.
    detail: String,
}

impl From<Finding> for FindingView {
    fn from(Finding { check, account_id, sequence, detail }: Finding) -> Self {
        Self { check, account_id, sequence, detail }
    }
}

impl From<Recorded> for VerificationView {
    fn from(recorded: Recorded) -> Self {
        Self {
            balanced: recorded.balanced,
            sequence: recorded.sequence.into(),
            hash: recorded.hash(),
            findings: recorded.findings.into_iter().map(FindingView::from).collect(),
            verified_at: recorded.finished_at.to_offset(UtcOffset::UTC),
        }
    }
}

problems!(ANY, TENANT, CALLER, &[Code::Forbidden, Code::NotFound, Code::ValidationFailed]);

/// Verify the chain
///
/// With `from` or `to`, the hashes and sums of those journals are computed again now. Without, what the last scheduled
/// verification of everything found; not found before the first one.
#[utoipa::path(
    get, path = "/api/v1/audit-chain/verify", tag = "audit-chain", operation_id = "verify_chain",
    security(("bearer" = [])),
    params(TenantHeader, RangeParams),
    responses((status = 200, description = "What was found", body = VerificationView), Problems)
)]
pub(crate) async fn verify(
    State(state): State<AppState>,
    caller: Caller,
    Query(range): Query<Range>,
) -> Result<Json<VerificationView>, Problem> {
    caller.require(Role::Auditor)?;
    let pool = &caller.tenant.pool;
    let Some((from, to)) = range.bounds()? else {
        let newest = verify::newest(pool, false).await.map_err(StoreError::from)?;
        return newest.map(|newest| Json(newest.into())).ok_or_else(|| Code::NotFound.into());
    };
    let mut connection = pool.acquire().await.map_err(StoreError::from)?;
    let walked = verify::range(&mut connection, from, to).await.map_err(StoreError::from)?;
    let last = walked.last.filter(|_| walked.journals > 0);
    Ok(Json(VerificationView {
        balanced: walked.findings().is_empty(),
        sequence: last.map_or(0, |last| last.sequence.into()),
        hash: last.map(|last| last.hash),
        findings: walked.findings().iter().cloned().map(FindingView::from).collect(),
        verified_at: state.now(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_at_most_ten_thousand_journals() {
        let bounds = |from, to| {
            let bounds = Range { from, to }.bounds().map_err(|problem| problem.code())?;
            Ok::<_, Code>(bounds.map(|(from, to)| (i64::from(from), i64::from(to))))
        };
        assert_eq!(bounds(None, None), Ok(None));
        assert_eq!(bounds(Some(5), None), Ok(Some((5, 10_004))));
        assert_eq!(bounds(None, Some(5)), Ok(Some((1, 5))));
        assert_eq!(bounds(None, Some(20_000)), Ok(Some((10_001, 20_000))));
        assert_eq!(bounds(Some(7), Some(7)), Ok(Some((7, 7))));
        assert_eq!(bounds(Some(1), Some(10_000)), Ok(Some((1, 10_000))));
        assert_eq!(bounds(Some(1), Some(10_001)), Err(Code::ValidationFailed));
        assert_eq!(bounds(Some(8), Some(7)), Err(Code::ValidationFailed));
        let most = i64::from(Sequence::MAX);
        assert_eq!(bounds(Some(most), None), Ok(Some((most, most))));
    }
}
