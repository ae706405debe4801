//! A restore's way in: a login that exists while one runs; and the schema that it takes the place of.

use sqlx::{Connection, PgConnection};

use super::removal::{drop_role, end_sessions};
use super::roles::{BACKUP_STATEMENT_SECONDS, JOB_CONNECTIONS, STORE_SECONDS, stored_search_path};
use super::{Role, Schema, foreign_role, release, roles_named, schema_named};
use crate::catalog::{Action, Change, has_membership_options, quote_any, run};
use crate::error::{Error, Result};
use crate::grants::{ensure_grants, lock_database_acl};
use crate::names::{Identifier, TenantNames, quote};
use crate::password::Password;

/// Makes the login of a restore, or gives it another password. It acts as the tenant's owner and reaches nothing else.
pub async fn open_restore(conn: &mut PgConnection, names: &TenantNames, password: &Password) -> Result<Vec<Change>> {
    let mut tx = conn.begin().await?;
    let name = quote(&names.restore);
    let found = restore_role(&mut tx, names).await?;
    let mut sql = Vec::new();
    if found.is_none() {
        sql.push(format!("CREATE ROLE {name} NOLOGIN INHERIT CONNECTION LIMIT {JOB_CONNECTIONS}"));
        sql.push(format!("COMMENT ON ROLE {name} IS '{}'", names.comment()));
    }
    sql.push(format!("ALTER ROLE {name} RESET ALL"));
    for (setting, value) in [
        ("idle_in_transaction_session_timeout", format!("'{STORE_SECONDS}s'")),
        ("search_path", stored_search_path(&mut tx, names).await?),
        ("statement_timeout", format!("'{BACKUP_STATEMENT_SECONDS}s'")),
    ] {
        sql.push(format!("ALTER ROLE {name} SET {setting} TO {value}"));
    }
    let options = if has_membership_options(&mut tx).await? { " WITH SET TRUE, INHERIT TRUE" } else { "" };
    sql.push(format!("GRANT {} TO {name}{options}", quote(&names.owner)));
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut *tx).await?;
    sql.push(format!("GRANT CONNECT ON DATABASE {} TO {name}", quote_any(&database)));
    sql.push(format!("ALTER ROLE {name} LOGIN PASSWORD '{}'", password.scram_verifier()));
    lock_database_acl(&mut tx).await?;
    run(&mut tx, sql.join("; ")).await?;
    tx.commit().await?;
    let action = if found.is_some() { Action::Altered } else { Action::Created };
    Ok(vec![Change::new(action, format!("role {}", names.restore))])
}

