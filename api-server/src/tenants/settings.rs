//! What a Tenant's spec says about requests.

use finaiflow_crds::TenantSpec;
use finaiflow_crds::tenant::EmailVerification as Verification;
use finaiflow_ledger::money::Currency;

use crate::tenant::{EmailVerification, TenantSettings};

/// A spec that admission accepts but this server cannot serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SettingsError {
    /// Not a currency that this version knows.
    #[error("spec.currencies: {0} is not a known ISO 4217 code")]
    Currency(String),
    /// Admission bounds these; an object that predates the rule may not hold to it.
    #[error("spec.auth.{0} is negative")]
    Negative(&'static str),
}

/// The settings of the Tenant called `name`.
pub(super) fn settings(name: &str, spec: &TenantSpec) -> Result<TenantSettings, SettingsError> {
    let currency = |code: &String| code.parse::<Currency>().map_err(|_| SettingsError::Currency(code.clone()));
    let number = |field, value: i32| u32::try_from(value).map_err(|_| SettingsError::Negative(field));
    Ok(TenantSettings {
        display_name: spec.display_name.clone().unwrap_or_else(|| name.to_owned()),
        currencies: spec.currencies.iter().map(currency).collect::<Result<_, _>>()?,
        self_deposit: spec.payments.self_deposit,
        access_token_minutes: number("accessTokenMinutes", spec.auth.access_token_minutes)?,
        refresh_token_days: number("refreshTokenDays", spec.auth.refresh_token_days)?,
        email_verification: match spec.auth.email_verification {
            Verification::Required => EmailVerification::Required,
            Verification::Optional => EmailVerification::Optional,
        },
        allowed_origins: spec.auth.allowed_origins.clone(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_spec_has_the_documented_defaults() {
        let settings = settings("acme", &serde_json::from_value(json!({})).unwrap()).unwrap();
        assert_eq!(settings.display_name, "acme");
        assert_eq!(settings.currencies.len(), 5);
        assert!(!settings.self_deposit);
        assert_eq!((settings.access_token_minutes, settings.refresh_token_days), (30, 7));
        assert_eq!(settings.email_verification, EmailVerification::Required);
    }

    #[test]
    fn every_field_is_taken_over() {
        let spec = json!({
            "displayName": "Acme", "currencies": ["CHF"], "payments": {"selfDeposit": true},
            "auth": {"accessTokenMinutes": 5, "refreshTokenDays": 1, "emailVerification": "Optional",
                     "allowedOrigins": ["https://app.acme.example"]},
        });
        let settings = settings("acme", &serde_json::from_value(spec).unwrap()).unwrap();
        assert_eq!(settings.display_name, "Acme");
        assert_eq!(settings.currencies, ["CHF".parse().unwrap()]);
        assert!(settings.self_deposit);
        assert_eq!((settings.access_token_minutes, settings.refresh_token_days), (5, 1));
        assert_eq!(settings.email_verification, EmailVerification::Optional);
        assert_eq!(settings.allowed_origins, ["https://app.acme.example"]);
    }

    #[test]
    fn an_unknown_currency_is_named() {
        let spec = serde_json::from_value(json!({"currencies": ["USD", "QQQ"]})).unwrap();
        assert_eq!(settings("acme", &spec).unwrap_err(), SettingsError::Currency("QQQ".to_owned()));
    }
}
