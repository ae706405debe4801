//! `POST /api/v1/transfers/bulk`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{CommandKind, MAX_BULK, NewTransfer as Asked, Outcome, Rejection, Transfer};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::{Amount, Currency};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::json::amount;
use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem, TYPE_BASE};
use crate::routes::memo::with_memo;
use crate::routes::movement;
use crate::routes::transfers::transfer::TransferView;

/// Largest body, in bytes: room for as many transfers as may be, each with all of its texts.
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;

/// Whether the transfers of a bulk stand and fall together.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BulkMode)]
pub enum Mode {
    /// One that is refused refuses all.
    Atomic,
    /// Each by itself, in order.
    Independent,
}

/// Several transfers at once.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBulk {
    /// Whether they stand and fall together.
    #[schema(example = "independent")]
    mode: Mode,
    /// 1 to 500 transfers.
    #[schema(min_items = 1, max_items = 500)]
    transfers: Vec<BulkTransfer>,
}

with_memo! {
    /// One transfer of a bulk.
    pub struct BulkTransfer {
        /// An own account.
        #[schema(value_type = values::AccountId)]
        from_account_id: AccountId,
        /// Any account of the tenant.
        #[schema(value_type = values::AccountId)]
        to_account_id: AccountId,
        /// Minor units.
        #[serde(deserialize_with = "amount")]
        #[schema(value_type = i64, minimum = 1, maximum = 9_007_199_254_740_991_i64, example = 2500)]
        amount: Amount,
        /// Must be the currency of both accounts.
        #[schema(value_type = values::Currency)]
        currency: Currency,
    }
}

impl From<BulkTransfer> for Asked {
    fn from(mut item: BulkTransfer) -> Self {
        let memo = item.take_memo();
        Self { from: item.from_account_id, to: item.to_account_id, amount: item.amount, currency: item.currency, memo }
    }
}

impl Validate for NewBulk {
    fn faults(&self) -> Vec<FieldError> {
        if !(1..=MAX_BULK).contains(&self.transfers.len()) {
            return vec![FieldError::new("/transfers", format!("must have 1 to {MAX_BULK} items"))];
        }
        let of_item = |(index, item): (usize, &BulkTransfer)| {
            let placed = move |mut fault: FieldError| {
                fault.pointer.insert_str(0, &pointer(index));
                fault
            };
            item.memo_faults().into_iter().map(placed)
        };
        self.transfers.iter().enumerate().flat_map(of_item).collect()
    }
}

fn pointer(index: usize) -> String {
    format!("/transfers/{index}")
}

/// What became of a bulk.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkResult {
    /// One for each transfer, in order.
    results: Vec<ItemResult>,
}

/// What became of one transfer of a bulk.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ItemResult {
    /// The money has moved.
    Completed {
        /// The transfer.
        transfer: TransferView,
    },
    /// Nothing has moved.
    Rejected {
        /// Why.
        problem: ItemProblem,
    },
}

/// Why one transfer of a bulk was refused, in the words of problems.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemProblem {
    /// URI that identifies the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "https://finaiflow.io/problems/insufficient-funds")]
    kind: String,
    /// What the kind means.
    #[schema(example = "The available balance is too low")]
    title: &'static str,
    /// The HTTP status it would have had by itself.
    #[schema(example = 422)]
    status: u16,
}

impl From<Result<Transfer, Rejection>> for ItemResult {
    fn from(result: Result<Transfer, Rejection>) -> Self {
        match result {
            Ok(transfer) => Self::Completed { transfer: transfer.into() },
            Err(rejection) => {
                let code = Problem::from(rejection).code();
                let kind = format!("{TYPE_BASE}{}", code.slug());
                Self::Rejected { problem: ItemProblem { kind, title: code.title(), status: code.status().as_u16() } }
            }
        }
    }
}

problems!(
    ANY,
    TENANT,
    CALLER,
    BODY,
    KEYED,
    &[Code::NotFound, Code::InsufficientFunds, Code::CurrencyMismatch, Code::SameAccount, Code::LimitExceeded],
    &[Code::AccountNotActive],
);

/// Transfer money many times
///
/// Up to 500 transfers under one key, in order, each seeing what the ones before it did. In an `atomic` bulk the first
/// that is refused refuses all: the answer is its problem, and `errors` points to it. In an `independent` one each has
/// a result of its own.
#[utoipa::path(
    post, path = "/api/v1/transfers/bulk", tag = "transfers", operation_id = "transfer_bulk",
    security(("bearer" = [])), params(TenantHeader, KeyHeader), request_body = NewBulk,
    responses((status = 201, description = "What became of each transfer", body = BulkResult), Problems)
)]
pub(crate) async fn bulk(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<NewBulk>,
) -> Result<(StatusCode, Json<BulkResult>), Problem> {
    let fingerprint = movement::identify(&caller, ("POST", "/api/v1/transfers/bulk"), &request)?;
    let atomic = matches!(request.mode, Mode::Atomic);
    let kind = CommandKind::Bulk { transfers: request.transfers.into_iter().map(Asked::from).collect(), atomic };
    match movement::carry_out(&caller, key, fingerprint, kind).await? {
        Outcome::Bulk(results) => {
            let results = results.into_iter().map(ItemResult::from).collect();
            Ok((StatusCode::CREATED, Json(BulkResult { results })))
        }
        Outcome::BulkRejected { index, rejection } => Err(Problem::from(rejection).at(&pointer(index))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}
