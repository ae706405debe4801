//! Whether a live tenant schema is what [`crate::tables`] declares.

use sqlx::PgConnection;

use crate::error::Result;
use crate::grants;
use crate::names::TenantNames;
use crate::tables::{Class, FUNCTIONS, TABLES, triggers};

/// The most relations (tables, indexes, sequences) a tenant may have; thousands of tenants share a catalog.
const MAX_RELATIONS: usize = 60;

#[derive(sqlx::FromRow)]
struct LiveTable {
    name: String,
    /// What no table may be, in words.
    defects: Vec<String>,
    primary_key: Vec<String>,
    has_xid_index: bool,
    triggers: Vec<String>,
}

#[derive(sqlx::FromRow)]
struct LiveFunction {
    signature: String,
    is_definer: bool,
    is_owned: bool,
    config: Vec<String>,
}

/// Every way in which the schema differs from its declaration, in words; empty when it conforms.
pub async fn check(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let tables = live_tables(conn, names).await?;
    for table in &tables {
        findings.extend(check_table(table));
    }
    for declared in TABLES.iter().filter(|declared| tables.iter().all(|live| live.name != declared.name)) {
        findings.push(format!("table {} is missing", declared.name));
    }
    findings.extend(check_functions(&live_functions(conn, names).await?, names));
    findings.extend(grants::plan(conn, names).await?.changes().iter().map(|change| format!("not {change}")));
    findings.extend(check_relations(conn, names).await?);
    Ok(findings)
}

fn check_table(live: &LiveTable) -> Vec<String> {
    let Some(declared) = TABLES.iter().find(|declared| declared.name == live.name) else {
        return vec![format!("table {} has no class", live.name)];
    };
    let mut expected: Vec<_> = triggers(declared).iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort_unstable();
    let wrong = [
        (live.primary_key != declared.primary_key, "has another primary key than declared"),
        (declared.class == Class::Append && !live.has_xid_index, "is append-only without an indexed xid column"),
        (live.triggers != expected, "has other triggers than its class asks for, or disabled ones"),
    ];
    let wrong = wrong.into_iter().filter(|(wrong, _)| *wrong).map(|(_, finding)| finding);
    let defects = live.defects.iter().map(String::as_str);
    defects.chain(wrong).map(|finding| format!("table {} {finding}", live.name)).collect()
}

fn check_functions(live: &[LiveFunction], names: &TenantNames) -> Vec<String> {
    let pinned =
        [format!("search_path={}, pg_temp", names.schema), format!("search_path=\"{}\", pg_temp", names.schema)];
    let mut findings = Vec::new();
    for function in live {
        let Some(declared) = FUNCTIONS.iter().find(|declared| declared.signature == function.signature) else {
            findings.push(format!("function {} is not declared", function.signature));
            continue;
        };
        let wrong = [
            (!function.is_owned, "does not belong to the tenant's owner"),
            (!function.config.iter().any(|setting| pinned.contains(setting)), "has no pinned search_path"),
            (declared.app && !function.is_definer, "does not run as its owner"),
        ];
        let wrong = wrong.into_iter().filter(|(wrong, _)| *wrong);
        findings.extend(wrong.map(|(_, finding)| format!("function {} {finding}", function.signature)));
    }
    let missing = FUNCTIONS.iter().filter(|declared| live.iter().all(|live| live.signature != declared.signature));
    findings.extend(missing.map(|declared| format!("function {} is missing", declared.signature)));
    findings
}

async fn check_relations(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<String>> {
    let sql = "SELECT c.relname::text, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1";
    let relations: Vec<(String, String)> = sqlx::query_as(sql).bind(names.schema.as_str()).fetch_all(conn).await?;
    let mut findings = Vec::new();
    if relations.len() > MAX_RELATIONS {
        findings.push(format!("{} relations, more than {MAX_RELATIONS}", relations.len()));
    }
    let strange = relations.iter().filter(|(_, kind)| !["r", "p", "i", "S"].contains(&kind.as_str()));
    findings.extend(strange.map(|(name, _)| format!("relation {name} is neither table, index nor sequence")));
    Ok(findings)
}

async fn live_tables(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<LiveTable>> {
    let sql = "SELECT c.relname::text AS name,
                      array_remove(ARRAY[
                          CASE WHEN c.relkind <> 'r' THEN 'is partitioned' END,
                          CASE WHEN c.relpersistence <> 'p' THEN 'is not logged to the WAL' END,
                          CASE WHEN c.relowner <> to_regrole($2) THEN 'does not belong to the tenant''s owner' END,
                          CASE WHEN EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'f')
                               THEN 'has a foreign key' END], NULL) AS defects,
                      ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k (attnum, nth)
                            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                            WHERE i.indrelid = c.oid AND i.indisprimary ORDER BY k.nth) AS primary_key,
                      EXISTS (SELECT FROM pg_attribute a JOIN pg_index i ON i.indrelid = c.oid AND i.indkey[0] = a.attnum
                              WHERE a.attrelid = c.oid AND a.attname = 'xid' AND a.atttypid = 'xid8'::regtype
                                AND a.attnotnull AND a.atthasdef) AS has_xid_index,
                      ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled = 'O'
                            ORDER BY tgname COLLATE \"C\") AS triggers
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname";
    Ok(sqlx::query_as(sql).bind(names.schema.as_str()).bind(names.owner.as_str()).fetch_all(conn).await?)
}

async fn live_functions(conn: &mut PgConnection, names: &TenantNames) -> Result<Vec<LiveFunction>> {
    let sql = "SELECT quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')' AS signature,
                      p.prosecdef AS is_definer, p.proowner = to_regrole($2) AS is_owned,
                      coalesce(p.proconfig, '{}') AS config
               FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1";
    Ok(sqlx::query_as(sql).bind(names.schema.as_str()).bind(names.owner.as_str()).fetch_all(conn).await?)
}
