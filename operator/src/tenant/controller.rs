//! What is watched, and when a Tenant is visited.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finaiflow_crds::Tenant;
use finaiflow_crds::condition::{self, ConditionType, Truth};
use finaiflow_crds::names::{API_SERVER, LABEL_COMPONENT, LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::serving::{self, Verdict};
use super::{Visit, report, sweep, update_status, visit};
use crate::backoff::{self, Backoff};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::context::Context;
use crate::error::{Error, Reason};
use crate::observe::Observer;
use crate::replica::{self, Replica};
use crate::story::Story;
use crate::watch;

const CONCURRENCY: u16 = 16;
const VISIT_LIMIT: Duration = Duration::from_mins(1);
/// What decides about visits.
pub struct Operator<C> {
    /// What every visit needs.
    pub ctx: Context<C>,
    /// Publishes what visits tell.
    pub observer: Arc<Observer>,
    /// Failures in a row.
    pub backoff: Backoff,
    /// Set when a newer operator has taken over.
    pub fenced: CancellationToken,
}

impl<C> Operator<C> {
    /// Ends this process if the failure says that a newer operator is at work. Returns whether it does.
    pub fn give_way(&self, error: &Error) -> bool {
        if error.is_fenced() {
            tracing::error!(%error, "a newer operator is at work; ending");
            self.fenced.cancel();
        }
        error.is_fenced()
    }
}

/// The streams of one kind that is watched in a namespace.
type Triggers = BoxStream<'static, ObjectRef<Tenant>>;

/// The Tenants, each time something in them asks for a visit. Writing a status does not; deletion does. `heard` is told
/// of everything, once it is in the store.
pub fn tenants<H>(
    client: &Client,
    writer: Writer<Tenant>,
    heard: H,
) -> impl Stream<Item = watcher::Result<Tenant>> + Send + use<H>
where
    H: FnMut(&watcher::Event<Tenant>) + Send,
{
    let asks = predicates::generation.combine(predicates::finalizers).combine(predicates::annotations);
    watcher(Api::<Tenant>::all(client.clone()), watch::config())
        .default_backoff()
        .modify(watch::prune)
        .reflect(writer)
        .inspect_ok(heard)
        .applied_objects()
        .predicate_filter(asks, PredicateConfig::default())
}

/// Keeps the API server's Leases, and yields the Tenants to which a change of them makes a difference. `heard` is told
/// when there is any change, once it is in the store.
pub fn leases(
    client: &Client,
    config: &Config,
    writer: Writer<Lease>,
    now: fn() -> Timestamp,
    tenants: Store<Tenant>,
    mut heard: impl FnMut() + Send + 'static,
) -> Triggers {
    let api: Api<Lease> = Api::namespaced(client.clone(), &config.api_server.namespace);
    let store = writer.as_reader();
    watcher(api, watch::config().labels(&format!("{LABEL_COMPONENT}={API_SERVER}")))
        .default_backoff()
        .reflect(writer)
        .inspect_ok(move |_| heard())
        .touched_objects()
        .predicate_filter(predicates::annotations, PredicateConfig::default())
        .filter_map(|lease| {
            let lease = lease.inspect_err(|error| tracing::warn!(%error, "leases of the API server cannot be watched"));
            std::future::ready(lease.ok())
        })
        .flat_map(move |_| {
            let replicas = replica::alive(&store.state(), now());
            stream::iter(to_judge_again(&tenants.state(), &replicas))
        })
        .boxed()
}

/// The provisioned Tenants of which the replicas say something else than the status.
fn to_judge_again(tenants: &[Arc<Tenant>], replicas: &[Replica]) -> Vec<ObjectRef<Tenant>> {
    let is_due = |tenant: &&Arc<Tenant>| {
        let conditions = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let provisioned = [ConditionType::SchemaReady, ConditionType::CredentialsReady];
        let Some(serving) = condition::find(conditions, ConditionType::Serving) else { return false };
        if !provisioned.iter().all(|kind| condition::is_true(conditions, *kind)) {
            return false;
        }
        let at_least = serving::version(tenant.metadata.resource_version.as_deref());
        match serving::judge(replicas, &update_status::key(tenant), at_least) {
            Verdict::Served => serving.status != Truth::True.as_str(),
            Verdict::Failed(why) => serving.message != why,
            Verdict::NoReplica | Verdict::Behind(_) => false,
        }
    };
    tenants.iter().filter(is_due).map(|tenant| ObjectRef::from_obj(&**tenant)).collect()
}

/// The Tenants of which a child or a job has changed or gone, in every namespace that is opened to the operator.
#[must_use]
pub fn children(client: &Client, config: &Config) -> Triggers {
    let of_namespace = |namespace: &String| {
        stream::select_all([
            child::<Secret>(client, namespace),
            child::<Role>(client, namespace),
            child::<RoleBinding>(client, namespace),
            child::<NetworkPolicy>(client, namespace),
            child::<CronJob>(client, namespace),
            child::<Job>(client, namespace),
        ])
    };
    stream::select_all(config.tenant_namespaces.iter().map(of_namespace)).boxed()
}

fn child<K>(client: &Client, namespace: &str) -> Triggers
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    let labels = format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_TENANT}");
    let namespace = namespace.to_owned();
    watcher(api, watch::config().labels(&labels))
        .default_backoff()
        .touched_objects()
        // Secrets have no generation, and a deletion is a new version.
        .predicate_filter(predicates::resource_version, PredicateConfig::default())
        .filter_map(move |object| {
            let owner = match &object {
                Ok(object) => object.labels().get(LABEL_TENANT).map(|name| ObjectRef::new(name).within(&namespace)),
                Err(error) => {
                    tracing::warn!(namespace, kind = %K::kind(&()), %error, "children cannot be watched");
                    None
                }
            };
            std::future::ready(owner)
        })
        .boxed()
}

