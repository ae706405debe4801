//! Remembered outcomes of requests that are not the ledger's (it keeps its own in the same table).

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::store::StoreError;

/// What identifies a request that may be repeated.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// On whose behalf keys are unique.
    pub principal: Uuid,
    /// The client's `Idempotency-Key`.
    pub key: String,
    /// What the request asks for.
    pub fingerprint: [u8; 32],
}

/// What is known about a ticket's key.
#[derive(Debug, PartialEq, Eq)]
pub enum Recall<T> {
    /// The key is new.
    New,
    /// The same request was answered with this.
    Answered(T),
    /// The key belongs to another request.
    Reused,
}

/// Looks a ticket up.
pub async fn recall<T: DeserializeOwned + Send + Unpin + 'static>(
    pool: &PgPool,
    ticket: &Ticket,
) -> Result<Recall<T>, StoreError> {
    let row: Option<(bool, Json<T>)> = sqlx::query_as(
        "SELECT fingerprint = $3, outcome FROM idempotency_keys
         WHERE principal = $1 AND key = $2 AND expires_at > now()",
    )
    .bind(ticket.principal)
    .bind(&ticket.key)
    .bind(ticket.fingerprint.as_slice())
    .fetch_optional(pool)
    .await?;
    Ok(match row {
        None => Recall::New,
        Some((true, Json(outcome))) => Recall::Answered(outcome),
        Some((false, _)) => Recall::Reused,
    })
}

/// Keeps the outcome within the transaction of its effect. A key that is taken is a unique violation.
pub async fn remember<T: Serialize + Sync>(
    conn: &mut PgConnection,
    ticket: &Ticket,
    outcome: &T,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT remember_outcome($1, $2, $3, $4)")
        .bind(ticket.principal)
        .bind(&ticket.key)
        .bind(ticket.fingerprint.as_slice())
        .bind(Json(outcome))
        .execute(conn)
        .await?;
    Ok(())
}
