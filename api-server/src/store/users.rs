//! Users: registration, credentials, profile.

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, PgPool};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::id;
use crate::store::StoreError;
use crate::store::audit::{self, Event, Origin, Outcome, Record};
use crate::store::idempotency::{self, Ticket};

/// A user as others may see it.
#[derive(Debug, Clone, PartialEq, Eq, FromRow, Serialize, Deserialize)]
pub struct User {
    /// Internal id.
    pub id: Uuid,
    /// Address as it was given.
    pub email: String,
    /// Name as it was given.
    pub name: String,
    /// When the user registered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What a login is checked against.
#[derive(Debug, FromRow)]
pub struct Credentials {
    /// The user.
    pub id: Uuid,
    /// PHC string.
    pub password_hash: String,
    /// Whether the user may sign in.
    pub active: bool,
}

/// How a registration ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Registration {
    /// The user exists now.
    Created,
    /// The address or the idempotency key is taken; nothing was written.
    Conflict,
}

/// Creates a user, its audit row and the remembered outcome in one transaction.
pub async fn register(
    pool: &PgPool,
    user: &User,
    email_normalized: &str,
    password_hash: &str,
    ticket: Option<&Ticket>,
    origin: &Origin,
) -> Result<Registration, StoreError> {
    let mut tx = pool.begin().await?;
    let created = sqlx::query(
        "INSERT INTO users (id, email, email_normalized, name, password_hash, status, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, 'active', $6, $6) ON CONFLICT (email_normalized) DO NOTHING",
    )
    .bind(user.id)
    .bind(&user.email)
    .bind(email_normalized)
    .bind(&user.name)
    .bind(password_hash)
    .bind(user.created_at)
    .execute(&mut *tx)
    .await?;
    if created.rows_affected() == 0 {
        return Ok(Registration::Conflict);
    }
    if let Some(ticket) = ticket {
        match idempotency::remember(&mut tx, ticket, user).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => return Ok(Registration::Conflict),
            outcome => outcome?,
        }
    }
    let record = Record {
        event: Event::Registered,
        outcome: Outcome::Success,
        actor: Some(user.id),
        subject: Some(id::encode(id::USER, user.id)),
        origin,
    };
    audit::insert(&mut tx, user.created_at, &record).await?;
    tx.commit().await?;
    Ok(Registration::Created)
}

/// The credentials stored for an address.
pub async fn credentials(pool: &PgPool, email_normalized: &str) -> Result<Option<Credentials>, StoreError> {
    Ok(sqlx::query_as("SELECT id, password_hash, status = 'active' AS active FROM users WHERE email_normalized = $1")
        .bind(email_normalized)
        .fetch_optional(pool)
        .await?)
}

/// A user by id.
pub async fn find(pool: &PgPool, user: Uuid) -> Result<Option<User>, StoreError> {
    Ok(sqlx::query_as("SELECT id, email, name, created_at FROM users WHERE id = $1")
        .bind(user)
        .fetch_optional(pool)
        .await?)
}
