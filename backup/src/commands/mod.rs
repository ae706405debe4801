//! The command line. Every option has an environment variable, which is what the operator sets.

mod copy;
mod drill;
mod keygen;
mod list;
mod prune;
mod restore;
mod take;
mod verify;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, io};

use aws_lc_rs::error::Unspecified;
use clap::{Args, Parser, Subcommand, ValueEnum};
use finaiflow_backup::copy::{Faults, Place};
use finaiflow_backup::job::{self, Destination, Job};
use finaiflow_backup::manifest::{ArtefactId, Kind, ManifestError};
use finaiflow_backup::restore::Target;
use finaiflow_backup::seal::{self, Identities};
use finaiflow_backup::survey::Survey;
use finaiflow_backup::vault::{self, Patience};
use finaiflow_backup::{report, rows, status};
use finaiflow_crds::backup::{DestinationStatus, Report};
use finaiflow_ledger::chain::Anchor;
use finaiflow_schema::names::ClaimId;
use finaiflow_telemetry::logs;
use futures::FutureExt as _;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::signal::unix::{SignalKind, signal};

/// Backs up and restores one tenant.
#[derive(Debug, Parser)]
#[command(name = "finaiflow-backup", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes a backup of the tenant that `DATABASE_URL` logs in to, and copies it to all destinations.
    Take(Take),
    /// Copies to each destination what lies at another and is missing there.
    Copy(Run),
    /// Deletes backups that are past the retention of their destination, and what is of no use to anybody.
    Prune(Prune),
    /// Reads what lies at a destination, restores it into a throw-away database and checks the bank that comes of it.
    Verify(Verify),
    /// Restores some moment of the past into a throw-away database, and measures how long that takes.
    Drill(Opens),
    /// Restores a moment into the empty Tenant that `DATABASE_URL` logs in to; without it, into a throw-away database.
    Restore(Restore),
    /// Lists the backups at the destinations.
    List(List),
    /// Prints a backup's manifest.
    Show(Show),
    /// Prints a new age identity.
    Keygen,
}

/// What a job is told.
#[derive(Debug, Args)]
struct Told {
    /// Whose backups these are and where they lie, as JSON.
    #[arg(long, env = "FINAIFLOW_JOB")]
    job: String,
    /// Seconds for which a destination that does not answer is asked again.
    #[arg(long, env = "FINAIFLOW_PATIENCE_SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u16).range(3..))]
    patience: u16,
}

impl Told {
    fn job(&self) -> Result<Job> {
        let total = Duration::from_secs(self.patience.into());
        let patience = Patience::default();
        // Pauses that are short beside it: who ends in the last one only hears that time was up, and not what was answered.
        let (request, longest_pause) = (patience.request.min(total / 3), patience.longest_pause.min(total / 12));
        Ok(Job::parse(&self.job, Patience { request, total, longest_pause, ..patience })?)
    }
}

/// What every run that reports is told.
#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    told: Told,
    /// File that says at the end what came of it.
    #[arg(long, env = "FINAIFLOW_REPORT", default_value = "/dev/termination-log")]
    report: PathBuf,
    /// What is logged, as in `info,sqlx=warn`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    log: String,
}

#[derive(Debug, Args)]
struct Take {
    /// `full`, `incremental` or `segment`.
    #[arg(value_parser = kind)]
    kind: Kind,
    /// Directory with the tenant's `signing-key` and `kek`.
    #[arg(long, env = "FINAIFLOW_KEYS", default_value = "/keys")]
    keys: PathBuf,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Args)]
struct Prune {
    /// Prints what would go, and deletes nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    run: Run,
}

/// What every run that opens backups is told.
#[derive(Debug, Args)]
struct Opens {
    /// File with the age identities.
    #[arg(long, env = "FINAIFLOW_IDENTITY", default_value = "/identity/identity")]
    identity: PathBuf,
    /// Reads this destination only.
    #[arg(long)]
    destination: Option<String>,
    #[command(flatten)]
    run: Run,
}

impl Opens {
    fn identities(&self) -> Result<Identities> {
        let text = std::fs::read_to_string(&self.identity);
        let text = text.map_err(|error| job::Error::File(self.identity.clone(), error.kind()))?;
        Ok(Identities::parse(&text)?)
    }
}

#[derive(Debug, Args)]
struct Verify {
    /// How far it goes.
    #[arg(long, value_enum, default_value = "restore")]
    mode: Mode,
    #[command(flatten)]
    opens: Opens,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Everything is read, opened, restored and checked.
    Restore,
    /// Everything is read and opened.
    Checksum,
}