/// Visits Tenants until `stop`, then finishes the visits under way.
pub async fn run<C: Catalog>(
    operator: Arc<Operator<C>>,
    tenants: impl Stream<Item = watcher::Result<Tenant>> + Send + 'static,
    triggers: Triggers,
    stop: CancellationToken,
) {
    let reader = operator.ctx.tenants.clone();
    Controller::for_stream(tenants, reader)
        .reconcile_on(stream::select(triggers, sweep::periodically(Arc::clone(&operator))))
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, error: &Infallible, _| match *error {}, operator)
        .for_each(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "not visited");
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile<C: Catalog>(tenant: Arc<Tenant>, operator: Arc<Operator<C>>) -> Result<Action, Infallible> {
    let Operator { ctx, observer, backoff, .. } = operator.as_ref();
    let (started, story) = (Instant::now(), Story::default());
    let limited = tokio::time::timeout(VISIT_LIMIT, visit(ctx, &tenant, &story)).await;
    let result = limited.unwrap_or(Err(Error::Timeout(VISIT_LIMIT.as_secs())));
    let key = update_status::key(&tenant);
    let jitter = ctx.random.bytes::<1>().map_or(0, |[byte]| byte);
    let action = match &result {
        Ok(visit) => {
            backoff.forget(&key);
            match visit {
                Visit::Done => Action::requeue(backoff::steady(jitter)),
                Visit::Waiting => Action::requeue(backoff::waiting(jitter)),
                Visit::Leaving => Action::requeue(backoff::retry(1, jitter)),
                Visit::Gone => Action::await_change(),
            }
        }
        Err(error) if operator.give_way(error) => Action::await_change(),
        Err(error) => {
            let failures = backoff.failed(&key);
            if is_worth_reporting(error, failures)
                && let Err(error) = report(ctx, &tenant, error, &story).await
            {
                tracing::warn!(%error, tenant = key, "status not written");
            }
            // What stands in the way may go without a change of the Tenant, for instance another Tenant.
            let delay =
                if error.reason().is_terminal() { backoff::steady(jitter) } else { backoff::retry(failures, jitter) };
            Action::requeue(delay)
        }
    };
    observer.publish(&*tenant, &story, &result, started.elapsed(), (ctx.now)().as_second()).await;
    Ok(action)
}

/// A write that met another one, or one lost answer of the API server or of PostgreSQL, is retried before anybody hears
/// of it.
pub(crate) fn is_worth_reporting(error: &Error, failures: u32) -> bool {
    failures > 0 || !matches!(error.reason(), Reason::KubernetesError | Reason::DatabaseUnavailable)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(version: &str, schema: &str, serving: &str, message: &str) -> Arc<Tenant> {
        let condition = |kind: &str, status: &str, message: &str| {
            json!({"type": kind, "status": status, "reason": "X", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let tenant = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "namespace": "banks", "resourceVersion": version},
            "spec": {},
            "status": {"conditions": [condition("SchemaReady", schema, ""), condition("CredentialsReady", "True", ""),
                condition("Serving", serving, message)]},
        });
        Arc::new(serde_json::from_value(tenant).unwrap())
    }

    #[test]
    fn a_lease_concerns_only_tenants_it_says_news_of() {
        let served = Replica { name: "a".to_owned(), applied: 100, ..Replica::default() };
        let mut failing = served.clone();
        failing.failures.insert("banks/acme".to_owned(), "no login".to_owned());
        let why = "replica a cannot serve the Tenant: no login";
        for (tenant, replica, due) in [
            (tenant("100", "True", "False", ""), &served, true),
            (tenant("101", "True", "False", ""), &served, false),
            (tenant("100", "True", "True", ""), &served, false),
            (tenant("100", "False", "Unknown", ""), &served, false),
            (tenant("100", "True", "True", ""), &failing, true),
            (tenant("100", "True", "False", why), &failing, false),
        ] {
            let found = to_judge_again(&[Arc::clone(&tenant)], std::slice::from_ref(replica));
            assert_eq!(!found.is_empty(), due, "{tenant:?} {replica:?}");
        }
    }

    #[test]
    fn a_single_conflict_of_writers_is_not_reported() {
        let conflict = || Error::Kubernetes {
            action: "write".to_owned(),
            source: Box::new(kube::Error::Api(Box::new(
                kube::core::Status::failure("changed", "Conflict").with_code(409),
            ))),
        };
        assert!(!is_worth_reporting(&conflict(), 0));
        assert!(is_worth_reporting(&conflict(), 1));
        assert!(is_worth_reporting(&Error::Timeout(60), 0));
        let lost = finaiflow_schema::Error::Unavailable("reset".to_owned());
        let lost = Error::Catalog { server: "primary".to_owned(), source: lost.into() };
        assert!(!is_worth_reporting(&lost, 0) && is_worth_reporting(&lost, 1));
    }
}
