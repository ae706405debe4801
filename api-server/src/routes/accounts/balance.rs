//! `GET /api/v1/accounts/{id}/balance`

use axum::Json;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::{self, Balance};
use serde::Serialize;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use crate::domain::moment::Moment;
use crate::extract::{Caller, Filter, Params, PathId, Query};
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
    /// Number of the account's movements and holds that made it so; a change makes it larger.
    #[schema(example = 7)]
    version: i64,
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
            version: balance.version,
            as_of: balance.as_of.to_offset(UtcOffset::UTC),
        }
    }
}

/// When.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AsOfParams {
    /// What was in it right after the last entry booked at or before this moment, instead of now.
    #[param(value_type = values::Moment, required = false)]
    as_of: Option<Moment>,
}

impl Filter for AsOfParams {
    fn read(params: &mut Params) -> Self {
        Self { as_of: params.take("as_of", str::parse) }
    }
}

problems!(ANY, TENANT, CALLER, &[Code::NotFound, Code::ValidationFailed]);

/// Read a balance
///
/// Now, or as it was; before the account was opened there is none.
#[utoipa::path(
    get, path = "/api/v1/accounts/{id}/balance", tag = "accounts", operation_id = "get_balance",
    security(("bearer" = [])),
    params(TenantHeader, AsOfParams, ("id" = values::AccountId, Path, description = "Id of an own account")),
    responses((status = 200, description = "The balance", body = BalanceView), Problems)
)]
pub(crate) async fn balance(
    caller: Caller,
    PathId(id): PathId<AccountId>,
    Query(AsOfParams { as_of }): Query<AsOfParams>,
) -> Result<Json<BalanceView>, Problem> {
    let (pool, scope) = (&caller.tenant.pool, caller.scope());
    let balance = match as_of {
        Some(Moment(time)) => query::balance_at(pool, scope, id, time).await,
        None => query::balance(pool, scope, id).await,
    };
    balance.map_err(StoreError::from)?.map(|balance| Json(balance.into())).ok_or_else(|| Code::NotFound.into())
}
