//! `POST /api/v1/transfers`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, NewTransfer as Asked, Outcome};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::{Amount, Currency};

use crate::domain::moment::Moment;
use crate::extract::json::amount;
use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::memo::with_memo;
use crate::routes::movement;
use crate::routes::transfers::transfer::TransferView;

with_memo! {
    /// A movement between two accounts.
    pub struct NewTransfer {
        /// An own account.
        #[schema(value_type = values::AccountId)]
        from_account_id: String,
        /// Any account of the tenant.
        #[schema(value_type = values::AccountId)]
        to_account_id: String,
        /// Minor units.
        #[serde(deserialize_with = "amount")]
        #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 2500)]
        amount: Amount,
        /// Must be the currency of both accounts.
        #[schema(value_type = values::Currency)]
        currency: Currency,
        /// Whether the money is only set aside, until the transfer is completed or canceled.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        #[schema(required = false, default = false)]
        pending: bool,
        /// When a pending transfer is canceled by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<values::Moment>)]
        expires_at: Option<Moment>,
    }
}

impl NewTransfer {
    fn into_command(mut self) -> Result<CommandKind, Problem> {
        let account = |text: &str| text.parse::<AccountId>().map_err(|_| Problem::from(Code::NotFound));
        let (from, to) = (account(&self.from_account_id)?, account(&self.to_account_id)?);
        let (amount, currency, memo) = (self.amount, self.currency, self.take_memo());
        Ok(if self.pending {
            let expires_at = self.expires_at.map(|moment| moment.0);
            CommandKind::PlaceHold { account: from, destination: Some(to), amount, currency, memo, expires_at }
        } else {
            CommandKind::Transfer(Asked { from, to, amount, currency, memo })
        })
    }
}

impl Validate for NewTransfer {
    fn faults(&self) -> Vec<FieldError> {
        let timeless = self.expires_at.is_some() && !self.pending;
        let timeless = timeless.then(|| FieldError::new("/expires_at", "is for pending transfers"));
        self.memo_faults().into_iter().chain(timeless).collect()
    }
}

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::NotFound, Code::InsufficientFunds, Code::CurrencyMismatch, Code::SameAccount, Code::LimitExceeded],
    &[Code::AccountNotActive, Code::HoldExpired],
);

/// Transfer money
///
/// From an own account to any account of the tenant, at once; or in two steps: one that is `pending` sets the money
/// aside until it is completed, canceled or expired.
#[utoipa::path(
    post, path = "/api/v1/transfers", tag = "transfers", operation_id = "transfer", security(("bearer" = [])),
    params(TenantHeader, KeyHeader), request_body = NewTransfer,
    responses(
        (status = 201, description = "The money has moved, or is set aside", body = TransferView, links(
            ("transfer" = (operation_id = "get_transfer", parameters(("id" = "$response.body#/id")))),
            ("complete" = (operation_id = "complete_transfer", parameters(("id" = "$response.body#/id")))),
            ("cancel" = (operation_id = "cancel_transfer", parameters(("id" = "$response.body#/id")))),
            ("reverse" = (operation_id = "reverse_transfer", parameters(("id" = "$response.body#/id")))),
            ("balance" = (operation_id = "get_balance", parameters(("id" = "$response.body#/from_account_id"))))
        )),
        Problems
    )
)]
pub(crate) async fn transfer(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<NewTransfer>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let fingerprint = movement::identify(&caller, ("POST", "/api/v1/transfers"), &request)?;
    let view = match movement::carry_out(&caller, key, fingerprint, request.into_command()?).await? {
        Outcome::Transfer(transfer) => Ok(transfer.into()),
        Outcome::Hold(hold) => TransferView::of_hold(hold).ok_or_else(|| Problem::internal("a transfer to nowhere")),
        outcome => Err(movement::unexpected(&outcome)),
    };
    view.map(|view| (StatusCode::CREATED, Json(view)))
}
