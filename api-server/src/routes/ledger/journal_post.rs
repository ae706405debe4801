//! `POST /api/v1/journals`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::{AccountId, Leg};
use finaiflow_ledger::money::{Currency, MAX_MINOR_UNITS};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::ledger::journal::JournalView;
use crate::routes::memo::with_memo;
use crate::routes::movement;
use crate::tenant::Role;

/// What one account gains.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLeg {
    /// Any account of the tenant, the bank's own too; each once.
    #[schema(value_type = values::AccountId)]
    account_id: AccountId,
    /// Minor units, not zero; below zero: what it loses.
    #[schema(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64, example = -2500)]
    amount: i64,
}

with_memo! {
    /// Money that moves between any accounts.
    pub struct NewJournal {
        /// 2 to 62 accounts and what they gain, which adds up to zero.
        #[schema(min_items = 2, max_items = 62)]
        legs: Vec<NewLeg>,
        /// Must be the currency of all accounts.
        #[schema(value_type = values::Currency)]
        currency: Currency,
    }
}

impl Validate for NewJournal {
    fn faults(&self) -> Vec<FieldError> {
        let count = (!(2..=Leg::MAX).contains(&self.legs.len()))
            .then(|| FieldError::new("/legs", format!("must have 2 to {} items", Leg::MAX)));
        let unfit = |leg: &NewLeg| !(-MAX_MINOR_UNITS..=MAX_MINOR_UNITS).contains(&leg.amount);
        let faulty = self.legs.iter().enumerate().filter(|(_, leg)| unfit(leg)).map(|(index, _)| {
            let detail = format!("must be an integer from -{MAX_MINOR_UNITS} to {MAX_MINOR_UNITS}");
            FieldError::new(&format!("/legs/{index}/amount"), detail)
        });
        count.into_iter().chain(faulty).chain(self.memo_faults()).collect()
    }
}

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::Forbidden, Code::NotFound, Code::Unbalanced, Code::InsufficientFunds, Code::CurrencyMismatch],
    &[Code::SameAccount, Code::LimitExceeded, Code::AccountNotActive],
);

/// Post a journal
///
/// Money moves between two or more accounts, all at once: fees, corrections, what the bank holds. For tellers.
#[utoipa::path(
    post, path = "/api/v1/journals", tag = "ledger", operation_id = "post_journal", security(("bearer" = [])),
    params(TenantHeader, KeyHeader), request_body = NewJournal,
    responses(
        (status = 201, description = "The money has moved", body = JournalView, links(
            ("journal" = (operation_id = "get_journal", parameters(("id" = "$response.body#/id")))),
            ("reverse" = (operation_id = "reverse_journal", parameters(("id" = "$response.body#/id"))))
        )),
        Problems
    )
)]
pub(crate) async fn post(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(mut request): JsonBody<NewJournal>,
) -> Result<(StatusCode, Json<JournalView>), Problem> {
    caller.require(Role::Teller)?;
    let fingerprint = movement::identify(&caller, ("POST", "/api/v1/journals"), &request)?;
    let (currency, memo) = (request.currency, request.take_memo());
    let legs = request.legs.into_iter().map(|leg| (leg.account_id, leg.amount)).collect();
    match movement::carry_out(&caller, key, fingerprint, CommandKind::Journal { legs, currency, memo }).await? {
        Outcome::Journal(record) => Ok((StatusCode::CREATED, Json(JournalView::of(caller.subject.user_id, record)))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
