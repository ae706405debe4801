//! Which part of a list is asked for.

use finaiflow_ledger::query::Cursor;

use crate::extract::query::{Filter, Params};

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

impl Filter for Page {
    fn read(params: &mut Params) -> Self {
        let limit = params.take("limit", |text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            limit.ok_or_else(|| format!("must be an integer from 1 to {MAX_LIMIT}"))
        });
        let cursor =
            params.take("cursor", |text| text.parse().map_err(|_| "must be the next_cursor of an earlier answer"));
        Self { limit: limit.unwrap_or(DEFAULT_LIMIT), cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::query::read;
    use crate::problem::{Code, Problem};

    fn page(pairs: &[(&str, &str)]) -> Result<Page, Problem> {
        read(pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
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
