//! What a job says when it ends.

use std::io::Write as _;
use std::path::Path;
use std::{fs, io};

use finaiflow_crds::backup::{Finding, REPORT_MAX, Report};
use time::OffsetDateTime;

use crate::status;

/// A report with nothing in it yet.
#[must_use]
pub fn empty(now: OffsetDateTime) -> Report {
    Report {
        time: status::time(now),
        error: None,
        artifact: None,
        full_because: None,
        destinations: Vec::new(),
        plan: None,
        restored: None,
        data_key: None,
        rto_seconds: None,
        findings: Vec::new(),
    }
}

/// Writes it to where Kubernetes reads it.
pub fn write(report: &Report, path: &Path) -> io::Result<()> {
    let text = fit(report.clone())?;
    // The file is there before the container starts, and its directory may not be written to.
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(&text)
}

/// JSON of at most [`REPORT_MAX`] bytes: findings are left out from the last on, then messages are cut.
fn fit(mut report: Report) -> io::Result<Vec<u8>> {
    for (findings, characters) in [(8, usize::MAX), (8, 400), (4, 200), (2, 200), (1, 200), (1, 80), (0, 80), (0, 20)] {
        cut(&mut report, findings, characters);
        let text = serde_json::to_vec(&report)?;
        if text.len() <= REPORT_MAX {
            return Ok(text);
        }
    }
    // Only with more destinations than there can be.
    while report.destinations.pop().is_some() {
        let text = serde_json::to_vec(&report)?;
        if text.len() <= REPORT_MAX {
            return Ok(text);
        }
    }
    serde_json::to_vec(&report).map_err(io::Error::from)
}

fn cut(report: &mut Report, findings: usize, characters: usize) {
    shorten(&mut report.error, characters);
    shorten(&mut report.full_because, characters);
    cut_findings(&mut report.findings, findings, characters);
    for destination in &mut report.destinations {
        shorten(&mut destination.fault, characters);
        if let Some(verified) = &mut destination.last_verification {
            cut_findings(&mut verified.findings, findings, characters);
        }
        if let Some(drilled) = &mut destination.last_drill {
            cut_findings(&mut drilled.findings, findings, characters);
        }
    }
}

fn cut_findings(findings: &mut Vec<Finding>, most: usize, characters: usize) {
    findings.truncate(most);
    for finding in findings {
        shorten_text(&mut finding.message, characters);
    }
}

fn shorten(text: &mut Option<String>, characters: usize) {
    if let Some(text) = text {
        shorten_text(text, characters);
    }
}

fn shorten_text(text: &mut String, characters: usize) {
    if let Some((end, _)) = text.char_indices().nth(characters) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use finaiflow_crds::backup::{Artifact, DestinationStatus, Verified};

    use super::*;

    fn finding(number: usize) -> Finding {
        Finding {
            check: "object".into(),
            artifact: Some("20261122t184412z-full-0a1b2c3d".into()),
            message: format!("{number} \"{}", "ü\n".repeat(300)),
        }
    }

    fn full() -> Report {
        let time = || status::time(OffsetDateTime::UNIX_EPOCH);
        let artifact = || Artifact {
            id: "20261122t184412z-incremental-0a1b2c3d".into(),
            recovery_point_time: time(),
            sequence: 1_000_000_000_000,
            bytes: 100_000_000_000,
        };
        let destination = |number: usize| DestinationStatus {
            name: format!("{number}").repeat(63),
            fault: Some("put objects/20261122t184412z-full-0a1b2c3d: the server answered 503 SlowDown".repeat(4)),
            restorable_from: Some(time()),
            restorable_to: Some(time()),
            rpo_seconds: Some(100_000),
            bytes: Some(10_000_000_000_000),
            last_full: Some(artifact()),
            last_incremental: Some(artifact()),
            last_segment: Some(artifact()),
            // A job verifies one.
            last_verification: (number == 0).then(|| Verified {
                time: time(),
                artifact: artifact().id,
                passed: false,
                rto_seconds: Some(5),
                findings: (0..8).map(finding).collect(),
            }),
            ..DestinationStatus::default()
        };
        let mut report = empty(OffsetDateTime::UNIX_EPOCH);
        report.error = Some("x".repeat(10_000));
        report.destinations = (0..5).map(destination).collect();
        report.findings = (0..20).map(finding).collect();
        report
    }

    #[test]
    fn it_fits_and_is_read_again() {
        let text = fit(full()).unwrap();
        assert!(text.len() <= REPORT_MAX, "{}", text.len());
        let read: Report = serde_json::from_slice(&text).unwrap();
        assert_eq!(read.destinations.len(), 5);
        assert!(read.error.is_some_and(|error| error.ends_with('…')));
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let mut report = full();
        report.error = Some("it failed".into());
        report.destinations.clear();
        report.findings = vec![finding(1)];
        assert_eq!(serde_json::from_slice::<Report>(&fit(report.clone()).unwrap()).unwrap(), report);
    }
}
