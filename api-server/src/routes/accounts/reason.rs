//! Why an account is frozen, let go or closed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::text;
use crate::extract::Validate;
use crate::openapi::values;
use crate::problem::FieldError;

const MAX_REASON: usize = 500;

/// Why.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// Kept with the change.
    #[schema(value_type = Option<values::ReasonText>)]
    pub(crate) reason: Option<String>,
}

impl Validate for Reason {
    fn faults(&self) -> Vec<FieldError> {
        let fault = self.reason.as_ref().and_then(|reason| text::fault(reason, MAX_REASON));
        fault.map(|detail| FieldError::new("/reason", detail)).into_iter().collect()
    }
}
