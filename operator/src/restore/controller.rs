//! What is watched, and when a Restore is visited.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finaiflow_crds::names::{LABEL_MANAGED_BY, LABEL_RESTORE, LABEL_RESTORE_NAMESPACE, MANAGED_BY};
use finaiflow_crds::restore::Mode;
use finaiflow_crds::{Restore, Tenant};
use futures::channel::mpsc::UnboundedSender;
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::{Predicate, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::{Context, Visit, report, visit};
use crate::backoff;
use crate::catalog::Catalog;
use crate::error::Error;
use crate::story::Story;
use crate::tenant::controller::is_worth_reporting;
use crate::watch;

const CONCURRENCY: u16 = 8;
const VISIT_LIMIT: Duration = Duration::from_mins(1);

/// The Restores, each time something in them asks for a visit. The Tenants whose data they replace are told of every change.
pub fn restores(
    client: &Client,
    writer: Writer<Restore>,
    tenants: UnboundedSender<ObjectRef<Tenant>>,
) -> impl Stream<Item = watcher::Result<Restore>> + Send + use<> {
    let asks = predicates::generation.combine(predicates::finalizers);
    watcher(Api::<Restore>::all(client.clone()), watch::config())
        .default_backoff()
        .modify(watch::prune)
        .reflect(writer)
        .touched_objects()
        .inspect_ok(move |restore| {
            if let (Mode::InPlace, Some(target)) = (restore.spec.mode, &restore.spec.target_tenant_ref) {
                let tenant = ObjectRef::new(&target.name).within(&restore.namespace().unwrap_or_default());
                // Nobody listens any more at the end.
                let _ = tenants.unbounded_send(tenant);
            }
        })
        .predicate_filter(asks, PredicateConfig::default())
}

/// The Restores of which a Job has changed or gone.
pub fn jobs(client: &Client, namespace: &str) -> impl Stream<Item = ObjectRef<Restore>> + Send + use<> {
    let api: Api<PartialObjectMeta<Job>> = Api::namespaced(client.clone(), namespace);
    watcher(api, watch::config().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_RESTORE}")))
        .default_backoff()
        .touched_objects()
        .filter_map(|job| {
            let job = job.inspect_err(|error| tracing::warn!(%error, "jobs of Restores cannot be watched"));
            let restore = job.ok().and_then(|job| {
                let (name, namespace) = (job.labels().get(LABEL_RESTORE)?, job.labels().get(LABEL_RESTORE_NAMESPACE)?);
                Some(ObjectRef::new(name).within(namespace))
            });
            std::future::ready(restore)
        })
}

/// Visits Restores until `stop`, then finishes the visits under way.
pub async fn run<C: Catalog>(
    ctx: Arc<Context<C>>,
    restores: impl Stream<Item = watcher::Result<Restore>> + Send + 'static,
    jobs: impl Stream<Item = ObjectRef<Restore>> + Send + 'static,
    stop: CancellationToken,
) {
    Controller::for_stream(restores, ctx.restores().clone())
        .reconcile_on(jobs)
        .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, |_, error: &Infallible, _| match *error {}, ctx)
        .for_each(|result| {
            if let Err(error) = result {
                tracing::debug!(%error, "not visited");
            }
            std::future::ready(())
        })
        .await;
}

async fn reconcile<C: Catalog>(restore: Arc<Restore>, ctx: Arc<Context<C>>) -> Result<Action, Infallible> {
    let operator = &ctx.operator;
    let (started, story) = (Instant::now(), Story::default());
    let limited = tokio::time::timeout(VISIT_LIMIT, visit(&ctx, &restore, &story)).await;
    let result = limited.unwrap_or(Err(Error::Timeout(VISIT_LIMIT.as_secs())));
    let key = format!("restore/{}/{}", restore.namespace().unwrap_or_default(), restore.name_any());
    let jitter = operator.ctx.random.bytes::<1>().map_or(0, |[byte]| byte);
    let action = match &result {
        Ok(visit) => {
            operator.backoff.forget(&key);
            match visit {
                Visit::Done => Action::await_change(),
                Visit::Waiting => Action::requeue(backoff::waiting(jitter)),
                Visit::Soon => Action::requeue(backoff::retry(0, jitter)),
            }
        }
        Err(error) if operator.give_way(error) => Action::await_change(),
        Err(error) => {
            let failures = operator.backoff.failed(&key);
            if is_worth_reporting(error, failures)
                && let Err(error) = report(&ctx, &restore, error, &story).await
            {
                tracing::warn!(%error, restore = key, "status not written");
            }
            Action::requeue(backoff::retry(failures, jitter))
        }
    };
    operator.observer.publish(&*restore, &story, &result, started.elapsed(), (operator.ctx.now)().as_second()).await;
    Ok(action)
}
