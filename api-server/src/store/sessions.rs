//! Sessions and their refresh tokens.

use sqlx::{FromRow, PgConnection, PgPool};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::access_token::Subject;
use crate::domain::id;
use crate::domain::refresh::{self, Lifetime, RefreshToken, Stored, Verdict};
use crate::store::StoreError;
use crate::store::audit::{self, Event, Origin, Outcome, Record};
use crate::tenant::DataKey;

/// A session about to begin.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// The user and the session's id.
    pub subject: Subject,
    /// When it ends.
    pub lifetime: Lifetime,
    /// Digest of its first refresh token.
    pub token_digest: Vec<u8>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a str>,
}

/// Opens a session with its first refresh token and records the login.
pub async fn open(
    pool: &PgPool,
    session: &NewSession<'_>,
    now: OffsetDateTime,
    origin: &Origin,
) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    sqlx::query(
        "INSERT INTO sessions (id, user_id, created_at, last_seen_at, idle_expires_at, absolute_expires_at, user_agent, ip)
         VALUES ($1, $2, $3, $3, $4, $5, $6, $7::text::inet)",
    )
    .bind(session.subject.session_id)
    .bind(session.subject.user_id)
    .bind(now)
    .bind(session.lifetime.idle)
    .bind(session.lifetime.absolute)
    .bind(session.user_agent)
    .bind(origin.ip.map(|ip| ip.to_string()))
    .execute(&mut *tx)
    .await?;
    insert_token(&mut tx, &session.token_digest, session.subject.session_id, 1, session.lifetime).await?;
    let record = record(Event::Login, Outcome::Success, session.subject, origin);
    audit::insert(&mut tx, now, &record).await?;
    tx.commit().await?;
    Ok(())
}

/// Records a login that was refused; `user` is known when the address was.
pub async fn refuse_login(
    pool: &PgPool,
    user: Option<Uuid>,
    now: OffsetDateTime,
    origin: &Origin,
) -> Result<(), StoreError> {
    let subject = user.map(|user| id::encode(id::USER, user));
    let record = Record { event: Event::Login, outcome: Outcome::Denied, actor: user, subject, origin };
    let mut tx = pool.begin().await?;
    audit::insert(&mut tx, now, &record).await?;
    tx.commit().await?;
    Ok(())
}

/// How a refresh ended.
#[derive(Debug)]
pub enum Refreshed {
    /// The session goes on with this token.
    Continued(Subject, RefreshToken),
    /// A copy of the token is in other hands: the session is revoked.
    Revoked(Subject),
    /// The token is unknown or its session is over.
    Refused,
}

#[derive(FromRow)]
struct TokenRow {
    session_id: Uuid,
    user_id: Uuid,
    seq: i32,
    first_used_at: Option<OffsetDateTime>,
    revoked: bool,
    idle_expires_at: OffsetDateTime,
    absolute_expires_at: OffsetDateTime,
}

