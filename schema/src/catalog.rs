//! What provisioning has in common: the change list, acting as another role, and statements made from checked names.

use std::fmt;

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use crate::error::Result;
use crate::names::{Identifier, TenantNames};

/// What was done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It did not exist.
    Created,
    /// It differed from what it should be.
    Altered,
    /// A right or membership was missing.
    Granted,
    /// A right or membership should not have been there.
    Revoked,
    /// A login can no longer connect, or its sessions were ended.
    Disabled,
    /// It is gone.
    Dropped,
}

/// A change that was really made, worded for an event or log line. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was done.
    pub action: Action,
    /// To what, such as `role ff_0123456789abcdef_app`.
    pub object: String,
}

impl Change {
    pub(crate) fn new(action: Action, object: impl Into<String>) -> Self {
        Self { action, object: object.into() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.action {
            Action::Created => "created",
            Action::Altered => "altered",
            Action::Granted => "granted",
            Action::Revoked => "revoked",
            Action::Disabled => "disabled",
            Action::Dropped => "dropped",
        };
        write!(f, "{verb} {}", self.object)
    }
}

/// Runs statements built by this crate from literals and quoted names only.
pub(crate) async fn run(conn: &mut PgConnection, sql: String) -> Result<()> {
    conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await?;
    Ok(())
}

/// Acts as the tenant's owner, with its schema as the search_path, until the transaction's end.
pub async fn become_owner(conn: &mut PgConnection, names: &TenantNames) -> Result<()> {
    act_in(conn, Some(&names.owner), &names.schema).await
}

/// Acts in a schema, as a role if one is given, until [`reset_role`] or the transaction's end.
pub(crate) async fn act_in(conn: &mut PgConnection, role: Option<&Identifier>, schema: &Identifier) -> Result<()> {
    sqlx::query("SELECT set_config('search_path', quote_ident($2) || ', pg_temp', true), set_config('role', $1, true)")
        .bind(role.map_or("none", Identifier::as_str))
        .bind(schema.as_str())
        .execute(conn)
        .await?;
    Ok(())
}

/// Undoes [`act_in`]. Needed because a surrounding transaction goes on after an inner one.
pub(crate) async fn reset_role(conn: &mut PgConnection) -> Result<()> {
    run(conn, "SET LOCAL role TO none; SET LOCAL search_path TO DEFAULT".to_owned()).await
}

/// A name from the catalog as SQL, whatever characters it has.
pub(crate) fn quote_any(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Whether memberships have options of their own (PostgreSQL 16 and later).
pub(crate) async fn has_membership_options(conn: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar("SELECT current_setting('server_version_num')::int >= 160000").fetch_one(conn).await?)
}
