//! Credentials of login roles.

use sqlx::{Connection, FromRow, PgConnection};

use super::{existing_roles, find, foreign_role};
use crate::catalog::{Action, Change, run};
use crate::error::{Error, Result};
use crate::names::{Login, TenantNames, quote};
use crate::password::Password;

/// The credentials a login was given last.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct LoginRecord {
    /// The role.
    #[sqlx(rename = "role_name")]
    pub role: String,
    /// Counts its passwords from 1.
    pub generation: i32,
    /// SHA-256 of the password.
    #[sqlx(rename = "password_digest")]
    pub digest: Vec<u8>,
}

/// What the tenant's logins were given last.
pub async fn recorded_logins(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<LoginRecord>> {
    let sql = "SELECT role_name, generation, password_digest FROM finaiflow_system.logins WHERE claim_id = $1";
    Ok(sqlx::query_as(sql).bind(names.claim_id.to_string()).fetch_all(conn).await?)
}

/// Lets a login connect with this password of this generation. Writes nothing if it already can.
///
/// PostgreSQL receives a SCRAM verifier, never the password; its digest is recorded to recognise it later.
pub async fn set_login_password(
    conn: &mut PgConnection,
    names: &TenantNames,
    login: Login,
    password: &Password,
    generation: i32,
) -> Result<Vec<Change>> {
    if login_matches(conn, names, login, password, generation).await? {
        return Ok(Vec::new());
    }
    let role = names.login(login);
    let mut tx = conn.begin().await?;
    let existing = existing_roles(&mut tx, names).await?;
    let found = find(&existing, role).ok_or_else(|| Error::MissingRole(role.to_string()))?;
    if !found.is_ours(names) {
        return Err(foreign_role(found));
    }
    run(&mut tx, format!("ALTER ROLE {} LOGIN PASSWORD '{}'", quote(role), password.scram_verifier())).await?;
    sqlx::query(
        "INSERT INTO finaiflow_system.logins (role_name, claim_id, purpose, generation, password_digest)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (role_name) DO UPDATE
         SET generation = excluded.generation, password_digest = excluded.password_digest",
    )
    .bind(role.as_str())
    .bind(names.claim_id.to_string())
    .bind(login.purpose())
    .bind(generation)
    .bind(password.digest())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(vec![Change::new(Action::Altered, format!("credentials of role {role}, generation {generation}"))])
}

/// Whether the login can connect and was last given this password, as this generation.
pub async fn login_matches(
    conn: &mut PgConnection,
    names: &TenantNames,
    login: Login,
    password: &Password,
    generation: i32,
) -> Result<bool> {
    let sql = "SELECT EXISTS (
                   SELECT FROM finaiflow_system.logins l JOIN pg_roles r ON r.rolname = l.role_name
                   WHERE l.role_name = $1 AND l.claim_id = $2 AND l.generation = $3 AND l.password_digest = $4
                     AND r.rolcanlogin)";
    Ok(sqlx::query_scalar(sql)
        .bind(names.login(login).as_str())
        .bind(names.claim_id.to_string())
        .bind(generation)
        .bind(password.digest())
        .fetch_one(conn)
        .await?)
}
