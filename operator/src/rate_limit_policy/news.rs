//! What was heard of policies, Tenants and Leases, and which policies must be looked at because of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use finaiflow_crds::rate_limit_policy::digest;
use finaiflow_crds::{RateLimitPolicy, Tenant};
use futures::{Stream, StreamExt, stream};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use tokio::sync::Notify;

use super::{Context, update_status};
use crate::replica;
use crate::watch::{Changes, mark};

/// What is heard within this time is answered at once: Tenants come in thousands.
const GATHER: Duration = Duration::from_millis(200);
/// The replicas are looked at that often even if nothing is heard: nobody tells that a Lease has expired.
const LOOK: Duration = Duration::from_secs(5);

/// What was heard and has not been answered.
#[derive(Debug, Default)]
pub struct News {
    /// Where policies or Tenants have changed.
    namespaces: Mutex<BTreeSet<String>>,
    heard: Notify,
}

impl News {
    /// Hears of policies: what matters to others is that one came, went, or has another spec.
    pub fn of_policies(self: &Arc<Self>) -> impl FnMut(&Event<RateLimitPolicy>) + Send + use<> {
        self.of(|policy: &RateLimitPolicy| mark(&(&policy.metadata.uid, policy.metadata.generation)))
    }

    /// Hears of Tenants: what matters is that one is there, and what selectors see of it.
    pub fn of_tenants(self: &Arc<Self>) -> impl FnMut(&Event<Tenant>) + Send + use<> {
        self.of(|tenant: &Tenant| mark(&(&tenant.spec.tier, tenant.labels())))
    }

    /// Hears of Leases.
    pub fn of_leases(self: &Arc<Self>) -> impl FnMut() + Send + use<> {
        let news = Arc::clone(self);
        move || news.heard.notify_one()
    }

    fn of<K: ResourceExt>(self: &Arc<Self>, mark: fn(&K) -> u64) -> impl FnMut(&Event<K>) + Send + use<K> {
        let (news, mut changes) = (Arc::clone(self), Changes::new(mark));
        move |event| {
            let mut namespaces = changes.hear(event);
            if !namespaces.is_empty() {
                news.namespaces.lock().unwrap_or_else(PoisonError::into_inner).append(&mut namespaces);
                news.heard.notify_one();
            }
        }
    }

    /// Waits until something is heard, or some time has passed; returns where something has changed.
    async fn next(&self) -> BTreeSet<String> {
        if tokio::time::timeout(LOOK, self.heard.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
        std::mem::take(&mut *self.namespaces.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The policies to visit because of what is heard.
pub fn answers(news: Arc<News>, ctx: Arc<Context>) -> impl Stream<Item = ObjectRef<RateLimitPolicy>> + Send {
    let told = (String::new(), Vec::new());
    stream::unfold((news, ctx, told), |(news, ctx, mut told)| async move {
        let namespaces = news.next().await;
        let policies = ctx.policies.state();
        let replicas = replica::alive(&ctx.leases.state(), (ctx.now)());
        let digest = digest(policies.iter().map(Arc::as_ref));
        let tells: Vec<_> = replicas.iter().map(|replica| (replica.name.clone(), replica.policies.clone())).collect();
        let tells = (digest, tells);
        let moved = told != tells;
        told = tells;
        let is_due = |policy: &&Arc<RateLimitPolicy>| {
            is_near(policy, &namespaces, &ctx.home) || moved && update_status::is_due(policy, &replicas, &told.0)
        };
        let due: Vec<_> = policies.iter().filter(is_due).map(|policy| ObjectRef::from_obj(&**policy)).collect();
        Some((stream::iter(due), (news, ctx, told)))
    })
    .flatten()
}

/// Policies compete within a namespace, and those for the API server with all.
fn is_near(policy: &RateLimitPolicy, namespaces: &BTreeSet<String>, home: &str) -> bool {
    namespaces.contains(home) || namespaces.contains(policy.metadata.namespace.as_deref().unwrap_or_default())
}
