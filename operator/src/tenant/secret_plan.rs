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
        None if purpose == SecretPurpose::DataKey && observed.version.is_some() => Err(key_lost(
            tenant,
            "is gone; restore it from a copy: a new key could not read what the old one encrypted",
        )),
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
        SecretPurpose::Database | SecretPurpose::MaintenanceDatabase => {
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
