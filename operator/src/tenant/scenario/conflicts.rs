//! What is not the Tenant's is neither adopted nor touched, and its owner is named.

use serde_json::{Value, json};

use super::api::secret_path;
use super::{World, reasons};
use crate::catalog::fake::{Fault, State};
use crate::catalog::{Claim, ClaimId, ClaimState};
use crate::error::Reason;

pub fn claim(namespace: &str, name: &str, schema: &str, state: ClaimState) -> Claim {
    Claim {
        claim_id: ClaimId::from_random(1),
        installation_id: "installation".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        schema_name: schema.to_owned(),
        last_uid: "another".to_owned(),
        state,
    }
}

/// A Tenant that meets `claims` and is refused.
async fn refused(spec: Value, claims: Vec<Claim>, reason: &str) -> World {
    let mut world = World::new();
    world.catalog.state.lock().unwrap().claims = claims;
    world.cluster.create_tenant("acme", &spec);
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap_err().reason().as_str(), reason);
    assert_eq!(facts.len(), 1, "{facts:?}");
    assert_eq!(world.condition("Ready"), format!("False/{reason}"));
    assert_eq!(world.condition("Stalled"), format!("True/{reason}"));
    assert_eq!(world.condition("Reconciling"), "");
    world
}

#[tokio::test]
async fn a_name_belongs_to_one_tenant_of_the_installation() {
    let world = refused(json!({}), vec![claim("other", "acme", "t", ClaimState::Active)], "NameConflict").await;
    assert!(world.message("acme", "Stalled").contains("held by other/acme"), "{}", world.message("acme", "Stalled"));
    assert_eq!(world.cluster.writes(), ["PATCH status"], "not even a finalizer");
    assert_eq!(world.catalog.state.lock().unwrap().writes, 0);
}

#[tokio::test]
async fn the_claim_of_a_tenant_that_lost_its_finalizer_is_not_taken() {
    let world = refused(json!({}), vec![claim("banks", "acme", "t", ClaimState::Active)], "NameConflict").await;
    assert!(world.message("acme", "Stalled").contains("uid another"));
}

#[tokio::test]
async fn a_schema_belongs_to_one_claim() {
    let spec = json!({"schemaName": "shared"});
    let world = refused(spec, vec![claim("other", "globex", "shared", ClaimState::Released)], "SchemaConflict").await;
    assert!(world.message("acme", "Stalled").contains("held by other/globex"));
    assert_eq!(world.condition("SchemaReady"), "False/SchemaConflict");
    assert_eq!(world.cluster.secret("acme.database"), None);
}

#[tokio::test]
async fn a_retained_bank_waits_for_a_person() {
    let spec = json!({"adoptionPolicy": "Never"});
    let world = refused(spec, vec![claim("banks", "acme", "t_acme", ClaimState::Released)], "ClaimReleased").await;
    let message = world.message("acme", "Ready");
    assert!(message.contains("schema t_acme") && message.contains("claim 0000000000000001"), "{message}");
    assert_eq!(world.catalog.state.lock().unwrap().writes, 0);
}

#[tokio::test]
async fn a_dropped_bank_is_in_nobodys_way() {
    let mut world = World::new();
    world.catalog.state.lock().unwrap().claims = vec![claim("banks", "acme", "t", ClaimState::Dropped)];
    world.cluster.create_tenant("acme", &json!({}));
    world.visit("acme").await.unwrap();
    assert_eq!(world.condition("SchemaReady"), "True/Provisioned");
}

#[tokio::test]
async fn a_foreign_schema_is_left_alone_and_its_owner_named() {
    let mut world = World::new();
    world.catalog.state.lock().unwrap().schemas.insert("theirs".to_owned(), "role postgres".to_owned());
    world.cluster.create_tenant("acme", &json!({"schemaName": "theirs"}));
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::SchemaConflict);
    assert!(world.message("acme", "Stalled").contains("role postgres"));

    world.cluster.delete_tenant("acme");
    world.settle("acme").await;
    assert_eq!(world.cluster.tenant("acme"), None);
    let state = world.catalog.state.lock().unwrap();
    assert_eq!(state.schemas["theirs"], "role postgres");
    assert_eq!(state.claims[0].state, ClaimState::Dropped, "what was never completed blocks no name");
    drop(state);
    assert_eq!(world.cluster.secret("acme.data-key"), None);
}

