//! What is watched, and when a policy is visited.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use finaiflow_crds::RateLimitPolicy;
use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::controller::{Action, Config as ControllerConfig, Controller};
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::news::{News, answers};
use super::{Context, Visit, visit};
use crate::backoff::{self, Backoff};
use crate::error::Error;
use crate::story::Story;
use crate::watch;

const CONCURRENCY: u16 = 16;
const VISIT_LIMIT: Duration = Duration::from_mins(1);

/// The policies, each time something in them changes. A status that was written is looked at once more, so that what
/// was decided by an older one cannot last.
pub fn policies(
    client: &Client,
    writer: Writer<RateLimitPolicy>,
    news: &Arc<News>,
) -> impl Stream<Item = watcher::Result<RateLimitPolicy>> + Send + use<> {
    watcher(Api::<RateLimitPolicy>::all(client.clone()), watch::config())
        .default_backoff()
        .modify(watch::prune)
        .reflect(writer)
        .inspect_ok(news.of_policies())
        .applied_objects()
        .inspect_err(|error| tracing::warn!(%error, "rate limit policies cannot be watched"))
}

/// Visits policies until `stop`, then finishes the visits under way.
pub async fn run(
    ctx: Arc<Context>,
    policies: impl Stream<Item = watcher::Result<RateLimitPolicy>> + Send + 'static,
    news: Arc<News>,
    stop: CancellationToken,
) {
    let (reader, visitor) = (ctx.policies.clone(), Arc::new((Arc::clone(&ctx), Backoff::default())));
    Controller::for_stream(policies, reader)
        .reconcile_on(answers(news, ctx))
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

async fn reconcile(policy: Arc<RateLimitPolicy>, visitor: Arc<(Arc<Context>, Backoff)>) -> Result<Action, Infallible> {
    let (ctx, backoff) = visitor.as_ref();
    let (started, story) = (Instant::now(), Story::default());
    let limited = tokio::time::timeout(VISIT_LIMIT, visit(ctx, &policy, &story)).await;
    let result = limited.unwrap_or(Err(Error::Timeout(VISIT_LIMIT.as_secs())));
    let (key, jitter) = (policy.key(), ctx.random.bytes::<1>().map_or(0, |[byte]| byte));
    let delay = match &result {
        Ok(visit) => {
            backoff.forget(&key);
            if *visit == Visit::Done { backoff::steady(jitter) } else { backoff::retry(0, jitter) }
        }
        Err(error) if error.reason().is_terminal() => backoff::steady(jitter),
        Err(_) => backoff::retry(backoff.failed(&key), jitter),
    };
    ctx.observer.publish(&*policy, &story, &result, started.elapsed(), (ctx.now)().as_second()).await;
    Ok(Action::requeue(delay))
}
