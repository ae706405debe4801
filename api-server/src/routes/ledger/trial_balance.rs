//! `GET /api/v1/trial-balance`

use axum::Json;
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::{self, Page, TrialBalance};
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::Caller;
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::list::List;
use crate::store::StoreError;
use crate::tenant::Role;

/// Both sides of the books in one currency, in minor units. They are equal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrialBalance)]
pub struct TrialBalanceView {
    /// The currency.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// Sum of the balances of accounts where debits prevail.
    #[schema(example = 10000)]
    debits: i64,
    /// Sum of the balances of accounts where credits prevail.
    #[schema(example = 10000)]
    credits: i64,
}

impl From<TrialBalance> for TrialBalanceView {
    fn from(TrialBalance { currency, debits, credits }: TrialBalance) -> Self {
        Self { currency, debits, credits }
    }
}

problems!(ANY, TENANT, CALLER, &[Code::Forbidden]);

/// Read the trial balance
///
/// Of all accounts, customers' and the bank's own, by currency. For staff.
#[utoipa::path(
    get, path = "/api/v1/trial-balance", tag = "ledger", operation_id = "get_trial_balance",
    security(("bearer" = [])), params(TenantHeader),
    responses((status = 200, description = "Both sides of the books", body = List<TrialBalanceView>), Problems)
)]
pub(crate) async fn trial_balance(caller: Caller) -> Result<Json<List<TrialBalanceView>>, Problem> {
    caller.require(Role::Auditor)?;
    let found = query::trial_balance(&caller.tenant.pool).await.map_err(StoreError::from)?;
    Ok(Json(Page { data: found, next: None }.into()))
}
