//! Whichever call fails, before or after its effect, the next visits end in the same state.

use serde_json::json;

use super::{World, adoption};
use crate::catalog::ClaimState;
use crate::catalog::fake::{Fault, HEAD, sha256};

/// Runs `scenario` once for every call that it makes to PostgreSQL or Kubernetes, with that call failing.
async fn at_every_call<F: AsyncFn(&mut World) -> usize>(
    start: impl AsyncFn() -> World,
    scenario: F,
    check: impl Fn(&World),
) {
    for fault in [Fault::Before, Fault::After] {
        for in_kubernetes in [false, true] {
            for at in 0.. {
                let mut world = start().await;
                if in_kubernetes {
                    world.cluster.state.lock().unwrap().fault = Some((at, fault));
                } else {
                    world.catalog.state.lock().unwrap().fault = Some((at, fault));
                }
                let failed = scenario(&mut world).await;
                check(&world);
                let all_done = world.cluster.state.lock().unwrap().fault.is_some()
                    || world.catalog.state.lock().unwrap().fault.is_some();
                if all_done {
                    assert!(at >= 2, "no call was tried");
                    assert_eq!(failed, 0);
                    break;
                }
            }
        }
    }
}

/// One of everything, each made once.
fn is_made(world: &World) {
    is_provisioned(world);
    assert!(world.catalog.state.lock().unwrap().logins.iter().all(|login| login.generation == 1));
}

/// One of everything, and all of it fits together.
fn is_provisioned(world: &World) {
    let state = world.catalog.state.lock().unwrap();
    assert_eq!((state.claims.len(), state.schemas.len(), state.roles.len()), (1, 1, 6));
    let claim = &state.claims[0];
    assert_eq!((claim.state, state.versions[&claim.schema_name]), (ClaimState::Active, HEAD));
    let logins = [("database", "app_a"), ("maintenance-database", "maintenance"), ("backup-database", "backup")];
    for (purpose, role) in logins {
        let secret = world.cluster.secret(&format!("acme.{purpose}")).unwrap();
        let annotations = &secret["metadata"]["annotations"];
        assert_eq!(annotations["finaiflow.io/claim-id"], claim.claim_id.to_string());
        let login = state.logins.iter().find(|login| login.role.ends_with(role)).unwrap();
        assert_eq!(annotations["finaiflow.io/generation"], login.generation.to_string());
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
        let password = String::from_utf8(secret.data.unwrap()["password"].0.clone()).unwrap();
        assert_eq!(login.digest, sha256(&password));
    }
    let mut objects = world.cluster.versions();
    objects.retain(|path, _| !path.contains("admissionregistration"));
    assert_eq!(objects.len(), 10, "{:?}", objects.keys());
    assert_eq!(world.cluster.tenant("acme").unwrap()["status"]["claimID"], claim.claim_id.to_string());
    assert_eq!(world.condition("CredentialsReady"), "True/Provisioned");
}

#[tokio::test]
async fn a_first_reconcile_converges() {
    let start = async || {
        let world = World::new();
        world.cluster.create_tenant("acme", &json!({}));
        world
    };
    at_every_call(start, async |world| world.settle("acme").await, is_made).await;
}

#[tokio::test]
async fn an_adoption_converges() {
    let by_name = async || {
        let world = adoption::retained().await;
        world.cluster.create_tenant("acme", &json!({}));
        world
    };
    at_every_call(by_name, async |world| world.settle("acme").await, is_made).await;
    at_every_call(adoption::rebuilt, async |world| world.settle("acme").await, is_provisioned).await;
}

#[tokio::test]
async fn a_lost_secret_converges() {
    let start = async || {
        let world = World::ready(json!({})).await;
        world.cluster.by_hand(&super::api::secret_path("acme.database"), None);
        world
    };
    let check = |world: &World| {
        let secret = world.cluster.secret("acme.database").unwrap();
        let generation: i32 =
            secret["metadata"]["annotations"]["finaiflow.io/generation"].as_str().unwrap().parse().unwrap();
        let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
        let password = String::from_utf8(secret.data.unwrap()["password"].0.clone()).unwrap();
        let state = world.catalog.state.lock().unwrap();
        let login = state.logins.iter().find(|login| login.role.ends_with("app_a")).unwrap();
        assert_eq!((generation, login.generation, &login.digest), (2, 2, &sha256(&password)));
        assert_eq!(world.cluster.tenant("acme").unwrap()["status"]["secrets"][2]["generation"], 2);
    };
    at_every_call(start, async |world| world.settle("acme").await, check).await;
}

#[tokio::test]
async fn a_deletion_converges() {
    for (policy, state, left) in [("Delete", ClaimState::Dropped, 0), ("Retain", ClaimState::Released, 2)] {
        let start = async || {
            let world = World::ready(json!({"deletionPolicy": policy})).await;
            world.cluster.delete_tenant("acme");
            world
        };
        let check = |world: &World| {
            assert_eq!(world.catalog.state.lock().unwrap().claims[0].state, state);
            assert_eq!(world.cluster.versions().len(), left);
        };
        at_every_call(start, async |world| world.settle("acme").await, check).await;
    }
}
