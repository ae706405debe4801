//! The watch on Tenants and what follows from it, one task for all tenants.
//!
//! Each tenant is only ever loaded once at a time. What a change asks of a tenant that is being loaded is done at once if
//! it takes no loading (suspending, deleting, settings), and otherwise when the load ends: the newest object decides.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use finaiflow_crds::Tenant as TenantObject;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::applied::Applied;
use super::connection::{self, Budget, Connection};
use super::lease::{Failures, Report};
use super::load::{self, LoadError, Loaded};
use super::plan::{Need, Plan, plan};
use super::{Key, watching};
use crate::clock::Clock;
use crate::tenant::{Directory, Entry, PolicyTarget, State, Tenant, TenantSettings};

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

impl Served {
    /// What requests get to see of it.
    fn snapshot(&mut self, name: &str, target: PolicyTarget) -> Arc<Tenant> {
        let tenant = Arc::new(Tenant {
            name: name.to_owned(),
            target: Arc::new(target),
            claim_id: self.loaded.holding.claim,
            settings: self.settings.clone(),
            pool: self.connection.pool.clone(),
            engine: self.connection.engine.clone(),
            keys: self.loaded.signing_keys.clone(),
            data_key: self.loaded.data_key.clone(),
        });
        self.connection.used_by(&tenant);
        tenant
    }
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
    budget: Budget,
    reports: watch::Sender<Option<Report>>,
    slots: HashMap<Key, Slot>,
    /// Namespace whose Tenant a name in the directory is. A name belongs to one Tenant at a time.
    holders: HashMap<String, String>,
    applied: Applied,
    failures: Failures,
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
        budget: Budget,
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
            failures: Failures::default(),
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
        let events = watcher(tenants, watching()).default_backoff().modify(prune);
        let mut events = pin!(events);
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
        // The Lease goes while the rest is closed: the replica serves nobody any more.
        self.reports = watch::Sender::new(None);
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

    /// Takes note of an object that exists.
    fn see(&mut self, object: TenantObject) -> Key {
        let (key, version) = (key(&object), version(&object));
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
        let loading = slot.loading;
        let Some(object) = slot.object.clone() else {
            self.unload(key);
            self.cleared(key);
            if !loading {
                self.slots.remove(key);
            }
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
            Ok(Plan::Pause) => {
                self.unload(key);
                self.put(key, State::Unavailable("its data is being restored".to_owned()));
                self.cleared(key);
            }
            Ok(Plan::Suspend) => {
                self.put(key, State::Suspended);
                self.cleared(key);
            }
            Ok(Plan::Serve { settings, need }) => {
                self.serve(key, Some(settings.clone()));
                match need {
                    Some(_) if loading => return,
                    Some(need) => return self.load(key, version(&object), settings, need),
                    None => self.cleared(key),
                }
            }
            Err(error) => self.fail(key, error.to_string()),
        }
        self.applied.settled(key, version(&object));
    }

    fn load(&mut self, key: &Key, version: u64, settings: TenantSettings, need: Need) {
        let max = self.budget.share(need.holding.connections, self.slots.len());
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
                self.applied.settled(&key, loaded_version);
                match result {
                    Ok(loaded) => self.loaded(&key, *loaded, settings, reconnected),
                    Err(error) if slot.object.as_deref().map(version) == Some(loaded_version) => {
                        self.fail(&key, error.to_string());
                        return self.retry_later(&key);
                    }
                    Err(error) => tracing::info!(tenant = %key, %error, "a load that is out of date failed"),
                }
                self.advance(&key);
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
            // Unloaded in the meantime, and the connection with it.
            None if !reconnected => return,
            old => {
                if let Some(Served { connection, .. }) = old {
                    connection.log_in_like(&loaded.pool);
                    self.retiring.push(connection.retire().boxed());
                }
                Connection::new(loaded.pool.clone(), Arc::clone(&self.clock))
            }
        };
        tracing::info!(tenant = %key, claim = %loaded.holding.claim, reconnected, "tenant loaded");
        slot.served = Some(Served { loaded, connection, settings });
    }

    /// Lets requests reach the tenant as it is loaded, with new settings if given.
    fn serve(&mut self, key: &Key, settings: Option<TenantSettings>) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let target = slot.object.as_deref().map(target).unwrap_or_default();
        let Some(served) = slot.served.as_mut() else { return };
        if let Some(settings) = settings {
            served.settings = settings;
        }
        let tenant = served.snapshot(&key.name, target);
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
        self.failures.remove(key);
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
        let version = self.slots.get(key).and_then(|slot| slot.object.as_deref()).map_or(0, version);
        self.failures.insert(key.clone(), (version, reason));
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
        for idle in connection::over_budget(pools, self.budget.connections) {
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
            let news = Report::new(applied, &self.failures);
            let changed = told.as_ref() != Some(&news);
            *told = Some(news);
            changed
        });
    }
}

