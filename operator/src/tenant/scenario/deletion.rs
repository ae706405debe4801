//! Deleting keeps or drops what the Tenant owns, and nothing else.

use serde_json::json;

use super::conflicts::claim;
use super::{World, reasons};
use crate::catalog::ClaimState;
use crate::catalog::fake::{Fault, State};
use crate::error::Reason;

#[tokio::test]
async fn retain_closes_logins_and_keeps_data_and_keys() {
    let mut world = World::ready(json!({"deletionPolicy": "Retain"})).await;
    world.cluster.delete_tenant("acme");
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["Released"]);
    assert_eq!(world.cluster.tenant("acme"), None);
    {
        let state = world.catalog.state.lock().unwrap();
        assert_eq!((state.claims[0].state, state.logins.len()), (ClaimState::Released, 0));
        assert_eq!((state.schemas.len(), state.roles.len()), (1, 6));
    }
    let left: Vec<_> = world.cluster.versions().into_keys().collect();
    assert_eq!(
        left,
        ["/api/v1/namespaces/banks/secrets/acme.data-key", "/api/v1/namespaces/banks/secrets/acme.signing-keys"]
    );

    world.cluster.create_tenant("acme", &json!({"adoptionPolicy": "Never"}));
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::ClaimReleased);
    world.cluster.delete_tenant("acme");
    assert_eq!(world.catalog.state.lock().unwrap().claims[0].state, ClaimState::Released);
}

#[tokio::test]
async fn delete_drops_exactly_what_was_made() {
    let mut world = World::ready(json!({"deletionPolicy": "Delete"})).await;
    {
        let mut state = world.catalog.state.lock().unwrap();
        state.schemas.insert("bystander".to_owned(), "role postgres".to_owned());
        state.roles.insert("ff_other".to_owned());
    }
    world.cluster.delete_tenant("acme");
    let (result, facts) = world.visit_and_tell("acme").await;
    result.unwrap();
    assert_eq!(reasons(&facts), ["Dropped"]);
    let state = world.catalog.state.lock().unwrap();
    assert_eq!(state.claims[0].state, ClaimState::Dropped);
    assert_eq!(state.schemas.len(), 1);
    assert!(state.roles.iter().eq(["ff_other"]));
    assert!(world.cluster.versions().is_empty());
}

#[tokio::test]
async fn a_tenant_that_was_never_visited_just_goes() {
    let mut world = World::new();
    let retained = claim("banks", "acme", "t_acme", ClaimState::Released);
    world.catalog.state.lock().unwrap().claims = vec![retained.clone()];
    world.cluster.create_tenant("acme", &json!({"deletionPolicy": "Delete"}));
    world.cluster.edit_tenant("acme", |tenant| {
        tenant["metadata"]["finalizers"] = json!(["finaiflow.io/tenant", "example.org/other"]);
    });
    world.cluster.delete_tenant("acme");
    world.settle("acme").await;
    let tenant = world.cluster.tenant("acme").unwrap();
    assert_eq!(tenant["metadata"]["finalizers"], json!(["example.org/other"]), "others' finalizers stay");
    let state = world.catalog.state.lock().unwrap();
    assert_eq!((&state.claims, state.writes), (&vec![retained], 0), "an earlier Tenant's bank is not this one's");
}

#[tokio::test]
async fn a_tenant_of_another_database_is_not_let_go() {
    let mut world = World::ready(json!({"deletionPolicy": "Delete"})).await;
    *world.catalog.state.lock().unwrap() = State::default();
    world.cluster.delete_tenant("acme");
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::ClaimLost);
    assert_eq!(world.condition("Stalled"), "True/ClaimLost");
    assert!(world.cluster.secret("acme.data-key").is_some());
}

#[tokio::test]
async fn an_unreachable_database_holds_the_tenant_back() {
    let mut world = World::ready(json!({"deletionPolicy": "Delete"})).await;
    world.cluster.delete_tenant("acme");
    world.catalog.state.lock().unwrap().fault = Some((1, Fault::Before));
    let (result, facts) = world.visit_and_tell("acme").await;
    assert_eq!(result.unwrap_err().reason(), Reason::DatabaseUnavailable);
    assert_eq!(reasons(&facts), ["DatabaseUnavailable"]);
    assert_eq!(world.condition("Ready"), "False/DatabaseUnavailable");
    assert!(
        world.cluster.tenant("acme").unwrap()["metadata"]["finalizers"].to_string().contains("finaiflow.io/tenant")
    );
    world.settle("acme").await;
    assert_eq!(world.cluster.tenant("acme"), None);
}

