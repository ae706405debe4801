//! A bank that was left behind is taken back with all it had, or by who may name it, and by nobody else.

use serde_json::{Value, json};

use super::api::secret_path;
use super::{World, reasons};
use crate::catalog::fake::sha256;
use crate::catalog::{Claim, ClaimState};
use crate::error::Reason;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";

/// The Tenant acme was deleted and its bank retained.
pub async fn retained() -> World {
    let mut world = World::ready(json!({"deletionPolicy": "Retain"})).await;
    world.cluster.delete_tenant("acme");
    world.settle("acme").await;
    world.cluster.writes();
    world
}

fn claim(world: &World) -> Claim {
    world.catalog.state.lock().unwrap().claims[0].clone()
}

fn asks_for(claim: &Claim) -> Value {
    json!({"adoptClaim": claim.claim_id.to_string()})
}

/// What comes with the definition.
fn install_guard(world: &World) {
    for kind in ["ies", "ybindings"] {
        let path = format!("{POLICIES}{kind}/finaiflow-tenant-adoption");
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "X",
            "metadata": {"name": "finaiflow-tenant-adoption"}});
        world.cluster.by_hand(&path, Some(object));
    }
}

/// What an administrator does who has a copy of the key.
fn restore_data_key(world: &World, tenant: &str, copy: &Value) {
    let mut secret = copy.clone();
    secret["metadata"]["name"] = format!("{tenant}.data-key").into();
    world.cluster.by_hand(&secret_path(&format!("{tenant}.data-key")), Some(secret));
}

#[tokio::test]
async fn the_same_name_gets_its_bank_back() {
    let mut world = retained().await;
    let before = claim(&world);
    let key = |name: &str| world.cluster.secret(name).unwrap()["data"].clone();
    let (data_key, signing_keys) = (key("acme.data-key"), key("acme.signing-keys"));

    world.cluster.create_tenant("acme", &json!({}));
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["Adopted", "CredentialsCreated"]);
    assert!(facts[0].to_string().starts_with(&format!("Took over claim {} of Tenant banks/acme", before.claim_id)));
    let tenant = world.cluster.tenant("acme").unwrap();
    let uid = tenant["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(claim(&world), Claim { last_uid: uid, state: ClaimState::Active, ..before.clone() });
    assert_eq!(tenant["status"]["claimID"], before.claim_id.to_string());
    assert_eq!(tenant["status"]["schema"], json!({"name": before.schema_name, "version": 3}));
    assert_eq!(world.cluster.secret("acme.data-key").unwrap()["data"], data_key);
    assert_eq!(world.cluster.secret("acme.signing-keys").unwrap()["data"], signing_keys);
    let secret: k8s_openapi::api::core::v1::Secret =
        serde_json::from_value(world.cluster.secret("acme.database").unwrap()).unwrap();
    let password = String::from_utf8(secret.data.unwrap()["password"].0.clone()).unwrap();
    {
        let state = world.catalog.state.lock().unwrap();
        let login = state.logins.iter().find(|login| login.role.ends_with("app_a")).unwrap();
        assert_eq!(login.digest, sha256(&password));
        assert_eq!((state.claims.len(), state.schemas.len(), state.roles.len()), (1, 1, 6));
    }

    let writes = world.catalog.state.lock().unwrap().writes;
    world.replica_applies_everything();
    world.settle("acme").await;
    world.settle("acme").await;
    assert_eq!(world.catalog.state.lock().unwrap().writes, writes, "adopted once");
}

#[tokio::test]
async fn without_its_data_key_a_bank_is_not_taken_back() {
    let mut world = retained().await;
    let (before, copy) = (claim(&world), world.cluster.secret("acme.data-key").unwrap());
    world.cluster.by_hand(&secret_path("acme.data-key"), None);
    world.cluster.create_tenant("acme", &json!({}));
    let (result, _) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap_err().reason(), Reason::KeyLost);
    let message = world.message("acme", "Stalled");
    let annotation = format!("finaiflow.io/claim-id: {}", before.claim_id);
    assert!(message.starts_with("secret acme.data-key is not there") && message.contains(&annotation), "{message}");
    assert_eq!((claim(&world), world.cluster.secret("acme.data-key")), (before, None));
    assert_eq!(world.cluster.writes(), ["PATCH status"], "not even a finalizer");

    restore_data_key(&world, "acme", &copy);
    world.visit("acme").await.unwrap();
    assert_eq!(world.condition("SchemaReady"), "True/Provisioned");
    assert_eq!(world.cluster.secret("acme.data-key").unwrap()["data"], copy["data"]);
}

#[tokio::test]
async fn lost_signing_keys_are_new_and_that_is_told() {
    let mut world = retained().await;
    world.cluster.by_hand(&secret_path("acme.signing-keys"), None);
    world.cluster.create_tenant("acme", &json!({}));
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["Adopted", "SigningKeysReplaced", "CredentialsCreated"]);
}

#[tokio::test]
async fn a_key_of_another_bank_is_not_used() {
    let mut world = retained().await;
    let mut other = world.cluster.secret("acme.data-key").unwrap();
    other["metadata"]["annotations"]["finaiflow.io/claim-id"] = json!("00000000000000ff");
    restore_data_key(&world, "acme", &other);
    world.cluster.create_tenant("acme", &json!({}));
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::SecretConflict);
    assert_eq!(claim(&world).state, ClaimState::Released);
}

