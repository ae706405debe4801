//! Giving a tenant up.

use finaiflow_schema::names::{Login, TenantNames};
use finaiflow_schema::provision::{
    drop_orphan_roles, drop_tenant, ensure_grants, ensure_roles_and_schema, release, set_login_password,
};
use finaiflow_schema::testing::{LIMITS, TenantDb, connect, random_password};
use finaiflow_schema::{Error, conformance, system};
use sqlx::{Connection, PgConnection};

use crate::books::{contents, deposit, opening};
use crate::{execute, sqlstate};

/// The tenant's roles and schema that exist.
async fn remains(conn: &mut PgConnection, names: &TenantNames) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1
         UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname = $2
         UNION ALL SELECT role_name FROM finaiflow_system.logins WHERE claim_id = $3
         UNION ALL SELECT 'default acl' FROM pg_default_acl WHERE pg_get_userbyid(defaclrole) LIKE $1",
    )
    .bind(format!("ff_{}_%", names.claim_id))
    .bind(names.schema.as_str())
    .bind(names.claim_id.to_string())
    .fetch_all(conn)
    .await
    .unwrap()
}

#[tokio::test]
async fn release_closes_every_way_in_and_keeps_the_data() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    opening().apply(&mut app).await.unwrap();
    deposit().apply(&mut app).await.unwrap();
    let before = contents(&mut app).await;
    let mut admin = db.admin().await;
    let changes = release(&mut admin, &db.names).await.unwrap();
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    let names = &db.names;
    assert_eq!(
        changes,
        [
            format!("disabled login {}", names.app_a),
            format!("disabled login {}", names.maintenance),
            format!("disabled login {}", names.backup),
            format!("disabled sessions of {}", names.app_a),
        ]
    );
    assert!(app.ping().await.is_err());
    assert_eq!(sqlstate(PgConnection::connect(&db.app_url).await), "28000");
    let digests: i64 =
        sqlx::query_scalar("SELECT count(*) FROM finaiflow_system.logins").fetch_one(&mut admin).await.unwrap();
    assert_eq!(digests, 0);

    let mut tx = admin.begin().await.unwrap();
    assert_eq!(release(&mut tx, names).await.unwrap(), []);
    let written: bool =
        sqlx::query_scalar("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetch_one(&mut *tx).await.unwrap();
    assert!(!written);
    tx.rollback().await.unwrap();

    // Taken back, everything is there.
    assert_eq!(ensure_roles_and_schema(&mut admin, names, &LIMITS).await.unwrap(), []);
    let password = random_password();
    set_login_password(&mut admin, names, Login::AppA, &password, 1).await.unwrap();
    let mut superuser = db.superuser().await;
    execute(&mut superuser, &names.schema, "SET search_path TO {s}").await.unwrap();
    assert_eq!(contents(&mut superuser).await, before);
    assert_eq!(conformance::check(&mut admin, names).await.unwrap(), Vec::<String>::new());
    db.drop().await;
}

#[tokio::test]
async fn a_session_that_slipped_in_before_the_commit_is_ended_by_the_second_call() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let mut tx = admin.begin().await.unwrap();
    release(&mut tx, &db.names).await.unwrap();
    let mut late = connect(&db.app_url).await;
    tx.commit().await.unwrap();
    late.ping().await.unwrap();
    let changes = release(&mut admin, &db.names).await.unwrap();
    assert_eq!(
        changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [format!("disabled sessions of {}", db.names.app_a)]
    );
    assert!(late.ping().await.is_err());
    let keeps_rights: bool = sqlx::query_scalar("SELECT pg_has_role($1, 'USAGE')")
        .bind(db.names.app_a.as_str())
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(!keeps_rights, "the admin was in the role only to end its sessions");
    db.drop().await;
}

