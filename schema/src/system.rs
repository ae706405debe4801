//! The operator's own schema `finaiflow_system`: claims, leadership epochs, credential records. Admin only.

use sqlx::{Connection, FromRow, PgConnection};

use crate::catalog::{Action, Change, quote_any, run};
use crate::error::{Conflict, Error, Result};
use crate::migrate::{self, Migration, Target};
use crate::names::{ClaimId, Identifier};

const SCHEMA: &str = "finaiflow_system";
const COMMENT: &str = "finaiflow/system";
const MIGRATIONS: &[Migration] = &[
    Migration::new(1, "claims", include_str!("../system/0001_claims.sql")),
    Migration::new(2, "claims_by_name", include_str!("../system/0002_claims_by_name.sql")),
    Migration::new(3, "backup_login", include_str!("../system/0003_backup_login.sql")),
];

/// Where a claim is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimState {
    /// A Tenant holds it.
    Active,
    /// Its Tenant is gone, its data kept.
    Released,
    /// Its data is gone; the row remains as a record.
    Dropped,
}

impl TryFrom<String> for ClaimState {
    type Error = Error;

    fn try_from(state: String) -> Result<Self> {
        match state.as_str() {
            "active" => Ok(Self::Active),
            "released" => Ok(Self::Released),
            "dropped" => Ok(Self::Dropped),
            _ => Err(Error::Unexpected(format!("claim state {state}"))),
        }
    }
}

/// A bank's identity as recorded.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Claim {
    /// The identity.
    #[sqlx(try_from = "String")]
    pub claim_id: ClaimId,
    /// The Kubernetes cluster it was made from.
    pub installation_id: String,
    /// Namespace of its Tenant.
    pub namespace: String,
    /// Name of its Tenant.
    pub name: String,
    /// The schema it holds.
    pub schema_name: String,
    /// UID of the Tenant that held it last.
    pub last_uid: String,
    /// Where it is in its life.
    #[sqlx(try_from = "String")]
    pub state: ClaimState,
}

/// What a new claim records.
#[derive(Debug, Clone, Copy)]
pub struct NewClaim<'a> {
    /// The identity, drawn by the caller.
    pub claim_id: ClaimId,
    /// The Kubernetes cluster.
    pub installation_id: &'a str,
    /// Namespace of the Tenant.
    pub namespace: &'a str,
    /// Name of the Tenant.
    pub name: &'a str,
    /// The schema it shall hold.
    pub schema_name: &'a Identifier,
    /// UID of the Tenant.
    pub uid: &'a str,
}

/// Makes or upgrades `finaiflow_system`, and takes from PUBLIC what a tenant must not have on this database.
pub async fn ensure(conn: &mut PgConnection) -> Result<Vec<Change>> {
    let mut tx = conn.begin().await?;
    let mut changes = ensure_schema(&mut tx).await?;
    let target = Target { schema: &Identifier::new(SCHEMA)?, owner: None, migrations: MIGRATIONS, repeatable: None };
    let applied = migrate::migrate_target(&mut tx, &target).await?;
    changes.extend(
        applied.iter().map(|m| Change::new(Action::Altered, format!("schema {SCHEMA} to version {}", m.version))),
    );
    changes.extend(revoke_public(&mut tx).await?);
    tx.commit().await?;
    Ok(changes)
}

async fn ensure_schema(conn: &mut PgConnection) -> Result<Vec<Change>> {
    let found: Option<(String, Option<String>)> = sqlx::query_as(
        "SELECT pg_get_userbyid(nspowner), obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1",
    )
    .bind(SCHEMA)
    .fetch_optional(&mut *conn)
    .await?;
    match found {
        Some((_, Some(comment))) if comment == COMMENT => Ok(Vec::new()),
        Some((owner, _)) => Err(Error::Foreign { object: format!("schema {SCHEMA}"), owner }),
        None => {
            run(conn, format!("CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS '{COMMENT}'")).await?;
            Ok(vec![Change::new(Action::Created, format!("schema {SCHEMA}"))])
        }
    }
}

