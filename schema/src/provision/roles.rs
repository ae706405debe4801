//! Roles and the schema.

use sqlx::{Connection, PgConnection};

use super::{Limits, Role, existing_roles, existing_schema, find, foreign_role};
use crate::catalog::{Action, Change, become_owner, has_membership_options, quote_any, reset_role, run};
use crate::error::{Error, Result};
use crate::names::{Identifier, TenantNames, quote};

/// A transaction left open by a client holds the ledger's head; it is ended after this time.
const IDLE_IN_TRANSACTION_SECONDS: u32 = 30;
/// The verification reads the whole ledger in one snapshot.
const MAINTENANCE_STATEMENT_SECONDS: u32 = 900;
/// A whole ledger is read, at the pace of the store it goes to.
pub(super) const BACKUP_STATEMENT_SECONDS: u32 = 4 * 3600;
/// One job, and one that overlaps.
pub(super) const JOB_CONNECTIONS: u32 = 2;
/// Between two statements a backup or a restore waits for the store. A backup locks nothing that others wait for.
pub(super) const STORE_SECONDS: u32 = 900;
/// A full backup, an incremental one and a segment may overlap; each takes two.
const BACKUP_CONNECTIONS: u32 = 6;

/// How a role should be. Login slots are made without `LOGIN`; they get it together with a password.
struct Wanted<'a> {
    name: &'a Identifier,
    is_group: bool,
    connections: i32,
    /// Names and values as SQL, in the order of their names.
    settings: Vec<(&'static str, String)>,
}

/// Makes the tenant's roles and its schema, and brings attributes that differ back.
///
/// [`Error::Foreign`] if a role or the schema exists without this claim's comment; then nothing is changed.
pub async fn ensure_roles_and_schema(
    conn: &mut PgConnection,
    names: &TenantNames,
    limits: &Limits,
) -> Result<Vec<Change>> {
    let mut tx = conn.begin().await?;
    let existing = existing_roles(&mut tx, names).await?;
    let mut changes = Vec::new();
    for role in wanted(&mut tx, names, limits).await? {
        changes.extend(ensure_role(&mut tx, names, &role, find(&existing, role.name)).await?);
    }
    changes.extend(ensure_memberships(&mut tx, names).await?);
    changes.extend(ensure_schema(&mut tx, names).await?);
    changes.extend(ensure_default_privileges(&mut tx, names).await?);
    tx.commit().await?;
    Ok(changes)
}

async fn wanted<'a>(conn: &mut PgConnection, names: &'a TenantNames, limits: &Limits) -> Result<Vec<Wanted<'a>>> {
    let search_path = stored_search_path(conn, names).await?;
    let group = |name| Wanted { name, is_group: true, connections: -1, settings: Vec::new() };
    let login = |name, connections: u32, idle_seconds: u32, statement_seconds: u32| Wanted {
        name,
        is_group: false,
        connections: i32::try_from(connections).unwrap_or(i32::MAX),
        settings: vec![
            ("idle_in_transaction_session_timeout", format!("'{idle_seconds}s'")),
            ("search_path", search_path.clone()),
            ("statement_timeout", format!("'{statement_seconds}s'")),
        ],
    };
    Ok(vec![
        group(&names.owner),
        group(&names.app),
        login(&names.app_a, limits.connections, IDLE_IN_TRANSACTION_SECONDS, limits.statement_timeout_seconds),
        login(&names.app_b, limits.connections, IDLE_IN_TRANSACTION_SECONDS, limits.statement_timeout_seconds),
        login(&names.maintenance, JOB_CONNECTIONS, IDLE_IN_TRANSACTION_SECONDS, MAINTENANCE_STATEMENT_SECONDS),
        login(&names.backup, BACKUP_CONNECTIONS, STORE_SECONDS, BACKUP_STATEMENT_SECONDS),
    ])
}

pub(super) async fn stored_search_path(conn: &mut PgConnection, names: &TenantNames) -> Result<String> {
    // PostgreSQL quotes a name in a stored search_path only if it is a keyword.
    let sql = "SELECT quote_ident($1) || ', pg_temp'";
    Ok(sqlx::query_scalar(sql).bind(names.schema.as_str()).fetch_one(conn).await?)
}

async fn ensure_role(
    conn: &mut PgConnection,
    names: &TenantNames,
    wanted: &Wanted<'_>,
    existing: Option<&Role>,
) -> Result<Option<Change>> {
    let role = quote(wanted.name);
    let mut sql = Vec::new();
    match existing {
        None => {
            sql.push(format!("CREATE ROLE {role} NOLOGIN INHERIT CONNECTION LIMIT {}", wanted.connections));
            sql.push(format!("COMMENT ON ROLE {role} IS '{}'", names.comment()));
        }
        Some(found) if !found.is_ours(names) => return Err(foreign_role(found)),
        Some(found) => {
            if found.rolconnlimit != wanted.connections {
                sql.push(format!("ALTER ROLE {role} CONNECTION LIMIT {}", wanted.connections));
            }
            if !found.rolinherit {
                sql.push(format!("ALTER ROLE {role} INHERIT"));
            }
            if wanted.is_group && found.rolcanlogin {
                sql.push(format!("ALTER ROLE {role} NOLOGIN"));
            }
        }
    }
    let mut config = existing.map(|found| found.rolconfig.clone()).unwrap_or_default();
    config.sort_unstable();
    let stored = |(name, value): &(&str, String)| format!("{name}={}", value.trim_matches('\''));
    if config != wanted.settings.iter().map(stored).collect::<Vec<_>>() {
        // A login may change its own settings; what it added goes.
        sql.push(format!("ALTER ROLE {role} RESET ALL"));
        sql.extend(wanted.settings.iter().map(|(name, value)| format!("ALTER ROLE {role} SET {name} TO {value}")));
    }
    if sql.is_empty() {
        return Ok(None);
    }
    run(conn, sql.join("; ")).await?;
    let action = if existing.is_some() { Action::Altered } else { Action::Created };
    Ok(Some(Change::new(action, format!("role {}", wanted.name))))
}

