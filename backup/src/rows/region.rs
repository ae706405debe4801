//! What may differ from one artefact to the next, table by table.
//!
//! An increment holds a region of each table: the rows it had, when it was taken, where something may have changed since
//! the artefact before. To apply it is to empty the same region and to put those rows there. How a region is found follows
//! from the table's class, and costs what the change is large, not what the table is.

use std::fmt::Write as _;

use finaiflow_ledger::rules::KEY_LIFETIME;
use finaiflow_schema::tables::{Class, Table};
use time::{Duration, OffsetDateTime, UtcOffset};

use super::{Error, Result};
use crate::manifest::Manifest;

/// An answer is kept under its key with the time at which its transaction began; the app's last no longer than this.
const LONGEST_TRANSACTION: Duration = Duration::minutes(10);

/// The artefact before: where regions begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    sequence: i64,
    snapshot: Snapshot,
    keys: OffsetDateTime,
}

/// The text of a `pg_snapshot`: fit to stand in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot(String);

impl Snapshot {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts = text.split(':');
        let whole = number(parts.next()?)
            && number(parts.next()?)
            && parts.next().is_some_and(|running| running.is_empty() || running.split(',').all(number))
            && parts.next().is_none();
        whole.then(|| Self(text.to_owned()))
    }

    /// Of a transaction `xid` that had not ended by then: with it, its row is new. The first half is what an index finds.
    fn is_later(&self) -> String {
        format!("xid >= pg_snapshot_xmin('{0}') AND NOT pg_visible_in_snapshot(xid, '{0}')", self.0)
    }
}

/// Where a region is emptied or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Where `_changes` tells everything that ever changed.
    Source,
    /// Where it holds what this increment touches, and nothing else.
    Target,
}

impl Since {
    /// After everything that `parent` holds.
    pub fn new(parent: &Manifest) -> Result<Self> {
        let snapshot = Snapshot::parse(&parent.snapshot);
        let first = parent.ledger.head_time.map_or(parent.created_at, |head| head.min(parent.created_at));
        Ok(Self {
            sequence: i64::from(parent.ledger.sequence),
            snapshot: snapshot.ok_or_else(|| Error::Misfit(format!("snapshot `{}`", parent.snapshot)))?,
            keys: (first + KEY_LIFETIME - LONGEST_TRANSACTION).to_offset(UtcOffset::UTC),
        })
    }

    /// The region's rows as a condition; none where all that is in it is new.
    pub(super) fn region(&self, table: &Table, side: Side) -> Option<String> {
        let sequence = self.sequence;
        Some(match (table.class, table.name) {
            (Class::Money | Class::Append, _) if side == Side::Target => return None,
            (Class::Money, _) => format!("sequence > {sequence}"),
            (Class::Append, _) => self.snapshot.is_later(),
            (Class::Logged, name) => {
                let (key, told) = (columns(table, ""), columns(table, "told."));
                let later = match side {
                    Side::Source => format!(" AND {}", self.snapshot.is_later()),
                    Side::Target => String::new(),
                };
                format!(
                    "({key}) IN (SELECT {told} FROM (SELECT DISTINCT pk FROM _changes WHERE table_name = '{name}'{later}) AS change,
                        jsonb_populate_record(NULL::{name}, pk) AS told)"
                )
            }
            (Class::Derived, "account_balances") => {
                format!(
                    "account_id > {sequence} OR account_id IN (SELECT account_id FROM entries WHERE sequence > {sequence})"
                )
            }
            (Class::Expiring, _) => format!("expires_at > '{}'", timestamp(self.keys)),
            (Class::Derived | Class::Ephemeral, _) => "true".to_owned(),
        })
    }

    /// The keys of logged rows that were made, changed or deleted.
    pub(super) fn touched(&self) -> String {
        format!("SELECT DISTINCT table_name, 'delete', pk FROM _changes WHERE {}", self.snapshot.is_later())
    }
}

fn columns(table: &Table, of: &str) -> String {
    table.primary_key.iter().map(|column| format!("{of}{column}")).collect::<Vec<_>>().join(", ")
}

/// As PostgreSQL reads it, whatever its settings are.
fn timestamp(time: OffsetDateTime) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "{} {:02}:{:02}:{:02}.{:06}+00",
        time.date(),
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_gets_into_sql() {
        for good in ["5994:5996:", "1:9:2,5,7"] {
            assert!(Snapshot::parse(good).is_some(), "{good}");
        }
        for bad in ["", ":", "::", "1:2", "1:2:3,", "1:2:3:4", "1:2:a", "1:2:') OR true --", " 1:2:"] {
            assert_eq!(Snapshot::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        let time = time::macros::datetime!(2026-11-22 09:05:03.000_042 UTC);
        assert_eq!(timestamp(time), "2026-11-22 09:05:03.000042+00");
    }
}
