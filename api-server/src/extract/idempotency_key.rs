//! The `Idempotency-Key` header.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};

use crate::problem::{Code, Problem};

/// Makes a write repeatable.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const MAX_LEN: usize = 255;

/// A key of 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

fn read(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let unusable =
        || Problem::new(Code::IdempotencyKeyMissing, "send one Idempotency-Key of 1 to 255 visible ASCII characters");
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (value, another) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let key = value.to_str().map_err(|_| unusable())?;
    let usable = (1..=MAX_LEN).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    (usable && another.is_none()).then(|| Some(IdempotencyKey(key.to_owned()))).ok_or_else(unusable)
}

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(&parts.headers)?.ok_or_else(|| Problem::new(Code::IdempotencyKeyMissing, "send an Idempotency-Key"))
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Problem> {
        read(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> Result<Option<IdempotencyKey>, Problem> {
        read(&values.iter().map(|value| (IDEMPOTENCY_KEY, value.parse().unwrap())).collect())
    }

    #[test]
    fn visible_ascii_up_to_the_limit_passes() {
        let longest = "k".repeat(MAX_LEN);
        assert_eq!(key(&[&longest]), Ok(Some(IdempotencyKey(longest.clone()))));
        assert_eq!(key(&["\"8e03978e\""]), Ok(Some(IdempotencyKey("\"8e03978e\"".to_owned()))));
        assert_eq!(key(&[]), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for refused in [&[""][..], &["a b"], &[&"k".repeat(MAX_LEN + 1)], &["é"], &["a", "a"]] {
            assert_eq!(key(refused).unwrap_err().code(), Code::IdempotencyKeyMissing, "{refused:?}");
        }
    }
}
