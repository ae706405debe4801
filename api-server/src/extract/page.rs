//! Which part of a list is asked for.

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use finaiflow_ledger::query::Cursor;

use crate::problem::{FieldError, Problem};

const DEFAULT_LIMIT: u16 = 20;
const MAX_LIMIT: u16 = 100;

/// `?limit=` (1 to 100, default 20) and `?cursor=` (from the page before).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// How many items at most.
    pub limit: u16,
    /// Where to go on; `None` at the beginning.
    pub cursor: Option<Cursor>,
}

impl<S: Sync> FromRequestParts<S> for Page {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unreadable = |_| Problem::invalid_field("", "the query string is not readable");
        let Query(pairs): Query<Vec<(String, String)>> = parts.extract().await.map_err(unreadable)?;
        read(&pairs)
    }
}

fn read(pairs: &[(String, String)]) -> Result<Page, Problem> {
    let (mut limit, mut cursor, mut faults) = (None, None, Vec::new());
    for (name, value) in pairs {
        let fault = match name.as_str() {
            "limit" if limit.is_none() => {
                limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                limit.is_none().then(|| format!("must be an integer from 1 to {MAX_LIMIT}"))
            }
            "cursor" if cursor.is_none() => {
                cursor = value.parse().ok();
                cursor.is_none().then(|| "must be the next_cursor of an earlier answer".to_owned())
            }
            "limit" | "cursor" => Some("must not appear twice".to_owned()),
            _ => Some("is not a known parameter".to_owned()),
        };
        faults.extend(fault.map(|detail| FieldError { pointer: format!("/{name}"), detail }));
    }
    if faults.is_empty() {
        Ok(Page { limit: limit.unwrap_or(DEFAULT_LIMIT), cursor })
    } else {
        Err(Problem::invalid(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    fn page(pairs: &[(&str, &str)]) -> Result<Page, Problem> {
        read(&pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn defaults_and_bounds() {
        assert_eq!(page(&[]), Ok(Page { limit: 20, cursor: None }));
        let cursor = "aaaaaaaaaaaac".parse().unwrap();
        let pairs = [("cursor", "aaaaaaaaaaaac"), ("limit", "100")];
        assert_eq!(page(&pairs), Ok(Page { limit: 100, cursor: Some(cursor) }));
    }

    #[test]
    fn anything_else_is_refused() {
        for pairs in [
            [("limit", "0")],
            [("limit", "101")],
            [("limit", "x")],
            [("limit", "1.0")],
            [("cursor", "x")],
            [("page", "2")],
        ] {
            assert_eq!(page(&pairs).unwrap_err().code(), Code::ValidationFailed, "{pairs:?}");
        }
        assert!(page(&[("limit", "1"), ("limit", "2")]).is_err());
    }
}
