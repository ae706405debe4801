//! What is past its time goes: holds are released, used idempotency keys and ended sessions deleted.
//!
//! A tenant is swept while requests reach it, and when its next hold is due; nobody else's database is woken. Replicas
//! that sweep the same tenant do no harm: a hold is released once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use finaiflow_ledger::command::{AuditContext, Authority, Command, CommandKind};
use finaiflow_ledger::id::HoldId;
use finaiflow_ledger::query;
use finaiflow_schema::names::ClaimId;
use futures::StreamExt;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::{self, Clock};
use crate::store::StoreError;
use crate::tenant::{Directory, Tenant};

/// How often it is looked for work.
const PERIOD: Duration = Duration::from_secs(5);
/// The most holds of a tenant that are released in one round.
const MOST_HOLDS: u16 = 500;
/// The most rows of each of its tables that are deleted: more than what a busy bank leaves behind in that time.
const MOST_ROWS: i32 = 20_000;
/// Tenants swept at the same time.
const PARALLEL: usize = 4;

/// Sweeps the served tenants until `stop`.
pub async fn run(directory: Arc<Directory>, clock: Clock, stop: CancellationToken) {
    let mut sweeper = Sweeper::new(directory, clock);
    let mut rounds = interval(PERIOD);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sweeper.round() => {}
        }
    }
}

/// Knows when each tenant is to be swept although nobody uses it.
pub struct Sweeper {
    directory: Arc<Directory>,
    clock: Clock,
    due: HashMap<ClaimId, OffsetDateTime>,
}

impl Sweeper {
    /// One that has not swept yet.
    #[must_use]
    pub fn new(directory: Arc<Directory>, clock: Clock) -> Self {
        Self { directory, clock, due: HashMap::new() }
    }

    /// Sweeps the tenants that were used since the last round, and those where something is due.
    pub async fn round(&mut self) {
        let now = (self.clock)();
        let served = self.directory.served();
        self.due.retain(|claim, _| served.iter().any(|(tenant, _)| tenant.claim_id == *claim));
        let due = |tenant: &Tenant| self.due.get(&tenant.claim_id).is_some_and(|due| *due <= now);
        let tenants: Vec<_> = served.into_iter().filter(|(tenant, used)| *used || due(tenant)).collect();
        let mut swept = futures::stream::iter(tenants)
            .map(|(tenant, _)| async move { (tenant.claim_id, next(&tenant, now).await) })
            .buffer_unordered(PARALLEL);
        while let Some((claim, next)) = swept.next().await {
            match next {
                Some(time) => self.due.insert(claim, time),
                None => self.due.remove(&claim),
            };
        }
    }
}

/// Sweeps a tenant; returns when there is something to do again.
async fn next(tenant: &Tenant, now: OffsetDateTime) -> Option<OffsetDateTime> {
    sweep(tenant, now).await.unwrap_or_else(|error| {
        tracing::warn!(tenant = tenant.name, %error, "what is past its time could not be swept");
        Some(now)
    })
}

async fn sweep(tenant: &Tenant, now: OffsetDateTime) -> Result<Option<OffsetDateTime>, StoreError> {
    let deleted: i64 = sqlx::query_scalar("SELECT expire($1)").bind(MOST_ROWS).fetch_one(&tenant.pool).await?;
    let holds = query::due_holds(&tenant.pool, now, MOST_HOLDS).await?;
    futures::future::join_all(holds.iter().map(|hold| release(tenant, *hold))).await;
    if deleted > 0 || !holds.is_empty() {
        tracing::info!(tenant = tenant.name, deleted, released = holds.len(), "swept");
    }
    // What was released is not due any more; what could not be released, or was one too many, is.
    let more = deleted >= i64::from(MOST_ROWS);
    Ok(if more { Some(now) } else { query::next_expiry(&tenant.pool).await? })
}

/// By the bank itself, once.
async fn release(tenant: &Tenant, hold: HoldId) {
    let Ok(salt) = clock::random() else { return };
    let command = Command {
        principal: Uuid::nil(),
        authority: Authority::Staff,
        key: format!("expire-hold-{hold}"),
        fingerprint: [0; 32],
        salt,
        kind: CommandKind::ExpireHold { hold },
        audit: AuditContext::default(),
    };
    if let Err(error) = tenant.engine.submit(command).await {
        tracing::warn!(tenant = tenant.name, %hold, %error, "a hold whose time has come is not released yet");
    }
}
