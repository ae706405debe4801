//! A tenant's roles, schema, rights and credentials: made, kept as they should be, disabled, dropped.

mod login;
mod removal;
mod restore;
mod roles;

use sqlx::PgConnection;

pub use login::{LoginRecord, login_matches, recorded_logins, set_login_password};
pub use removal::{close_logins, drop_orphan_roles, drop_tenant, release};
pub use restore::{aside, close_restore, drop_aside, is_set_aside, open_restore, put_back, set_aside};
pub use roles::ensure_roles_and_schema;

use crate::error::{Error, Result};
pub use crate::grants::ensure_grants;
use crate::names::{Identifier, TenantNames};

/// What a tenant may use of the server, from the Tenant's `spec.limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of each of the API server's login slots.
    pub connections: u32,
    /// After how many seconds a statement of the API server is cancelled.
    pub statement_timeout_seconds: u32,
}

/// A role as the catalog has it.
#[derive(sqlx::FromRow)]
struct Role {
    rolname: String,
    rolcanlogin: bool,
    rolinherit: bool,
    rolconnlimit: i32,
    rolconfig: Vec<String>,
    comment: Option<String>,
}

impl Role {
    fn is_ours(&self, names: &TenantNames) -> bool {
        self.comment.as_ref() == Some(&names.comment())
    }
}

async fn existing_roles(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<Role>> {
    roles_named(conn, &names.roles()).await
}

async fn roles_named(conn: &mut PgConnection, names: &[&Identifier]) -> Result<Vec<Role>> {
    let sql = "SELECT rolname::text, rolcanlogin, rolinherit, rolconnlimit,
                      coalesce(rolconfig, '{}') AS rolconfig, shobj_description(oid, 'pg_authid') AS comment
               FROM pg_roles WHERE rolname = ANY($1)";
    let wanted: Vec<_> = names.iter().map(|role| role.as_str().to_owned()).collect();
    Ok(sqlx::query_as(sql).bind(wanted).fetch_all(conn).await?)
}

fn find<'a>(roles: &'a [Role], name: &Identifier) -> Option<&'a Role> {
    roles.iter().find(|role| role.rolname == name.as_str())
}

/// The schema as the catalog has it.
#[derive(sqlx::FromRow)]
struct Schema {
    owner: String,
    comment: Option<String>,
}

impl Schema {
    fn is_ours(&self, names: &TenantNames) -> bool {
        self.comment.as_ref() == Some(&names.comment())
    }

    fn foreign(self, name: &Identifier) -> Error {
        let owner = self.comment.unwrap_or_else(|| format!("role {}", self.owner));
        Error::Foreign { object: format!("schema {name}"), owner }
    }
}

async fn existing_schema(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Schema>> {
    schema_named(conn, &names.schema).await
}

async fn schema_named(conn: &mut PgConnection, name: &Identifier) -> Result<Option<Schema>> {
    let sql = "SELECT pg_get_userbyid(nspowner)::text AS owner, obj_description(oid, 'pg_namespace') AS comment
               FROM pg_namespace WHERE nspname = $1";
    Ok(sqlx::query_as(sql).bind(name.as_str()).fetch_optional(conn).await?)
}

fn foreign_role(role: &Role) -> Error {
    let owner = role.comment.clone().unwrap_or_else(|| "somebody else".to_owned());
    Error::Foreign { object: format!("role {}", role.rolname), owner }
}
