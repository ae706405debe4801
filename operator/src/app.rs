//! The program: wires clock, randomness, cluster and servers together, and runs until told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use data_encoding::HEXLOWER;
use finaiflow_crds::names::OPERATOR;
use finaiflow_crds::{Backup, RateLimitPolicy, Restore, Tenant};
use finaiflow_telemetry::health::{Gate, Health};
use finaiflow_telemetry::metrics::Metrics;
use finaiflow_telemetry::{logs, server};
use futures::channel::mpsc;
use futures::{StreamExt, future, stream, try_join};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::runtime::reflector::{self, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::backup;
use crate::catalog::live::Live;
use crate::clock;
use crate::config::{self, Config};
use crate::context::Context;
use crate::leader::{self, Election};
use crate::observe::Observer;
use crate::random::{Random, RandomError};
use crate::rate_limit_policy::{self, news::News};
use crate::restore;
use crate::tenant::controller::{self, Operator};

/// Visits under way get this long after a signal; the pod's grace period must be longer.
const DRAIN: Duration = Duration::from_secs(25);
/// A connection on which a request is not answered is given up after this time; watches end by themselves before.
const SILENCE: Duration = Duration::from_mins(1);
const COUNT_EVERY: Duration = Duration::from_secs(15);

/// Turns Tenants into schemas, roles, keys, Secrets, access and jobs, Backups into the jobs that take and prove them, and
/// says what is true of RateLimitPolicies.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The platform team's choices.
    #[arg(long, env = "FINAIFLOW_CONFIG", default_value = "/etc/finaiflow/config.yaml")]
    config: PathBuf,
    /// The namespace the operator runs in, where admin Secrets are.
    #[arg(long, env = "POD_NAMESPACE", default_value = "finaiflow-system")]
    namespace: String,
    /// The pod's name, shown in events and in the leader's Lease; drawn if there is none.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Address of `/metrics`.
    #[arg(long, env = "FINAIFLOW_METRICS_ADDRESS", default_value = "0.0.0.0:9090")]
    metrics_address: SocketAddr,
    /// Address of `/livez` and `/readyz`.
    #[arg(long, env = "FINAIFLOW_HEALTH_ADDRESS", default_value = "0.0.0.0:8081")]
    health_address: SocketAddr,
    /// What is logged, as in `info,kube=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
}

/// Why the program ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The logs cannot be set up.
    #[error(transparent)]
    Logs(#[from] logs::Error),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The Kubernetes API cannot be used.
    #[error("kubernetes: {0}")]
    Kubernetes(#[from] kube::Error),
    /// A metric is registered twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A port or a signal handler is not to be had.
    #[error("start: {0}")]
    Start(#[from] std::io::Error),
    /// Another operator process has taken over.
    #[error("a newer operator is at work")]
    Fenced,
    /// Another process may be leading.
    #[error(transparent)]
    Lost(#[from] leader::Lost),
    /// No name for this process.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Visits did not end in time after a signal.
    #[error("visits were still under way {} s after the signal", DRAIN.as_secs())]
    Drain,
}

/// Runs until SIGTERM or SIGINT: stands by until it leads, then visits Tenants, policies and Backups.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    logs::init(&arguments.log)?;
    let config = Config::load(&arguments.config)?;
    let client = cluster().await?;
    let installation = installation(&client).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), installation, "starting");

    let (health, metrics) = (Health::new(), Metrics::new());
    let observer = Arc::new(Observer::new(client.clone(), arguments.pod_name.clone(), metrics.registry())?);
    let gauges = backup::metrics::Gauges::new(metrics.registry())?;
    let identity = arguments.pod_name.map_or_else(random_name, Ok)?;
    let election = Election::new(client.clone(), &arguments.namespace, identity, clock::now);
    let (visitors, writers) = visitors(client, config, installation, arguments.namespace, observer);
    let operator = &visitors.operator;

    let (http, stop, synced) = (CancellationToken::new(), CancellationToken::new(), health.gate("watches"));
    let serving = async {
        try_join!(
            server::serve(arguments.metrics_address, metrics.router(), http.clone()),
            server::serve(arguments.health_address, health.router(), http.clone()),
        )
    };
    let work = async {
        // Who stands by does all it can.
        synced.open();
        let Some(mut term) = stop.run_until_cancelled(election.win()).await else { return Ok(()) };
        synced.close();
        operator.observer.lead();
        tracing::info!("leading");
        let result = tokio::select! {
            result = lead(&visitors, writers, &gauges, &stop, &synced) => result,
            lost = election.keep(&mut term) => return Err(Error::Lost(lost)),
        };
        election.release(term).await;
        result
    };
    let result = tokio::select! {
        ended = work => ended,
        served = serving => served.map(|_| ()).map_err(Error::from),
        Err(error) = cancel_on_signal(&stop) => Err(error.into()),
    };
    http.cancel();
    operator.ctx.catalog.close().await;
    tracing::info!("ended");
    result
}

/// Who visits what.
struct Visitors {
    operator: Arc<Operator<Live>>,
    policies: Arc<rate_limit_policy::Context>,
    backups: Arc<backup::controller::Visitor>,
}

/// What fills the stores.
struct Writers {
    tenants: Writer<Tenant>,
    leases: Writer<Lease>,
    policies: Writer<RateLimitPolicy>,
    backups: Writer<Backup>,
    jobs: Writer<Job>,
    pods: Writer<Pod>,
    restores: Writer<Restore>,
}

