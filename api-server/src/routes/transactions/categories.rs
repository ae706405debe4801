//! `GET /api/v1/categories`

use axum::Json;
use finaiflow_ledger::query::{self, Category, Page};
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::Caller;
use crate::openapi::{ANY, CALLER, TENANT, TenantHeader, problems, values};
use crate::problem::Problem;
use crate::routes::list::List;
use crate::store::StoreError;

/// The most that are told: more is no help to anybody.
const MOST: u16 = 1000;

/// A category that movements are in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CategoryCount)]
pub struct CategoryView {
    /// As it was given.
    #[schema(value_type = values::Category)]
    category: String,
    /// How many movements are in it.
    #[schema(example = 12)]
    transactions: i64,
}

impl From<Category> for CategoryView {
    fn from(Category { category, transactions }: Category) -> Self {
        Self { category, transactions }
    }
}

problems!(ANY, TENANT, CALLER);

/// List categories
///
/// Of the movements of all own accounts, the most used first; the first thousand.
#[utoipa::path(
    get, path = "/api/v1/categories", tag = "transactions", operation_id = "list_categories",
    security(("bearer" = [])), params(TenantHeader),
    responses((status = 200, description = "The categories", body = List<CategoryView>), Problems)
)]
pub(crate) async fn categories(caller: Caller) -> Result<Json<List<CategoryView>>, Problem> {
    let found = query::categories(&caller.tenant.pool, caller.subject.user_id, MOST).await;
    Ok(Json(Page { data: found.map_err(StoreError::from)?, next: None }.into()))
}
