//! `GET /api/v1/accounts/{id}/balance`

use axum::Json;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::{self, Balance};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use crate::extract::{Caller, PathId};
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::store::StoreError;

/// What is in an account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Balance)]
pub struct BalanceView {
    /// The account.
    #[schema(value_type = values::AccountId)]
    account_id: AccountId,
    /// The account's.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// Booked balance in minor units.
    #[schema(example = 10000)]
    balance: i64,
    /// Booked balance without what is held, in minor units.
    #[schema(example = 9000)]
    available: i64,
    /// What is held, in minor units.
    #[schema(example = 1000)]
    held: i64,
    /// When it was so.
    #[serde(with = "time::serde::rfc3339")]
    as_of: OffsetDateTime,
}

impl From<Balance> for BalanceView {
    fn from(balance: Balance) -> Self {
        Self {
            account_id: balance.account_id,
            currency: balance.currency,
            balance: balance.balance,
            available: balance.available,
            held: balance.held,
            as_of: balance.as_of.to_offset(UtcOffset::UTC),
        }
    }
}

problems!(ANY, TENANT, CALLER, &[Code::NotFound]);

/// Read a balance
#[utoipa::path(
    get, path = "/api/v1/accounts/{id}/balance", tag = "accounts", operation_id = "get_balance",
    security(("bearer" = [])),
    params(TenantHeader, ("id" = values::AccountId, Path, description = "Id of an own account")),
    responses((status = 200, description = "The balance", body = BalanceView), Problems)
)]
pub(crate) async fn balance(caller: Caller, PathId(id): PathId<AccountId>) -> Result<Json<BalanceView>, Problem> {
    let balance = query::balance(&caller.tenant.pool, caller.subject.user_id, id).await.map_err(StoreError::from)?;
    balance.map(|balance| Json(balance.into())).ok_or_else(|| Code::NotFound.into())
}
