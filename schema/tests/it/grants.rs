//! What each login may and may not do, tried over TCP as that login.

use finaiflow_schema::grants::ensure_grants;
use finaiflow_schema::names::Identifier;
use finaiflow_schema::testing::{TenantDb, connect};
use sqlx::PgConnection;

use crate::{execute, sqlstate};

async fn denied(conn: &mut PgConnection, schema: &Identifier, statements: &[&str]) {
    for sql in statements {
        assert_eq!(sqlstate(execute(conn, schema, sql).await), "42501", "{sql}");
    }
}

async fn allowed(conn: &mut PgConnection, schema: &Identifier, statements: &[&str]) {
    for sql in statements {
        assert_eq!(sqlstate(execute(conn, schema, sql).await), "ok", "{sql}");
    }
}

#[tokio::test]
async fn the_app_reads_its_tables_and_cannot_mint_money() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    let user = "'00000000-0000-0000-0000-000000000001'";
    let insert_user = format!(
        "INSERT INTO users (id, email, email_normalized, name, password_hash, status, created_at, updated_at)
         VALUES ({user}, 'a@b', 'a@b', 'a', 'h', 'active', now(), now())"
    );
    // No schema named: the role's own search_path finds it.
    allowed(
        &mut app,
        &db.names.schema,
        &[
            &insert_user,
            "UPDATE users SET name = 'b'",
            "DELETE FROM users",
            "INSERT INTO audit_events (at, event, outcome) VALUES (now(), 'login', 'success')",
            "SELECT * FROM audit_events",
            "SELECT * FROM lock_head()",
            "SELECT expire(1)",
            "SELECT * FROM accounts, account_balances, journals, entries, ledger_head, idempotency_keys",
            "SELECT * FROM sessions, refresh_tokens, outbox",
        ],
    )
    .await;
    let mut statements = Vec::new();
    for table in ["accounts", "account_balances", "journals", "entries", "holds", "ledger_head", "idempotency_keys"] {
        statements.push(format!("DELETE FROM {table}"));
        statements.push(format!("INSERT INTO {table} SELECT * FROM {table}"));
        statements.push(format!("TRUNCATE {table}"));
        statements.push(format!("SELECT * FROM {table} FOR UPDATE"));
    }
    denied(&mut app, &db.names.schema, &statements.iter().map(String::as_str).collect::<Vec<_>>()).await;
    denied(
        &mut app,
        &db.names.schema,
        &[
            "UPDATE account_balances SET posted = 1",
            "UPDATE ledger_head SET epoch = 2",
            "UPDATE accounts SET minimum_balance = NULL",
            "UPDATE idempotency_keys SET outcome = '{}'",
            "UPDATE audit_events SET event = 'none'",
            "DELETE FROM audit_events",
            "INSERT INTO audit_events (at, event, outcome, xid) VALUES (now(), 'x', 'success', '1')",
            "SELECT * FROM _changes",
            "INSERT INTO _changes (table_name, op, pk) VALUES ('users', 'delete', '{}')",
            "SELECT * FROM schema_migrations",
            "INSERT INTO ledger_verifications (started_at, finished_at, epoch, sequence, balanced, findings)
             VALUES (now(), now(), 1, 0, true, '[]')",
            "UPDATE ledger_verifications SET balanced = true",
            "SELECT keep_outcomes(NULL, NULL, NULL, NULL, NULL, now())",
            "ALTER TABLE users DISABLE TRIGGER record_change",
            "DROP TABLE users",
            "CREATE OR REPLACE FUNCTION {s}.expire(p_limit int) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'",
        ],
    )
    .await;
    db.drop().await;
}

