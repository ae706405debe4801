//! The declaration and the live catalog agree, and each way of differing is found.

use finaiflow_schema::conformance;
use finaiflow_schema::tables::TABLES;
use finaiflow_schema::testing::TenantDb;
use sqlx::Connection;

use crate::execute;

#[tokio::test]
async fn a_provisioned_tenant_conforms() {
    let db = TenantDb::create().await;
    let neighbour = db.create_second_tenant().await;
    for names in [&db.names, &neighbour.names] {
        assert_eq!(conformance::check(&mut db.admin().await, names).await.unwrap(), Vec::<String>::new());
    }
    db.drop().await;
}

/// What is done to the schema, and a part of what is found.
const DEVIATIONS: &[(&str, &str)] = &[
    ("CREATE TABLE {s}.notes (id int PRIMARY KEY)", "table notes has no class"),
    ("DROP TABLE {s}.outbox", "table outbox is missing"),
    ("ALTER TABLE {s}.sessions SET UNLOGGED", "table sessions is not logged to the WAL"),
    ("ALTER TABLE {s}.entries ADD FOREIGN KEY (sequence) REFERENCES {s}.journals", "table entries has a foreign key"),
    ("ALTER TABLE {s}.sessions DROP CONSTRAINT sessions_pkey", "table sessions has another primary key"),
    ("ALTER TABLE {s}.sessions OWNER TO postgres", "table sessions does not belong to the tenant's owner"),
    ("DROP INDEX {s}.audit_events_xid", "table audit_events is append-only without an indexed xid"),
    ("DROP TRIGGER record_change ON {s}.users", "table users has other triggers"),
    ("ALTER TABLE {s}.journals DISABLE TRIGGER immutable", "table journals has other triggers"),
    ("GRANT UPDATE ON {s}.account_balances TO PUBLIC", "not revoked UPDATE on table account_balances for PUBLIC"),
    ("GRANT INSERT (xid) ON {s}.audit_events TO PUBLIC", "not revoked INSERT on table audit_events.xid for PUBLIC"),
    (
        "GRANT EXECUTE ON FUNCTION {s}.record_change() TO PUBLIC",
        "not revoked EXECUTE on function record_change() for PUBLIC",
    ),
    ("CREATE FUNCTION {s}.mint() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function mint() is not declared"),
    ("ALTER FUNCTION {s}.expire(int) RESET search_path", "function expire(integer) has no pinned search_path"),
    ("ALTER FUNCTION {s}.expire(int) SECURITY INVOKER", "function expire(integer) does not run as its owner"),
    ("DROP FUNCTION {s}.lock_head()", "function lock_head() is missing"),
    ("CREATE VIEW {s}.peek AS SELECT * FROM {s}.users", "relation peek is neither table, index nor sequence"),
];

#[tokio::test]
async fn every_deviation_is_found() {
    let db = TenantDb::create().await;
    let mut conn = db.superuser().await;
    for (deviation, expected) in DEVIATIONS {
        let mut tx = conn.begin().await.unwrap();
        execute(&mut tx, &db.names.schema, deviation).await.unwrap();
        let findings = conformance::check(&mut tx, &db.names).await.unwrap();
        assert!(findings.iter().any(|finding| finding.contains(expected)), "{deviation}: {findings:?}");
        tx.rollback().await.unwrap();
    }
    db.drop().await;
}

#[tokio::test]
async fn changes_of_logged_tables_are_recorded_and_money_is_immutable() {
    let db = TenantDb::create().await;
    let mut conn = db.superuser().await;
    let user = "('00000000-0000-0000-0000-000000000001', 'a@b', 'a@b', 'a', 'h', 'active', now(), now())";
    let insert = format!(
        "INSERT INTO {{s}}.users (id, email, email_normalized, name, password_hash, status, created_at, updated_at) VALUES {user}"
    );
    for sql in [
        insert.as_str(),
        "UPDATE {s}.users SET name = 'b'",
        "UPDATE {s}.users SET id = '00000000-0000-0000-0000-000000000002'",
        "DELETE FROM {s}.users",
    ] {
        execute(&mut conn, &db.names.schema, sql).await.unwrap();
    }
    execute(&mut conn, &db.names.schema, "SET search_path TO {s}").await.unwrap();
    let changes: Vec<(String, String, Option<String>)> =
        sqlx::query_as("SELECT op, right(pk ->> 'id', 1), image ->> 'name' FROM _changes ORDER BY seq")
            .fetch_all(&mut conn)
            .await
            .unwrap();
    let change = |op: &str, id: &str, name: Option<&str>| (op.to_owned(), id.to_owned(), name.map(str::to_owned));
    assert_eq!(
        changes,
        [
            change("insert", "1", Some("a")),
            change("update", "1", Some("b")),
            change("delete", "1", None),
            change("update", "2", Some("b")),
            change("delete", "2", None),
        ]
    );
    for table in ["users", "accounts", "outbox", "journals", "entries", "audit_events", "_changes"] {
        assert!(TABLES.iter().any(|declared| declared.name == table));
        let truncated = execute(&mut conn, &db.names.schema, &format!("TRUNCATE {{s}}.{table}")).await;
        assert_eq!(crate::sqlstate(truncated), "42501", "{table}");
    }
    for sql in ["UPDATE {s}.journals SET amount = 1", "DELETE FROM {s}.entries"] {
        assert_eq!(crate::sqlstate(execute(&mut conn, &db.names.schema, sql).await), "42501", "{sql}");
    }
    db.drop().await;
}