#[tokio::test]
async fn a_secret_without_our_claim_is_never_overwritten() {
    for annotations in [json!({}), json!({"finaiflow.io/claim-id": "00000000000000ff"})] {
        let mut world = World::new();
        let theirs = json!({"apiVersion": "v1", "kind": "Secret", "type": "finaiflow.io/data-key",
            "metadata": {"name": "acme.data-key", "namespace": "banks", "annotations": annotations},
            "data": {"kek": "AAAA"}});
        world.cluster.by_hand(&secret_path("acme.data-key"), Some(theirs));
        let before = world.cluster.secret("acme.data-key");
        world.cluster.create_tenant("acme", &json!({}));
        // The first visit creates without looking, and meets it; the second one looks.
        assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::KubernetesError);
        assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::SecretConflict);
        assert!(world.message("acme", "Stalled").starts_with("secret acme.data-key exists and belongs to"));
        assert_eq!(world.condition("CredentialsReady"), "False/SecretConflict");

        world.cluster.delete_tenant("acme");
        world.settle("acme").await;
        assert_eq!(world.cluster.secret("acme.data-key"), before);
    }
}

#[tokio::test]
async fn a_lost_data_key_is_not_replaced() {
    let mut world = World::ready(json!({})).await;
    world.cluster.by_hand(&secret_path("acme.data-key"), None);
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap_err().reason(), Reason::KeyLost);
    assert_eq!(reasons(&facts), ["KeyLost"]);
    assert_eq!(world.cluster.secret("acme.data-key"), None);
    assert_eq!(world.condition("CredentialsReady"), "False/KeyLost");
    assert_eq!(world.condition("Stalled"), "True/KeyLost");
}

#[tokio::test]
async fn a_replaced_database_is_not_filled_with_an_empty_bank() {
    let mut world = World::ready(json!({})).await;
    *world.catalog.state.lock().unwrap() = State::default();
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::ClaimLost);
    assert_eq!(world.catalog.state.lock().unwrap().writes, 0);
}

#[tokio::test]
async fn a_database_of_earlier_days_does_not_give_another_bank_for_the_one_it_lost() {
    let mut world = World::ready(json!({})).await;
    world.catalog.state.lock().unwrap().claims = vec![claim("banks", "acme", "t_acme", ClaimState::Released)];
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::ClaimLost);
    assert_eq!(world.catalog.state.lock().unwrap().claims[0].state, ClaimState::Released);
}

#[tokio::test]
async fn a_namespace_without_rights_is_told_what_to_do() {
    let mut world = World::new();
    world.ctx.config.tenant_namespaces.clear();
    world.cluster.create_tenant("acme", &json!({}));
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::Forbidden);
    assert!(world.message("acme", "Ready").contains("add banks to tenantNamespaces"));
    assert_eq!(world.cluster.writes(), ["PATCH status"]);
    assert_eq!(world.catalog.state.lock().unwrap().calls, Vec::<&str>::new());
}

#[tokio::test]
async fn a_right_that_the_api_server_denies_is_named() {
    let mut world = World::ready(json!({})).await;
    world.cluster.state.lock().unwrap().forbidden = Some("/secrets/");
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::Forbidden);
    let message = world.message("acme", "Stalled");
    assert!(message.contains("cannot get resource \"secrets\"") && message.contains("tenantNamespaces"), "{message}");
    assert_eq!(world.condition("SchemaReady"), "True/Provisioned", "what was true stays");
}

#[tokio::test]
async fn a_class_that_is_not_offered_is_named() {
    let world = refused(json!({"databaseClassName": "gold"}), Vec::new(), "ClassNotFound").await;
    assert_eq!(world.message("acme", "Ready"), "there is no database class gold; the classes are default");
}

#[tokio::test]
async fn a_full_class_is_tried_again() {
    let mut world = World::new();
    world.ctx.config.database_classes[0].servers[0].capacity = 0;
    world.cluster.create_tenant("acme", &json!({}));
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::ClassFull);
    assert_eq!(
        (world.condition("Stalled"), world.condition("Reconciling")),
        (String::new(), "True/ClassFull".to_owned())
    );
}

#[tokio::test]
async fn a_database_outage_shows_and_passes() {
    let mut world = World::ready(json!({})).await;
    world.catalog.state.lock().unwrap().fault = Some((0, Fault::Before));
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap_err().reason(), Reason::DatabaseUnavailable);
    assert_eq!(reasons(&facts), ["DatabaseUnavailable"]);
    assert_eq!(world.condition("Ready"), "False/DatabaseUnavailable");
    assert_eq!(world.condition("Reconciling"), "True/DatabaseUnavailable");
    assert_eq!(world.condition("SchemaReady"), "True/Provisioned");
    let (_, facts) = world.visit_and_tell("acme").await;
    assert_eq!((world.condition("Ready").as_str(), reasons(&facts)), ("True/Reconciled", vec!["Ready"]));
}