/// Exchanges a refresh token. Whatever the outcome, it is committed.
pub async fn refresh(
    pool: &PgPool,
    key: &DataKey,
    token: &RefreshToken,
    idle: Duration,
    now: OffsetDateTime,
    origin: &Origin,
) -> Result<Refreshed, StoreError> {
    let mut tx = pool.begin().await?;
    let Some(row) = lock(&mut tx, &token.digest()).await? else { return Ok(Refreshed::Refused) };
    let subject = Subject { user_id: row.user_id, session_id: row.session_id };
    let lifetime = Lifetime { idle: row.idle_expires_at, absolute: row.absolute_expires_at };
    let stored = Stored { first_used_at: row.first_used_at, revoked: row.revoked, lifetime };
    let successor = token.successor(key, row.session_id, row.seq + 1)?;
    let outcome = match refresh::decide(&stored, now) {
        Verdict::Over => Refreshed::Refused,
        Verdict::Repeat => Refreshed::Continued(subject, successor),
        Verdict::Rotate => {
            rotate(&mut tx, token, &successor, &row, lifetime.extend(now, idle), now).await?;
            Refreshed::Continued(subject, successor)
        }
        Verdict::Reuse => {
            end(&mut tx, row.session_id, "refresh_reuse", now).await?;
            audit::insert(&mut tx, now, &record(Event::RefreshReuse, Outcome::Denied, subject, origin)).await?;
            Refreshed::Revoked(subject)
        }
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Locks the session first, so that two exchanges of one token are decided one after the other.
async fn lock(conn: &mut PgConnection, digest: &[u8]) -> Result<Option<TokenRow>, StoreError> {
    let session: Option<(Uuid,)> = sqlx::query_as(
        "SELECT id FROM sessions WHERE id = (SELECT session_id FROM refresh_tokens WHERE hash = $1) FOR UPDATE",
    )
    .bind(digest)
    .fetch_optional(&mut *conn)
    .await?;
    if session.is_none() {
        return Ok(None);
    }
    Ok(sqlx::query_as(
        "SELECT t.session_id, s.user_id, t.seq, t.first_used_at, s.idle_expires_at, s.absolute_expires_at,
                s.revoked_at IS NOT NULL OR u.status <> 'active' AS revoked
         FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id JOIN users u ON u.id = s.user_id
         WHERE t.hash = $1",
    )
    .bind(digest)
    .fetch_optional(conn)
    .await?)
}

async fn rotate(
    conn: &mut PgConnection,
    token: &RefreshToken,
    successor: &RefreshToken,
    row: &TokenRow,
    lifetime: Lifetime,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE refresh_tokens SET first_used_at = $2 WHERE hash = $1")
        .bind(token.digest())
        .bind(now)
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE sessions SET last_seen_at = $2, idle_expires_at = $3 WHERE id = $1")
        .bind(row.session_id)
        .bind(now)
        .bind(lifetime.idle)
        .execute(&mut *conn)
        .await?;
    insert_token(conn, &successor.digest(), row.session_id, row.seq + 1, lifetime).await
}

/// A token row lives as long as its session can, so that reuse is noticed until the end.
async fn insert_token(
    conn: &mut PgConnection,
    digest: &[u8],
    session: Uuid,
    seq: i32,
    lifetime: Lifetime,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO refresh_tokens (hash, session_id, seq, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(digest)
        .bind(session)
        .bind(seq)
        .bind(lifetime.absolute)
        .execute(conn)
        .await?;
    Ok(())
}

async fn end(conn: &mut PgConnection, session: Uuid, reason: &str, now: OffsetDateTime) -> Result<(), StoreError> {
    sqlx::query("UPDATE sessions SET revoked_at = $2, revoke_reason = $3 WHERE id = $1 AND revoked_at IS NULL")
        .bind(session)
        .bind(now)
        .bind(reason)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends a session at its user's wish.
pub async fn log_out(pool: &PgPool, subject: Subject, now: OffsetDateTime, origin: &Origin) -> Result<(), StoreError> {
    let mut tx = pool.begin().await?;
    end(&mut tx, subject.session_id, "logout", now).await?;
    audit::insert(&mut tx, now, &record(Event::Logout, Outcome::Success, subject, origin)).await?;
    tx.commit().await?;
    Ok(())
}

/// Whether a session is neither over nor revoked and its user is active.
pub async fn is_live(pool: &PgPool, subject: Subject, now: OffsetDateTime) -> Result<bool, StoreError> {
    let live: Option<(bool,)> = sqlx::query_as(
        "SELECT s.revoked_at IS NULL AND least(s.idle_expires_at, s.absolute_expires_at) > $3 AND u.status = 'active'
         FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1 AND s.user_id = $2",
    )
    .bind(subject.session_id)
    .bind(subject.user_id)
    .bind(now)
    .fetch_optional(pool)
    .await?;
    Ok(live.is_some_and(|(live,)| live))
}

fn record(event: Event, outcome: Outcome, subject: Subject, origin: &Origin) -> Record<'_> {
    let session = id::encode(id::SESSION, subject.session_id);
    Record { event, outcome, actor: Some(subject.user_id), subject: Some(session), origin }
}
