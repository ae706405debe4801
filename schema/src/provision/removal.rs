//! Giving a tenant up: disabling its logins, and dropping what carries its comment.

use sqlx::{Connection, PgConnection};

use super::roles::grant_to_admin;
use super::{Role, close_restore, existing_roles, existing_schema, find};
use crate::catalog::{Action, Change, quote_any, run};
use crate::error::Result;
use crate::grants::lock_database_acl;
use crate::names::{Identifier, Login, TenantNames, quote};

/// How long to wait for a terminated session to end, in milliseconds.
const SESSION_END_MILLIS: i64 = 5_000;

/// Keeps the data and closes every way in: logins lose `LOGIN`, their sessions end, their password digests go, and so does a
/// restore's login.
///
/// Inside a transaction, a client whose session ended can connect again until the commit. A second call, after it,
/// ends such sessions too.
pub async fn release(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<Change>> {
    let mut changes = close_logins(conn, names, &Login::ALL).await?;
    changes.extend(close_restore(conn, names).await?);
    Ok(changes)
}

/// The same for some of the logins.
pub async fn close_logins(conn: &mut PgConnection, names: &TenantNames, logins: &[Login]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut tx = conn.begin().await?;
    let existing = existing_roles(&mut tx, names).await?;
    let logins: Vec<_> = logins.iter().map(|login| names.login(*login)).collect();
    let found = ours(&existing, names, &logins);
    for (name, role) in &found {
        if role.rolcanlogin {
            run(&mut tx, format!("ALTER ROLE {} NOLOGIN", quote(name))).await?;
            changes.push(Change::new(Action::Disabled, format!("login {name}")));
        }
    }
    sqlx::query("DELETE FROM finaiflow_system.logins WHERE claim_id = $1 AND role_name = ANY($2)")
        .bind(names.claim_id.to_string())
        .bind(logins.iter().map(|name| name.as_str()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    for (name, _) in &found {
        changes.extend(end_sessions(conn, name).await?);
    }
    Ok(changes)
}

/// Drops the tenant's schema with all its data, and its roles: only what carries this claim's comment.
///
/// Every step can be repeated, so a call after a crash goes on where the last one stopped. Commit a
/// [`release`] before, so that no client is connected any more.
/// [`Error::Foreign`](crate::Error::Foreign) if the claim's owner owns the schema but its comment is another's.
pub async fn drop_tenant(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<Change>> {
    let mut changes = release(conn, names).await?;
    let mut tx = conn.begin().await?;
    if let Some(schema) = existing_schema(&mut tx, names).await? {
        if schema.is_ours(names) {
            run(&mut tx, format!("DROP SCHEMA {} CASCADE", quote(&names.schema))).await?;
            changes.push(Change::new(Action::Dropped, format!("schema {}", names.schema)));
        } else if schema.owner == names.owner.as_str() {
            // Dropping the owner would take the schema with it, and its comment says it is not ours to drop.
            return Err(schema.foreign(&names.schema));
        }
    }
    let aside = "SELECT nspname::text FROM pg_namespace
        WHERE nspowner = to_regrole($1) AND obj_description(oid, 'pg_namespace') = $2 ORDER BY 1";
    let aside: Vec<String> =
        sqlx::query_scalar(aside).bind(names.owner.as_str()).bind(names.aside_comment()).fetch_all(&mut *tx).await?;
    for schema in aside {
        run(&mut tx, format!("DROP SCHEMA {} CASCADE", quote_any(&schema))).await?;
        changes.push(Change::new(Action::Dropped, format!("schema {schema}")));
    }
    let existing = existing_roles(&mut tx, names).await?;
    let roles = ours(&existing, names, &names.roles());
    if !roles.is_empty() {
        lock_database_acl(&mut tx).await?;
    }
    for (name, _) in roles {
        drop_role(&mut tx, name, &mut changes).await?;
    }
    tx.commit().await?;
    Ok(changes)
}

/// Drops roles that carry the comment of a claim that was dropped: somebody brought them back.
///
/// If one of a claim's roles owns anything, in any database, all of them stay: it may be a bank that was restored.
pub async fn drop_orphan_roles(conn: &mut PgConnection) -> Result<Vec<Change>> {
    let mut tx = conn.begin().await?;
    let orphans: Vec<String> = sqlx::query_scalar(
        "SELECT r.rolname::text
         FROM finaiflow_system.claims c
         JOIN pg_roles r ON starts_with(r.rolname, 'ff_' || c.claim_id || '_')
                        AND shobj_description(r.oid, 'pg_authid') = 'finaiflow/claim=' || c.claim_id
         WHERE c.state = 'dropped'
           AND NOT EXISTS (SELECT FROM pg_shdepend d JOIN pg_roles o ON o.oid = d.refobjid
                           WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o'
                             AND d.classid <> 'pg_default_acl'::regclass
                             AND starts_with(o.rolname, 'ff_' || c.claim_id || '_'))
         ORDER BY 1",
    )
    .fetch_all(&mut *tx)
    .await?;
    if orphans.is_empty() {
        return Ok(Vec::new());
    }
    lock_database_acl(&mut tx).await?;
    let mut changes = Vec::new();
    for name in orphans {
        drop_role(&mut tx, &Identifier::new(name)?, &mut changes).await?;
    }
    tx.commit().await?;
    Ok(changes)
}

/// Drops a role together with what it owns and was granted.
pub(super) async fn drop_role(conn: &mut PgConnection, name: &Identifier, changes: &mut Vec<Change>) -> Result<()> {
    // Dropping what a role owns or was granted takes being in it.
    grant_to_admin(conn, name).await?;
    let role = quote(name);
    run(conn, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await?;
    changes.push(Change::new(Action::Dropped, format!("role {name}")));
    Ok(())
}

fn ours<'a>(existing: &'a [Role], names: &TenantNames, wanted: &[&'a Identifier]) -> Vec<(&'a Identifier, &'a Role)> {
    wanted
        .iter()
        .filter_map(|name| find(existing, name).map(|role| (*name, role)))
        .filter(|(_, role)| role.is_ours(names))
        .collect()
}

pub(super) async fn end_sessions(conn: &mut PgConnection, role: &Identifier) -> Result<Option<Change>> {
    let connected: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1)")
        .bind(role.as_str())
        .fetch_one(&mut *conn)
        .await?;
    if !connected {
        return Ok(None);
    }
    let mut tx = conn.begin().await?;
    // Ending a role's session takes being in it; only for as long as that lasts.
    grant_to_admin(&mut tx, role).await?;
    sqlx::query("SELECT pg_terminate_backend(pid, $2) FROM pg_stat_activity WHERE usename = $1")
        .bind(role.as_str())
        .bind(SESSION_END_MILLIS)
        .execute(&mut *tx)
        .await?;
    run(&mut tx, format!("REVOKE {} FROM CURRENT_USER", quote(role))).await?;
    tx.commit().await?;
    Ok(Some(Change::new(Action::Disabled, format!("sessions of {role}"))))
}