/// Everybody who visits, and what fills the stores that they share.
fn visitors(
    client: Client,
    config: Config,
    installation: String,
    home: String,
    observer: Arc<Observer>,
) -> (Visitors, Writers) {
    let ((tenants, tenants_writer), (leases, leases_writer)) = (reflector::store(), reflector::store());
    let ((policies, policies_writer), (backups, backups_writer)) = (reflector::store(), reflector::store());
    let ((jobs, jobs_writer), (pods, pods_writer)) = (reflector::store(), reflector::store());
    let (restores, restores_writer) = reflector::store();
    let writers = Writers {
        tenants: tenants_writer,
        leases: leases_writer,
        policies: policies_writer,
        backups: backups_writer,
        jobs: jobs_writer,
        pods: pods_writer,
        restores: restores_writer,
    };
    let (now, random) = (clock::now, Random::system());
    let policies = rate_limit_policy::Context {
        client: client.clone(),
        home: config.api_server.namespace.clone(),
        policies,
        tenants: tenants.clone(),
        leases: leases.clone(),
        observer: Arc::clone(&observer),
        now,
        random,
    };
    let catalog = Live::new(&config, &client, &home);
    let settings = config.backups.clone();
    let of_backups = backup::Context {
        client: client.clone(),
        home: home.clone(),
        settings,
        backups: backups.clone(),
        tenants: tenants.clone(),
        jobs,
        pods,
        now,
        random,
    };
    let of_backups =
        backup::controller::Visitor { ctx: of_backups, observer: Arc::clone(&observer), backoff: Backoff::default() };
    let ctx = Context { client, home, catalog, config, installation, tenants, leases, restores, backups, now, random };
    let operator = Operator { ctx, observer, backoff: Backoff::default(), fenced: CancellationToken::new() };
    let visitors =
        Visitors { operator: Arc::new(operator), policies: Arc::new(policies), backups: Arc::new(of_backups) };
    (visitors, writers)
}

/// Visits Tenants, policies and Backups until `stop`, or until another operator has taken over, then until the visits
/// under way end.
async fn lead(
    visitors: &Visitors,
    writers: Writers,
    gauges: &backup::metrics::Gauges,
    stop: &CancellationToken,
    synced: &Gate,
) -> Result<(), Error> {
    let Visitors { operator, policies, backups } = visitors;
    let (Context { client, config, tenants, .. }, news) = (&operator.ctx, Arc::<News>::default());
    let (to_backups, for_backups) = mpsc::unbounded();
    let (to_tenants, for_tenants) = mpsc::unbounded();
    let triggers = [
        controller::leases(client, config, writers.leases, clock::now, tenants.clone(), news.of_leases()),
        controller::children(client, config),
        for_tenants.boxed(),
    ];
    let (mut of_tenants, mut concerns) = (news.of_tenants(), backup::news::of_tenants(to_backups.clone()));
    let events = controller::tenants(client, writers.tenants, move |event: &Event<Tenant>| {
        of_tenants(event);
        concerns(event);
    });
    let changed = rate_limit_policy::controller::policies(client, writers.policies, &news);
    let heard = backup::news::of_backups(to_backups, to_tenants.clone());
    let backed_up = backup::controller::backups(client, writers.backups, heard);
    let of_jobs = backup::controller::triggers(&backups.ctx, for_backups, writers.jobs, writers.pods);
    let restores = restore::controller::restores(client, writers.restores, to_tenants);
    let of_restores = restore::controller::jobs(client, &backups.ctx.home);
    let restoring = Arc::new(restore::Context { operator: Arc::clone(operator), namespace: backups.ctx.home.clone() });
    let end = CancellationToken::new();
    let mut visits = Box::pin(future::join4(
        controller::run(Arc::clone(operator), events, stream::select_all(triggers).boxed(), end.clone()),
        rate_limit_policy::controller::run(Arc::clone(policies), changed, news, end.clone()),
        backup::controller::run(Arc::clone(backups), backed_up, of_jobs, end.clone()),
        restore::controller::run(restoring, restores, of_restores, end.clone()),
    ));
    tokio::select! {
        _ = &mut visits => return Ok(()),
        () = stop.cancelled() => {}
        () = operator.fenced.cancelled() => {}
        never = keep_count(policies, &backups.ctx, gauges, synced) => match never {},
    }
    synced.close();
    end.cancel();
    tokio::time::timeout(DRAIN, visits).await.map_err(|_| Error::Drain)?;
    if operator.fenced.is_cancelled() { Err(Error::Fenced) } else { Ok(()) }
}

/// Ends only if there can be no signals.
async fn cancel_on_signal(stop: &CancellationToken) -> std::io::Result<Infallible> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to stop");
    stop.cancel();
    std::future::pending().await
}

/// Opens the gate once everything watched is known, then counts it for the metrics, for ever.
async fn keep_count(
    ctx: &rate_limit_policy::Context,
    backups: &backup::Context,
    gauges: &backup::metrics::Gauges,
    synced: &Gate,
) -> Infallible {
    ctx.wait_until_known().await;
    backups.wait_until_known().await;
    synced.open();
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    loop {
        ticks.tick().await;
        ctx.observer.count(&ctx.tenants.state(), |status| &status.conditions);
        ctx.observer.count(&ctx.policies.state(), |status| &status.conditions);
        let known = backups.backups.state();
        ctx.observer.count(&known, |status| &status.conditions);
        gauges.show(&known, clock::now());
    }
}

/// The cluster this runs in, or that of the kubeconfig.
async fn cluster() -> Result<Client, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// Which cluster this is: the UID of a namespace that every cluster has and nobody can recreate.
async fn installation(client: &Client) -> Result<String, kube::Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    Ok(namespaces.get("kube-system").await?.uid().unwrap_or_default())
}

fn random_name() -> Result<String, RandomError> {
    Ok(format!("{OPERATOR}-{}", HEXLOWER.encode(&Random::system().bytes::<4>()?)))
}