#[derive(Debug, Args)]
struct Restore {
    /// `latest`, `time=<RFC 3339>`, `sequence=<number of a journal>` or `artifact=<id>`.
    #[arg(long, value_parser = target)]
    target: Target,
    #[command(flatten)]
    opens: Opens,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    told: Told,
    /// Looks at this destination only.
    #[arg(long)]
    destination: Option<String>,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    told: Told,
    /// The backup, as `list` names it.
    id: ArtefactId,
    /// Looks at this destination only.
    #[arg(long)]
    destination: Option<String>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == text);
    kind.ok_or_else(|| "it is full, incremental or segment".to_owned())
}

fn target(text: &str) -> Result<Target, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("`{text}`: {error}");
    match text.split_once('=') {
        None if text == "latest" => Ok(Target::Latest),
        Some(("time", time)) => OffsetDateTime::parse(time, &Rfc3339).map(Target::Time).map_err(|error| wrong(&error)),
        Some(("sequence", number)) => {
            let number = number.parse::<i64>().map_err(|error| wrong(&error))?;
            number.try_into().map(Target::Sequence).map_err(|error| wrong(&error))
        }
        Some(("artifact", id)) => id.parse().map(Target::Artefact).map_err(|error| wrong(&error)),
        _ => Err("it is latest, time=<RFC 3339>, sequence=<number of a journal> or artifact=<id>".to_owned()),
    }
}