/// Ends the login's sessions and drops it.
///
/// Inside a transaction, a client whose session ended can connect again until the commit; then dropping fails, and a second
/// call does it.
pub async fn close_restore(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<Change>> {
    let Some(role) = find_restore_role(conn, names).await?.filter(|role| role.is_ours(names)) else {
        return Ok(Vec::new());
    };
    let mut changes = Vec::new();
    if role.rolcanlogin {
        run(conn, format!("ALTER ROLE {} NOLOGIN", quote(&names.restore))).await?;
        changes.push(Change::new(Action::Disabled, format!("login {}", names.restore)));
    }
    changes.extend(end_sessions(conn, &names.restore).await?);
    let mut tx = conn.begin().await?;
    lock_database_acl(&mut tx).await?;
    drop_role(&mut tx, &names.restore, &mut changes).await?;
    tx.commit().await?;
    Ok(changes)
}

async fn restore_role(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Role>> {
    match find_restore_role(conn, names).await? {
        Some(role) if !role.is_ours(names) => Err(foreign_role(&role)),
        found => Ok(found),
    }
}

async fn find_restore_role(conn: &mut PgConnection, names: &TenantNames) -> Result<Option<Role>> {
    Ok(roles_named(conn, &[&names.restore]).await?.pop())
}

/// Puts the tenant's schema out of the way under a name of its own, `<schema>__pre_<number>`, where no login gets at it. The
/// name is free then: what is made there is another schema. Nothing happens if it was done before.
///
/// Commit a [`release`] before, so that no client is at work in it.
pub async fn set_aside(conn: &mut PgConnection, names: &TenantNames, number: u32) -> Result<Vec<Change>> {
    let aside = aside(names, number)?;
    let mut changes = release(conn, names).await?;
    let mut tx = conn.begin().await?;
    if is_aside(&mut tx, names, &aside).await? {
        return Ok(changes);
    }
    let Some(found) = schema_named(&mut tx, &names.schema).await? else {
        return Err(Error::Unexpected(format!("there is no schema {} to put aside", names.schema)));
    };
    if !found.is_ours(names) {
        return Err(found.foreign(&names.schema));
    }
    let logins = [&names.app, &names.maintenance, &names.backup].map(quote).join(", ");
    let (from, to) = (quote(&names.schema), quote(&aside));
    run(
        &mut tx,
        format!(
            "ALTER SCHEMA {from} RENAME TO {to}; COMMENT ON SCHEMA {to} IS '{}'; REVOKE ALL ON SCHEMA {to} FROM {logins}",
            names.aside_comment()
        ),
    )
    .await?;
    tx.commit().await?;
    changes.push(Change::new(Action::Altered, format!("name of schema {}, now {aside}", names.schema)));
    Ok(changes)
}

/// Undoes [`set_aside`]. What took the schema's place has to be put aside itself before. Nothing happens if it was done.
pub async fn put_back(conn: &mut PgConnection, names: &TenantNames, number: u32) -> Result<Vec<Change>> {
    let aside = aside(names, number)?;
    let mut tx = conn.begin().await?;
    let there = schema_named(&mut tx, &names.schema).await?;
    if !is_aside(&mut tx, names, &aside).await? {
        return match there {
            Some(found) if found.is_ours(names) => Ok(Vec::new()),
            _ => Err(Error::Unexpected(format!("there is no schema {aside} to put back"))),
        };
    }
    if let Some(found) = there {
        return Err(found.foreign(&names.schema));
    }
    let (from, to) = (quote(&aside), quote(&names.schema));
    let rename = format!("ALTER SCHEMA {from} RENAME TO {to}; COMMENT ON SCHEMA {to} IS '{}'", names.comment());
    run(&mut tx, rename).await?;
    let mut changes = vec![Change::new(Action::Altered, format!("name of schema {aside}, now {}", names.schema))];
    changes.extend(ensure_grants(&mut tx, names).await?);
    tx.commit().await?;
    Ok(changes)
}

/// Whether a schema was put aside under the number.
pub async fn is_set_aside(conn: &mut PgConnection, names: &TenantNames, number: u32) -> Result<bool> {
    is_aside(conn, names, &aside(names, number)?).await
}

/// Drops a schema that was put aside, with all its data.
pub async fn drop_aside(conn: &mut PgConnection, names: &TenantNames, number: u32) -> Result<Vec<Change>> {
    let aside = aside(names, number)?;
    let mut tx = conn.begin().await?;
    if !is_aside(&mut tx, names, &aside).await? {
        return Ok(Vec::new());
    }
    run(&mut tx, format!("DROP SCHEMA {} CASCADE", quote(&aside))).await?;
    tx.commit().await?;
    Ok(vec![Change::new(Action::Dropped, format!("schema {aside}"))])
}

/// The name that [`set_aside`] gives the schema.
pub fn aside(names: &TenantNames, number: u32) -> Result<Identifier> {
    Ok(Identifier::new(format!("{}__pre_{number}", names.schema))?)
}

/// Whether the schema is there. Someone else's is an error.
async fn is_aside(conn: &mut PgConnection, names: &TenantNames, aside: &Identifier) -> Result<bool> {
    match schema_named(conn, aside).await? {
        Some(Schema { comment: Some(comment), .. }) if comment == names.aside_comment() => Ok(true),
        Some(found) => Err(found.foreign(aside)),
        None => Ok(false),
    }
}
