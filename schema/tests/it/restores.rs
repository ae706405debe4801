//! The login of a restore, and the schema that it takes the place of.

use finaiflow_schema::migrate::migrate;
use finaiflow_schema::names::TenantNames;
use finaiflow_schema::provision::{
    close_restore, drop_aside, drop_orphan_roles, drop_tenant, ensure_grants, ensure_roles_and_schema, open_restore,
    put_back, release, set_aside,
};
use finaiflow_schema::testing::{LIMITS, TenantDb, connect, random_password};
use finaiflow_schema::{Error, Password, conformance, system};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::books::{contents, deposit, opening};
use crate::{execute, sqlstate};

fn url(db: &TenantDb, password: &Password) -> String {
    let options: PgConnectOptions = db.app_url.parse().unwrap();
    options.username(db.names.restore.as_str()).password(password.expose()).to_url_lossy().to_string()
}

async fn schemas(conn: &mut PgConnection, names: &TenantNames) -> Vec<String> {
    let sql = "SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, $1) ORDER BY 1";
    sqlx::query_scalar(sql).bind(names.schema.as_str()).fetch_all(conn).await.unwrap()
}

#[tokio::test]
async fn the_login_of_a_restore_is_the_owner_and_nothing_else() {
    let db = TenantDb::create().await;
    let neighbour = db.create_second_tenant().await;
    let mut admin = db.admin().await;
    let password = random_password();
    let opened = open_restore(&mut admin, &db.names, &password).await.unwrap();
    assert!(!format!("{opened:?}").contains(password.expose()));
    let mut login = connect(&url(&db, &password)).await;
    let as_owner = "ALTER TABLE users DISABLE TRIGGER USER; ALTER TABLE users ENABLE TRIGGER USER";
    execute(&mut login, &db.names.schema, as_owner).await.unwrap();
    let theirs = format!("SET ROLE {}", neighbour.names.owner);
    for refused in [
        "SELECT * FROM finaiflow_system.claims",
        theirs.as_str(),
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE ROLE mine",
        "SELECT pg_read_file('/etc/passwd')",
    ] {
        assert_eq!(sqlstate(execute(&mut login, &db.names.schema, refused).await), "42501", "{refused}");
    }
    // It is no part of what the tenant is to have, and not in its way.
    assert_eq!(ensure_roles_and_schema(&mut admin, &db.names, &LIMITS).await.unwrap(), []);
    assert_eq!(ensure_grants(&mut admin, &db.names).await.unwrap(), []);
    assert_eq!(conformance::check(&mut admin, &db.names).await.unwrap(), Vec::<String>::new());

    // Another password, and the one before is none any more.
    let other = random_password();
    open_restore(&mut admin, &db.names, &other).await.unwrap();
    assert_eq!(sqlstate(PgConnection::connect(&url(&db, &password)).await), "28P01");
    connect(&url(&db, &other)).await.close().await.unwrap();

    assert_eq!(close_restore(&mut admin, &db.names).await.unwrap().len(), 3);
    assert!(login.ping().await.is_err());
    assert_eq!(close_restore(&mut admin, &db.names).await.unwrap(), []);
    let left: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(db.names.restore.as_str())
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(!left);
    db.drop().await;
}

