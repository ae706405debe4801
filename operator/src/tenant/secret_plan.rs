//! What to do about each of a Tenant's Secrets: keep what is there, or make new contents. Part of step 2; pure.

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use finaiflow_crds::Tenant;
use finaiflow_crds::names::{ANNOTATION_CLAIM, ANNOTATION_GENERATION, SecretPurpose};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::build::{KEK, KEYS_JSON, PASSWORD, signing_keys};
use crate::catalog::{Login, LoginRecord, Observed, TenantNames};
use crate::error::{Reason, Refusal};

/// What to do about a Secret.
#[derive(Debug, Clone, PartialEq)]
pub enum SecretPlan {
    /// Its contents stay.
    Keep {
        /// The live object.
        live: Box<Secret>,
        /// Counts its contents.
        generation: i32,
    },
    /// It gets new contents.
    Renew {
        /// The live object whose contents cannot be used; None if there is none.
        live: Option<Box<Secret>>,
        /// Counts its contents.
        generation: i32,
    },
}

/// The login whose password is in a Secret.
///
/// The API server's login stays in slot a: a new password takes the old one's effect away at once.
#[must_use]
pub const fn login(purpose: SecretPurpose) -> Option<Login> {
    match purpose {
        SecretPurpose::Database => Some(Login::AppA),
        SecretPurpose::MaintenanceDatabase => Some(Login::Maintenance),
        SecretPurpose::BackupDatabase => Some(Login::Backup),
        SecretPurpose::SigningKeys | SecretPurpose::DataKey => None,
    }
}

/// Decides about one Secret. Never takes over one without the tenant's claim.
pub fn plan(
    tenant: &Tenant,
    names: &TenantNames,
    observed: &Observed,
    purpose: SecretPurpose,
    live: Option<Secret>,
) -> Result<SecretPlan, Refusal> {
    if let Some(live) = &live {
        check_owner(live, names, purpose)?;
    }
    let newest = newest_generation(tenant, names, observed, purpose, live.as_ref());
    let renew = |live: Option<Secret>| SecretPlan::Renew { live: live.map(Box::new), generation: newest + 1 };
    match live {
        None if purpose == SecretPurpose::DataKey && observed.version.is_some() => {
            let why = format!(
                "is not there; restore it from a copy, with type {} and annotation {ANNOTATION_CLAIM}: {}: a new key \
                 could not read what the old one encrypted",
                purpose.secret_type(),
                names.claim_id
            );
            Err(key_lost(tenant, &why))
        }
        None => Ok(renew(None)),
        Some(live) if is_usable(&live, names, observed, purpose) => {
            Ok(SecretPlan::Keep { live: Box::new(live), generation: newest.max(1) })
        }
        Some(_) if purpose == SecretPurpose::DataKey => {
            Err(key_lost(tenant, "does not hold 32 bytes in kek; restore it from a copy"))
        }
        Some(live) => Ok(renew(Some(live))),
    }
}

fn check_owner(live: &Secret, names: &TenantNames, purpose: SecretPurpose) -> Result<(), Refusal> {
    let claim = live.annotations().get(ANNOTATION_CLAIM);
    let is_ours = claim == Some(&names.claim_id.to_string()) && live.type_ == Some(purpose.secret_type());
    if is_ours {
        return Ok(());
    }
    let owner = match claim {
        Some(claim) if *claim != names.claim_id.to_string() => format!("belongs to claim {claim}"),
        Some(_) => format!("is not of type {}", purpose.secret_type()),
        None => "belongs to no claim".to_owned(),
    };
    let message = format!("secret {} exists and {owner}; it was not touched", live.name_any());
    Err(Refusal { reason: Reason::SecretConflict, message })
}

fn key_lost(tenant: &Tenant, why: &str) -> Refusal {
    let secret = SecretPurpose::DataKey.secret_name(&tenant.name_any());
    Refusal { reason: Reason::KeyLost, message: format!("secret {secret} {why}") }
}

/// The highest number ever given to contents of this Secret, as far as is known; 0 for none.
fn newest_generation(
    tenant: &Tenant,
    names: &TenantNames,
    observed: &Observed,
    purpose: SecretPurpose,
    live: Option<&Secret>,
) -> i32 {
    let status = tenant.status.iter().flat_map(|status| &status.secrets);
    let published = status.filter(|secret| secret.purpose == purpose.as_str()).map(|secret| secret.generation);
    let recorded = recorded(names, observed, purpose).map(|record| record.generation);
    let annotated = live.and_then(|live| live.annotations().get(ANNOTATION_GENERATION)?.parse().ok());
    let published = published.filter_map(|generation| i32::try_from(generation).ok());
    published.chain(recorded).chain(annotated).max().unwrap_or_default().max(0)
}

fn recorded<'a>(names: &TenantNames, observed: &'a Observed, purpose: SecretPurpose) -> Option<&'a LoginRecord> {
    let role = names.login(login(purpose)?).as_str();
    observed.logins.iter().find(|record| record.role == role)
}

