//! Claims and leadership.

use finaiflow_schema::names::{ClaimId, Identifier};
use finaiflow_schema::system::{
    self, Claim, ClaimState, NewClaim, active_claims, adopt_claim, claims_of, count_active, get_claim, insert_claim,
    lock_claim, lock_claim_as, mark_dropped, next_epoch, release_claim,
};
use finaiflow_schema::testing::{INSTALLATION, TenantDb, connect};
use finaiflow_schema::{Conflict, Error};
use sqlx::Connection;

use crate::execute;

fn new_claim<'a>(id: u64, namespace: &'a str, name: &'a str, schema_name: &'a Identifier) -> NewClaim<'a> {
    let claim_id = ClaimId::from_random(id);
    NewClaim { claim_id, installation_id: INSTALLATION, namespace, name, schema_name, uid: "uid-1" }
}

#[tokio::test]
async fn a_claim_lives_and_its_names_are_freed_only_when_dropped() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let schema = Identifier::new("t_new").unwrap();
    let new = new_claim(1, "banks", "new", &schema);
    let claim = insert_claim(&mut conn, &new).await.unwrap();
    assert_eq!((claim.claim_id, claim.state, claim.last_uid.as_str()), (new.claim_id, ClaimState::Active, "uid-1"));
    assert_eq!(claims_of(&mut conn, INSTALLATION, "new", None).await.unwrap(), std::slice::from_ref(&claim));
    assert_eq!(claims_of(&mut conn, "another", "new", None).await.unwrap(), []);
    assert_eq!(
        claims_of(&mut conn, "another", "new", Some(&new.claim_id)).await.unwrap(),
        std::slice::from_ref(&claim)
    );
    assert_eq!(count_active(&mut conn).await.unwrap(), 2);
    assert_eq!(active_claims(&mut conn, INSTALLATION).await.unwrap().len(), 2);
    assert_eq!(active_claims(&mut conn, "another").await.unwrap(), []);

    assert!(release_claim(&mut conn, &new.claim_id).await.unwrap());
    assert!(!release_claim(&mut conn, &new.claim_id).await.unwrap());
    assert_eq!(active_claims(&mut conn, INSTALLATION).await.unwrap().len(), 1);
    assert_eq!(get_claim(&mut conn, &new.claim_id).await.unwrap().unwrap().state, ClaimState::Released);

    let again = new_claim(2, "banks", "new", &schema);
    let held = insert_claim(&mut conn, &again).await.unwrap_err();
    assert_eq!(held.to_string(), "schema t_new is held by banks/new");
    assert!(mark_dropped(&mut conn, &new.claim_id).await.unwrap());
    assert!(!mark_dropped(&mut conn, &new.claim_id).await.unwrap());
    insert_claim(&mut conn, &again).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn a_conflict_names_the_holder_and_leaves_the_transaction_usable() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let mut tx = conn.begin().await.unwrap();
    let fresh = Identifier::new("t_fresh").unwrap();
    let name = insert_claim(&mut tx, &new_claim(1, "elsewhere", "acme", &fresh)).await;
    let schema = insert_claim(&mut tx, &new_claim(1, "elsewhere", "other", &db.names.schema)).await;
    for (result, what) in [(name, "tenant name acme".to_owned()), (schema, format!("schema {}", db.names.schema))] {
        let Err(Error::Conflict(conflict)) = result else { panic!("{what}: {result:?}") };
        assert_eq!(conflict, Conflict { what, namespace: "banks".into(), name: "acme".into() });
    }
    assert_eq!(count_active(&mut tx).await.unwrap(), 1);
    tx.rollback().await.unwrap();
    // The same names in another installation are no conflict of names.
    let other = NewClaim { installation_id: "another", ..new_claim(1, "banks", "acme", &fresh) };
    insert_claim(&mut conn, &other).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn an_old_leader_is_fenced_and_a_new_one_waits_for_its_transactions() {
    let db = TenantDb::create().await;
    let (mut old, mut new) = (db.admin().await, db.admin().await);
    let epoch = next_epoch(&mut old).await.unwrap();
    let mut tx = old.begin().await.unwrap();
    let claim = lock_claim(&mut tx, epoch, &db.claim_id).await.unwrap();
    assert_eq!(claim.schema_name, db.names.schema.as_str());
    let (taken, ()) = tokio::join!(next_epoch(&mut new), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        // Still ours: nobody took over while this transaction was open.
        system::check_epoch(&mut tx, epoch).await.unwrap();
        tx.commit().await.unwrap();
    });
    assert_eq!(taken.unwrap(), epoch + 1);
    let mut tx = old.begin().await.unwrap();
    let fenced = lock_claim(&mut tx, epoch, &db.claim_id).await;
    assert!(matches!(fenced, Err(Error::Fenced { held, current }) if held == epoch && current == epoch + 1));
    tx.rollback().await.unwrap();
    let mut tx = new.begin().await.unwrap();
    let unknown = lock_claim(&mut tx, epoch + 1, &ClaimId::from_random(9)).await;
    assert!(matches!(unknown, Err(Error::UnknownClaim(_))));
    tx.rollback().await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn the_system_schema_is_made_once_and_a_strangers_is_refused() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    assert_eq!(system::ensure(&mut conn).await.unwrap(), []);
    let mut tx = conn.begin().await.unwrap();
    execute(&mut tx, &db.names.schema, "COMMENT ON SCHEMA finaiflow_system IS 'mine'").await.unwrap();
    let refused = system::ensure(&mut tx).await;
    assert!(matches!(refused, Err(Error::Foreign { object, .. }) if object == "schema finaiflow_system"));
    tx.rollback().await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn errors_tell_what_the_caller_can_do() {
    let db = TenantDb::create().await;
    let denied = next_epoch(&mut connect(&db.app_url).await).await.unwrap_err();
    assert!(matches!(denied, Error::Denied(_)) && !denied.is_transient());
    let mut conn = db.admin().await;
    execute(&mut conn, &db.names.schema, "SET default_transaction_read_only TO on").await.unwrap();
    let read_only = next_epoch(&mut conn).await.unwrap_err();
    assert!(matches!(read_only, Error::ReadOnly) && read_only.is_transient());
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await.unwrap();
    sqlx::query("SELECT pg_terminate_backend($1, 5000)").bind(pid).execute(&mut db.superuser().await).await.unwrap();
    let ended = next_epoch(&mut conn).await.unwrap_err();
    assert!(matches!(ended, Error::Unavailable(_)) && ended.is_transient(), "{ended:?}");
    db.drop().await;
}

