//! Ids in paths.

use std::str::FromStr;

use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use crate::problem::{Code, Problem};

/// The only id in the path. One that cannot exist is answered like one that does not.
#[derive(Debug, Clone, Copy)]
pub struct PathId<T>(pub T);

impl<S: Sync, T: FromStr> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Path(text): Path<String> = parts.extract().await.map_err(|_| Problem::from(Code::NotFound))?;
        text.parse().map(Self).map_err(|_| Code::NotFound.into())
    }
}
