//! The audit trail of identity: who did what from where, in the transaction of its effect.

use std::net::IpAddr;
use std::sync::Arc;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::StoreError;

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// The request's `X-Request-ID`.
    pub request_id: Arc<str>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A user was created.
    Registered,
    /// Somebody presented an address and a password.
    Login,
    /// A used refresh token came back after its grace period; its session was revoked.
    RefreshReuse,
    /// A user ended a session.
    Logout,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Registered => "user.registered",
            Self::Login => "session.login",
            Self::RefreshReuse => "session.refresh_reuse",
            Self::Logout => "session.logout",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Success,
    /// It was refused.
    Denied,
}

/// One row of the trail.
#[derive(Debug)]
pub struct Record<'a> {
    /// What happened.
    pub event: Event,
    /// How it ended.
    pub outcome: Outcome,
    /// The user, where one is known.
    pub actor: Option<Uuid>,
    /// Public id of what it happened to.
    pub subject: Option<String>,
    /// Where the request came from.
    pub origin: &'a Origin,
}

/// Adds a row within the caller's transaction.
pub async fn insert(conn: &mut PgConnection, now: OffsetDateTime, record: &Record<'_>) -> Result<(), StoreError> {
    let outcome = match record.outcome {
        Outcome::Success => "success",
        Outcome::Denied => "denied",
    };
    sqlx::query(
        "INSERT INTO audit_events (at, actor, event, outcome, subject, ip, request_id)
         VALUES ($1, $2, $3, $4, $5, $6::text::inet, $7)",
    )
    .bind(now)
    .bind(record.actor)
    .bind(record.event.name())
    .bind(outcome)
    .bind(&record.subject)
    .bind(record.origin.ip.map(|ip| ip.to_string()))
    .bind(&*record.origin.request_id)
    .execute(conn)
    .await?;
    Ok(())
}
