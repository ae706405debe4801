//! What a Tenant object asks of this replica, given what the replica holds for it. Pure.

use std::collections::BTreeMap;

use finaiflow_crds::Tenant;
use finaiflow_crds::condition::{ConditionType, is_true};
use finaiflow_crds::names::SecretPurpose;
use finaiflow_schema::names::{ClaimId, NameError};

use super::settings::{SettingsError, settings};
use crate::tenant::TenantSettings;

/// The Secrets that serving needs.
pub(super) const NEEDED: [SecretPurpose; 3] =
    [SecretPurpose::Database, SecretPurpose::SigningKeys, SecretPurpose::DataKey];

/// What is loaded for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    /// Uid of the Tenant object: a namesake created later is another bank.
    pub(super) uid: String,
    pub(super) claim: ClaimId,
    /// `spec.limits.connections` that the pool was sized by.
    pub(super) connections: i32,
    /// Generations of the Secrets in use.
    pub(super) generations: BTreeMap<SecretPurpose, i64>,
}

impl Holding {
    /// Whether this is the bank of that object.
    pub(super) fn is_of(&self, tenant: &Tenant) -> bool {
        let claim = tenant.status.as_ref().and_then(|status| status.claim_id.as_deref());
        tenant.metadata.uid.as_deref() == Some(&self.uid) && claim.is_none_or(|claim| claim == self.claim.to_string())
    }
}

/// What to do about a Tenant.
#[derive(Debug)]
pub(super) enum Plan {
    /// Not to be served: being deleted, without a claim of its own, or not ready for the first time yet.
    Unload,
    /// To be answered 503 until its data has been replaced; nothing stays loaded, as nothing of it will be true.
    Pause,
    /// To be refused with `tenant-suspended`; what is loaded stays.
    Suspend,
    /// To be served with these settings, after loading what is needed.
    Serve { settings: TenantSettings, need: Option<Need> },
}

/// What must be read or opened before the tenant can be served as its object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) holding: Holding,
    /// Secrets to read, by purpose.
    pub(super) secrets: BTreeMap<SecretPurpose, String>,
    /// Whether the pool is to be opened anew.
    pub(super) connect: bool,
}

/// Why a Tenant cannot be served until its object changes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// `status.claimID` is malformed.
    #[error("status.claimID: {0}")]
    Claim(#[from] NameError),
    /// The spec cannot be served.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Decides about `tenant`. `held` counts only if it is of the same bank.
///
/// Once a tenant is loaded, conditions matter no longer, but for one that says that its data is being replaced: a transient
/// one does not take a bank away from its users.
pub(super) fn plan(tenant: &Tenant, held: Option<&Holding>) -> Result<Plan, PlanError> {
    if tenant.metadata.deletion_timestamp.is_some() {
        return Ok(Plan::Unload);
    }
    if tenant.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Restoring)) {
        return Ok(Plan::Pause);
    }
    let held = held.filter(|held| held.is_of(tenant));
    let Some(claim) = held.map(|held| Ok(held.claim)).or_else(|| first_claim(tenant)).transpose()? else {
        return Ok(Plan::Unload);
    };
    if tenant.spec.suspend {
        return Ok(Plan::Suspend);
    }
    let name = tenant.metadata.name.as_deref().unwrap_or_default();
    Ok(Plan::Serve { settings: settings(name, &tenant.spec)?, need: need(tenant, held, claim) })
}

/// The claim of a tenant that is to be loaded for the first time, once its schema and credentials are ready.
fn first_claim(tenant: &Tenant) -> Option<Result<ClaimId, NameError>> {
    let status = tenant.status.as_ref()?;
    let ready = |kind| is_true(&status.conditions, kind);
    let claim = status.claim_id.as_ref()?;
    (ready(ConditionType::SchemaReady) && ready(ConditionType::CredentialsReady)).then(|| claim.parse())
}

