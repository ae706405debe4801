//! Query strings: each parameter once, and none that is not known.

use axum::RequestPartsExt;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::problem::{FieldError, Problem};

/// The parameters of a request that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
    faults: Vec<FieldError>,
}

impl Params {
    /// Takes a parameter, if it is there; what is wrong with it is kept for later.
    pub fn take<T, E: ToString>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let mut values = Vec::new();
        self.pairs.retain_mut(|(found, value)| {
            let taken = found == name;
            if taken {
                values.push(std::mem::take(value));
            }
            !taken
        });
        let read = match &values[..] {
            [] => return None,
            [value] => read(value).map_err(|fault| fault.to_string()),
            _ => Err("must not appear twice".to_owned()),
        };
        read.map_err(|fault| self.faults.push(FieldError { pointer: format!("/{name}"), detail: fault })).ok()
    }

    fn finish(self) -> Result<(), Problem> {
        let unknown =
            |(name, _)| FieldError { pointer: format!("/{name}"), detail: "is not a known parameter".to_owned() };
        let faults: Vec<_> = self.faults.into_iter().chain(self.pairs.into_iter().map(unknown)).collect();
        if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
    }
}

/// What is read from a query string.
pub trait Filter: Sized {
    /// Takes its parameters.
    fn read(params: &mut Params) -> Self;
}

impl<A: Filter, B: Filter> Filter for (A, B) {
    fn read(params: &mut Params) -> Self {
        (A::read(params), B::read(params))
    }
}

/// A query string that fits `F` exactly.
#[derive(Debug, Clone)]
pub struct Query<F>(pub F);

impl<S: Sync, F: Filter> FromRequestParts<S> for Query<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let unreadable = |_| Problem::invalid_field("", "the query string is not readable");
        let axum::extract::Query(pairs) = parts.extract().await.map_err(unreadable)?;
        read(pairs).map(Self)
    }
}

/// Reads all of it.
pub(crate) fn read<F: Filter>(pairs: Vec<(String, String)>) -> Result<F, Problem> {
    let mut params = Params { pairs, faults: Vec::new() };
    let filter = F::read(&mut params);
    params.finish().map(|()| filter)
}
