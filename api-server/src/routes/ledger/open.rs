//! `POST /api/v1/ledger-accounts`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{AccountKind, CommandKind, Outcome};
use finaiflow_ledger::money::Currency;
use finaiflow_ledger::query::LedgerAccount;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{Code, FieldError, Problem};
use crate::routes::accounts::open::{name_faults, offered};
use crate::routes::ledger::accounts::LedgerAccountView;
use crate::routes::movement;
use crate::tenant::Role;

/// What an account of the bank that somebody opens is for. Those for settlement open by themselves.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = NewLedgerAccountKind)]
pub enum NewKind {
    /// What the bank earns.
    Fee,
    /// What the bank holds on its own account.
    Position,
}

/// A new account of the bank itself.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLedgerAccount {
    /// What it is for.
    #[schema(example = "fee")]
    kind: NewKind,
    /// One of the tenant's currencies.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// For people.
    #[schema(value_type = values::AccountName)]
    name: String,
}

impl Validate for NewLedgerAccount {
    fn faults(&self) -> Vec<FieldError> {
        name_faults(&self.name)
    }
}

problems!(ANY, TENANT, CALLER, BODY, KEYED, &[Code::Forbidden]);

/// Open an account of the bank
///
/// For fees, or for what the bank holds. Journals move money to and from it. For tellers.
#[utoipa::path(
    post, path = "/api/v1/ledger-accounts", tag = "ledger", operation_id = "open_ledger_account",
    security(("bearer" = [])), params(TenantHeader, KeyHeader), request_body = NewLedgerAccount,
    responses((status = 201, description = "The account is open", body = LedgerAccountView), Problems)
)]
pub(crate) async fn open(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<NewLedgerAccount>,
) -> Result<(StatusCode, Json<LedgerAccountView>), Problem> {
    caller.require(Role::Teller)?;
    offered(&caller.tenant, request.currency)?;
    let kind = match request.kind {
        NewKind::Fee => AccountKind::Fee,
        NewKind::Position => AccountKind::Position,
    };
    let (currency, name) = (request.currency, request.name.trim().to_owned());
    let command = CommandKind::OpenInternal { kind, currency, name: name.clone() };
    match movement::submit(&caller, key, ("POST", "/api/v1/ledger-accounts"), &request, command).await? {
        Outcome::InternalOpened(id) => {
            let opened = LedgerAccount { id, kind, currency, name, balance: 0 };
            Ok((StatusCode::CREATED, Json(opened.into())))
        }
        outcome => Err(movement::unexpected(&outcome)),
    }
}
