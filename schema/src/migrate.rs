//! Forward migrations, checksummed and recorded in each schema's `schema_migrations`.
//!
//! A migration runs in one transaction as the schema's owner and relies on the `search_path` set there, so its SQL is
//! a constant text. Version 0 records the repeatable part (functions and triggers), applied whenever it differs.

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use sqlx::{Connection, Executor, PgConnection};

use crate::catalog::{act_in, reset_role, run};
use crate::error::{Error, Result};
use crate::names::{Identifier, TenantNames};
use crate::tables;

/// A migration that was applied by a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedMigration {
    /// Its number; 0 for the repeatable part.
    pub version: i32,
    /// Its name.
    pub name: &'static str,
}

/// A forward step; its SQL never changes once released.
pub(crate) struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

impl Migration {
    pub(crate) const fn new(version: i32, name: &'static str, sql: &'static str) -> Self {
        Self { version, name, sql }
    }
}

const TENANT: &[Migration] = &[
    Migration::new(1, "identity", include_str!("../migrations/0001_identity.sql")),
    Migration::new(2, "ledger", include_str!("../migrations/0002_ledger.sql")),
    Migration::new(3, "records", include_str!("../migrations/0003_records.sql")),
    Migration::new(4, "books", include_str!("../migrations/0004_books.sql")),
];

const REPEATABLE: &[&str] = &[
    include_str!("../repeatable/triggers.sql"),
    include_str!("../repeatable/outcomes.sql"),
    include_str!("../repeatable/ledger.sql"),
];

/// A migrated schema: whose it is, and what it should contain.
pub(crate) struct Target<'a> {
    pub(crate) schema: &'a Identifier,
    /// None: the connected role itself.
    pub(crate) owner: Option<&'a Identifier>,
    pub(crate) migrations: &'static [Migration],
    pub(crate) repeatable: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Recorded {
    version: i32,
    name: String,
    checksum: String,
}

/// The version this program migrates tenants to.
#[must_use]
pub const fn head_version() -> i32 {
    TENANT[TENANT.len() - 1].version
}

/// The tenant schema's version; None before its first migration.
pub async fn current(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<i32>> {
    let recorded = recorded(conn, &tenant(names)).await?;
    Ok(recorded.iter().map(|row| row.version).max())
}

/// Brings the tenant schema to [`head_version`], one transaction per migration; returns what was applied.
///
/// Refuses, before any change, a schema of a newer program or one whose applied migrations differ from ours.
pub async fn migrate(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<AppliedMigration>> {
    migrate_target(conn, &tenant(names)).await
}

fn tenant(names: &TenantNames) -> Target<'_> {
    Target {
        schema: &names.schema,
        owner: Some(&names.owner),
        migrations: TENANT,
        repeatable: Some(REPEATABLE.concat() + &tables::triggers_sql()),
    }
}

pub(crate) async fn migrate_target(conn: &mut PgConnection, target: &Target<'_>) -> Result<Vec<AppliedMigration>> {
    let recorded = recorded(conn, target).await?;
    check(target.migrations, &recorded)?;
    let mut applied = Vec::new();
    for migration in target.migrations {
        if recorded.iter().any(|row| row.version == migration.version) {
            continue;
        }
        apply(conn, target, migration.version, migration.name, migration.sql).await?;
        applied.push(AppliedMigration { version: migration.version, name: migration.name });
    }
    if let Some(sql) = &target.repeatable {
        let checksum = checksum(sql);
        if !recorded.iter().any(|row| row.version == 0 && row.checksum == checksum) {
            apply(conn, target, 0, "repeatable", sql).await?;
            applied.push(AppliedMigration { version: 0, name: "repeatable" });
        }
    }
    Ok(applied)
}

fn check(known: &[Migration], recorded: &[Recorded]) -> Result<()> {
    let head = known.iter().map(|migration| migration.version).max().unwrap_or_default();
    if let Some(newest) = recorded.iter().map(|row| row.version).max().filter(|newest| *newest > head) {
        return Err(Error::NewerVersion { found: newest, known: head });
    }
    for row in recorded.iter().filter(|row| row.version > 0) {
        let same = known.iter().any(|known| known.version == row.version && checksum(known.sql) == row.checksum);
        if !same {
            return Err(Error::ChecksumMismatch { version: row.version, name: row.name.clone() });
        }
    }
    Ok(())
}

async fn recorded(conn: &mut PgConnection, target: &Target<'_>) -> Result<Vec<Recorded>> {
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE n.nspname = $1 AND c.relname = 'schema_migrations')",
    )
    .bind(target.schema.as_str())
    .fetch_one(&mut *conn)
    .await?;
    if !exists {
        return Ok(Vec::new());
    }
    let mut tx = conn.begin().await?;
    act_in(&mut tx, target.owner, target.schema).await?;
    let rows = sqlx::query_as("SELECT version, name, checksum FROM schema_migrations ORDER BY version")
        .fetch_all(&mut *tx)
        .await?;
    reset_role(&mut tx).await?;
    tx.commit().await?;
    Ok(rows)
}

async fn apply(conn: &mut PgConnection, target: &Target<'_>, version: i32, name: &str, sql: &str) -> Result<()> {
    let mut tx = conn.begin().await?;
    act_in(&mut tx, target.owner, target.schema).await?;
    // A lock that is not free soon would make every query behind it wait; failing is retried.
    tx.execute("SET LOCAL lock_timeout TO '5s'").await?;
    run(&mut tx, sql.to_owned()).await?;
    sqlx::query(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)
         ON CONFLICT (version) DO UPDATE SET checksum = excluded.checksum, applied_at = now()
         WHERE schema_migrations.version = 0",
    )
    .bind(version)
    .bind(name)
    .bind(checksum(sql))
    .execute(&mut *tx)
    .await?;
    tx.execute("SET LOCAL lock_timeout TO DEFAULT").await?;
    reset_role(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

fn checksum(sql: &str) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, sql.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: i32, checksum: String) -> Recorded {
        Recorded { version, name: format!("m{version}"), checksum }
    }

    #[test]
    fn versions_are_dense() {
        assert!(TENANT.iter().zip(1..).all(|(migration, expected)| migration.version == expected));
    }

    #[test]
    fn a_newer_schema_and_a_changed_migration_are_refused() {
        let good = row(1, checksum(TENANT[0].sql));
        assert!(check(TENANT, &[good]).is_ok());
        let newer = check(TENANT, &[row(head_version() + 1, String::new())]);
        assert!(matches!(newer, Err(Error::NewerVersion { .. })));
        let changed = check(TENANT, &[row(2, checksum("else"))]);
        assert!(matches!(changed, Err(Error::ChecksumMismatch { version: 2, .. })));
    }
}
