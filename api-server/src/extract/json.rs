//! Request bodies: strict JSON, with a pointer to what does not fit.

use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use finaiflow_ledger::money::{Amount, MAX_MINOR_UNITS};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::{Path, Segment};

use crate::problem::{Code, FieldError, Problem};

/// Rules of a request beyond the types of its fields.
pub trait Validate {
    /// Every field that breaks a rule.
    fn faults(&self) -> Vec<FieldError>;
}

/// A body of `application/json` that fits `T` exactly.
#[derive(Debug, Clone)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Validate> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(&json(request, state).await?).map(Self)
    }
}

/// A body that may be left out, with its content type, or be `null`.
impl<S: Send + Sync, T: DeserializeOwned + Validate> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        if !request.headers().contains_key(CONTENT_TYPE) && request.body().is_end_stream() {
            return Ok(None);
        }
        let body = json(request, state).await?;
        if body.trim_ascii() == b"null" { Ok(None) } else { read(&body).map(|value| Some(Self(value))) }
    }
}

async fn json<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Code::UnsupportedMediaType.into());
    }
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::from(Code::PayloadTooLarge),
        _ => Problem::new(Code::Malformed, "the body ended early"),
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Syntax first, so that a broken document is `malformed` wherever it breaks; then types; then rules.
fn read<T: DeserializeOwned + Validate>(body: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::new(Code::Malformed, "the body is not UTF-8"))?;
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| Problem::new(Code::Malformed, format!("line {}, column {}", error.line(), error.column())))?;
    if !text.trim_start().starts_with('{') {
        return Err(Problem::invalid_field("", "must be an object"));
    }
    let value: T = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
        .map_err(|error| Problem::invalid(vec![field_error(error.path(), &error.inner().to_string())]))?;
    let faults = value.faults();
    if faults.is_empty() { Ok(value) } else { Err(Problem::invalid(faults)) }
}

/// Serde reports a missing or duplicate field at the object around it; the pointer should name the field.
fn field_error(path: &Path, message: &str) -> FieldError {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let named = |prefix: &str| message.strip_prefix(prefix)?.split('`').next();
    let pointer = pointer(path);
    let below = |name: &str| {
        let segment = format!("/{}", escape(name));
        if pointer.ends_with(&segment) { pointer.clone() } else { format!("{pointer}{segment}") }
    };
    if let Some(name) = named("missing field `") {
        FieldError { pointer: below(name), detail: "is required".to_owned() }
    } else if let Some(name) = named("unknown field `") {
        FieldError { pointer: below(name), detail: "is not a known field".to_owned() }
    } else if let Some(name) = named("duplicate field `") {
        FieldError { pointer: below(name), detail: "must not appear twice".to_owned() }
    } else {
        FieldError { pointer, detail: message.to_owned() }
    }
}

fn pointer(path: &Path) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escape(key)),
        Segment::Enum { variant } => format!("/{}", escape(variant)),
        Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

/// RFC 6901, section 3.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Deserializes an amount from a JSON integer only: not from `1.0`, `1e3` or `"5"`.
pub fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Amount, D::Error> {
    let minor_units = i64::deserialize(deserializer).ok();
    minor_units
        .and_then(|minor_units| Amount::try_from(minor_units).ok())
        .ok_or_else(|| D::Error::custom(format_args!("must be an integer from 1 to {MAX_MINOR_UNITS}")))
}

/// [`amount`], or `null`.
pub fn optional_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Amount>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "amount")] Amount);

    Ok(Option::<Given>::deserialize(deserializer)?.map(|Given(amount)| amount))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Payment {
        #[serde(deserialize_with = "amount")]
        amount: Amount,
        note: Option<String>,
        #[serde(default, rename = "a/b~c")]
        tags: Vec<String>,
    }

    impl Validate for Payment {
        fn faults(&self) -> Vec<FieldError> {
            let long = self.note.as_ref().is_some_and(|note| note.len() > 3);
            if long { vec![FieldError::new("/note", "is too long"), FieldError::new("/x", "y")] } else { Vec::new() }
        }
    }

    fn errors(body: &str) -> Vec<(String, String)> {
        let problem = read::<Payment>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.code(), Code::ValidationFailed, "{body}");
        let body = serde_json::to_value(problem.body("")).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        body["errors"].as_array().unwrap().iter().map(|e| (text(&e["pointer"]), text(&e["detail"]))).collect()
    }

    #[test]
    fn a_fitting_body_is_read() {
        let payment: Payment = read(br#" {"amount": 9007199254740991, "note": null, "a/b~c": ["x"]} "#).unwrap();
        assert_eq!(payment.amount.minor_units(), MAX_MINOR_UNITS);
        assert_eq!((payment.note, payment.tags), (None, vec!["x".to_owned()]));
    }

    #[test]
    fn what_is_not_json_is_malformed_wherever_it_breaks() {
        let broken: [&[u8]; 7] = [
            b"",
            b"{",
            b"amount=1",
            b"{\"amount\":\"x\",",
            b"{\"amount\":1}}",
            b"{'amount':1}",
            b"{\"note\":\"\xff\"}",
        ];
        for body in broken {
            assert_eq!(read::<Payment>(body).unwrap_err().code(), Code::Malformed, "{body:?}");
        }
    }

    #[test]
    fn amounts_are_positive_integers_only() {
        for amount in [
            "0",
            "-1",
            "1.0",
            "1.5",
            "1e3",
            "1e999",
            "\"5\"",
            "null",
            "true",
            "[1]",
            "9007199254740992",
            "1e18",
            "99999999999999999999",
        ] {
            let errors = errors(&format!("{{\"amount\":{amount}}}"));
            assert_eq!(
                errors,
                [("/amount".to_owned(), "must be an integer from 1 to 9007199254740991".to_owned())],
                "{amount}"
            );
        }
    }

    #[test]
    fn the_pointer_names_the_field() {
        for (body, pointer, detail) in [
            ("{}", "/amount", "is required"),
            (r#"{"amount":1,"extra":2}"#, "/extra", "is not a known field"),
            (r#"{"amount":1,"a~/":2}"#, "/a~0~1", "is not a known field"),
            (r#"{"amount":1,"amount":2}"#, "/amount", "must not appear twice"),
            (r#"{"amount":1,"note":5}"#, "/note", "invalid type: integer `5`, expected a string"),
            (r#"{"amount":1,"a/b~c":["x",1]}"#, "/a~1b~0c/1", "invalid type: integer `1`, expected a string"),
            ("[]", "", "must be an object"),
            ("[1,null,[]]", "", "must be an object"),
            ("null", "", "must be an object"),
            ("\"{\"", "", "must be an object"),
        ] {
            assert_eq!(errors(body), [(pointer.to_owned(), detail.to_owned())], "{body}");
        }
    }

    #[test]
    fn every_broken_rule_is_told() {
        assert_eq!(errors(r#"{"amount":1,"note":"long"}"#).len(), 2);
    }

    #[test]
    fn only_json_is_taken() {
        let json = |value: &str| is_json(&[(CONTENT_TYPE, value.parse().unwrap())].into_iter().collect());
        assert!(json("application/json") && json("Application/JSON; charset=utf-8"));
        assert!(!json("text/plain") && !json("application/json-patch+json") && !json(""));
        assert!(!is_json(&HeaderMap::new()));
    }
}
