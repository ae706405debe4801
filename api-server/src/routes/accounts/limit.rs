//! `PUT /api/v1/accounts/{id}/limits`

use axum::Json;
use finaiflow_ledger::command::{AccountChange, Limits};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::MAX_MINOR_UNITS;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::{Caller, IdempotencyKey, JsonBody, PathId, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::accounts::account::{self, AccountView};

/// All limits of an account, in minor units of its currency: one that is not given is none.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLimits {
    /// What is available never falls below it by a movement; below zero it is an overdraft.
    #[serde(default)]
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64, example = 0)]
    minimum_balance: i64,
    /// The most one withdrawal, transfer or hold takes.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 500_000)]
    per_transaction: Option<i64>,
    /// The most they take together on one UTC day.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 1_000_000)]
    daily: Option<i64>,
    /// The most they take together in one UTC month.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    monthly: Option<i64>,
}

impl Validate for NewLimits {
    fn faults(&self) -> Vec<FieldError> {
        let floor = (-MAX_MINOR_UNITS..=MAX_MINOR_UNITS).contains(&self.minimum_balance);
        let floor = (!floor).then(|| {
            let detail = format!("must be an integer from -{MAX_MINOR_UNITS} to {MAX_MINOR_UNITS}");
            FieldError::new("/minimum_balance", detail)
        });
        let caps = [("/per_transaction", self.per_transaction), ("/daily", self.daily), ("/monthly", self.monthly)];
        let unfit = |cap: Option<i64>| cap.is_some_and(|cap| !(0..=MAX_MINOR_UNITS).contains(&cap));
        let detail = || format!("must be an integer from 0 to {MAX_MINOR_UNITS}");
        let caps = caps.into_iter().filter(|(_, cap)| unfit(*cap)).map(|(name, _)| FieldError::new(name, detail()));
        floor.into_iter().chain(caps).collect()
    }
}

problems!(ANY, TENANT, CALLER, BODY, KEYED, &[Code::Forbidden, Code::NotFound, Code::StatusConflict]);

/// Limit an account
///
/// Replaces all of its limits. They hold for what is moved from then on. For tellers.
#[utoipa::path(
    put, path = "/api/v1/accounts/{id}/limits", tag = "accounts", operation_id = "limit_account",
    security(("bearer" = [])),
    params(TenantHeader, KeyHeader, ("id" = values::AccountId, Path, description = "Id of an account")),
    request_body = NewLimits,
    responses((status = 200, description = "The account as it is now", body = AccountView), Problems)
)]
pub(crate) async fn limit(
    caller: Caller,
    PathId(account): PathId<AccountId>,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<NewLimits>,
) -> Result<Json<AccountView>, Problem> {
    let NewLimits { minimum_balance, per_transaction, daily, monthly } = request;
    let change = AccountChange::Limit(Limits { minimum_balance, per_transaction, daily, monthly });
    account::change(&caller, key, ("PUT", account, "/limits"), &request, change).await
}