/// Login slots are in the app group and in nothing else, groups are in nothing; the admin is in the owner.
async fn ensure_memberships(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<Change>> {
    let sql = "SELECT g.rolname::text, m.rolname::text,
                      CASE WHEN $2 AND NOT pg_has_role(am.grantor, 'USAGE') THEN pg_get_userbyid(am.grantor)::text END
               FROM pg_auth_members am JOIN pg_roles g ON g.oid = am.roleid JOIN pg_roles m ON m.oid = am.member
               WHERE m.rolname = ANY($1)";
    let members: Vec<_> = names.roles().iter().map(|role| role.as_str().to_owned()).collect();
    // Since PostgreSQL 16 a membership can be revoked only in the name of who granted it.
    let by_grantor = has_membership_options(conn).await?;
    let found: Vec<(String, String, Option<String>)> =
        sqlx::query_as(sql).bind(members).bind(by_grantor).fetch_all(&mut *conn).await?;
    let wanted = [&names.app_a, &names.app_b].map(|slot| (names.app.as_str(), slot.as_str()));
    let mut changes = Vec::new();
    for (group, member, grantor) in &found {
        if wanted.contains(&(group, member)) {
            continue;
        }
        if let Some(grantor) = grantor {
            return Err(Error::Denied(format!("{member} is in {group} by grant of {grantor}, who must revoke it")));
        }
        run(conn, format!("REVOKE {} FROM {}", quote_any(group), quote_any(member))).await?;
        changes.push(Change::new(Action::Revoked, format!("membership of {member} in {group}")));
    }
    let is_missing = |wanted: &&(&str, &str)| !found.iter().any(|(group, member, _)| (&**group, &**member) == **wanted);
    for (group, member) in wanted.iter().filter(is_missing) {
        run(conn, format!("GRANT {} TO {}", quote_any(group), quote_any(member))).await?;
        changes.push(Change::new(Action::Granted, format!("membership of {member} in {group}")));
    }
    changes.extend(ensure_admin_is_owner(conn, names).await?);
    Ok(changes)
}

/// The admin acts as the owner in migrations and grants. Since PostgreSQL 16 making a role does not suffice for that.
async fn ensure_admin_is_owner(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Change>> {
    let sql = if has_membership_options(conn).await? {
        "SELECT pg_has_role($1, 'SET') AND pg_has_role($1, 'USAGE')"
    } else {
        "SELECT pg_has_role($1, 'USAGE')"
    };
    let can_act: bool = sqlx::query_scalar(sql).bind(names.owner.as_str()).fetch_one(&mut *conn).await?;
    if can_act {
        return Ok(None);
    }
    grant_to_admin(conn, &names.owner).await?;
    Ok(Some(Change::new(Action::Granted, format!("membership of the admin in {}", names.owner))))
}

/// Lets the admin act as a role it made.
pub(super) async fn grant_to_admin(conn: &mut PgConnection, role: &Identifier) -> Result<()> {
    let options = if has_membership_options(conn).await? { " WITH SET TRUE, INHERIT TRUE" } else { "" };
    run(conn, format!("GRANT {} TO CURRENT_USER{options}", quote(role))).await
}

async fn ensure_schema(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Change>> {
    match existing_schema(conn, names).await? {
        Some(found) if found.is_ours(names) => Ok(None),
        Some(found) => Err(found.foreign(&names.schema)),
        None => {
            let (schema, owner) = (quote(&names.schema), quote(&names.owner));
            let create = format!("CREATE SCHEMA {schema} AUTHORIZATION {owner}");
            run(conn, format!("{create}; COMMENT ON SCHEMA {schema} IS '{}'", names.comment())).await?;
            Ok(Some(Change::new(Action::Created, format!("schema {}", names.schema))))
        }
    }
}

/// Functions are executable by PUBLIC unless their owner's default says otherwise.
async fn ensure_default_privileges(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Change>> {
    let sql = "SELECT EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a
                              WHERE d.defaclrole = to_regrole($1) AND d.defaclobjtype = 'f' AND d.defaclnamespace = 0)
                  AND NOT EXISTS (SELECT FROM pg_default_acl d, aclexplode(d.defaclacl) a
                              WHERE d.defaclrole = to_regrole($1) AND d.defaclobjtype = 'f' AND a.grantee = 0)";
    if sqlx::query_scalar(sql).bind(names.owner.as_str()).fetch_one(&mut *conn).await? {
        return Ok(None);
    }
    become_owner(conn, names).await?;
    run(conn, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC".to_owned()).await?;
    reset_role(conn).await?;
    Ok(Some(Change::new(Action::Revoked, format!("default execute on functions of {} from PUBLIC", names.owner))))
}
