//! The caller's own words about a movement, in requests and in answers.

use finaiflow_ledger::command::{Memo, Metadata};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::moment::Day;
use crate::openapi::values;

/// Declares a request that ends with the caller's own words. A macro, because a flattened struct would let unknown
/// fields pass. What was not there in the first version is left out of the fingerprint where it is not given.
macro_rules! with_memo {
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($fields)*
            /// For the statement.
            #[schema(value_type = Option<values::Description>)]
            description: Option<String>,
            /// For budgets and reports.
            #[schema(value_type = Option<values::Category>)]
            category: Option<String>,
            /// The caller's own number.
            #[schema(value_type = Option<values::Reference>)]
            reference: Option<String>,
            /// At most 20 names and values of the caller's own.
            #[serde(default, skip_serializing_if = "finaiflow_ledger::command::Metadata::is_empty")]
            #[schema(value_type = values::Metadata, required = false)]
            metadata: finaiflow_ledger::command::Metadata,
            /// The day from which it counts for interest; the UTC day of booking if it is not given.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schema(value_type = Option<values::Day>)]
            value_date: Option<crate::domain::moment::Day>,
        }

        impl $name {
            /// The caller's own words; they are the ledger's from now on.
            pub(crate) fn take_memo(&mut self) -> finaiflow_ledger::command::Memo {
                finaiflow_ledger::command::Memo {
                    description: self.description.take(),
                    category: self.category.take(),
                    reference: self.reference.take(),
                    metadata: std::mem::take(&mut self.metadata),
                    value_date: self.value_date.map(|day| day.0),
                }
            }

            fn memo_faults(&self) -> Vec<crate::problem::FieldError> {
                let Self { description, category, reference, metadata, .. } = self;
                crate::routes::movement::memo_faults([description, category, reference], metadata)
            }
        }
    };
}
pub(crate) use with_memo;

/// The caller's own words, as they were given.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Memo)]
pub struct MemoView {
    /// For the statement.
    #[schema(value_type = Option<values::Description>, required = true)]
    description: Option<String>,
    /// For budgets and reports.
    #[schema(value_type = Option<values::Category>, required = true)]
    category: Option<String>,
    /// The caller's own number.
    #[schema(value_type = Option<values::Reference>, required = true)]
    reference: Option<String>,
    /// Names and values of the caller's own.
    #[schema(value_type = values::Metadata)]
    metadata: Metadata,
    /// The day from which it counts for interest.
    #[schema(value_type = values::Day)]
    value_date: Day,
}

impl MemoView {
    /// The words of what was booked at `booked_at`.
    pub(crate) fn new(memo: Memo, booked_at: OffsetDateTime) -> Self {
        Self {
            description: memo.description,
            category: memo.category,
            reference: memo.reference,
            metadata: memo.metadata,
            value_date: Day(memo.value_date.unwrap_or(booked_at.date())),
        }
    }
}