#[tokio::test]
async fn drop_leaves_nothing_and_spares_the_neighbour() {
    let db = TenantDb::create().await;
    let neighbour = db.create_second_tenant().await;
    let mut open_session = connect(&db.app_url).await;
    execute(&mut open_session, &db.names.schema, "BEGIN; SELECT * FROM users").await.unwrap();
    let mut admin = db.admin().await;
    assert_ne!(drop_tenant(&mut admin, &db.names).await.unwrap(), []);
    assert_eq!(remains(&mut admin, &db.names).await, Vec::<String>::new());
    assert_eq!(drop_tenant(&mut admin, &db.names).await.unwrap(), []);
    assert_eq!(conformance::check(&mut admin, &neighbour.names).await.unwrap(), Vec::<String>::new());
    sqlx::query("SELECT * FROM users").execute(&mut connect(&neighbour.app_url).await).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn drop_goes_on_from_wherever_it_stopped() {
    let db = TenantDb::create().await;
    let mut superuser = db.superuser().await;
    let n = &db.names;
    let partial = [
        format!("ALTER ROLE {} NOLOGIN", n.app_a),
        "DELETE FROM finaiflow_system.logins".to_owned(),
        "DROP SCHEMA {s} CASCADE".to_owned(),
        format!("DROP SCHEMA {{s}} CASCADE; DROP ROLE {}", n.app_a),
        format!(
            "DROP SCHEMA {{s}} CASCADE; DROP ROLE {}, {}; DROP OWNED BY {2}; DROP ROLE {2}",
            n.app_a, n.app_b, n.maintenance
        ),
        format!("DROP OWNED BY {0}; DROP ROLE {0}", n.app),
        format!("DROP SCHEMA {{s}} CASCADE; DROP OWNED BY {0}; DROP ROLE {0}", n.owner),
        "SELECT 1".to_owned(),
    ];
    for state in partial {
        let mut admin = db.admin().await;
        let mut tx = superuser.begin().await.unwrap();
        execute(&mut tx, &n.schema, &state).await.unwrap();
        tx.commit().await.unwrap();
        drop_tenant(&mut admin, n).await.unwrap();
        assert_eq!(remains(&mut admin, n).await, Vec::<String>::new(), "{state}");
        // Whole again for the next state, from nothing.
        ensure_roles_and_schema(&mut admin, n, &LIMITS).await.unwrap();
        finaiflow_schema::migrate::migrate(&mut admin, n).await.unwrap();
        ensure_grants(&mut admin, n).await.unwrap();
        for login in [Login::AppA, Login::Maintenance, Login::Backup] {
            set_login_password(&mut admin, n, login, &random_password(), 1).await.unwrap();
        }
    }
    db.drop().await;
}

#[tokio::test]
async fn what_is_not_ours_is_not_dropped() {
    let db = TenantDb::create().await;
    let mut superuser = db.superuser().await;
    let mut admin = db.admin().await;
    let n = &db.names;
    let mark = "COMMENT ON SCHEMA {s} IS 'finaiflow/claim=0000000000000001'";
    execute(&mut superuser, &n.schema, mark).await.unwrap();
    let refused = drop_tenant(&mut admin, n).await;
    assert!(matches!(refused, Err(Error::Foreign { object, .. }) if object == format!("schema {}", n.schema)));
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace($1)")
        .bind(n.schema.as_str())
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(count > 30);

    // A schema that somebody else owns stays and does not hold up the rest; neither does a role.
    let theirs = format!(
        "DROP SCHEMA {{s}} CASCADE; CREATE SCHEMA {{s}}; CREATE TABLE {{s}}.t (); COMMENT ON ROLE {} IS NULL",
        n.app_b
    );
    execute(&mut superuser, &n.schema, &theirs).await.unwrap();
    drop_tenant(&mut admin, n).await.unwrap();
    assert_eq!(remains(&mut admin, n).await, [n.app_b.to_string(), n.schema.to_string()]);
    execute(&mut superuser, &n.schema, &format!("SELECT * FROM {{s}}.t; DROP ROLE {}", n.app_b)).await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn a_whole_life_in_fenced_transactions() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let epoch = system::next_epoch(&mut admin).await.unwrap();
    for step in ["release", "drop", "drop again"] {
        let mut tx = admin.begin().await.unwrap();
        system::lock_claim(&mut tx, epoch, &db.claim_id).await.unwrap();
        if step == "release" {
            release(&mut tx, &db.names).await.unwrap();
            system::release_claim(&mut tx, &db.claim_id).await.unwrap();
        } else {
            drop_tenant(&mut tx, &db.names).await.unwrap();
            system::mark_dropped(&mut tx, &db.claim_id).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    assert_eq!(remains(&mut admin, &db.names).await, Vec::<String>::new());
    db.drop().await;
}

#[tokio::test]
async fn roles_of_a_dropped_claim_go_unless_they_own_something() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    assert_eq!(drop_orphan_roles(&mut admin).await.unwrap(), [], "the claim is active");
    drop_tenant(&mut admin, &db.names).await.unwrap();
    system::mark_dropped(&mut admin, &db.claim_id).await.unwrap();

    // Somebody restores the bank: nothing of it is touched.
    ensure_roles_and_schema(&mut admin, &db.names, &LIMITS).await.unwrap();
    finaiflow_schema::migrate::migrate(&mut admin, &db.names).await.unwrap();
    ensure_grants(&mut admin, &db.names).await.unwrap();
    let restored = remains(&mut admin, &db.names).await;
    assert_eq!(drop_orphan_roles(&mut admin).await.unwrap(), []);
    assert_eq!(remains(&mut admin, &db.names).await, restored);

    // Only the roles are left, with a right on the database; a role of that name without the comment is not ours.
    let (n, mut superuser) = (&db.names, db.superuser().await);
    let left = format!("DROP SCHEMA {{s}} CASCADE; COMMENT ON ROLE {} IS NULL", n.app_b);
    execute(&mut superuser, &n.schema, &left).await.unwrap();
    let dropped = drop_orphan_roles(&mut admin).await.unwrap();
    assert_eq!(dropped.len(), 5, "{dropped:?}");
    assert_eq!(remains(&mut admin, n).await, [n.app_b.to_string()]);
    assert_eq!(drop_orphan_roles(&mut admin).await.unwrap(), []);
    execute(&mut superuser, &n.schema, &format!("DROP ROLE {}", n.app_b)).await.unwrap();
    db.drop().await;
}