fn need(tenant: &Tenant, held: Option<&Holding>, claim: ClaimId) -> Option<Need> {
    let mut holding = Holding {
        uid: tenant.metadata.uid.clone().unwrap_or_default(),
        claim,
        connections: tenant.spec.limits.connections,
        generations: held.map(|held| held.generations.clone()).unwrap_or_default(),
    };
    let mut secrets = BTreeMap::new();
    for secret in tenant.status.iter().flat_map(|status| &status.secrets) {
        let Some(purpose) = NEEDED.into_iter().find(|purpose| purpose.as_str() == secret.purpose) else { continue };
        if holding.generations.get(&purpose).is_none_or(|held| *held < secret.generation) {
            holding.generations.insert(purpose, secret.generation);
            secrets.insert(purpose, secret.name.clone());
        }
    }
    let connect = held.is_none_or(|held| held.connections != holding.connections)
        || secrets.contains_key(&SecretPurpose::Database);
    (connect || !secrets.is_empty()).then_some(Need { holding, secrets, connect })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A Tenant that is ready, changed by `patch`.
    fn tenant(patch: &Value) -> Tenant {
        let mut object = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "namespace": "banks", "uid": "u1"},
            "spec": {"limits": {"connections": 20}},
            "status": {
                "claimID": "00000000000000aa",
                "conditions": [condition("SchemaReady", "True"), condition("CredentialsReady", "True")],
                "secrets": [secret("database", 1), secret("maintenance-database", 1), secret("backup-database", 1),
                            secret("signing-keys", 1), secret("data-key", 1)],
            },
        });
        merge(&mut object, patch);
        serde_json::from_value(object).unwrap()
    }

    fn condition(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "R", "message": "",
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn secret(purpose: &str, generation: i64) -> Value {
        json!({"name": format!("acme.{purpose}"), "purpose": purpose, "generation": generation})
    }

    /// RFC 7396.
    fn merge(target: &mut Value, patch: &Value) {
        let (Some(target), Some(patch)) = (target.as_object_mut(), patch.as_object()) else {
            *target = patch.clone();
            return;
        };
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key).or_insert_with(|| json!({})), value);
            }
        }
    }

    fn first(tenant: &Tenant) -> Need {
        match plan(tenant, None).unwrap() {
            Plan::Serve { need: Some(need), .. } => need,
            other => panic!("{other:?}"),
        }
    }

    fn held() -> Holding {
        first(&tenant(&json!({}))).holding
    }

    fn need_of(tenant: &Tenant) -> Option<Need> {
        match plan(tenant, Some(&held())).unwrap() {
            Plan::Serve { need, .. } => need,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_ready_tenant_is_loaded_whole_but_without_the_logins_of_jobs() {
        let need = first(&tenant(&json!({})));
        let secrets: Vec<_> = need.secrets.values().map(String::as_str).collect();
        assert_eq!(secrets, ["acme.database", "acme.signing-keys", "acme.data-key"]);
        assert!(need.connect);
        assert_eq!(need.holding.claim.to_string(), "00000000000000aa");
    }

    #[test]
    fn a_tenant_without_claim_or_first_readiness_is_not_loaded() {
        for status in [
            json!(null),
            json!({"claimID": null}),
            json!({"conditions": []}),
            json!({"conditions": [condition("SchemaReady", "True"), condition("CredentialsReady", "False")]}),
            json!({"conditions": [condition("SchemaReady", "Unknown"), condition("CredentialsReady", "True")]}),
        ] {
            let tenant = tenant(&json!({"status": status}));
            assert!(matches!(plan(&tenant, None), Ok(Plan::Unload)), "{status}");
        }
    }

    #[test]
    fn a_loaded_tenant_outlives_conditions_and_status() {
        let flipped = json!({"conditions": [condition("SchemaReady", "False")]});
        for status in [flipped, json!(null)] {
            assert_eq!(need_of(&tenant(&json!({"status": status}))), None);
        }
    }

    #[test]
    fn a_change_of_settings_needs_nothing() {
        assert_eq!(
            need_of(&tenant(&json!({"spec": {"displayName": "New"}, "status": {"hosts": ["a.example"]}}))),
            None
        );
    }

    #[test]
    fn only_what_changed_is_loaded() {
        let rotated = tenant(&json!({"status": {"secrets": [secret("database", 2), secret("signing-keys", 1)]}}));
        let need = need_of(&rotated).unwrap();
        assert_eq!(need.secrets, BTreeMap::from([(SecretPurpose::Database, "acme.database".to_owned())]));
        assert!(need.connect);
        assert_eq!(need.holding.generations[&SecretPurpose::Database], 2);

        let keys = tenant(&json!({"status": {"secrets": [secret("signing-keys", 2)]}}));
        let need = need_of(&keys).unwrap();
        assert_eq!(need.secrets.keys().collect::<Vec<_>>(), [&SecretPurpose::SigningKeys]);
        assert!(!need.connect);
        assert_eq!(need.holding.generations[&SecretPurpose::Database], 1);

        let resized = need_of(&tenant(&json!({"spec": {"limits": {"connections": 5}}}))).unwrap();
        assert!(resized.secrets.is_empty() && resized.connect);
    }

    #[test]
    fn suspending_keeps_what_is_loaded_and_deleting_does_not() {
        let suspended = tenant(&json!({"spec": {"suspend": true}}));
        assert!(matches!(plan(&suspended, Some(&held())), Ok(Plan::Suspend)));
        assert!(matches!(plan(&suspended, None), Ok(Plan::Suspend)));
        let deleted = tenant(&json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert!(matches!(plan(&deleted, Some(&held())), Ok(Plan::Unload)));
    }

    #[test]
    fn a_namesake_or_another_claim_is_another_bank() {
        let namesake = tenant(&json!({"metadata": {"uid": "u2"}, "status": null}));
        assert!(!held().is_of(&namesake));
        assert!(matches!(plan(&namesake, Some(&held())), Ok(Plan::Unload)));
        let other = tenant(&json!({"status": {"claimID": "00000000000000bb"}}));
        let need = need_of(&other).unwrap();
        assert_eq!(need.secrets.len(), 3);
        assert!(need.connect);
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        let claim = tenant(&json!({"status": {"claimID": "AA"}}));
        assert!(matches!(plan(&claim, None), Err(PlanError::Claim(_))));
        let currency = tenant(&json!({"spec": {"currencies": ["QQQ"]}}));
        assert!(matches!(plan(&currency, Some(&held())), Err(PlanError::Settings(_))));
    }
}
