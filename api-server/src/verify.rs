//! The ledger verification job, and the proof of an export by whoever holds one.

use std::io::{self, BufRead};

use finaiflow_ledger::chain::Anchor;
use finaiflow_ledger::id::Sequence;
use finaiflow_ledger::verify::{self, Record, Report, Walk, Walked};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

/// Why a ledger could not be verified. That it is wrong is no error but a finding.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The URL is no PostgreSQL URL; it holds a password and is not repeated here.
    #[error("DATABASE_URL is not a PostgreSQL URL")]
    Url,
    /// The ledger cannot be read.
    #[error("the ledger cannot be read: {0}")]
    Read(sqlx::Error),
    /// The result cannot be written.
    #[error("the result cannot be recorded: {0}")]
    Record(sqlx::Error),
}

/// Verifies the ledger that `database_url` logs in to, records the result in the tenant's schema and logs it.
pub async fn verify_ledger(database_url: &str) -> Result<Report, VerifyError> {
    let options: PgConnectOptions = database_url.parse().map_err(|_| VerifyError::Url)?;
    let mut connection =
        options.application_name("finaiflow-verify-ledger").connect().await.map_err(VerifyError::Read)?;
    let report = verify::run(&mut connection).await.map_err(VerifyError::Read)?;
    verify::record(&mut connection, &report).await.map_err(VerifyError::Record)?;
    for finding in &report.findings {
        let account = finding.account_id.map(|account| account.to_string());
        tracing::error!(
            check = finding.check,
            account,
            sequence = finding.sequence,
            detail = finding.detail,
            "finding"
        );
    }
    tracing::info!(
        balanced = report.balanced(),
        epoch = report.epoch,
        sequence = i64::from(report.sequence),
        findings = report.findings.len(),
        journals = report.journals,
        seconds = (report.finished_at - report.started_at).as_seconds_f64(),
        "ledger verified"
    );
    // The result is committed; a goodbye that fails changes nothing.
    let _ = connection.close().await;
    Ok(report)
}

/// Why an export can be proven neither right nor wrong.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The file cannot be read.
    #[error("the export cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line holds something else, or a part of a journal.
    #[error("line {line} is no journal: {source}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It goes on from something that is not there.
    #[error("the export begins with journal {0}: give the anchor of the journal before it")]
    Start(Sequence),
    /// There is nothing in it.
    #[error("the export holds no journal")]
    Empty,
}

/// Proves an export, a journal a line. One that does not begin with the first journal begins after the newest anchor before
/// it.
pub fn verify_export(export: impl BufRead, anchors: &[Anchor]) -> Result<Walked, ExportError> {
    let mut walk = None;
    for (line, number) in export.lines().zip(1..) {
        let record: Record =
            serde_json::from_str(&line?).map_err(|source| ExportError::Line { line: number, source })?;
        let walk = match &mut walk {
            Some(walk) => walk,
            None => walk.insert(start(record.sequence, anchors)?),
        };
        walk.step(&record);
    }
    walk.map(Walk::finish).ok_or(ExportError::Empty)
}

fn start(first: Sequence, anchors: &[Anchor]) -> Result<Walk, ExportError> {
    let before = anchors.iter().filter(|anchor| anchor.sequence < first).max_by_key(|anchor| anchor.sequence);
    if before.is_none() && Some(first) != Sequence::ZERO.next() {
        return Err(ExportError::Start(first));
    }
    Ok(Walk::new(before.copied(), anchors.to_vec()).with_balances())
}
