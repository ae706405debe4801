//! Rights in the tenant schema: what the table classes ask for, compared with what the catalog holds.
//!
//! Within the tenant's schema every right that is not asked for is revoked, whoever holds it.

use std::collections::BTreeSet;

use sqlx::{Connection, PgConnection};

use crate::catalog::{Action, Change, become_owner, quote_any, reset_role, run};
use crate::error::Result;
use crate::names::{Identifier, TenantNames, quote};
use crate::tables::{Class, FUNCTIONS, TABLES, Table, Writer};

/// One privilege of one grantee on one object; names are bare.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, sqlx::FromRow)]
pub(crate) struct Grant {
    /// `DATABASE`, `SCHEMA`, `TABLE`, `SEQUENCE` or `FUNCTION`.
    kind: String,
    /// The object's name; a function's signature.
    object: String,
    /// For a privilege on one column.
    column: Option<String>,
    privilege: String,
    /// None is PUBLIC.
    grantee: Option<String>,
}

impl Grant {
    fn new(kind: &str, object: &str, privilege: &str, grantee: &Identifier) -> Self {
        Self {
            kind: kind.to_owned(),
            object: object.to_owned(),
            column: None,
            privilege: privilege.to_owned(),
            grantee: Some(grantee.to_string()),
        }
    }

    fn is_on_database(&self) -> bool {
        self.kind == "DATABASE"
    }

    fn sql(&self, action: Action, schema: &Identifier) -> String {
        let object = match self.kind.as_str() {
            "DATABASE" | "SCHEMA" => quote_any(&self.object),
            "FUNCTION" => format!("{}.{}", quote(schema), self.object),
            _ => format!("{}.{}", quote(schema), quote_any(&self.object)),
        };
        let column = self.column.as_ref().map(|column| format!(" ({})", quote_any(column))).unwrap_or_default();
        let right = format!("{}{column} ON {} {object}", self.privilege, self.kind);
        let grantee = self.grantee.as_deref().map_or_else(|| "PUBLIC".to_owned(), quote_any);
        match action {
            Action::Revoked => format!("REVOKE {right} FROM {grantee} CASCADE"),
            _ => format!("GRANT {right} TO {grantee}"),
        }
    }

    fn change(&self, action: Action) -> Change {
        let column = self.column.as_ref().map(|column| format!(".{column}")).unwrap_or_default();
        let (kind, grantee) = (self.kind.to_lowercase(), self.grantee.as_deref().unwrap_or("PUBLIC"));
        Change::new(action, format!("{} on {kind} {}{column} for {grantee}", self.privilege, self.object))
    }
}

/// What to grant and what to revoke.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    missing: Vec<Grant>,
    surplus: Vec<Grant>,
}

impl Plan {
    fn iter(&self) -> impl Iterator<Item = (Action, &Grant)> {
        let missing = self.missing.iter().map(|grant| (Action::Granted, grant));
        missing.chain(self.surplus.iter().map(|grant| (Action::Revoked, grant)))
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.iter().map(|(action, grant)| grant.change(action)).collect()
    }

    fn sql(&self, on_database: bool, schema: &Identifier) -> Option<String> {
        let selected = self.iter().filter(|(_, grant)| grant.is_on_database() == on_database);
        let statements: Vec<_> = selected.map(|(action, grant)| grant.sql(action, schema)).collect();
        (!statements.is_empty()).then(|| statements.join("; "))
    }
}

