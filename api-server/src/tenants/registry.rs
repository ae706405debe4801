//! The watch on Tenants and what follows from it, one task for all tenants.
//!
//! Loading is level-triggered: a change that arrives while its tenant is being loaded is looked at when that ends, so
//! a tenant is only ever loaded once at a time and always ends up as its newest object says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::Tenant as TenantObject;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Key;
use super::applied::Applied;
use super::connection::{self, Connection};
use super::lease::Report;
use super::load::{self, LoadError, Loaded};
use super::plan::{Need, Plan, plan};
use crate::clock::Clock;
use crate::tenant::{Directory, Entry, State, Tenant, TenantSettings};

const PAGE: u32 = 500;
/// Tenants loaded at the same time.
const PARALLEL: usize = 8;
const LONGEST_BACKOFF: Duration = Duration::from_mins(1);
/// How often open connections are counted against the budget.
const COUNT: Duration = Duration::from_secs(1);

/// A tenant that is loaded, as it was last served.
struct Served {
    loaded: Loaded,
    connection: Connection,
    settings: TenantSettings,
}

/// What is known of one Tenant object.
#[derive(Default)]
struct Slot {
    /// The newest object; none once it is deleted.
    object: Option<Arc<TenantObject>>,
    served: Option<Served>,
    loading: bool,
    /// Loads that failed in a row.
    failures: u32,
    /// Number of the retry that is due; one with another number is out of date.
    retries: u64,
}

/// Something that ended in the background.
enum Done {
    Loaded {
        key: Key,
        version: u64,
        settings: TenantSettings,
        reconnected: bool,
        result: Result<Box<Loaded>, LoadError>,
    },
    Retry {
        key: Key,
        number: u64,
    },
}

