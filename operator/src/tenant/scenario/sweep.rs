//! What was left behind is found, and nothing of it that may be somebody's data is dropped.

use serde_json::json;

use super::World;
use super::adoption::retained;
use super::api::secret_path;
use crate::catalog::ClaimState;
use crate::catalog::fake::Fault;
use crate::tenant::sweep::{Orphan, sweep};

async fn swept(world: &World) -> Vec<String> {
    let swept = sweep(&world.ctx).await;
    assert!(swept.failures.is_empty(), "{:?}", swept.failures);
    swept.orphans.iter().map(|orphan| format!("{} {orphan}", orphan.kind())).collect()
}

/// The Tenant acme went without its finalizer: what it owned in Kubernetes is collected, and nobody told PostgreSQL.
async fn stripped() -> World {
    let world = World::ready(json!({"deletionPolicy": "Delete"})).await;
    world.cluster.edit_tenant("acme", |tenant| tenant["metadata"]["finalizers"] = json!([]));
    world.cluster.delete_tenant("acme");
    for (path, _) in world.cluster.versions() {
        if !path.ends_with("acme.data-key") && !path.ends_with("acme.signing-keys") {
            world.cluster.by_hand(&path, None);
        }
    }
    world
}

fn state(world: &World) -> ClaimState {
    world.catalog.state.lock().unwrap().claims[0].state
}

#[tokio::test]
async fn nothing_is_found_where_all_is_well() {
    let world = World::ready(json!({})).await;
    let writes = world.catalog.state.lock().unwrap().writes;
    assert_eq!(swept(&world).await, Vec::<String>::new());
    assert_eq!((world.cluster.writes(), world.catalog.state.lock().unwrap().writes), (vec![], writes));
    assert_eq!(swept(&retained().await).await, Vec::<String>::new(), "released already, with its keys");
}

#[tokio::test]
async fn a_claim_without_a_tenant_is_released_with_data_and_keys_kept() {
    let mut world = stripped().await;
    world.forget_tenants();
    let found = swept(&world).await;
    assert!(found.len() == 1 && found[0].contains("Tenant banks/acme"), "{found:?}");
    assert_eq!(state(&world), ClaimState::Released, "whatever its deletionPolicy was: nobody asked us to drop it");
    {
        let state = world.catalog.state.lock().unwrap();
        assert_eq!((state.schemas.len(), state.roles.len(), state.logins.len()), (1, 6, 0));
    }
    assert!(world.cluster.secret("acme.data-key").is_some());
    assert_eq!(swept(&world).await, Vec::<String>::new());
    // Who comes back under the name has its bank again.
    world.cluster.create_tenant("acme", &json!({}));
    world.visit("acme").await.unwrap();
    assert_eq!(state(&world), ClaimState::Active);
    assert_eq!(swept(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_tenant_that_is_only_not_known_yet_keeps_its_claim() {
    let mut world = World::ready(json!({})).await;
    world.forget_tenants();
    assert_eq!(swept(&world).await, Vec::<String>::new(), "the live object counts");
    world.cluster.state.lock().unwrap().forbidden = Some("/tenants/");
    assert_eq!(sweep(&world.ctx).await.failures.len(), 1);
    world.cluster.state.lock().unwrap().forbidden = None;
    assert_eq!(state(&world), ClaimState::Active);
    world.ctx.installation = "another".to_owned();
    world.cluster.by_hand("/apis/finaiflow.io/v1alpha1/namespaces/banks/tenants/acme", None);
    assert_eq!(swept(&world).await, Vec::<String>::new(), "another cluster's Tenants are not ours to judge");
    assert_eq!(state(&world), ClaimState::Active);
}

#[tokio::test]
async fn keys_and_roles_of_a_dropped_bank_go() {
    let world = World::ready(json!({})).await;
    let key = world.cluster.secret("acme.data-key").unwrap();
    let dropped = {
        let mut state = world.catalog.state.lock().unwrap();
        let mut claim = state.claims[0].clone();
        claim.claim_id = crate::catalog::ClaimId::from_random(7);
        claim.state = ClaimState::Dropped;
        state.claims.push(claim);
        state.roles.insert("ff_0000000000000007_app".to_owned());
        "0000000000000007"
    };
    let with_claim = |name: &str, claim: &str| {
        let mut secret = key.clone();
        secret["metadata"]["name"] = name.into();
        secret["metadata"]["annotations"]["finaiflow.io/claim-id"] = claim.into();
        world.cluster.by_hand(&secret_path(name), Some(secret));
    };
    with_claim("gone.data-key", dropped);
    with_claim("unknown.data-key", "00000000000000ff");
    with_claim("odd.data-key", "whose?");
    let mut owned = key.clone();
    owned["metadata"]["name"] = json!("owned.database");
    owned["metadata"]["annotations"]["finaiflow.io/claim-id"] = dropped.into();
    owned["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}]);
    world.cluster.by_hand(&secret_path("owned.database"), Some(owned));

    let found = sweep(&world.ctx).await;
    assert!(found.failures.is_empty());
    let kinds: Vec<_> = found.orphans.iter().map(Orphan::kind).collect();
    assert_eq!(kinds, ["Role", "Secret"], "{:?}", found.orphans);
    for (name, is_there) in [
        ("gone.data-key", false),
        ("unknown.data-key", true),
        ("odd.data-key", true),
        ("owned.database", true),
        ("acme.data-key", true),
        ("acme.signing-keys", true),
    ] {
        assert_eq!(world.cluster.secret(name).is_some(), is_there, "{name}");
    }
    assert_eq!(world.catalog.state.lock().unwrap().roles.len(), 6);
    assert_eq!(swept(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn one_failure_does_not_stop_the_rest_and_the_next_sweep_goes_on() {
    for fault in [Fault::Before, Fault::After] {
        for in_kubernetes in [false, true] {
            for at in 0.. {
                let mut world = stripped().await;
                world.forget_tenants();
                if in_kubernetes {
                    world.cluster.state.lock().unwrap().fault = Some((at, fault));
                } else {
                    world.catalog.state.lock().unwrap().fault = Some((at, fault));
                }
                let first = sweep(&world.ctx).await;
                let untouched = world.cluster.state.lock().unwrap().fault.is_some()
                    || world.catalog.state.lock().unwrap().fault.is_some();
                assert_eq!(first.failures.is_empty(), untouched, "{:?}", first.failures);
                world.cluster.state.lock().unwrap().fault = None;
                world.catalog.state.lock().unwrap().fault = None;
                swept(&world).await;
                assert_eq!(state(&world), ClaimState::Released);
                if untouched {
                    assert!(at >= 2, "no call was tried");
                    break;
                }
            }
        }
    }
}
