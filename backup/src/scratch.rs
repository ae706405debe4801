//! A bank in a database that is thrown away.

use finaiflow_schema::names::{ClaimId, TenantNames};
use finaiflow_schema::provision::{Limits, drop_tenant, ensure_grants, ensure_roles_and_schema};
use finaiflow_schema::{Result, migrate, system};
use sqlx::PgConnection;

/// Nobody logs in to it.
const LIMITS: Limits = Limits { connections: 1, statement_timeout_seconds: 30 };

/// Makes an empty bank as the operator does it, given a superuser's connection and an identity that no bank has: the database may
/// turn out not to be one to throw away.
pub async fn make(conn: &mut PgConnection, claim: &ClaimId) -> Result<TenantNames> {
    let names = TenantNames::derive(claim, "scratch", None)?;
    system::ensure(conn).await?;
    ensure_roles_and_schema(conn, &names, &LIMITS).await?;
    migrate::migrate(conn, &names).await?;
    ensure_grants(conn, &names).await?;
    Ok(names)
}

/// Takes it away.
pub async fn unmake(conn: &mut PgConnection, names: &TenantNames) -> Result<()> {
    drop_tenant(conn, names).await.map(drop)
}