/// PUBLIC may connect to a new database and make temporary tables in it. Schema `public` is included where the admin
/// may change it (it owns the database, and PostgreSQL is 15 or later).
async fn revoke_public(conn: &mut PgConnection) -> Result<Vec<Change>> {
    let (database, on_database, on_schema): (String, bool, bool) = sqlx::query_as(
        "SELECT current_database()::text,
                EXISTS (SELECT FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                        WHERE d.datname = current_database() AND a.grantee = 0),
                EXISTS (SELECT FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
                        WHERE n.nspname = 'public' AND a.grantee = 0 AND pg_has_role(n.nspowner, 'USAGE'))",
    )
    .fetch_one(&mut *conn)
    .await?;
    let mut changes = Vec::new();
    if on_database {
        run(conn, format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quote_any(&database))).await?;
        changes.push(Change::new(Action::Revoked, format!("all on database {database} from PUBLIC")));
    }
    if on_schema {
        run(conn, "REVOKE ALL ON SCHEMA public FROM PUBLIC".to_owned()).await?;
        changes.push(Change::new(Action::Revoked, "all on schema public from PUBLIC"));
    }
    Ok(changes)
}

/// Takes over leadership: every transaction fenced with an older epoch is refused from now on.
///
/// Waits for the fenced transactions under way.
pub async fn next_epoch(conn: &mut PgConnection) -> Result<i64> {
    let sql = "UPDATE finaiflow_system.leadership SET epoch = epoch + 1 WHERE id = 1 RETURNING epoch";
    Ok(sqlx::query_scalar(sql).fetch_one(conn).await?)
}

/// Refuses a caller that is no longer leader. Holds leadership still until the surrounding transaction ends.
pub async fn check_epoch(conn: &mut PgConnection, epoch: i64) -> Result<()> {
    let current: i64 = sqlx::query_scalar("SELECT epoch FROM finaiflow_system.leadership WHERE id = 1 FOR SHARE")
        .fetch_one(conn)
        .await?;
    if current == epoch { Ok(()) } else { Err(Error::Fenced { held: epoch, current }) }
}

/// Fences the surrounding transaction: checks the epoch and locks the claim until the transaction ends.
pub async fn lock_claim(conn: &mut PgConnection, epoch: i64, claim_id: &ClaimId) -> Result<Claim> {
    check_epoch(&mut *conn, epoch).await?;
    sqlx::query_as("SELECT * FROM finaiflow_system.claims WHERE claim_id = $1 FOR UPDATE")
        .bind(claim_id.to_string())
        .fetch_optional(conn)
        .await?
        .ok_or(Error::UnknownClaim(*claim_id))
}

/// As [`lock_claim`], for a decision made from the claim as it was read: refused, and worth another try, if it has
/// changed since.
pub async fn lock_claim_as(conn: &mut PgConnection, epoch: i64, read: &Claim) -> Result<()> {
    let now = lock_claim(conn, epoch, &read.claim_id).await?;
    if now == *read { Ok(()) } else { Err(overtaken(format!("claim {} has changed hands", read.claim_id))) }
}

/// A serialisation failure: what was read before no longer holds.
fn overtaken(message: String) -> Error {
    Error::Database { sqlstate: "40001".to_owned(), message }
}

/// Every claim ever made in the installation for Tenants of that name, in any namespace, and the one of that identity;
/// oldest first.
pub async fn claims_of(
    conn: &mut PgConnection,
    installation_id: &str,
    name: &str,
    also: Option<&ClaimId>,
) -> Result<Vec<Claim>> {
    let sql = "SELECT * FROM finaiflow_system.claims WHERE installation_id = $1 AND name = $2 OR claim_id = $3
               ORDER BY created_at, claim_id";
    let also = also.map(ToString::to_string);
    Ok(sqlx::query_as(sql).bind(installation_id).bind(name).bind(also).fetch_all(conn).await?)
}

/// Every claim that a Tenant of the installation holds now.
pub async fn active_claims(conn: &mut PgConnection, installation_id: &str) -> Result<Vec<Claim>> {
    let sql = "SELECT * FROM finaiflow_system.claims WHERE installation_id = $1 AND state = 'active' ORDER BY claim_id";
    Ok(sqlx::query_as(sql).bind(installation_id).fetch_all(conn).await?)
}

/// A claim by its identity, whatever its state.
pub async fn get_claim(conn: &mut PgConnection, claim_id: &ClaimId) -> Result<Option<Claim>> {
    let sql = "SELECT * FROM finaiflow_system.claims WHERE claim_id = $1";
    Ok(sqlx::query_as(sql).bind(claim_id.to_string()).fetch_optional(conn).await?)
}