/// Why the program failed. No variant carries a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error(transparent)]
    Job(#[from] job::Error),
    #[error("{0}: {1}")]
    Environment(&'static str, env::VarError),
    #[error(transparent)]
    Rows(#[from] rows::Error),
    #[error(transparent)]
    Take(#[from] finaiflow_backup::take::Error),
    #[error(transparent)]
    Vault(#[from] vault::Error),
    #[error("the report cannot be written: {0}")]
    Report(io::ErrorKind),
    #[error("the output cannot be written: {0}")]
    Output(io::Error),
    #[error("nothing could be stored: {0}")]
    NoDestination(String),
    #[error("not all destinations could be used: {0}")]
    Faults(String),
    #[error("a backup is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Verify(#[from] finaiflow_backup::verify::Error),
    #[error(transparent)]
    Identity(#[from] seal::Error),
    #[error("CARRIER_KEY is not 32 bytes in base64")]
    Carrier,
    #[error("anchor: {0}")]
    Anchor(String),
    #[error(transparent)]
    Plan(#[from] finaiflow_backup::restore::PlanError),
    #[error(transparent)]
    Restore(#[from] finaiflow_backup::restore::Error),
    #[error("nothing could be restored: {0}")]
    NotRestored(String),
    #[error("{0}: {1}")]
    Manifest(ArtefactId, ManifestError),
    #[error("there is no backup {0}")]
    NoArtefact(ArtefactId),
    #[error("no random bits can be had")]
    Random(#[from] Unspecified),
    #[error("a part of the program failed unexpectedly; its log tells more")]
    Panicked,
    #[error("it was told to stop")]
    Stopped,
}

type Result<T, E = Error> = std::result::Result<T, E>;

impl Cli {
    /// Does what it says.
    pub async fn run(self) -> Result<()> {
        match self.command {
            Command::Take(take) => reported(&take.run, async |job, report| take::run(&take, job, report).await).await,
            Command::Copy(run) => reported(&run, async |job, report| copy::run(job, report).await).await,
            Command::Prune(Prune { dry_run: true, run }) => prune::dry(&run.told.job()?).await,
            Command::Prune(Prune { run, .. }) => {
                reported(&run, async |job, report| prune::run(job, report).await).await
            }
            Command::Verify(asked) => {
                reported(&asked.opens.run, async |job, report| verify::run(&asked, job, report).await).await
            }
            Command::Drill(asked) => {
                reported(&asked.run, async |job, report| drill::run(&asked, job, report).await).await
            }
            Command::Restore(asked) => {
                reported(&asked.opens.run, async |job, report| restore::run(&asked, job, report).await).await
            }
            Command::List(list) => list::list(&list).await,
            Command::Show(show) => list::show(&show).await,
            Command::Keygen => keygen::run(),
        }
    }
}

/// Does a job, and says what came of it whatever that was.
async fn reported(run: &Run, work: impl AsyncFnOnce(&Job, &mut Report) -> Result<()>) -> Result<()> {
    logs::init(&run.log)?;
    let mut report = report::empty(now());
    let outcome = match run.told.job() {
        Ok(job) => tokio::select! {
            outcome = AssertUnwindSafe(work(&job, &mut report)).catch_unwind() => outcome.unwrap_or(Err(Error::Panicked)),
            told = told_to_stop() => told,
        },
        Err(error) => Err(error),
    };
    report.time = status::time(now());
    report.error = outcome.as_ref().err().map(ToString::to_string);
    let written = report::write(&report, &run.report).map_err(|error| Error::Report(error.kind()));
    outcome.and(written)
}

async fn told_to_stop() -> Result<()> {
    let stop = async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => io::Result::Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    };
    match stop.await {
        Ok(()) => Err(Error::Stopped),
        // Then it goes on until it is killed.
        Err(_) => std::future::pending().await,
    }
}

/// What lies at the destinations that answer, with the manifests read that a status follows from; and why others do not.
async fn survey(job: &Job) -> (Vec<Place<'_>>, Faults) {
    let surveys = job.destinations.iter().map(async |destination| (destination, survey_one(job, destination).await));
    let (mut places, mut faults) = (Vec::new(), Faults::new());
    for (destination, survey) in futures::future::join_all(surveys).await {
        match survey {
            Ok(survey) => places.push(Place { destination, survey }),
            Err(error) => {
                tracing::warn!(destination = destination.name, %error, "a destination does not answer");
                faults.insert(destination.name.clone(), error);
            }
        }
    }
    (places, faults)
}

/// What lies at a destination, with all manifests read.
async fn survey_all(job: &Job, destination: &Destination) -> vault::Result<Survey> {
    let mut survey = Survey::of(destination.vault.as_ref().map_err(Clone::clone)?).await?;
    survey.read_all(&job.trusted, job.claim).await?;
    Ok(survey)
}

async fn survey_one(job: &Job, destination: &Destination) -> vault::Result<Survey> {
    let vault = destination.vault.as_ref().map_err(Clone::clone)?;
    let mut survey = Survey::of(vault).await?;
    status::read_recent(&mut survey, &job.trusted, job.claim).await?;
    Ok(survey)
}

/// What is true of the destinations: those that answered are looked at again.
async fn statuses(job: &Job, answered: Vec<Place<'_>>, faults: &Faults) -> Vec<DestinationStatus> {
    let now = now();
    let statuses = job.destinations.iter().map(async |destination| {
        let (name, before) = (&destination.name, faults.get(&destination.name));
        let survey = match before {
            Some(error) if !answered.iter().any(|place| place.destination.name == *name) => Err(error.clone()),
            _ => survey_one(job, destination).await,
        };
        match survey {
            Ok(survey) => {
                let fault = before.map(ToString::to_string);
                DestinationStatus { fault, ..status::of(name, &survey, now) }
            }
            Err(error) => status::fault(name, &error),
        }
    });
    futures::future::join_all(statuses).await
}

fn refused(faults: &Faults) -> String {
    faults.iter().map(|(name, error)| format!("{name}: {error}")).collect::<Vec<_>>().join("; ")
}

/// A session of the login in `DATABASE_URL`.
async fn connect() -> Result<PgConnection> {
    connect_to("DATABASE_URL").await
}

async fn connect_to(variable: &'static str) -> Result<PgConnection> {
    let url = env::var(variable).map_err(|error| Error::Environment(variable, error))?;
    Ok(PgConnection::connect(&url).await.map_err(rows::Error::from)?)
}

/// The head of the ledger that the operator has kept.
fn anchor(job: &Job) -> Result<Option<Anchor>> {
    let kept = |kept: &finaiflow_crds::backup::Anchor| {
        let wrong = |error: &dyn std::fmt::Display| Error::Anchor(error.to_string());
        Ok(Anchor {
            epoch: kept.epoch.try_into().map_err(|error| wrong(&error))?,
            sequence: kept.sequence.try_into().map_err(|error| wrong(&error))?,
            hash: kept.hash.parse().map_err(|error| wrong(&error))?,
        })
    };
    job.settings.anchor.as_ref().map(kept).transpose()
}

/// The destination that is asked for, or one of them, another every day.
fn todays<'j>(job: &'j Job, asked: Option<&str>) -> Result<&'j Destination> {
    if let Some(name) = asked {
        return Ok(job.destination(name)?);
    }
    let day = usize::try_from(now().unix_timestamp() / 86_400).unwrap_or_default();
    let todays = day.checked_rem(job.destinations.len()).and_then(|number| job.destinations.get(number));
    todays.ok_or_else(|| Error::NoDestination("there is none".to_owned()))
}

/// What is true of one destination.
async fn status_of(job: &Job, destination: &Destination) -> DestinationStatus {
    match survey_one(job, destination).await {
        Ok(survey) => status::of(&destination.name, &survey, now()),
        Err(error) => status::fault(&destination.name, &error),
    }
}

/// Whole seconds, none too few.
fn seconds(took: Duration) -> i64 {
    i64::try_from(took.as_secs() + u64::from(took.subsec_nanos() > 0)).unwrap_or(i64::MAX)
}

fn claim() -> Result<ClaimId> {
    Ok(ClaimId::from_random(u64::from_be_bytes(random()?)))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

#[expect(clippy::disallowed_methods, reason = "the program is its own composition root")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
