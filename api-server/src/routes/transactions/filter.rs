//! Which movements a list shows.

use finaiflow_ledger::command::TransactionType;
use finaiflow_ledger::money::{Amount, MoneyError};
use finaiflow_ledger::query::TransactionFilter;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error;

use crate::domain::moment::Moment;
use crate::domain::text;
use crate::extract::{Filter, Params};
use crate::openapi::values;

const MAX_CATEGORY: usize = 64;
const MAX_TEXT: usize = 128;

/// Which movements; those that fit all that is given.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TransactionParams {
    /// Booked then or later.
    #[param(value_type = values::Moment, required = false)]
    from: Option<Moment>,
    /// Booked before.
    #[param(value_type = values::Moment, required = false)]
    to: Option<Moment>,
    /// Of this type.
    #[param(rename = "type", value_type = values::TransactionType, required = false)]
    transaction_type: Option<TransactionType>,
    /// Of exactly this category.
    #[param(value_type = values::Category, required = false)]
    category: Option<String>,
    /// At least that many minor units, whichever way they went.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    min_amount: Option<Amount>,
    /// At most that many minor units, whichever way they went.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    max_amount: Option<Amount>,
    /// Part of the description or of the reference; case does not matter.
    #[param(value_type = values::SearchText, inline, required = false)]
    q: Option<String>,
}

impl Filter for TransactionParams {
    fn read(params: &mut Params) -> Self {
        let amount = |text: &str| {
            let minor_units = text.parse::<i64>().ok().and_then(|minor_units| Amount::try_from(minor_units).ok());
            minor_units.ok_or(MoneyError::AmountOutOfRange)
        };
        let line = |max| move |text: &str| text::fault(text, max).map_or_else(|| Ok(text.to_owned()), Err);
        let word = |text: &str| {
            TransactionType::deserialize::<serde::de::value::StrDeserializer<'_, Error>>(text.into_deserializer())
        };
        Self {
            from: params.take("from", str::parse),
            to: params.take("to", str::parse),
            transaction_type: params.take("type", word),
            category: params.take("category", line(MAX_CATEGORY)),
            min_amount: params.take("min_amount", amount),
            max_amount: params.take("max_amount", amount),
            q: params.take("q", line(MAX_TEXT)),
        }
    }
}

impl From<TransactionParams> for TransactionFilter {
    fn from(params: TransactionParams) -> Self {
        Self {
            from: params.from.map(|moment| moment.0),
            to: params.to.map(|moment| moment.0),
            transaction_type: params.transaction_type,
            category: params.category,
            min_amount: params.min_amount.map(Amount::minor_units),
            max_amount: params.max_amount.map(Amount::minor_units),
            text: params.q,
        }
    }
}