#[tokio::test]
async fn a_release_takes_the_login_of_a_restore_away_and_another_s_role_stays() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    open_restore(&mut admin, &db.names, &random_password()).await.unwrap();
    let changes = release(&mut admin, &db.names).await.unwrap();
    assert!(changes.iter().any(|change| change.to_string() == format!("dropped role {}", db.names.restore)));

    // Somebody brings it back after the tenant was dropped.
    let neighbour = db.create_second_tenant().await;
    drop_tenant(&mut admin, &neighbour.names).await.unwrap();
    system::mark_dropped(&mut admin, &neighbour.claim_id).await.unwrap();
    let role = format!("CREATE ROLE {{s}}; COMMENT ON ROLE {{s}} IS '{}'", neighbour.names.comment());
    execute(&mut admin, &neighbour.names.restore, &role).await.unwrap();
    let dropped = drop_orphan_roles(&mut admin).await.unwrap();
    let dropped: Vec<_> = dropped.iter().map(ToString::to_string).collect();
    assert_eq!(dropped, [format!("dropped role {}", neighbour.names.restore)]);

    let mut superuser = db.superuser().await;
    let name = &db.names.restore;
    execute(&mut superuser, name, "CREATE ROLE {s} LOGIN").await.unwrap();
    let refused = open_restore(&mut admin, &db.names, &random_password()).await;
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    assert_eq!(close_restore(&mut admin, &db.names).await.unwrap(), []);
    execute(&mut superuser, name, "DROP ROLE {s}").await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn a_schema_is_put_aside_and_put_back_as_it_was() {
    let db = TenantDb::create().await;
    let names = &db.names;
    let mut app = connect(&db.app_url).await;
    opening().apply(&mut app).await.unwrap();
    deposit().apply(&mut app).await.unwrap();
    let before = contents(&mut app).await;
    let mut admin = db.admin().await;

    assert!(!set_aside(&mut admin, names, 1).await.unwrap().is_empty());
    assert_eq!(set_aside(&mut admin, names, 1).await.unwrap(), []);
    assert!(app.ping().await.is_err(), "its logins are closed");
    let aside = format!("{}__pre_1", names.schema);
    assert_eq!(schemas(&mut admin, names).await, std::slice::from_ref(&aside));
    let logins = [&names.app, &names.app_a, &names.maintenance, &names.backup].map(ToString::to_string);
    let usage = "SELECT bool_or(has_schema_privilege(r, $1, 'USAGE')) FROM unnest($2::text[]) AS r";
    let usage: bool = sqlx::query_scalar(usage).bind(&aside).bind(logins.to_vec()).fetch_one(&mut admin).await.unwrap();
    assert!(!usage);

    // Another takes its place, and is put aside itself.
    ensure_roles_and_schema(&mut admin, names, &LIMITS).await.unwrap();
    migrate(&mut admin, names).await.unwrap();
    ensure_grants(&mut admin, names).await.unwrap();
    assert_eq!(conformance::check(&mut admin, names).await.unwrap(), Vec::<String>::new());
    let refused = put_back(&mut admin, names, 1).await;
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    set_aside(&mut admin, names, 2).await.unwrap();

    put_back(&mut admin, names, 1).await.unwrap();
    assert_eq!(put_back(&mut admin, names, 1).await.unwrap(), []);
    assert_eq!(drop_aside(&mut admin, names, 2).await.unwrap().len(), 1);
    assert_eq!(drop_aside(&mut admin, names, 2).await.unwrap(), []);
    assert_eq!(schemas(&mut admin, names).await, [names.schema.to_string()]);
    assert_eq!(ensure_roles_and_schema(&mut admin, names, &LIMITS).await.unwrap(), []);
    assert_eq!(migrate(&mut admin, names).await.unwrap(), []);
    assert_eq!(ensure_grants(&mut admin, names).await.unwrap(), []);
    assert_eq!(conformance::check(&mut admin, names).await.unwrap(), Vec::<String>::new());
    let mut superuser = db.superuser().await;
    execute(&mut superuser, &names.schema, "SET search_path TO {s}").await.unwrap();
    assert_eq!(contents(&mut superuser).await, before);

    // What lies aside goes with the tenant.
    set_aside(&mut admin, names, 3).await.unwrap();
    let dropped = drop_tenant(&mut admin, names).await.unwrap();
    assert!(dropped.iter().any(|change| change.to_string() == format!("dropped schema {}__pre_3", names.schema)));
    assert_eq!(schemas(&mut admin, names).await, Vec::<String>::new());
    db.drop().await;
}

#[tokio::test]
async fn only_what_is_ours_is_moved_and_the_longest_name_fits() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let longest = TenantNames::derive(&db.claim_id, "acme", Some(&"s".repeat(40))).unwrap();
    ensure_roles_and_schema(&mut admin, &longest, &LIMITS).await.unwrap();
    set_aside(&mut admin, &longest, u32::MAX).await.unwrap();
    put_back(&mut admin, &longest, u32::MAX).await.unwrap();
    assert!(set_aside(&mut admin, &TenantNames::derive(&db.claim_id, "none", None).unwrap(), 1).await.is_err());

    let mut superuser = db.superuser().await;
    execute(&mut superuser, &longest.schema, "COMMENT ON SCHEMA {s} IS 'theirs'").await.unwrap();
    let refused = set_aside(&mut admin, &longest, 1).await;
    assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    db.drop().await;
}