pub(super) struct Registry {
    client: Client,
    directory: Arc<Directory>,
    clock: Clock,
    budget: u32,
    reports: watch::Sender<Option<Report>>,
    slots: HashMap<Key, Slot>,
    /// Namespace whose Tenant a name in the directory is. A name belongs to one Tenant at a time.
    holders: HashMap<String, String>,
    applied: Applied,
    /// Why tenants are not as their objects say, by [`Key`].
    failures: BTreeMap<String, String>,
    /// Objects of a list that is not complete yet.
    listed: Vec<TenantObject>,
    /// The replica has caught up when it has applied this version, the newest of the first list.
    caught_up_at: Option<u64>,
    permits: Arc<Semaphore>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    retiring: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Registry {
    pub(super) fn new(
        client: Client,
        directory: Arc<Directory>,
        clock: Clock,
        budget: u32,
        reports: watch::Sender<Option<Report>>,
    ) -> Self {
        Self {
            client,
            directory,
            clock,
            budget,
            reports,
            slots: HashMap::new(),
            holders: HashMap::new(),
            applied: Applied::default(),
            failures: BTreeMap::new(),
            listed: Vec::new(),
            caught_up_at: None,
            permits: Arc::new(Semaphore::new(PARALLEL)),
            work: FuturesUnordered::new(),
            retiring: FuturesUnordered::new(),
        }
    }

    /// Follows the Tenants until `stop`; then ends every ledger writer and closes every pool.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let tenants: Api<TenantObject> = Api::all(self.client.clone());
        let mut events = pin!(watcher(tenants, Config::default().page_size(PAGE)).default_backoff());
        let mut count = interval(COUNT);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(event),
                    Some(Err(error)) => tracing::warn!(%error, "the watch on tenants broke off"),
                    None => break,
                },
                Some(done) = self.work.next() => self.done(done),
                Some(()) = self.retiring.next() => {}
                _ = count.tick() => self.keep_budget(),
            }
            self.report();
        }
        self.work.clear();
        for key in self.slots.keys().cloned().collect::<Vec<_>>() {
            self.unload(&key);
        }
        while self.retiring.next().await.is_some() {}
    }

    fn event(&mut self, event: Event<TenantObject>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => self.listed.push(object),
            Event::InitDone => self.list_complete(),
            Event::Apply(object) => {
                let version = version(&object);
                let key = self.see(object);
                self.applied.complete(version);
                self.advance(&key);
            }
            Event::Delete(object) => {
                let (key, version) = (key(&object), version(&object));
                self.applied.seen(&key, version);
                self.applied.complete(version);
                self.forget(&key);
            }
        }
    }

    /// A list is the whole truth: what it lacks is gone. Older changes go first, so that a host is given up before
    /// another tenant takes it.
    fn list_complete(&mut self) {
        let mut listed = std::mem::take(&mut self.listed);
        listed.sort_by_key(version);
        let newest = listed.last().map_or(0, version);
        let keys: Vec<_> = listed.into_iter().map(|object| self.see(object)).collect();
        self.applied.complete(newest);
        let present: HashSet<_> = keys.iter().collect();
        let gone: Vec<_> = self.slots.keys().filter(|key| !present.contains(key)).cloned().collect();
        for key in &gone {
            self.forget(key);
        }
        for key in &keys {
            self.advance(key);
        }
        self.caught_up_at.get_or_insert(newest);
    }

    /// Takes note of an object that exists. Fields that nothing here reads are dropped: they are most of its size.
    fn see(&mut self, mut object: TenantObject) -> Key {
        let (key, version) = (key(&object), version(&object));
        object.metadata.managed_fields = None;
        object.metadata.annotations = None;
        self.applied.seen(&key, version);
        self.slots.entry(key.clone()).or_default().object = Some(Arc::new(object));
        key
    }

    fn forget(&mut self, key: &Key) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.object = None;
        }
        self.advance(key);
    }

    /// Makes the tenant what its newest object says, or starts what that takes.
    fn advance(&mut self, key: &Key) {
        let Some(slot) = self.slots.get_mut(key) else { return self.applied.settled(key, u64::MAX) };
        if slot.loading {
            return;
        }
        let Some(object) = slot.object.clone() else {
            self.unload(key);
            self.cleared(key);
            self.slots.remove(key);
            return self.applied.settled(key, u64::MAX);
        };
        if slot.served.as_ref().is_some_and(|served| !served.loaded.holding.is_of(&object)) {
            self.unload(key);
        }
        let held = self.slots.get(key).and_then(|slot| slot.served.as_ref()).map(|served| &served.loaded.holding);
        match plan(&object, held) {
            Ok(Plan::Unload) => {
                self.unload(key);
                self.cleared(key);
            }
            Ok(Plan::Suspend) => {
                self.put(key, State::Suspended);
                self.cleared(key);
            }
            Ok(Plan::Serve { settings, need }) => {
                self.serve(key, Some(settings.clone()));
                match need {
                    Some(need) => return self.load(key, version(&object), settings, need),
                    None => self.cleared(key),
                }
            }
            Err(error) => self.fail(key, error.to_string()),
        }
        self.applied.settled(key, version(&object));
    }

    fn load(&mut self, key: &Key, version: u64, settings: TenantSettings, need: Need) {
        let max = connection::share(need.holding.connections, self.budget, self.slots.len());
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.loading = true;
        let held = slot.served.as_ref().map(|served| served.loaded.clone());
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let (permits, key, reconnected) = (Arc::clone(&self.permits), key.clone(), need.connect);
        let work = async move {
            let _permit = permits.acquire_owned().await;
            let result = load::load(secrets, need, held, max).await.map(Box::new);
            Done::Loaded { key, version, settings, reconnected, result }
        };
        self.work.push(work.boxed());
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Loaded { key, version: loaded_version, settings, reconnected, result } => {
                let Some(slot) = self.slots.get_mut(&key) else { return };
                slot.loading = false;
                let newest = slot.object.as_deref().map(version);
                let failed = result.is_err();
                match result {
                    Ok(loaded) => self.loaded(&key, *loaded, settings, reconnected),
                    Err(error) => self.fail(&key, error.to_string()),
                }
                self.applied.settled(&key, loaded_version);
                if failed && newest == Some(loaded_version) {
                    self.retry_later(&key);
                } else {
                    self.advance(&key);
                }
            }
            Done::Retry { key, number } => {
                if self.slots.get(&key).is_some_and(|slot| slot.retries == number) {
                    self.advance(&key);
                }
            }
        }
    }

    /// Takes over what was loaded. The requests that still use an old connection finish with it.
    fn loaded(&mut self, key: &Key, loaded: Loaded, settings: TenantSettings, reconnected: bool) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let connection = match slot.served.take() {
            Some(served) if !reconnected => served.connection,
            old => {
                self.retiring.extend(old.map(|served| served.connection.retire().boxed()));
                Connection::new(loaded.pool.clone(), Arc::clone(&self.clock))
            }
        };
        tracing::info!(tenant = %key, claim = %loaded.holding.claim, reconnected, "tenant loaded");
        slot.served = Some(Served { loaded, connection, settings });
    }

    /// Lets requests reach the tenant as it is loaded, with new settings if given.
    fn serve(&mut self, key: &Key, settings: Option<TenantSettings>) {
        let Some(served) = self.slots.get_mut(key).and_then(|slot| slot.served.as_mut()) else { return };
        if let Some(settings) = settings {
            served.settings = settings;
        }
        let tenant = Arc::new(Tenant {
            name: key.name.clone(),
            claim_id: served.loaded.holding.claim,
            settings: served.settings.clone(),
            pool: served.connection.pool.clone(),
            engine: served.connection.engine.clone(),
            keys: served.loaded.signing_keys.clone(),
            data_key: served.loaded.data_key.clone(),
        });
        served.connection.used_by(&tenant);
        self.put(key, State::Serving(tenant));
    }

    fn put(&mut self, key: &Key, state: State) {
        let status = self.slots.get(key).and_then(|slot| slot.object.as_ref()?.status.as_ref());
        let hosts = status.map(|status| status.hosts.clone()).unwrap_or_default();
        self.holders.insert(key.name.clone(), key.namespace.clone());
        self.directory.replace(&key.name, Entry { hosts, state });
    }

    /// Takes the tenant out of the directory and ends its connection once nobody uses it.
    fn unload(&mut self, key: &Key) {
        if self.holders.get(&key.name) == Some(&key.namespace) {
            self.holders.remove(&key.name);
            self.directory.remove(&key.name);
        }
        if let Some(served) = self.slots.get_mut(key).and_then(|slot| slot.served.take()) {
            tracing::info!(tenant = %key, "tenant unloaded");
            self.retiring.push(served.connection.retire().boxed());
        }
    }

    /// The tenant is as its object says.
    fn cleared(&mut self, key: &Key) {
        self.failures.remove(&key.to_string());
        if let Some(slot) = self.slots.get_mut(key) {
            slot.failures = 0;
            slot.retries += 1;
        }
    }

    /// The tenant cannot be as its object says: it stays as it was, or is unavailable if it never was loaded.
    fn fail(&mut self, key: &Key, reason: String) {
        tracing::warn!(tenant = %key, reason, "tenant cannot be served as declared");
        if self.slots.get(key).is_some_and(|slot| slot.served.is_some()) {
            self.serve(key, None);
        } else {
            self.put(key, State::Unavailable(reason.clone()));
        }
        self.failures.insert(key.to_string(), reason);
    }

    fn retry_later(&mut self, key: &Key) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let wait = backoff(slot.failures);
        slot.failures = slot.failures.saturating_add(1);
        slot.retries += 1;
        let (key, number) = (key.clone(), slot.retries);
        self.work.push(sleep(wait).map(move |()| Done::Retry { key, number }).boxed());
    }

    fn keep_budget(&mut self) {
        let pools = self.slots.values().filter_map(|slot| slot.served.as_ref()).map(|served| &served.connection.pool);
        for idle in connection::over_budget(pools, self.budget) {
            let close = async {
                if let Err(error) = idle.close().await {
                    tracing::debug!(%error, "an idle connection did not close cleanly");
                }
            };
            self.retiring.push(close.boxed());
        }
    }

    /// Tells what has changed since the last report, once the first list has been applied.
    fn report(&self) {
        let applied = self.applied.watermark();
        if self.caught_up_at.is_none_or(|version| applied < version) {
            return;
        }
        self.directory.mark_synced();
        self.reports.send_if_modified(|told| {
            let news = told.as_ref().is_none_or(|told| told.applied != applied || told.failures != self.failures);
            if news {
                *told = Some(Report { applied, failures: self.failures.clone() });
            }
            news
        });
    }
}

fn key(object: &TenantObject) -> Key {
    Key { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

fn version(object: &TenantObject) -> u64 {
    object.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// 1 s, 2 s, 4 s and so on up to a minute.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(LONGEST_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down_to_a_minute() {
        let waits: Vec<_> = [0, 1, 5, 6, 7, u32::MAX].map(|failures| backoff(failures).as_secs()).into();
        assert_eq!(waits, [1, 2, 32, 60, 60, 60]);
    }
}
