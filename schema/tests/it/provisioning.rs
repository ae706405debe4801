//! Roles and schema: nothing twice, nothing foreign, everything again after a crash.

use finaiflow_schema::names::{ClaimId, Login, TenantNames};
use finaiflow_schema::provision::{Limits, drop_tenant, ensure_grants, ensure_roles_and_schema, set_login_password};
use finaiflow_schema::system::NewClaim;
use finaiflow_schema::testing::{INSTALLATION, LIMITS, TenantDb, random_claim, random_password};
use finaiflow_schema::{Error, conformance, migrate, system};
use sqlx::{Connection, PgConnection};

use crate::execute;

async fn has_written(conn: &mut PgConnection) -> bool {
    sqlx::query_scalar("SELECT pg_current_xact_id_if_assigned() IS NOT NULL").fetch_one(conn).await.unwrap()
}

#[tokio::test]
async fn a_second_run_writes_nothing() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let password = random_password();
    set_login_password(&mut conn, &db.names, Login::AppA, &password, 3).await.unwrap();
    let mut tx = conn.begin().await.unwrap();
    assert_eq!(system::ensure(&mut tx).await.unwrap(), []);
    assert_eq!(ensure_roles_and_schema(&mut tx, &db.names, &LIMITS).await.unwrap(), []);
    assert_eq!(migrate::migrate(&mut tx, &db.names).await.unwrap(), []);
    assert_eq!(ensure_grants(&mut tx, &db.names).await.unwrap(), []);
    assert_eq!(set_login_password(&mut tx, &db.names, Login::AppA, &password, 3).await.unwrap(), []);
    // A transaction that writes anything at all is given an id.
    assert!(!has_written(&mut tx).await);
    let louder = Limits { connections: 21, ..LIMITS };
    assert_eq!(ensure_roles_and_schema(&mut tx, &db.names, &louder).await.unwrap().len(), 2);
    assert!(has_written(&mut tx).await);
    tx.rollback().await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn the_first_run_tells_what_it_made() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let names = TenantNames::derive(&ClaimId::from_random(0xabc), "told", Some("order")).unwrap();
    let mut tx = conn.begin().await.unwrap();
    let changes = ensure_roles_and_schema(&mut tx, &names, &LIMITS).await.unwrap();
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    let r = "ff_0000000000000abc";
    assert_eq!(
        changes,
        [
            format!("created role {r}_owner"),
            format!("created role {r}_app"),
            format!("created role {r}_app_a"),
            format!("created role {r}_app_b"),
            format!("created role {r}_maintenance"),
            format!("created role {r}_backup"),
            format!("granted membership of {r}_app_a in {r}_app"),
            format!("granted membership of {r}_app_b in {r}_app"),
            format!("granted membership of the admin in {r}_owner"),
            "created schema order".to_owned(),
            format!("revoked default execute on functions of {r}_owner from PUBLIC"),
        ]
    );
    // The schema is named like a keyword, and still nothing is seen as different.
    migrate::migrate(&mut tx, &names).await.unwrap();
    ensure_grants(&mut tx, &names).await.unwrap();
    assert_eq!(ensure_roles_and_schema(&mut tx, &names, &LIMITS).await.unwrap(), []);
    assert_eq!(ensure_grants(&mut tx, &names).await.unwrap(), []);
    assert_eq!(conformance::check(&mut tx, &names).await.unwrap(), Vec::<String>::new());
    tx.rollback().await.unwrap();
    db.drop().await;
}

#[tokio::test]
async fn attributes_that_drifted_are_brought_back() {
    let db = TenantDb::create().await;
    let neighbour = db.create_second_tenant().await;
    let mut conn = db.admin().await;
    let (mine, theirs) = (&db.names, &neighbour.names);
    for sql in [
        format!("ALTER ROLE {} LOGIN", mine.owner),
        format!("ALTER ROLE {} CONNECTION LIMIT -1 NOINHERIT", mine.app_a),
        format!("ALTER ROLE {} SET statement_timeout TO 0", mine.app_b),
        format!("ALTER ROLE {} SET work_mem TO '1GB'", mine.maintenance),
        format!("GRANT {} TO {}", theirs.app, mine.app_a),
        format!("REVOKE {} FROM {}", mine.app, mine.app_b),
    ] {
        execute(&mut conn, &mine.schema, &sql).await.unwrap();
    }
    let changes = ensure_roles_and_schema(&mut conn, mine, &LIMITS).await.unwrap();
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            format!("altered role {}", mine.owner),
            format!("altered role {}", mine.app_a),
            format!("altered role {}", mine.app_b),
            format!("altered role {}", mine.maintenance),
            format!("revoked membership of {} in {}", mine.app_a, theirs.app),
            format!("granted membership of {} in {}", mine.app_b, mine.app),
        ]
    );
    assert_eq!(ensure_roles_and_schema(&mut conn, mine, &LIMITS).await.unwrap(), []);

    // What a superuser granted, the admin can take back until PostgreSQL 15; later it can only say so.
    let foreign = format!("GRANT {} TO {}", theirs.app, mine.app_a);
    execute(&mut db.superuser().await, &mine.schema, &foreign).await.unwrap();
    match ensure_roles_and_schema(&mut conn, mine, &LIMITS).await {
        Ok(changes) => assert_eq!(changes.len(), 1),
        Err(error) => assert!(error.to_string().ends_with("by grant of postgres, who must revoke it"), "{error}"),
    }
    db.drop().await;
}

