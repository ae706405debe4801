//! Passwords, as PostgreSQL checks them.

use finaiflow_schema::Error;
use finaiflow_schema::names::{Identifier, Login};
use finaiflow_schema::provision::{login_matches, set_login_password};
use finaiflow_schema::testing::{LIMITS, TenantDb, connect, random_password};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::sqlstate;

fn login_url(db: &TenantDb, login: Login, password: &str) -> String {
    let options: PgConnectOptions = db.app_url.parse().unwrap();
    options.username(db.names.login(login).as_str()).password(password).to_url_lossy().to_string()
}

#[tokio::test]
async fn a_login_connects_with_its_password_only_and_the_server_holds_a_verifier() {
    let db = TenantDb::create().await;
    let mut conn = connect(&db.app_url).await;
    let who: String = sqlx::query_scalar("SELECT current_user::text").fetch_one(&mut conn).await.unwrap();
    assert_eq!(who, db.names.app_a.as_str());
    for wrong in ["", "wrong"] {
        let refused = PgConnection::connect(&login_url(&db, Login::AppA, wrong)).await;
        assert_eq!(sqlstate(refused), "28P01", "the test server must ask for scram-sha-256 on TCP");
    }
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname LIKE $1 AND rolpassword IS NOT NULL")
            .bind(format!("ff_{}_%", db.claim_id))
            .fetch_all(&mut db.superuser().await)
            .await
            .unwrap();
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|verifier| verifier.starts_with("SCRAM-SHA-256$")));
    db.drop().await;
}

#[tokio::test]
async fn groups_and_unused_slots_cannot_log_in() {
    let db = TenantDb::create().await;
    let can_log_in: Vec<String> =
        sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 AND rolcanlogin ORDER BY rolname")
            .bind(format!("ff_{}_%", db.claim_id))
            .fetch_all(&mut db.admin().await)
            .await
            .unwrap();
    assert_eq!(can_log_in, [&db.names.app_a, &db.names.backup, &db.names.maintenance].map(Identifier::as_str));
    db.drop().await;
}

#[tokio::test]
async fn slots_take_turns_and_both_work_during_the_overlap() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let (first, second) = (random_password(), random_password());
    let set = set_login_password(&mut admin, &db.names, Login::app(2), &second, 2).await.unwrap();
    assert_eq!(set.len(), 1);
    assert!(!format!("{set:?}").contains(second.expose()));
    let mut b = connect(&login_url(&db, Login::AppB, second.expose())).await;
    sqlx::query("SELECT * FROM users").execute(&mut b).await.unwrap();
    connect(&db.app_url).await;

    assert!(login_matches(&mut admin, &db.names, Login::AppB, &second, 2).await.unwrap());
    assert!(!login_matches(&mut admin, &db.names, Login::AppB, &first, 2).await.unwrap());
    assert!(!login_matches(&mut admin, &db.names, Login::AppB, &second, 4).await.unwrap());
    assert!(!login_matches(&mut admin, &db.names, Login::AppA, &second, 2).await.unwrap());

    assert_eq!(set_login_password(&mut admin, &db.names, Login::AppB, &second, 2).await.unwrap(), []);
    assert_eq!(set_login_password(&mut admin, &db.names, Login::AppB, &first, 4).await.unwrap().len(), 1);
    let old = PgConnection::connect(&login_url(&db, Login::AppB, second.expose())).await;
    assert_eq!(sqlstate(old), "28P01");
    connect(&login_url(&db, Login::AppB, first.expose())).await;
    db.drop().await;
}

#[tokio::test]
async fn settings_and_limits_are_the_roles_own() {
    let db = TenantDb::create().await;
    let logins =
        [(&db.app_url, "30s", "30s", 20), (&db.maintenance_url, "15min", "30s", 2), (&db.backup_url, "4h", "15min", 6)];
    for (url, timeout, idle, connections) in logins {
        let mut conn = connect(url).await;
        let found: (String, String, String, i32) = sqlx::query_as(
            "SELECT current_setting('search_path'), current_setting('statement_timeout'),
                    current_setting('idle_in_transaction_session_timeout'), rolconnlimit
             FROM pg_roles WHERE rolname = current_user",
        )
        .fetch_one(&mut conn)
        .await
        .unwrap();
        let search_path = format!("{}, pg_temp", db.names.schema);
        assert_eq!(found, (search_path, timeout.to_owned(), idle.to_owned(), connections));
    }
    let mut held = Vec::new();
    for _ in 0..LIMITS.connections {
        held.push(connect(&db.app_url).await);
    }
    let error = Error::from(PgConnection::connect(&db.app_url).await.unwrap_err());
    assert!(matches!(&error, Error::Unavailable(_)) && error.is_transient(), "{error:?}");
    db.drop().await;
}

#[tokio::test]
async fn a_password_needs_a_role_of_ours() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let other = finaiflow_schema::names::ClaimId::from_random(u64::MAX);
    let names = finaiflow_schema::names::TenantNames::derive(&other, "acme", None).unwrap();
    let missing = set_login_password(&mut admin, &names, Login::AppA, &random_password(), 1).await;
    assert!(matches!(missing, Err(Error::MissingRole(role)) if role == names.app_a.as_str()));
    let unreachable: PgConnectOptions = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
    let error = Error::from(unreachable.connect().await.unwrap_err());
    assert!(matches!(error, Error::Unavailable(_)));
    db.drop().await;
}
