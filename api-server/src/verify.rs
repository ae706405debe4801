//! The ledger verification job.

use finaiflow_ledger::verify::{self, Report};
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
        seconds = (report.finished_at - report.started_at).as_seconds_f64(),
        "ledger verified"
    );
    // The result is committed; a goodbye that fails changes nothing.
    let _ = connection.close().await;
    Ok(report)
}