#[tokio::test]
async fn a_tenant_that_others_still_hold_is_released_once() {
    let mut world = World::ready(json!({"deletionPolicy": "Retain"})).await;
    world.cluster.edit_tenant("acme", |tenant| {
        tenant["metadata"]["finalizers"] = json!(["finaiflow.io/tenant", "example.org/other"]);
    });
    world.cluster.delete_tenant("acme");
    world.settle("acme").await;
    assert_eq!(world.catalog.state.lock().unwrap().claims[0].state, ClaimState::Released);
    // Somebody puts our finalizer back.
    world.cluster.edit_tenant("acme", |tenant| {
        tenant["metadata"]["finalizers"] = json!(["finaiflow.io/tenant", "example.org/other"]);
    });
    assert_eq!(world.visit_and_tell("acme").await.1, []);
    assert_eq!(world.catalog.state.lock().unwrap().calls.iter().filter(|call| **call == "release").count(), 1);
}

#[tokio::test]
async fn a_held_back_deletion_says_for_what_and_how_to_go_on_without() {
    let mut world = World::ready(json!({"deletionPolicy": "Delete"})).await;
    world.cluster.delete_tenant("acme");
    world.catalog.state.lock().unwrap().fault = Some((0, Fault::Before));
    world.visit("acme").await.unwrap_err();
    let message = world.message("acme", "Ready");
    assert!(message.starts_with("the deletion waits for server primary: database unavailable"), "{message}");
    assert!(
        message.contains("remove its finalizer finaiflow.io/tenant: kubectl -n banks edit tenant acme"),
        "{message}"
    );
    world.settle("acme").await;
    assert_eq!(world.cluster.tenant("acme"), None);
}

#[tokio::test]
async fn a_namespace_that_goes_does_not_hold_its_tenants_back() {
    for (policy, state) in [("Delete", ClaimState::Dropped), ("Retain", ClaimState::Released)] {
        let mut world = World::ready(json!({"deletionPolicy": policy})).await;
        world.cluster.delete_tenant("acme");
        // The RoleBinding that let the operator read Secrets went first.
        world.cluster.state.lock().unwrap().forbidden = Some("/secrets");
        let (result, facts) = world.visit_and_tell("acme").await;
        result.unwrap();
        assert_eq!(world.cluster.tenant("acme"), None);
        assert_eq!(world.catalog.state.lock().unwrap().claims[0].state, state);
        let told = if policy == "Delete" { vec!["Dropped", "KeysLeft"] } else { vec!["Released"] };
        assert_eq!(reasons(&facts), told);
        if policy == "Delete" {
            // Where only the rights had gone, the sweep deletes the keys once they are back.
            world.cluster.state.lock().unwrap().forbidden = None;
            world.forget_tenants();
            let swept = crate::tenant::sweep::sweep(&world.ctx).await;
            assert_eq!(swept.orphans.len(), 2, "{swept:?}");
            assert!(world.cluster.versions().is_empty());
        }
    }
}

#[tokio::test]
async fn a_tenant_that_never_was_valid_just_goes() {
    for (spec, claims) in [
        (json!({"databaseClassName": "gold"}), vec![]),
        (json!({}), vec![claim("others", "acme", "t_acme", ClaimState::Active)]),
        (json!({"adoptionPolicy": "Never"}), vec![claim("banks", "acme", "t_acme", ClaimState::Released)]),
    ] {
        let mut world = World::new();
        world.catalog.state.lock().unwrap().claims.clone_from(&claims);
        world.cluster.create_tenant("acme", &spec);
        world.visit("acme").await.unwrap_err();
        world.cluster.edit_tenant("acme", |tenant| tenant["spec"]["deletionPolicy"] = json!("Delete"));
        world.cluster.delete_tenant("acme");
        assert_eq!(world.cluster.tenant("acme"), None, "nothing holds it");
        assert_eq!(world.catalog.state.lock().unwrap().claims, claims);
    }
}

#[tokio::test]
async fn of_two_deletions_that_meet_the_later_one_reads_again() {
    let mut world = World::ready(json!({"deletionPolicy": "Delete"})).await;
    let held = world.catalog.state.lock().unwrap().claims[0].clone();
    let names = crate::tenant::dereference::names(&held).unwrap();
    world.catalog.state.lock().unwrap().claims[0].last_uid = "another".to_owned();
    let refused = crate::catalog::Catalog::drop_tenant(&world.catalog, "primary", &names, &held).await.unwrap_err();
    assert!(refused.to_string().contains("changed hands"), "{refused}");
    assert_eq!(world.catalog.state.lock().unwrap().schemas.len(), 1);
    world.cluster.delete_tenant("acme");
    assert_eq!(world.visit("acme").await.unwrap_err().reason(), Reason::ClaimLost, "it is another Tenant's now");
}
