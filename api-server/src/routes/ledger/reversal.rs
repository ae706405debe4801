//! What is said about a reversal.

use crate::extract::Validate;
use crate::openapi::values;
use crate::problem::FieldError;
use crate::routes::memo::with_memo;

with_memo! {
    /// Why it is undone.
    #[derive(Default)]
    pub struct Reversal {}
}

impl Validate for Reversal {
    fn faults(&self) -> Vec<FieldError> {
        self.memo_faults()
    }
}