#[tokio::test]
async fn a_login_reaches_nothing_outside_its_schema() {
    let db = TenantDb::create().await;
    let neighbour = db.create_second_tenant().await;
    for url in [&db.app_url, &db.maintenance_url, &db.backup_url] {
        let mut conn = connect(url).await;
        denied(
            &mut conn,
            &neighbour.names.schema,
            &[
                "SELECT * FROM {s}.users",
                "SELECT * FROM {s}.ledger_head",
                "SELECT {s}.expire(1)",
                "SELECT * FROM finaiflow_system.claims",
                "CREATE TEMP TABLE t (i int)",
                "CREATE TABLE public.t (i int)",
                "CREATE SCHEMA mine",
                "CREATE ROLE mine",
                "SELECT rolpassword FROM pg_authid",
            ],
        )
        .await;
        denied(&mut conn, &db.names.schema, &["CREATE TABLE {s}.t (i int)", "DROP SCHEMA {s} CASCADE"]).await;
        let roles = [&db.names.owner, &neighbour.names.app, &neighbour.names.app_a, &neighbour.names.owner];
        for role in roles {
            denied(&mut conn, role, &["SET ROLE {s}"]).await;
        }
    }
    db.drop().await;
}

#[tokio::test]
async fn maintenance_reads_the_books_and_records_verifications_only() {
    let db = TenantDb::create().await;
    let mut maintenance = connect(&db.maintenance_url).await;
    allowed(
        &mut maintenance,
        &db.names.schema,
        &[
            "SELECT * FROM accounts, account_balances, journals, entries, holds, ledger_head",
            "INSERT INTO ledger_verifications (started_at, finished_at, epoch, sequence, balanced, findings)
             VALUES (now(), now(), 1, 0, true, '[]') RETURNING id",
        ],
    )
    .await;
    denied(
        &mut maintenance,
        &db.names.schema,
        &[
            "SELECT * FROM users",
            "SELECT * FROM sessions",
            "SELECT * FROM idempotency_keys",
            "SELECT * FROM audit_events",
            "SELECT * FROM _changes",
            "UPDATE ledger_verifications SET balanced = true",
            "UPDATE account_balances SET posted = 0",
            "SELECT lock_head()",
            &format!("SELECT apply_batch(1, 0, now(){})", ", NULL".repeat(37)),
            "SELECT expire(1)",
        ],
    )
    .await;
    db.drop().await;
}

#[tokio::test]
async fn public_may_not_even_connect() {
    let db = TenantDb::create().await;
    let mut admin = db.admin().await;
    let held: Vec<String> = sqlx::query_scalar(
        "SELECT privilege_type FROM pg_database, aclexplode(datacl) WHERE datname = current_database() AND grantee = 0
         UNION ALL SELECT privilege_type FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'public' AND grantee = 0",
    )
    .fetch_all(&mut admin)
    .await
    .unwrap();
    assert_eq!(held, Vec::<String>::new());
    db.drop().await;
}

#[tokio::test]
async fn rights_that_drifted_are_brought_back() {
    let db = TenantDb::create().await;
    let mut superuser = db.superuser().await;
    let (app, schema) = (db.names.app.as_str(), &db.names.schema);
    for sql in [
        format!("GRANT UPDATE ON {{s}}.account_balances TO {app}"),
        format!("GRANT INSERT (xid) ON {{s}}.audit_events TO {app}"),
        format!("GRANT CREATE ON SCHEMA {{s}} TO {app}"),
        format!("REVOKE SELECT ON {{s}}.users FROM {app}"),
        "GRANT EXECUTE ON FUNCTION {s}.keep_outcomes(uuid[], text[], bytea[], bigint[], text[], timestamptz) TO PUBLIC"
            .to_owned(),
        format!("GRANT USAGE ON SEQUENCE {{s}}.audit_events_id_seq TO {app}"),
    ] {
        execute(&mut superuser, schema, &sql).await.unwrap();
    }
    let mut admin = db.admin().await;
    let changes = ensure_grants(&mut admin, &db.names).await.unwrap();
    let mut changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    changes.sort();
    assert_eq!(
        changes,
        [
            format!("granted SELECT on table users for {app}"),
            format!("revoked CREATE on schema {schema} for {app}"),
            "revoked EXECUTE on function keep_outcomes(uuid[], text[], bytea[], bigint[], text[], timestamp with time zone) for PUBLIC".to_owned(),
            format!("revoked INSERT on table audit_events.xid for {app}"),
            format!("revoked UPDATE on table account_balances for {app}"),
            format!("revoked USAGE on sequence audit_events_id_seq for {app}"),
        ]
    );
    assert_eq!(ensure_grants(&mut admin, &db.names).await.unwrap(), []);
    db.drop().await;
}
