//! `POST /api/v1/accounts`

use axum::Json;
use axum::http::StatusCode;
use finaiflow_ledger::command::{AccountType, CommandKind, Metadata, Outcome};
use finaiflow_ledger::money::Currency;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::text;
use crate::extract::{Caller, IdempotencyKey, JsonBody, Validate};
use crate::openapi::{ANY, BODY, CALLER, KEYED, KeyHeader, TENANT, TenantHeader, problems, values};
use crate::problem::{FieldError, Problem};
use crate::routes::accounts::account::AccountView;
use crate::routes::movement::{self, metadata_faults};
use crate::tenant::Tenant;

const MAX_NAME: usize = 100;

/// A new account.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// What it is for.
    #[serde(rename = "type")]
    #[schema(value_type = values::AccountType)]
    account_type: AccountType,
    /// One of the tenant's currencies.
    #[schema(value_type = values::Currency)]
    currency: Currency,
    /// The owner's name for it.
    #[schema(value_type = values::AccountName)]
    name: String,
    /// At most 20 names and values of the owner's own.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    #[schema(value_type = values::Metadata, required = false)]
    metadata: Metadata,
}

impl Validate for NewAccount {
    fn faults(&self) -> Vec<FieldError> {
        name_faults(&self.name).into_iter().chain(metadata_faults(&self.metadata)).collect()
    }
}

/// What is wrong with the name of an account.
pub(crate) fn name_faults(name: &str) -> Vec<FieldError> {
    text::fault(name, MAX_NAME).map(|detail| FieldError::new("/name", detail)).into_iter().collect()
}

problems!(ANY, TENANT, CALLER, BODY, KEYED);

/// Open an account
#[utoipa::path(
    post, path = "/api/v1/accounts", tag = "accounts", operation_id = "open_account", security(("bearer" = [])),
    params(TenantHeader, KeyHeader), request_body = NewAccount,
    responses(
        (status = 201, description = "The account is open", body = AccountView, links(
            ("account" = (operation_id = "get_account", parameters(("id" = "$response.body#/id")))),
            ("balance" = (operation_id = "get_balance", parameters(("id" = "$response.body#/id")))),
            ("transactions" = (operation_id = "list_transactions", parameters(("id" = "$response.body#/id")))),
            ("deposit" = (operation_id = "deposit", parameters(("id" = "$response.body#/id")))),
            ("withdraw" = (operation_id = "withdraw", parameters(("id" = "$response.body#/id")))),
            ("close" = (operation_id = "close_account", parameters(("id" = "$response.body#/id"))))
        )),
        Problems
    )
)]
pub(crate) async fn open(
    caller: Caller,
    key: IdempotencyKey,
    JsonBody(request): JsonBody<NewAccount>,
) -> Result<(StatusCode, Json<AccountView>), Problem> {
    offered(&caller.tenant, request.currency)?;
    let kind = CommandKind::OpenAccount {
        owner: caller.subject.user_id,
        account_type: request.account_type,
        currency: request.currency,
        name: request.name.trim().to_owned(),
        metadata: request.metadata.clone(),
    };
    match movement::submit(&caller, key, ("POST", "/api/v1/accounts"), &request, kind).await? {
        Outcome::AccountOpened(account) => Ok((StatusCode::CREATED, Json(account.into()))),
        outcome => Err(movement::unexpected(&outcome)),
    }
}

/// Refuses a currency that the tenant does not have.
pub(crate) fn offered(tenant: &Tenant, currency: Currency) -> Result<(), Problem> {
    let offered = &tenant.settings.currencies;
    if offered.contains(&currency) {
        return Ok(());
    }
    let codes: Vec<_> = offered.iter().map(|currency| currency.code()).collect();
    Err(Problem::invalid_field("/currency", format!("must be one of {}", codes.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_has_its_limit() {
        let named = |name: &str| NewAccount {
            account_type: AccountType::Checking,
            currency: "USD".parse().unwrap(),
            name: name.to_owned(),
            metadata: Metadata::new(),
        };
        assert!(named("Everyday").faults().is_empty());
        assert_eq!(named(&"x".repeat(101)).faults().len(), 1);
        assert_eq!(named(" ").faults()[0].pointer, "/name");
    }
}
