//! `POST /api/v1/holds`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, Outcome};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::{Amount, Currency};

use crate::domain::moment::Moment;
use crate::extract::json::amount;
use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::holds::hold::HoldView;
use crate::routes::memo::with_memo;
use crate::routes::movement;

with_memo! {
    /// Money to set aside.
    pub struct NewHold {
        /// An own account.
        #[schema(value_type = values::AccountId)]
        account_id: String,
        /// Minor units.
        #[serde(deserialize_with = "amount")]
        #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 1000)]
        amount: Amount,
        /// Must be the account's.
        #[schema(value_type = values::Currency)]
        currency: Currency,
        /// When what is left of it is released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<values::Moment>)]
        expires_at: Option<Moment>,
    }
}

impl Validate for NewHold {
    fn faults(&self) -> Vec<FieldError> {
        self.memo_faults()
    }
}

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::NotFound, Code::InsufficientFunds, Code::CurrencyMismatch, Code::LimitExceeded],
    &[Code::AccountNotActive, Code::HoldExpired],
);

/// Hold money
///
/// It stays in the balance and is no longer available. Tellers capture or void it; what is left expires.
#[utoipa::path(
    post, path = "/api/v1/holds", tag = "holds", operation_id = "place_hold", security(("bearer" = [])),
    params(TenantHeader, KeyHeader), request_body = NewHold,
    responses(
        (status = 201, description = "The money is set aside", body = HoldView, links(
            ("hold" = (operation_id = "get_hold", parameters(("id" = "$response.body#/id")))),
            ("capture" = (operation_id = "capture_hold", parameters(("id" = "$response.body#/id")))),
            ("void" = (operation_id = "void_hold", parameters(("id" = "$response.body#/id"))))
        )),
        Problems
    )
)]
pub(crate) async fn place(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(mut request): JsonBody<NewHold>,
) -> Result<(StatusCode, Json<HoldView>), Problem> {
    let fingerprint = movement::identify(&caller, ("POST", "/api/v1/holds"), &request)?;
    let kind = CommandKind::PlaceHold {
        account: request.account_id.parse::<AccountId>().map_err(|_| Problem::from(Code::NotFound))?,
        destination: None,
        amount: request.amount,
        currency: request.currency,
        memo: request.take_memo(),
        expires_at: request.expires_at.map(|moment| moment.0),
    };
    match movement::carry_out(&caller, key, fingerprint, kind).await? {
        Outcome::Hold(hold) => Ok((StatusCode::CREATED, Json(hold.into()))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