#[tokio::test]
async fn only_a_released_claim_is_adopted_and_only_under_a_free_name() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let schema = &db.names.schema;
    let to = NewClaim { claim_id: db.claim_id, uid: "uid-2", ..new_claim(0, "banks", "acme", schema) };
    let active = get_claim(&mut conn, &db.claim_id).await.unwrap().unwrap();
    let refused = adopt_claim(&mut conn, &to).await.unwrap_err();
    assert!(refused.is_transient() && refused.to_string().contains("cannot be adopted"), "{refused}");
    assert_eq!(
        get_claim(&mut conn, &db.claim_id).await.unwrap().unwrap(),
        active,
        "an active claim stays its holder's"
    );

    assert!(release_claim(&mut conn, &db.claim_id).await.unwrap());
    assert!(adopt_claim(&mut conn, &to).await.unwrap());
    assert!(!adopt_claim(&mut conn, &to).await.unwrap(), "repeated after a crash");
    let adopted = get_claim(&mut conn, &db.claim_id).await.unwrap().unwrap();
    assert_eq!(adopted, Claim { last_uid: "uid-2".to_owned(), ..active });

    assert!(release_claim(&mut conn, &db.claim_id).await.unwrap());
    let fresh = Identifier::new("t_fresh").unwrap();
    insert_claim(&mut conn, &new_claim(1, "elsewhere", "acme", &fresh)).await.unwrap();
    let refused = adopt_claim(&mut conn, &to).await.unwrap_err();
    assert_eq!(refused.to_string(), "tenant name acme is held by elsewhere/acme");
    // Another installation, namespace and name: the schema stays.
    let rebuilt = NewClaim { installation_id: "rebuilt", namespace: "b", name: "b", uid: "uid-3", ..to };
    let wrong = adopt_claim(&mut conn, &NewClaim { schema_name: &fresh, ..rebuilt }).await.unwrap_err();
    assert!(wrong.is_transient(), "{wrong}");
    assert!(adopt_claim(&mut conn, &rebuilt).await.unwrap());
    let moved = claims_of(&mut conn, "rebuilt", "b", None).await.unwrap().remove(0);
    assert_eq!((moved.claim_id, moved.state, &*moved.schema_name), (db.claim_id, ClaimState::Active, schema.as_str()));
    mark_dropped(&mut conn, &db.claim_id).await.unwrap();
    assert!(adopt_claim(&mut conn, &rebuilt).await.unwrap_err().is_transient());
    db.drop().await;
}

#[tokio::test]
async fn a_claim_that_changed_since_it_was_read_is_left_alone() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let epoch = next_epoch(&mut conn).await.unwrap();
    let read = get_claim(&mut conn, &db.claim_id).await.unwrap().unwrap();
    let mut tx = conn.begin().await.unwrap();
    lock_claim_as(&mut tx, epoch, &read).await.unwrap();
    let stale = Claim { last_uid: "earlier".to_owned(), ..read.clone() };
    let refused = lock_claim_as(&mut tx, epoch, &stale).await.unwrap_err();
    assert!(refused.is_transient() && refused.to_string().contains("changed hands"), "{refused}");
    let fenced = lock_claim_as(&mut tx, epoch - 1, &read).await;
    assert!(matches!(fenced, Err(Error::Fenced { .. })));
    tx.rollback().await.unwrap();
    db.drop().await;
}