/// Drops what nothing here reads: most of an object's size.
fn prune(object: &mut TenantObject) {
    object.metadata.managed_fields = None;
    object.metadata.annotations = None;
}

fn target(object: &TenantObject) -> PolicyTarget {
    PolicyTarget {
        namespace: object.namespace().unwrap_or_default(),
        tier: object.spec.tier.clone(),
        labels: object.labels().clone(),
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
    use std::convert::Infallible;

    use axum::body::Body;
    use axum::http::{Request, Response, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::tenant::TenantError;

    /// A registry whose Kubernetes API has no Secret at all.
    fn registry() -> (Registry, watch::Receiver<Option<Report>>) {
        let service = tower::service_fn(|_: Request<kube::client::Body>| async {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                                "message": "no such secret", "code": 404});
            let answer = Response::builder().status(StatusCode::NOT_FOUND).body(Body::from(status.to_string()));
            Ok::<_, Infallible>(answer.unwrap())
        });
        let (reports, told) = watch::channel(None);
        let directory = Arc::new(Directory::new(None));
        let budget = Budget { connections: 50, replicas: 1 };
        (Registry::new(Client::new(service, "default"), directory, crate::clock::system(), budget, reports), told)
    }

    fn tenant(name: &str, version: u64, spec: &Value, hosts: &[&str]) -> TenantObject {
        let condition = |kind| {
            json!({"type": kind, "status": "True", "reason": "R", "message": "",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let object = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant", "spec": spec,
            "metadata": {"name": name, "namespace": "banks", "uid": name, "resourceVersion": version.to_string()},
            "status": {
                "claimID": "00000000000000aa", "hosts": hosts,
                "conditions": [condition("SchemaReady"), condition("CredentialsReady")],
                "secrets": [{"name": format!("{name}.database"), "purpose": "database", "generation": 1}],
            },
        });
        serde_json::from_value(object).unwrap()
    }

    fn suspended(name: &str, version: u64, hosts: &[&str]) -> TenantObject {
        tenant(name, version, &json!({"suspend": true}), hosts)
    }

    impl Registry {
        fn list(&mut self, objects: Vec<TenantObject>) {
            self.event(Event::Init);
            for object in objects {
                self.event(Event::InitApply(object));
            }
            self.event(Event::InitDone);
            self.report();
        }

        fn found(&self, host: Option<&str>, name: Option<&str>) -> TenantError {
            self.directory.resolve(host, name).unwrap_err()
        }
    }

    #[test]
    fn retries_slow_down_to_a_minute() {
        let waits: Vec<_> = [0, 1, 5, 6, 7, u32::MAX].map(|failures| backoff(failures).as_secs()).into();
        assert_eq!(waits, [1, 2, 32, 60, 60, 60]);
    }

    #[tokio::test]
    async fn a_list_is_the_whole_truth() {
        let (mut registry, told) = registry();
        registry.event(Event::Init);
        registry.event(Event::InitApply(suspended("acme", 30, &[])));
        registry.report();
        assert!(!registry.directory.ready() && told.borrow().is_none(), "half a list is nothing");
        registry.list(vec![suspended("acme", 30, &[]), suspended("globex", 20, &[])]);
        assert!(registry.directory.ready());
        assert_eq!(*told.borrow(), Some(Report::new(30, &Failures::new())));

        registry.list(vec![suspended("globex", 20, &[])]);
        assert_eq!(registry.found(None, Some("acme")), TenantError::NotFound);
        assert_eq!(registry.found(None, Some("globex")), TenantError::Suspended);
        assert_eq!(*told.borrow(), Some(Report::new(30, &Failures::new())), "it never goes back");
    }

    #[tokio::test]
    async fn a_host_moves_to_the_tenant_that_was_given_it_last() {
        let (mut registry, _told) = registry();
        registry.list(vec![suspended("acme", 10, &["pay.example"]), suspended("globex", 11, &[])]);
        registry.list(vec![tenant("acme", 21, &json!({}), &["pay.example"]), suspended("globex", 20, &[])]);
        assert!(registry.work.next().await.is_some());
        registry.list(vec![suspended("globex", 31, &["pay.example"]), suspended("acme", 30, &[])]);
        assert_eq!(registry.found(Some("pay.example"), Some("acme")), TenantError::Ambiguous);
        assert_eq!(registry.found(Some("pay.example"), None), TenantError::Suspended);
    }

    #[tokio::test]
    async fn a_tenant_that_is_restored_is_let_go_of_and_not_unknown() {
        let (mut registry, told) = registry();
        let mut restoring = tenant("acme", 11, &json!({}), &["pay.example"]);
        let mut condition = restoring.status.as_ref().unwrap().conditions[0].clone();
        condition.type_ = "Restoring".to_owned();
        restoring.status.as_mut().unwrap().conditions.push(condition);
        registry.list(vec![restoring]);
        let paused = TenantError::Unavailable("its data is being restored".to_owned());
        assert_eq!(registry.found(None, Some("acme")), paused);
        assert_eq!(registry.found(Some("pay.example"), None), paused);
        assert_eq!(*told.borrow(), Some(Report::new(11, &Failures::new())), "its operator waits for that");
        registry.event(Event::Apply(tenant("acme", 12, &json!({}), &[])));
        assert_eq!(registry.work.len(), 1, "it is loaded anew");
    }

    #[tokio::test]
    async fn a_failed_load_is_told_as_applied_and_retried() {
        let (mut registry, told) = registry();
        registry.list(vec![tenant("acme", 10, &json!({}), &[])]);
        assert!(told.borrow().is_none(), "not caught up while loading");
        let done = registry.work.next().await.unwrap();
        registry.done(done);
        registry.report();
        let reason = "Secret acme.database: no such secret (404)".to_owned();
        let failures = Failures::from([(Key { namespace: "banks".into(), name: "acme".into() }, (10, reason.clone()))]);
        assert_eq!(*told.borrow(), Some(Report::new(10, &failures)));
        assert_eq!(registry.found(None, Some("acme")), TenantError::Unavailable(reason));

        tokio::time::pause();
        let retry = registry.work.next().await.unwrap();
        registry.done(retry);
        assert_eq!(registry.work.len(), 1, "the next attempt runs");
    }

    #[tokio::test]
    async fn suspending_and_deleting_do_not_wait_for_a_load() {
        let (mut registry, told) = registry();
        registry.list(vec![tenant("acme", 10, &json!({}), &[])]);
        registry.event(Event::Apply(suspended("acme", 11, &[])));
        assert_eq!(registry.found(None, Some("acme")), TenantError::Suspended);
        let done = registry.work.next().await.unwrap();
        registry.done(done);
        assert_eq!(registry.found(None, Some("acme")), TenantError::Suspended, "an old failure changes nothing");

        registry.event(Event::Apply(tenant("acme", 12, &json!({}), &[])));
        registry.event(Event::Delete(tenant("acme", 13, &json!({}), &[])));
        assert!(registry.directory.get("acme").is_none());
        let done = registry.work.next().await.unwrap();
        registry.done(done);
        registry.report();
        assert_eq!(registry.found(None, Some("acme")), TenantError::NotFound);
        assert!(registry.slots.is_empty());
        assert_eq!(*told.borrow(), Some(Report::new(13, &Failures::new())));
    }
}
