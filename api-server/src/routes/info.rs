//! `GET /api/v1/info`

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::extract::Context;
use crate::openapi::{ANY, TenantHeader, problems, values};
use crate::problem::{Code, Problem};
use crate::tenant::{Tenant, TenantError};

/// The server and, where the request names one, the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct Info {
    /// Name of the product.
    #[schema(example = "FinaiFlow")]
    name: &'static str,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Version of the API.
    #[schema(example = "v1")]
    api_version: &'static str,
    /// The tenant, if the request names one.
    #[schema(required = true)]
    tenant: Option<TenantInfo>,
}

/// What anybody may know about a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantInfo {
    /// What `X-Tenant-ID` calls it.
    #[schema(value_type = values::TenantName)]
    name: String,
    /// Name shown to people.
    #[schema(example = "Acme Bank")]
    display_name: String,
    /// Currencies in which accounts may be opened.
    currencies: Vec<CurrencyInfo>,
}

/// A currency.
#[derive(Debug, Serialize, ToSchema)]
pub struct CurrencyInfo {
    /// ISO 4217 code.
    #[schema(value_type = values::Currency)]
    code: &'static str,
    /// Decimal places of the minor unit.
    #[schema(example = 2)]
    exponent: u8,
}

impl From<&Tenant> for TenantInfo {
    fn from(tenant: &Tenant) -> Self {
        let currency = |currency: &finaiflow_ledger::money::Currency| CurrencyInfo {
            code: currency.code(),
            exponent: currency.exponent(),
        };
        Self {
            name: tenant.name.clone(),
            display_name: tenant.settings.display_name.clone(),
            currencies: tenant.settings.currencies.iter().map(currency).collect(),
        }
    }
}

problems!(ANY, &[Code::TenantAmbiguous, Code::TenantNotFound, Code::TenantSuspended]);

/// Read what this server is
#[utoipa::path(
    get, path = "/api/v1/info", tag = "system", operation_id = "info", params(TenantHeader),
    responses((status = 200, description = "The server", body = Info), Problems)
)]
pub(crate) async fn info(context: Context) -> Result<Json<Info>, Problem> {
    let tenant = match &context.tenant {
        Ok(tenant) => Some(TenantInfo::from(&**tenant)),
        Err(TenantError::Required) => None,
        Err(error) => return Err(error.clone().into()),
    };
    Ok(Json(Info { name: "FinaiFlow", version: env!("CARGO_PKG_VERSION"), api_version: "v1", tenant }))
}
