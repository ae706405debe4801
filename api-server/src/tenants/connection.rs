//! A tenant's pool and ledger writer: how large, how long, and how they end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::store;
use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::tenant::Tenant;

/// Connections of a tenant's login that a pool leaves alone, so that another replica or a person can still log in.
const RESERVE: u32 = 2;
/// No tenant gets more than this fraction of the budget.
const LARGEST_SHARE: u32 = 4;
/// A request that waits longer for a connection is refused.
const ACQUIRE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_mins(1);
/// A connection that was used just now needs no round trip to prove that it works.
const FRESH: Duration = Duration::from_secs(1);
/// Longest wait for the requests that still use a retired connection.
const DRAIN: Duration = Duration::from_secs(30);

/// How many PostgreSQL connections a replica may hold.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Over all tenants.
    pub connections: u32,
    /// Most replicas that serve at once. Each tenant's connections are divided among them: a replica that took more
    /// than its part under load would leave none to one that starts.
    pub replicas: u32,
}

impl Budget {
    /// Size of a tenant's pool: this replica's part of the tenant's own limit less a reserve, or the tenant's share of
    /// the budget if that is less.
    ///
    /// The share is the budget divided by the tenants there are when the pool is made, at most a quarter of the budget
    /// and at least 2. Pools open connections on demand and close them when idle, so many small shares may add up to
    /// more than the budget without ever being used at once; when they are, [`over_budget`] closes what is idle, and
    /// PostgreSQL's own connection limits (which a pool waits on) are the hard bound.
    pub(super) fn share(self, limit: i32, tenants: usize) -> u32 {
        let tenants = u32::try_from(tenants).unwrap_or(u32::MAX).max(LARGEST_SHARE);
        let own = u32::try_from(limit).unwrap_or(0).saturating_sub(RESERVE) / self.replicas.max(1);
        own.min((self.connections / tenants).max(2)).max(1)
    }
}

/// A pool of at most `max` connections that opens none before the first request.
pub(super) fn open(options: PgConnectOptions, max: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(IDLE)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > FRESH {
                    sqlx::Connection::ping(connection).await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}

/// Idle connections to close so that no more than `budget` are open over all pools.
pub(super) fn over_budget<'a>(
    pools: impl Iterator<Item = &'a PgPool> + Clone,
    budget: u32,
) -> Vec<PoolConnection<sqlx::Postgres>> {
    let open: u32 = pools.clone().map(PgPool::size).sum();
    let excess = usize::try_from(open.saturating_sub(budget)).unwrap_or(usize::MAX);
    pools.flat_map(|pool| std::iter::from_fn(|| pool.try_acquire())).take(excess).collect()
}

/// What a tenant's snapshots share as long as its login stays the same.
pub(super) struct Connection {
    pub(super) pool: PgPool,
    pub(super) engine: Engine,
    snapshots: Vec<Weak<Tenant>>,
}

impl Connection {
    pub(super) fn new(pool: PgPool, clock: Clock) -> Self {
        Self { engine: Engine::new(store::Postgres::new(pool.clone()), clock), pool, snapshots: Vec::new() }
    }

    /// Remembers that requests may reach this connection through `tenant`.
    pub(super) fn used_by(&mut self, tenant: &Arc<Tenant>) {
        self.snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        self.snapshots.push(Arc::downgrade(tenant));
    }

    /// What still needs another connection of this pool logs in as `next` does: the password it was opened with may
    /// have no effect any more.
    pub(super) fn log_in_like(&self, next: &PgPool) {
        self.pool.set_connect_options((*next.connect_options()).clone());
    }

    /// Ends it once the requests that hold one of its snapshots are done.
    pub(super) async fn retire(self) {
        let unused = async {
            while self.snapshots.iter().any(|snapshot| snapshot.strong_count() > 0) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        // Whoever is still there after this has long been given up by the client.
        let _ = timeout(DRAIN, unused).await;
        self.engine.shutdown().await;
        let _ = timeout(DRAIN, self.pool.close()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_bounded_by_limit_replicas_and_budget() {
        for (limit, replicas, connections, tenants, expected) in [
            (20, 1, 100, 1, 18),
            (20, 3, 100, 1, 6),
            (20, 30, 100, 1, 1),
            (20, 1, 40, 1, 10),
            (20, 1, 100, 20, 5),
            (20, 1, 100, 10_000, 2),
            (5, 1, 100, 1, 3),
            (1, 1, 100, 1, 1),
            (-1, 0, 0, 0, 1),
            (1000, 1, 800, 1, 200),
        ] {
            let share = Budget { connections, replicas }.share(limit, tenants);
            assert_eq!(share, expected, "{limit} {replicas} {connections} {tenants}");
        }
    }
}
