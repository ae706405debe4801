//! What a Tenant's spec says about requests.

use std::sync::Arc;

use finaiflow_crds::TenantSpec;
use finaiflow_crds::tenant::{EmailVerification as Verification, StaffMember, StaffRole};
use finaiflow_ledger::money::Currency;
use uuid::Uuid;

use crate::domain::id;
use crate::tenant::{EmailVerification, Role, TenantSettings};

/// A spec that admission accepts but this server cannot serve.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SettingsError {
    /// Not a currency that this version knows.
    #[error("spec.currencies: {0} is not a known ISO 4217 code")]
    Currency(String),
    /// Admission bounds these; an object that predates the rule may not hold to it.
    #[error("spec.auth.{0} is negative")]
    Negative(&'static str),
    /// Not the id of a user.
    #[error("spec.staff: {0} is not the id of a user")]
    Staff(String),
}

/// The settings of the Tenant called `name`.
pub(super) fn settings(name: &str, spec: &TenantSpec) -> Result<TenantSettings, SettingsError> {
    let currency = |code: &String| code.parse::<Currency>().map_err(|_| SettingsError::Currency(code.clone()));
    let number = |field, value: i32| u32::try_from(value).map_err(|_| SettingsError::Negative(field));
    Ok(TenantSettings {
        display_name: spec.display_name.clone().unwrap_or_else(|| name.to_owned()),
        currencies: spec.currencies.iter().map(currency).collect::<Result<_, _>>()?,
        self_deposit: spec.payments.self_deposit,
        staff: Arc::new(spec.staff.iter().filter_map(|member| role(member).transpose()).collect::<Result<_, _>>()?),
        access_token_minutes: number("accessTokenMinutes", spec.auth.access_token_minutes)?,
        refresh_token_days: number("refreshTokenDays", spec.auth.refresh_token_days)?,
        email_verification: match spec.auth.email_verification {
            Verification::Required => EmailVerification::Required,
            Verification::Optional => EmailVerification::Optional,
        },
        allowed_origins: spec.auth.allowed_origins.clone(),
    })
}

/// Who it is and the highest of the roles; none without one.
fn role(member: &StaffMember) -> Result<Option<(Uuid, Role)>, SettingsError> {
    let user = id::decode(id::USER, &member.user).ok_or_else(|| SettingsError::Staff(member.user.clone()))?;
    let role = member.roles.iter().map(|role| match role {
        StaffRole::Auditor => Role::Auditor,
        StaffRole::Teller => Role::Teller,
    });
    Ok(role.max().map(|role| (user, role)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_spec_has_the_documented_defaults() {
        let settings = settings("acme", &serde_json::from_value(json!({})).unwrap()).unwrap();
        assert_eq!(settings.display_name, "acme");
        assert_eq!(settings.currencies.len(), 5);
        assert!(!settings.self_deposit);
        assert!(settings.staff.is_empty());
        assert_eq!((settings.access_token_minutes, settings.refresh_token_days), (30, 7));
        assert_eq!(settings.email_verification, EmailVerification::Required);
    }

    #[test]
    fn every_field_is_taken_over() {
        let spec = json!({
            "displayName": "Acme", "currencies": ["CHF"], "payments": {"selfDeposit": true},
            "staff": [{"user": "usr_agiaaaaaabyabaaaaaaaaaaaae", "roles": ["Teller", "Auditor"]},
                      {"user": "usr_aaaaaaaaaaaaaaaaaaaaaaaaae", "roles": ["Auditor"]},
                      {"user": "usr_aaaaaaaaaaaaaaaaaaaaaaaaai", "roles": []}],
            "auth": {"accessTokenMinutes": 5, "refreshTokenDays": 1, "emailVerification": "Optional",
                     "allowedOrigins": ["https://app.acme.example"]},
        });
        let settings = settings("acme", &serde_json::from_value(spec).unwrap()).unwrap();
        assert_eq!(settings.display_name, "Acme");
        assert_eq!(settings.currencies, ["CHF".parse().unwrap()]);
        assert!(settings.self_deposit);
        let teller = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        assert_eq!(*settings.staff, HashMap::from([(teller, Role::Teller), (Uuid::from_u128(1), Role::Auditor)]));
        assert_eq!((settings.access_token_minutes, settings.refresh_token_days), (5, 1));
        assert_eq!(settings.email_verification, EmailVerification::Optional);
        assert_eq!(settings.allowed_origins, ["https://app.acme.example"]);
    }

    #[test]
    fn an_unknown_currency_is_named() {
        let spec = serde_json::from_value(json!({"currencies": ["USD", "QQQ"]})).unwrap();
        assert_eq!(settings("acme", &spec).unwrap_err(), SettingsError::Currency("QQQ".to_owned()));
    }

    #[test]
    fn whoever_is_no_user_is_named() {
        let spec = serde_json::from_value(json!({"staff": [{"user": "usr_ada", "roles": ["Teller"]}]})).unwrap();
        assert_eq!(settings("acme", &spec).unwrap_err(), SettingsError::Staff("usr_ada".to_owned()));
    }
}
