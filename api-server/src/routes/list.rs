//! Lists in answers.

use finaiflow_ledger::query::Page;
use serde::Serialize;
use utoipa::ToSchema;

use crate::openapi::values;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The items.
    data: Vec<T>,
    /// Asks for the next page; `null` on the last one.
    #[schema(value_type = Option<values::Cursor>, required = true)]
    next_cursor: Option<String>,
}

impl<T, U: From<T>> From<Page<T>> for List<U> {
    fn from(page: Page<T>) -> Self {
        Self {
            data: page.data.into_iter().map(U::from).collect(),
            next_cursor: page.next.map(|cursor| cursor.to_string()),
        }
    }
}
