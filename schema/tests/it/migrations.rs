//! Migrations on a live schema.

use finaiflow_schema::migrate::{current, head_version, migrate};
use finaiflow_schema::names::{ClaimId, TenantNames};
use finaiflow_schema::testing::{LIMITS, TenantDb, connect};
use finaiflow_schema::{Error, conformance, provision};
use sqlx::Connection;

use crate::{execute, sqlstate};

#[tokio::test]
async fn a_fresh_schema_goes_to_the_head_and_stays_there() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    assert_eq!(current(&mut admin, &db.names).await.unwrap(), Some(head_version()));
    assert_eq!(migrate(&mut admin, &db.names).await.unwrap(), []);
    let nobody = TenantNames::derive(&ClaimId::from_random(1), "none", None).unwrap();
    assert_eq!(current(&mut admin, &nobody).await.unwrap(), None);
    db.drop().await;
}

#[tokio::test]
async fn every_table_and_function_belongs_to_the_owner() {
    let db = TenantDb::create().await;
    let owners: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class WHERE relnamespace = to_regnamespace($1)
         UNION SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE pronamespace = to_regnamespace($1)",
    )
    .bind(db.names.schema.as_str())
    .fetch_all(&mut db.admin().await)
    .await
    .unwrap();
    assert_eq!(owners, [db.names.owner.as_str()]);
    db.drop().await;
}

#[tokio::test]
async fn a_changed_or_newer_migration_is_refused_before_any_change() {
    let db = TenantDb::create().await;
    let mut superuser = db.superuser().await;
    let head = head_version();
    for (sql, is_expected) in [
        (
            "UPDATE {s}.schema_migrations SET checksum = 'x' WHERE version = 2; DELETE FROM {s}.schema_migrations WHERE version = 0",
            Box::new(|error| matches!(error, Error::ChecksumMismatch { version: 2, .. })) as Box<dyn Fn(Error) -> bool>,
        ),
        (
            "INSERT INTO {s}.schema_migrations VALUES (1000, 'later', 'x'); DELETE FROM {s}.schema_migrations WHERE version = 0",
            Box::new(move |error| matches!(error, Error::NewerVersion { found: 1000, known } if known == head)),
        ),
    ] {
        let mut tx = superuser.begin().await.unwrap();
        execute(&mut tx, &db.names.schema, sql).await.unwrap();
        assert!(is_expected(migrate(&mut tx, &db.names).await.unwrap_err()));
        let repeatable = current(&mut tx, &db.names).await.unwrap();
        assert!(repeatable >= Some(head));
        tx.rollback().await.unwrap();
    }
    db.drop().await;
}

#[tokio::test]
async fn a_changed_function_is_repeated_and_an_interrupted_run_goes_on() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    // As an older program left it: other functions, and the last migration not there yet.
    let mut superuser = db.superuser().await;
    execute(
        &mut superuser,
        &db.names.schema,
        "UPDATE {s}.schema_migrations SET checksum = 'older' WHERE version = 0;
         DELETE FROM {s}.schema_migrations WHERE version = 3;
         DROP TABLE {s}.audit_events, {s}.outbox, {s}.ledger_verifications;
         CREATE OR REPLACE FUNCTION {s}.expire(p_limit int) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
    )
    .await
    .unwrap();
    let applied = migrate(&mut admin, &db.names).await.unwrap();
    assert_eq!(applied.iter().map(|migration| migration.version).collect::<Vec<_>>(), [3, 0]);
    provision::ensure_grants(&mut admin, &db.names).await.unwrap();
    assert_eq!(conformance::check(&mut admin, &db.names).await.unwrap(), Vec::<String>::new());
    db.drop().await;
}

#[tokio::test]
async fn a_surrounding_transaction_decides_and_keeps_its_own_role() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let names = TenantNames::derive(&ClaimId::from_random(0xfeed), "inner", None).unwrap();
    let mut tx = admin.begin().await.unwrap();
    provision::ensure_roles_and_schema(&mut tx, &names, &LIMITS).await.unwrap();
    migrate(&mut tx, &names).await.unwrap();
    provision::ensure_grants(&mut tx, &names).await.unwrap();
    let (role, path): (String, String) =
        sqlx::query_as("SELECT current_user::text, current_setting('search_path')").fetch_one(&mut *tx).await.unwrap();
    assert!(role.starts_with("ff_test_admin_"));
    assert_eq!(path, "\"$user\", public");
    tx.rollback().await.unwrap();
    assert_eq!(current(&mut admin, &names).await.unwrap(), None);
    db.drop().await;
}

#[tokio::test]
async fn tenants_cannot_block_each_other_by_advisory_locks() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    sqlx::query("SELECT pg_advisory_lock(i) FROM generate_series(-10, 10) AS i").execute(&mut app).await.unwrap();
    let neighbour = db.create_second_tenant().await;
    let mut theirs = connect(&neighbour.app_url).await;
    assert_eq!(sqlstate(sqlx::query("SELECT * FROM users").execute(&mut theirs).await), "ok");
    db.drop().await;
}