/// Records a new active claim. [`Error::Conflict`] names the Tenant that holds the schema or the name.
pub async fn insert_claim(conn: &mut PgConnection, new: &NewClaim<'_>) -> Result<Claim> {
    let sql = "INSERT INTO finaiflow_system.claims
                   (claim_id, installation_id, namespace, name, schema_name, last_uid, state)
               VALUES ($1, $2, $3, $4, $5, $6, 'active') ON CONFLICT DO NOTHING RETURNING *";
    let inserted: Option<Claim> = sqlx::query_as(sql)
        .bind(new.claim_id.to_string())
        .bind(new.installation_id)
        .bind(new.namespace)
        .bind(new.name)
        .bind(new.schema_name.as_str())
        .bind(new.uid)
        .fetch_optional(&mut *conn)
        .await?;
    match inserted {
        Some(claim) => Ok(claim),
        None => Err(conflict(conn, new).await?),
    }
}

async fn conflict(conn: &mut PgConnection, new: &NewClaim<'_>) -> Result<Error> {
    let sql = "SELECT * FROM finaiflow_system.claims
               WHERE claim_id = $1 OR (schema_name = $2 AND state <> 'dropped')
                  OR (installation_id = $3 AND name = $4 AND state = 'active')
               ORDER BY (installation_id = $3 AND name = $4 AND state = 'active') DESC LIMIT 1";
    let holder: Option<Claim> = sqlx::query_as(sql)
        .bind(new.claim_id.to_string())
        .bind(new.schema_name.as_str())
        .bind(new.installation_id)
        .bind(new.name)
        .fetch_optional(conn)
        .await?;
    let Some(holder) = holder else {
        // It was given up between the two statements: a serialisation failure, worth another try.
        return Ok(overtaken("the claim's holder just left".to_owned()));
    };
    let same_name = holder.installation_id == new.installation_id && holder.name == new.name;
    let what = if same_name && holder.state == ClaimState::Active {
        format!("tenant name {}", holder.name)
    } else {
        format!("schema {}", holder.schema_name)
    };
    Ok(Error::Conflict(Conflict { what, namespace: holder.namespace, name: holder.name }))
}

/// Gives a released claim to a Tenant, maybe of another name or installation; returns whether it was not its own yet.
///
/// The schema stays the claim's: `to.schema_name` must be it. [`Error::Conflict`] names the Tenant that has the name.
pub async fn adopt_claim(conn: &mut PgConnection, to: &NewClaim<'_>) -> Result<bool> {
    let sql = "UPDATE finaiflow_system.claims c
               SET installation_id = $2, namespace = $3, name = $4, last_uid = $6, state = 'active', updated_at = now()
               WHERE claim_id = $1 AND schema_name = $5 AND state = 'released'
                 AND NOT EXISTS (SELECT FROM finaiflow_system.claims other
                                 WHERE other.installation_id = $2 AND other.name = $4 AND other.state = 'active')";
    let done = sqlx::query(sql)
        .bind(to.claim_id.to_string())
        .bind(to.installation_id)
        .bind(to.namespace)
        .bind(to.name)
        .bind(to.schema_name.as_str())
        .bind(to.uid)
        .execute(&mut *conn)
        .await?;
    if done.rows_affected() > 0 {
        return Ok(true);
    }
    let now = get_claim(conn, &to.claim_id).await?.ok_or(Error::UnknownClaim(to.claim_id))?;
    let holder = (to.installation_id, to.namespace, to.name, to.uid);
    let is_held = (&*now.installation_id, &*now.namespace, &*now.name, &*now.last_uid) == holder;
    match now.state {
        ClaimState::Active if is_held => Ok(false),
        ClaimState::Released if now.schema_name == to.schema_name.as_str() => Err(conflict(conn, to).await?),
        _ => Err(overtaken(format!("claim {} cannot be adopted any more", to.claim_id))),
    }
}

/// Marks an active claim as given up with its data kept; returns whether it was active.
pub async fn release_claim(conn: &mut PgConnection, claim_id: &ClaimId) -> Result<bool> {
    let sql = "UPDATE finaiflow_system.claims SET state = 'released', updated_at = now()
               WHERE claim_id = $1 AND state = 'active'";
    Ok(sqlx::query(sql).bind(claim_id.to_string()).execute(conn).await?.rows_affected() > 0)
}

/// Marks a claim as gone with its data, which frees its names; returns whether it was not yet.
pub async fn mark_dropped(conn: &mut PgConnection, claim_id: &ClaimId) -> Result<bool> {
    let sql = "UPDATE finaiflow_system.claims SET state = 'dropped', updated_at = now()
               WHERE claim_id = $1 AND state <> 'dropped'";
    Ok(sqlx::query(sql).bind(claim_id.to_string()).execute(conn).await?.rows_affected() > 0)
}

/// How many tenants this database serves.
pub async fn count_active(conn: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM finaiflow_system.claims WHERE state = 'active'")
        .fetch_one(conn)
        .await?)
}
