//! The `finaiflow-api` program.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use clap::Parser;
use finaiflow_api::app::{AppError, AppState, router};
use finaiflow_api::config::{AuditChain, Cli, Command, Serve, VerifyExport};
use finaiflow_api::rate_limit::{self, Guard, GuardError, explain};
use finaiflow_api::tenant::Directory;
use finaiflow_api::verify::{ExportError, VerifyError, verify_export, verify_ledger};
use finaiflow_api::{clock, openapi_json, sweep, tenants};
use finaiflow_telemetry::logs;
use finaiflow_telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A request makes some two hundred small allocations, on one thread, and frees them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Longest wait for ledger writers, pools and the Lease after the last request.
const CLOSE: Duration = Duration::from_secs(10);
/// A connection to the cluster on which a request is not answered is given up after this time; watches end before.
const SILENCE: Duration = Duration::from_mins(1);

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error("the cluster cannot be reached: {0}")]
    Cluster(#[from] kube::Error),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("serving: {0}")]
    Io(#[from] io::Error),
    #[error("a part of the server ended: {0}")]
    Ended(#[from] JoinError),
    #[error("the server stopped without being told to")]
    Stopped,
    #[error(transparent)]
    Guard(#[from] GuardError),
    #[error("DATABASE_URL: {0}")]
    Environment(#[from] env::VarError),
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().into_command() {
        Command::Serve(config) => serve(&config).await,
        Command::Openapi => io::stdout().write_all(openapi_json().as_bytes()).map_err(Error::from),
        Command::VerifyLedger(config) => verify(&config.log).await,
        Command::AuditChain(AuditChain::Verify(asked)) => return audit(&asked),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Also to standard error: the log may be what failed.
            tracing::error!(%error, "stopped");
            let _ = writeln!(io::stderr(), "finaiflow-api: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn verify(log: &str) -> Result<(), Error> {
    logs::init(log)?;
    verify_ledger(&env::var("DATABASE_URL")?).await?;
    Ok(())
}

/// 0: the export holds. 1: it does not. 2: it cannot be read.
fn audit(asked: &VerifyExport) -> ExitCode {
    match prove(asked) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "finaiflow-api: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says what is wrong with the export, the first fault first, or how far it holds.
fn prove(asked: &VerifyExport) -> Result<bool, ExportError> {
    let export: Box<dyn BufRead> = if asked.export.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&asked.export)?))
    };
    let walked = verify_export(export, &asked.anchor)?;
    let mut out = io::stdout().lock();
    for finding in walked.findings() {
        let sequence = finding.sequence.unwrap_or_default();
        writeln!(out, "journal {sequence}: {}: {}", finding.check, finding.detail)?;
    }
    let holds = walked.findings().is_empty();
    if holds && let Some(last) = walked.last {
        writeln!(out, "{} journals hold, up to {last}; anchors passed: {}", walked.journals, walked.held_anchors)?;
    }
    Ok(holds)
}

async fn serve(config: &Serve) -> Result<(), Error> {
    logs::init(&config.log)?;
    let clock = clock::system();
    let directory = Arc::new(Directory::new(config.base_domain()));
    let metrics = Metrics::new();
    // The URL may hold a password, so it is no argument.
    let redis = env::var("REDIS_URL").ok().filter(|url| !url.is_empty());
    let limiter = rate_limit::limiter(redis.as_deref(), Arc::clone(&clock), metrics.registry())?;
    let guard = Arc::new(Guard::new(config.rate_limits(), limiter, metrics.registry())?);
    let app = AppState::new(
        Arc::clone(&directory),
        &config.issuer_base_url,
        Arc::clone(&clock),
        Arc::clone(&guard),
        metrics,
    )?;
    let client = cluster().await?;
    let (drain, close) = (CancellationToken::new(), CancellationToken::new());

    let listener = TcpListener::bind(config.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its small packets back");
        }
    });
    let service = router(app.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let drained = drain.clone().cancelled_owned();
    let mut server = tokio::spawn(async { axum::serve(listener, service).with_graceful_shutdown(drained).await });
    let admin = TcpListener::bind(config.admin_listen).await?;
    let mut admin = tokio::spawn(axum::serve(admin, explain::router(app.clone())).into_future());
    let (digests, policies) = watch::channel(None);
    let limits = rate_limit::run(client.clone(), guard, Arc::clone(&clock), config.replica(), digests, close.clone());
    let mut limits = tokio::spawn(limits);
    let mut sweeper = tokio::spawn(sweep::run(Arc::clone(&directory), Arc::clone(&clock), drain.clone()));
    let registry = tenants::run(client, directory, clock, config.replica(), config.budget(), policies, close.clone());
    let mut registry = tokio::spawn(registry);

    tokio::select! {
        told = told_to_stop() => told?,
        ended = &mut server => return ended?.map_err(Error::from).and(Err(Error::Stopped)),
        ended = &mut admin => return ended?.map_err(Error::from).and(Err(Error::Stopped)),
        ended = &mut limits => return ended.map_err(Error::from).and(Err(Error::Stopped)),
        ended = &mut sweeper => return ended.map_err(Error::from).and(Err(Error::Stopped)),
        ended = &mut registry => return ended.map_err(Error::from).and(Err(Error::Stopped)),
    }
    tracing::info!("draining");
    app.begin_drain();
    sleep(config.shutdown_delay).await;
    drain.cancel();
    if timeout(config.drain, server).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    close.cancel();
    if timeout(CLOSE, registry).await.is_err() {
        tracing::warn!("some tenants did not close in time");
    }
    tracing::info!("stopped");
    Ok(())
}

/// The cluster this runs in, or that of the kubeconfig.
async fn cluster() -> Result<kube::Client, kube::Error> {
    let mut config = kube::Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    kube::Client::try_from(config)
}

/// Waits for SIGTERM, or SIGINT from a keyboard.
async fn told_to_stop() -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