fn is_usable(live: &Secret, names: &TenantNames, observed: &Observed, purpose: SecretPurpose) -> bool {
    let data = |key: &str| live.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    match purpose {
        SecretPurpose::DataKey => data(KEK).is_some_and(|kek| kek.len() == 32),
        SecretPurpose::SigningKeys => data(KEYS_JSON).is_some_and(signing_keys::is_usable),
        SecretPurpose::Database | SecretPurpose::MaintenanceDatabase | SecretPurpose::BackupDatabase => {
            let is_ours = |password: &&[u8]| BASE64URL_NOPAD.decode(password).is_ok_and(|bits| bits.len() == 32);
            let is_current = |password: &[u8]| match recorded(names, observed, purpose) {
                // Contents under a number that PostgreSQL knows must be what PostgreSQL was given: another password
                // under an old number would never reach the API server, which reads a Secret once per number.
                Some(record) if generation(live) <= Some(record.generation) => {
                    record.digest == digest::digest(&digest::SHA256, password).as_ref()
                }
                _ => true,
            };
            data(PASSWORD).filter(is_ours).is_some_and(is_current)
        }
    }
}

fn generation(live: &Secret) -> Option<i32> {
    live.annotations().get(ANNOTATION_GENERATION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::build::tests::{names, tenant};
    use super::*;
    use crate::catalog::fake::sha256;

    const PASSWORD_43: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";

    fn secret(purpose: SecretPurpose, generation: &str, data: &Value) -> Secret {
        let data: serde_json::Map<_, _> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, text)| (key.clone(), data_encoding::BASE64.encode(text.as_str().unwrap().as_bytes()).into()))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": purpose.secret_name("acme"), "annotations":
                {"finaiflow.io/claim-id": "0123456789abcdef", "finaiflow.io/generation": generation}},
            "type": purpose.secret_type(), "data": data,
        }))
        .unwrap()
    }

    fn observed(generation: i32, password: &str) -> Observed {
        let role = names().app_a.to_string();
        let login = LoginRecord { role, generation, digest: sha256(password) };
        Observed { version: Some(3), logins: vec![login], ..Observed::default() }
    }

    /// `keep n`, `renew n`, or the reason of a refusal.
    fn decide(purpose: SecretPurpose, live: Option<Secret>, observed: &Observed, published: i64) -> String {
        let mut tenant = tenant(&json!({}));
        let status = json!({"secrets": [{"name": "x", "purpose": purpose.as_str(), "generation": published}]});
        tenant.status = Some(serde_json::from_value(status).unwrap());
        match plan(&tenant, &names(), observed, purpose, live) {
            Ok(SecretPlan::Keep { generation, .. }) => format!("keep {generation}"),
            Ok(SecretPlan::Renew { generation, .. }) => format!("renew {generation}"),
            Err(refusal) => refusal.reason.as_str().to_owned(),
        }
    }

    #[test]
    fn logins_keep_what_postgresql_knows() {
        let database = |generation: &str, password: &str| {
            Some(secret(SecretPurpose::Database, generation, &json!({"password": password})))
        };
        let known = observed(2, PASSWORD_43);
        for (live, observed, published, expected) in [
            (database("2", PASSWORD_43), &known, 2, "keep 2"),
            // Made, and not yet given to PostgreSQL.
            (database("3", PASSWORD_43), &observed(2, "old"), 2, "keep 3"),
            (database("1", PASSWORD_43), &Observed::default(), 0, "keep 1"),
            // The number was removed by hand; the contents are the known ones.
            (database("", PASSWORD_43), &known, 2, "keep 2"),
            // Somebody's own password, a lost one, one of an old backup.
            (database("2", "hunter2"), &known, 2, "renew 3"),
            (database("9", "hunter2"), &known, 2, "renew 10"),
            (database("2", PASSWORD_43), &observed(2, "new"), 2, "renew 3"),
            (database("2", ""), &known, 2, "renew 3"),
            (database("1", PASSWORD_43), &observed(2, "new"), 2, "renew 3"),
            (None, &known, 2, "renew 3"),
            (None, &known, 7, "renew 8"),
            (None, &Observed::default(), 0, "renew 1"),
        ] {
            assert_eq!(decide(SecretPurpose::Database, live.clone(), observed, published), expected, "{live:?}");
        }
    }

    #[test]
    fn a_data_key_is_made_once() {
        let kek = |kek: &str| Some(secret(SecretPurpose::DataKey, "1", &json!({"kek": kek})));
        let (provisioned, new) = (observed(1, PASSWORD_43), Observed::default());
        for (live, observed, expected) in [
            (kek(&"k".repeat(32)), &provisioned, "keep 1"),
            (None, &new, "renew 1"),
            (None, &provisioned, "KeyLost"),
            (kek("short"), &provisioned, "KeyLost"),
            (kek("short"), &new, "KeyLost"),
        ] {
            assert_eq!(decide(SecretPurpose::DataKey, live, observed, 0), expected);
        }
    }

    #[test]
    fn signing_keys_that_cannot_sign_are_replaced() {
        let broken = Some(secret(SecretPurpose::SigningKeys, "1", &json!({"keys.json": "{}"})));
        assert_eq!(decide(SecretPurpose::SigningKeys, broken, &observed(1, ""), 1), "renew 2");
    }

    #[test]
    fn only_secrets_with_our_claim_and_type_are_ours() {
        let observed = observed(1, PASSWORD_43);
        let ours = secret(SecretPurpose::Database, "1", &json!({"password": PASSWORD_43}));
        let mut other_type = ours.clone();
        other_type.type_ = Some("Opaque".to_owned());
        let mut other_claim = ours.clone();
        other_claim.metadata.annotations.as_mut().unwrap().insert(ANNOTATION_CLAIM.to_owned(), "0".repeat(16));
        let mut no_claim = ours;
        no_claim.metadata.annotations = None;
        for live in [other_type, other_claim, no_claim] {
            assert_eq!(decide(SecretPurpose::Database, Some(live), &observed, 1), "SecretConflict");
        }
    }
}
