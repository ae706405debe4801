//! What is watched, and when a Backup is visited.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finaiflow_crds::names::{LABEL_CLAIM, LABEL_MANAGED_BY, MANAGED_BY};
use finaiflow_crds::{Backup, Tenant};
use futures::channel::mpsc::UnboundedReceiver;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::dereference::key;
use super::{Context, Visit, report, visit};
use crate::backoff::{self, Backoff};
use crate::error::Error;
use crate::observe::Observer;
use crate::story::Story;
use crate::tenant::controller::is_worth_reporting;
use crate::watch::{self, mark};

const CONCURRENCY: u16 = 16;
const VISIT_LIMIT: Duration = Duration::from_mins(1);

/// Who visits Backups.
pub struct Visitor {
    /// What every visit needs.
    pub ctx: Context,
    /// Publishes what visits tell.
    pub observer: Arc<Observer>,
    /// Failures in a row.
    pub backoff: Backoff,
}

/// Backups to visit because of something else.
type Triggers = BoxStream<'static, ObjectRef<Backup>>;

/// The Backups, each time something in them asks for a visit. Writing a status does not; deletion does. `heard` is told
/// of everything, once it is in the store.
pub fn backups<H>(
    client: &Client,
    writer: Writer<Backup>,
    heard: H,
) -> impl Stream<Item = watcher::Result<Backup>> + Send + use<H>
where
    H: FnMut(&watcher::Event<Backup>) + Send,
{
    let asks = predicates::generation.combine(predicates::finalizers).combine(predicates::annotations);
    watcher(Api::<Backup>::all(client.clone()), watch::config())
        .default_backoff()
        .modify(watch::prune)
        .reflect(writer)
        .inspect_ok(heard)
        .applied_objects()
        .inspect_err(|error| tracing::warn!(%error, "backups cannot be watched"))
        .predicate_filter(asks, PredicateConfig::default())
}

/// The Backups to visit because of a Tenant that was heard of, or a job. Keeps the jobs and their pods, where there are any.
pub fn triggers(
    ctx: &Context,
    heard: UnboundedReceiver<ObjectRef<Tenant>>,
    mut jobs: Writer<Job>,
    mut pods: Writer<Pod>,
) -> Triggers {
    let of_tenants = of_tenants(heard, ctx.backups.clone());
    if ctx.settings.is_none() {
        // Nobody gave the right to look.
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            jobs.apply_watcher_event(&event);
        }
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            pods.apply_watcher_event(&event);
        }
        return of_tenants;
    }
    stream::select_all([of_tenants, of_bank(ctx, jobs, state_of_job), of_bank(ctx, pods, state_of_pod)]).boxed()
}

/// The Backups of Tenants that were heard of.
fn of_tenants(heard: UnboundedReceiver<ObjectRef<Tenant>>, backups: Store<Backup>) -> Triggers {
    let of_tenant = move |tenant: ObjectRef<Tenant>| {
        let is_of =
            |backup: &Backup| backup.namespace() == tenant.namespace && backup.spec.tenant_ref.name == tenant.name;
        stream::iter(references(&backups.state_filter(is_of)))
    };
    heard.flat_map(of_tenant).boxed()
}

/// Whether a job begins, ends or goes.
fn state_of_job(job: &Job) -> u64 {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let known = conditions.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str()));
    mark(&known.collect::<Vec<_>>())
}

/// Whether a pod has begun, waits in vain, or has ended.
fn state_of_pod(pod: &Pod) -> u64 {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default().into_iter().map(|container| {
        let state = container.state.unwrap_or_default();
        (state.terminated.map(|ended| ended.message), state.waiting.map(|waiting| waiting.reason))
    });
    mark(&(status.phase, containers.collect::<Vec<_>>()))
}

/// Keeps jobs or pods, and yields the Backups of which one comes to another state.
fn of_bank<K>(ctx: &Context, writer: Writer<K>, state: fn(&K) -> u64) -> Triggers
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let labels = format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_CLAIM}");
    let backups = ctx.backups.clone();
    watcher(Api::<K>::namespaced(ctx.client.clone(), &ctx.home), watch::config().labels(&labels))
        .default_backoff()
        .modify(watch::prune)
        .reflect(writer)
        .touched_objects()
        .predicate_filter(move |object: &K| Some(state(object)), PredicateConfig::default())
        .filter_map(|object| {
            let object = object.inspect_err(|error| tracing::warn!(kind = %K::kind(&()), %error, "cannot be watched"));
            std::future::ready(object.ok())
        })
        .flat_map(move |object| {
            let claim = object.labels().get(LABEL_CLAIM).cloned();
            let is_of = |backup: &Backup| backup.status.as_ref().is_some_and(|status| status.claim_id == claim);
            stream::iter(references(&backups.state_filter(is_of)))
        })
        .boxed()
}

fn references(backups: &[Arc<Backup>]) -> Vec<ObjectRef<Backup>> {
    backups.iter().map(|backup| ObjectRef::from_obj(&**backup)).collect()
}

/// Visits Backups until `stop`, then finishes the visits under way.
pub async fn run(
    visitor: Arc<Visitor>,
    backups: impl Stream<Item = watcher::Result<Backup>> + Send + 'static,
    triggers: Triggers,
    stop: CancellationToken,
) {
    let reader = visitor.ctx.backups.clone();
    Controller::for_stream(backups, reader)
        .reconcile_on(triggers)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, error: &Infallible, _| match *error {}, visitor)
        .for_each(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "not visited");
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile(backup: Arc<Backup>, visitor: Arc<Visitor>) -> Result<Action, Infallible> {
    let Visitor { ctx, observer, backoff } = visitor.as_ref();
    let (started, story) = (Instant::now(), Story::default());
    let limited = tokio::time::timeout(VISIT_LIMIT, Box::pin(visit(ctx, &backup, &story))).await;
    let result = limited.unwrap_or(Err(Error::Timeout(VISIT_LIMIT.as_secs())));
    let (key, jitter) = (key(&backup), ctx.random.bytes::<1>().map_or(0, |[byte]| byte));
    let action = match &result {
        Ok(visit) => {
            backoff.forget(&key);
            match visit {
                Visit::Done { until } => {
                    let steady = backoff::steady(jitter);
                    Action::requeue(until.map_or(steady, |until| until.min(steady)))
                }
                Visit::Waiting => Action::requeue(backoff::waiting(jitter)),
                Visit::Late => Action::requeue(backoff::retry(0, jitter)),
                Visit::Gone => Action::await_change(),
            }
        }
        Err(error) => {
            let (failures, is_terminal) = (backoff.failed(&key), error.reason().is_terminal());
            if is_worth_reporting(error, failures)
                && let Err(error) = report(ctx, &backup, error, &story).await
            {
                tracing::warn!(%error, backup = key, "status not written");
            }
            // What stands in the way may go without a change of the Backup, for instance another Backup.
            Action::requeue(if is_terminal { backoff::steady(jitter) } else { backoff::retry(failures, jitter) })
        }
    };
    observer.publish(&*backup, &story, &result, started.elapsed(), (ctx.now)().as_second()).await;
    Ok(action)
}