#[tokio::test]
async fn a_foreign_role_or_schema_is_refused_and_nothing_is_made() {
    let db = TenantDb::create().await;
    let mut conn = db.admin().await;
    let names = TenantNames::derive(&ClaimId::from_random(0xdef), "wanted", None).unwrap();
    for (sql, object) in [
        (format!("CREATE ROLE {}", names.maintenance), format!("role {}", names.maintenance)),
        (format!("CREATE SCHEMA {}", names.schema), format!("schema {}", names.schema)),
        (
            format!("CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS 'finaiflow/claim=0000000000000001'", names.schema),
            format!("schema {}", names.schema),
        ),
    ] {
        let mut tx = conn.begin().await.unwrap();
        execute(&mut tx, &names.schema, &sql).await.unwrap();
        let error = ensure_roles_and_schema(&mut tx, &names, &LIMITS).await.unwrap_err();
        assert!(matches!(&error, Error::Foreign { object: found, .. } if *found == object), "{error}");
        let made: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_roles WHERE rolname = $1")
            .bind(names.owner.as_str())
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(made, 0, "{object}");
        tx.rollback().await.unwrap();
    }
    db.drop().await;
}

#[tokio::test]
async fn whatever_is_missing_is_made_again() {
    let db = TenantDb::create().await;
    let mut superuser = db.superuser().await;
    let names = &db.names;
    let losses = [
        format!("DROP OWNED BY {0}; DROP ROLE {0}", names.app),
        format!("DROP OWNED BY {0}; DROP ROLE {0}", names.app_b),
        format!("DROP OWNED BY {0}; DROP ROLE {0}", names.maintenance),
        "DROP SCHEMA {s} CASCADE".to_owned(),
        format!("DROP SCHEMA {{s}} CASCADE; DROP OWNED BY {0}; DROP ROLE {0}", names.owner),
    ];
    for loss in losses {
        execute(&mut superuser, &names.schema, &loss).await.unwrap();
        let mut conn = db.admin().await;
        assert_ne!(ensure_roles_and_schema(&mut conn, names, &LIMITS).await.unwrap(), [], "{loss}");
        migrate::migrate(&mut conn, names).await.unwrap();
        ensure_grants(&mut conn, names).await.unwrap();
        assert_eq!(conformance::check(&mut conn, names).await.unwrap(), Vec::<String>::new(), "{loss}");
    }
    db.drop().await;
}

/// A tenant's whole making, as the operator does it: one fenced transaction.
async fn provision(mut conn: PgConnection, epoch: i64, id: u64) -> Result<TenantNames, Error> {
    let name = format!("bank-{id}");
    let claim_id = random_claim();
    let names = TenantNames::derive(&claim_id, &name, None)?;
    let claim = NewClaim {
        claim_id,
        installation_id: INSTALLATION,
        namespace: "banks",
        name: &name,
        schema_name: &names.schema,
        uid: "uid",
    };
    system::insert_claim(&mut conn, &claim).await?;
    let mut tx = conn.begin().await?;
    system::lock_claim(&mut tx, epoch, &claim_id).await?;
    ensure_roles_and_schema(&mut tx, &names, &LIMITS).await?;
    migrate::migrate(&mut tx, &names).await?;
    ensure_grants(&mut tx, &names).await?;
    tx.commit().await?;
    Ok(names)
}

async fn remove(mut conn: PgConnection, epoch: i64, names: TenantNames) -> Result<(), Error> {
    let mut tx = conn.begin().await?;
    system::lock_claim(&mut tx, epoch, &names.claim_id).await?;
    drop_tenant(&mut tx, &names).await?;
    tx.commit().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tenants_are_made_and_dropped_at_once() {
    let db = TenantDb::create().await;
    let epoch = system::next_epoch(&mut db.admin().await).await.unwrap();
    let mut making = Vec::new();
    for id in 0..8 {
        making.push(tokio::spawn(provision(db.admin().await, epoch, id)));
    }
    let mut removing = Vec::new();
    for made in making {
        let names = made.await.unwrap().unwrap();
        assert_eq!(conformance::check(&mut db.admin().await, &names).await.unwrap(), Vec::<String>::new());
        removing.push(tokio::spawn(remove(db.admin().await, epoch, names)));
    }
    for removed in removing {
        removed.await.unwrap().unwrap();
    }
    db.drop().await;
}