#[tokio::test]
async fn another_name_takes_over_by_identity() {
    let mut world = retained().await;
    let (before, copy) = (claim(&world), world.cluster.secret("acme.data-key").unwrap());
    install_guard(&world);
    world.cluster.create_tenant("phoenix", &asks_for(&before));
    let (result, _) = world.visit_and_tell("phoenix").await;
    assert_eq!(result.unwrap_err().reason(), Reason::KeyLost);
    assert!(world.message("phoenix", "Stalled").starts_with("secret phoenix.data-key is not there"));
    assert_eq!(claim(&world), before);

    restore_data_key(&world, "phoenix", &copy);
    let (result, facts) = world.visit_and_tell("phoenix").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["Adopted", "SigningKeysReplaced", "CredentialsCreated"]);
    let after = claim(&world);
    assert_eq!(
        (after.name.as_str(), after.state, &after.schema_name),
        ("phoenix", ClaimState::Active, &before.schema_name)
    );
    let status = world.cluster.tenant("phoenix").unwrap()["status"].clone();
    assert_eq!(status["schema"]["name"], before.schema_name);
    assert_eq!(status["claimID"], before.claim_id.to_string());
    assert_eq!(world.catalog.state.lock().unwrap().schemas.len(), 1);
    // The old name is free for a bank of its own.
    world.cluster.by_hand(&secret_path("acme.data-key"), None);
    world.cluster.by_hand(&secret_path("acme.signing-keys"), None);
    world.cluster.create_tenant("acme", &json!({}));
    world.visit("acme").await.unwrap();
    assert_eq!(world.catalog.state.lock().unwrap().schemas.len(), 2);
}

/// Another cluster over the same PostgreSQL, with a copy of the data key and a Tenant that asks for the bank.
pub async fn rebuilt() -> World {
    let mut world = World::ready(json!({})).await;
    install_guard(&world);
    let (before, copy) = (claim(&world), world.cluster.secret("acme.data-key").unwrap());
    // The new cluster: another installation, nothing of the old one in it.
    world.ctx.installation = "rebuilt".to_owned();
    for (path, _) in world.cluster.versions() {
        if !path.contains("admissionregistration") {
            world.cluster.by_hand(&path, None);
        }
    }
    restore_data_key(&world, "acme", &copy);
    world.cluster.create_tenant("acme", &asks_for(&before));
    world
}

#[tokio::test]
async fn a_rebuilt_cluster_takes_over_from_the_one_that_is_gone() {
    let mut world = rebuilt().await;
    world.visit("acme").await.unwrap();
    let after = claim(&world);
    assert_eq!((after.installation_id.as_str(), after.state), ("rebuilt", ClaimState::Active));
    assert_eq!(world.condition("CredentialsReady"), "True/Provisioned");
}

#[tokio::test]
async fn without_the_guard_no_identity_is_followed() {
    let mut world = retained().await;
    let before = claim(&world);
    world.cluster.create_tenant("phoenix", &asks_for(&before));
    for guard in [None, Some("ies")] {
        if let Some(kind) = guard {
            let half = json!({"metadata": {"name": "finaiflow-tenant-adoption"}});
            world.cluster.by_hand(&format!("{POLICIES}{kind}/finaiflow-tenant-adoption"), Some(half));
        }
        assert_eq!(world.visit("phoenix").await.unwrap_err().reason(), Reason::AdoptionRefused);
        assert!(world.message("phoenix", "Stalled").contains("ValidatingAdmissionPolicy finaiflow-tenant-adoption"));
        assert_eq!(claim(&world), before);
    }
}

#[tokio::test]
async fn a_bank_that_is_served_is_not_taken() {
    let mut world = World::ready(json!({})).await;
    install_guard(&world);
    let before = claim(&world);
    world.cluster.create_tenant("thief", &asks_for(&before));
    assert_eq!(world.visit("thief").await.unwrap_err().reason(), Reason::AdoptionRefused);
    assert!(world.message("thief", "Stalled").contains("is held by Tenant banks/acme"));
    assert_eq!(claim(&world), before);
    world.settle("acme").await;
    assert_eq!(world.condition("Ready"), "True/Reconciled");
    // Deleting who asked in vain touches nothing either, whatever its policy.
    world.cluster.edit_tenant("thief", |tenant| {
        tenant["spec"]["deletionPolicy"] = json!("Delete");
        tenant["metadata"]["finalizers"] = json!(["finaiflow.io/tenant"]);
    });
    world.cluster.delete_tenant("thief");
    world.settle("thief").await;
    assert_eq!((world.cluster.tenant("thief"), claim(&world)), (None, before));
}

#[tokio::test]
async fn of_two_that_ask_for_one_bank_one_gets_it() {
    let mut world = retained().await;
    install_guard(&world);
    let (before, copy) = (claim(&world), world.cluster.secret("acme.data-key").unwrap());
    for name in ["first", "second"] {
        restore_data_key(&world, name, &copy);
        world.cluster.create_tenant(name, &asks_for(&before));
    }
    world.visit("first").await.unwrap();
    assert_eq!(world.visit("second").await.unwrap_err().reason(), Reason::AdoptionRefused);
    assert_eq!(claim(&world).name, "first");
}

#[tokio::test]
async fn who_lost_the_finalizer_takes_its_bank_back_by_identity() {
    let mut world = World::ready(json!({})).await;
    install_guard(&world);
    let before = claim(&world);
    world.cluster.edit_tenant("acme", |tenant| tenant["metadata"]["finalizers"] = json!([]));
    world.cluster.delete_tenant("acme");
    world.cluster.create_tenant("acme", &json!({}));
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::NameConflict);
    assert!(world.message("acme", "Stalled").contains("the operator releases it soon"));
    world.cluster.edit_tenant("acme", |tenant| tenant["spec"] = asks_for(&before));
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts)[0], "Adopted");
    assert_ne!(claim(&world).last_uid, before.last_uid);
}
