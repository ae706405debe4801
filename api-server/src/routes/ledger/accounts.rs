//! `GET /api/v1/ledger-accounts`

use axum::Json;
use finaiflow_ledger::command::{AccountKind, NormalSide};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::{self, LedgerAccount};
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::{Caller, Page, Query};
use crate::openapi::{ANY, CALLER, PageParams, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::routes::list::List;
use crate::store::StoreError;
use crate::tenant::Role;

/// An account of the bank itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LedgerAccount)]
pub struct LedgerAccountView {
    /// Opaque id.
    #[schema(value_type = values::AccountId)]
    id: AccountId,
    /// What it is for.
    #[schema(value_type = values::AccountKind)]
    kind: AccountKind,
    /// The side on which it grows.
    #[schema(value_type = values::NormalSide)]
    normal_side: NormalSide,
    /// The only currency it holds.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// For people.
    #[schema(value_type = values::AccountName)]
    name: String,
    /// Booked balance in minor units: credits less debits.
    #[schema(example = -10000)]
    balance: i64,
}

impl From<LedgerAccount> for LedgerAccountView {
    fn from(LedgerAccount { id, kind, currency, name, balance }: LedgerAccount) -> Self {
        Self { id, kind, normal_side: kind.normal_side(), currency, name, balance }
    }
}

problems!(ANY, TENANT, CALLER, &[Code::Forbidden, Code::ValidationFailed]);

/// List the bank's own accounts
///
/// The oldest first: one for settlement in each currency, those for fees, and what the bank holds. For staff.
#[utoipa::path(
    get, path = "/api/v1/ledger-accounts", tag = "ledger", operation_id = "list_ledger_accounts",
    security(("bearer" = [])), params(TenantHeader, PageParams),
    responses((status = 200, description = "The accounts", body = List<LedgerAccountView>), Problems)
)]
pub(crate) async fn accounts(
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<List<LedgerAccountView>>, Problem> {
    caller.require(Role::Auditor)?;
    let found = query::ledger_accounts(&caller.tenant.pool, page.cursor, page.limit).await;
    Ok(Json(found.map_err(StoreError::from)?.into()))
}