/// Brings the rights of the tenant's roles to what the table classes ask for. Call it after each migration.
pub async fn ensure_grants(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<Change>> {
    let mut tx = conn.begin().await?;
    let plan = plan(&mut tx, names).await?;
    if let Some(sql) = plan.sql(false, &names.schema) {
        become_owner(&mut tx, names).await?;
        run(&mut tx, sql).await?;
        reset_role(&mut tx).await?;
    }
    if let Some(sql) = plan.sql(true, &names.schema) {
        lock_database_acl(&mut tx).await?;
        run(&mut tx, sql).await?;
    }
    tx.commit().await?;
    Ok(plan.changes())
}

/// Two transactions that change rights on one database at a time fail in PostgreSQL (`tuple concurrently updated`); this
/// makes the second one wait.
///
/// The lock is on a table: a row is free a moment before others are told of the catalog's change, a table after it.
pub(crate) async fn lock_database_acl(conn: &mut PgConnection) -> Result<()> {
    sqlx::query("LOCK TABLE finaiflow_system.locks IN EXCLUSIVE MODE").execute(conn).await?;
    Ok(())
}

pub(crate) async fn plan(conn: &mut PgConnection, names: &TenantNames) -> Result<Plan> {
    let wanted = wanted(conn, names).await?;
    let found = found(conn, names).await?;
    Ok(Plan {
        missing: wanted.difference(&found).cloned().collect(),
        surplus: found.difference(&wanted).cloned().collect(),
    })
}

async fn wanted(conn: &mut PgConnection, names: &TenantNames) -> Result<BTreeSet<Grant>> {
    let sql = "SELECT c.relname::text, a.attname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
               JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
                 AND a.attidentity = '' AND a.attname <> 'xid'";
    let tables: Vec<_> = TABLES.iter().map(|table| table.name).collect();
    let columns: Vec<(String, String)> =
        sqlx::query_as(sql).bind(names.schema.as_str()).bind(tables).fetch_all(&mut *conn).await?;
    let database: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(conn).await?;
    let mut grants = BTreeSet::new();
    for role in [&names.app, &names.maintenance, &names.backup] {
        grants.insert(Grant::new("DATABASE", &database, "CONNECT", role));
        grants.insert(Grant::new("SCHEMA", names.schema.as_str(), "USAGE", role));
    }
    // Tables of migrations still to come are left out.
    for table in TABLES.iter().filter(|table| columns.iter().any(|(name, _)| name == table.name)) {
        grants.extend(on_table(names, table, &columns));
    }
    if !columns.is_empty() {
        let functions = FUNCTIONS.iter().filter(|function| function.app);
        grants.extend(functions.map(|function| Grant::new("FUNCTION", function.signature, "EXECUTE", &names.app)));
    }
    Ok(grants)
}

fn on_table(names: &TenantNames, table: &Table, columns: &[(String, String)]) -> Vec<Grant> {
    let grant = |privilege, role| Grant::new("TABLE", table.name, privilege, role);
    let mut grants = Vec::new();
    if table.audited {
        grants.push(grant("SELECT", &names.maintenance));
    }
    if table.is_read_by_backup() {
        grants.push(grant("SELECT", &names.backup));
    }
    let writer = match table.writer {
        Writer::Owner => return grants,
        Writer::Engine => {
            grants.push(grant("SELECT", &names.app));
            return grants;
        }
        Writer::App => &names.app,
        Writer::Maintenance => {
            grants.push(grant("SELECT", &names.app));
            &names.maintenance
        }
    };
    grants.push(grant("SELECT", writer));
    match table.class {
        Class::Append => grants.extend(
            columns
                .iter()
                .filter(|(name, _)| name == table.name)
                .map(|(_, column)| Grant { column: Some(column.clone()), ..grant("INSERT", writer) }),
        ),
        Class::Logged | Class::Expiring | Class::Ephemeral => {
            grants.extend(["INSERT", "UPDATE", "DELETE"].map(|privilege| grant(privilege, writer)));
        }
        Class::Money | Class::Derived => {}
    }
    grants
}

/// Rights that others than its owner hold on the schema and what is in it, and the tenant's roles on the database.
async fn found(conn: &mut PgConnection, names: &TenantNames) -> Result<BTreeSet<Grant>> {
    // Only pg_depend finds what is in a schema by an index; a look at every tenant's tables would take ever longer.
    let sql = "WITH schema AS (SELECT * FROM pg_namespace WHERE nspname = $1), member AS (
                   SELECT classid, objid FROM pg_depend JOIN schema ON schema.oid = refobjid
                   WHERE refclassid = 'pg_namespace'::regclass
               ), relation AS (
                   SELECT pg_class.* FROM pg_class JOIN member ON classid = 'pg_class'::regclass AND objid = oid
               ), held AS (
                   SELECT 'SCHEMA' AS kind, nspname::text AS object, NULL AS \"column\", nspowner AS owner, nspacl AS acl
                   FROM schema
                   UNION ALL
                   SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname::text, NULL, relowner, relacl
                   FROM relation
                   UNION ALL
                   SELECT 'TABLE', relname::text, attname::text, relowner, attacl
                   FROM pg_attribute JOIN relation ON relation.oid = attrelid
                   UNION ALL
                   SELECT 'FUNCTION', quote_ident(proname) || '(' || oidvectortypes(proargtypes) || ')', NULL, proowner,
                          coalesce(proacl, acldefault('f', proowner))
                   FROM pg_proc JOIN member ON classid = 'pg_proc'::regclass AND objid = oid
               )
               SELECT kind, object, \"column\", privilege_type AS privilege, rolname::text AS grantee
               FROM held, aclexplode(acl) LEFT JOIN pg_roles r ON r.oid = grantee
               WHERE owner = to_regrole($2) AND grantee <> owner
               UNION ALL
               SELECT 'DATABASE', datname::text, NULL, privilege_type, rolname::text
               FROM pg_database, aclexplode(datacl) JOIN pg_roles r ON r.oid = grantee
               WHERE datname = current_database() AND rolname = ANY($3)";
    let roles: Vec<_> = names.roles().iter().map(|role| role.as_str().to_owned()).collect();
    let rows: Vec<Grant> =
        sqlx::query_as(sql).bind(names.schema.as_str()).bind(names.owner.as_str()).bind(roles).fetch_all(conn).await?;
    Ok(rows.into_iter().collect())
}
