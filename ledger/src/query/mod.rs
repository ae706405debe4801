//! Reads: accounts and what moved on them, transfers, holds, journals, and the bank's own books.
//!
//! Whose accounts a read may tell of is its [`Scope`]; anything else is answered like what does not exist.

mod accounts;
mod holds;
mod journals;
mod transactions;
mod transfers;

use std::fmt;
use std::str::FromStr;

use sqlx::FromRow;
use sqlx::types::Json;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

pub use self::accounts::{
    Balance, LedgerAccount, TrialBalance, account, accounts, balance, balance_at, ledger_accounts, trial_balance,
};
pub(crate) use self::holds::holds_with_ids;
pub use self::holds::{due_holds, hold, holds, next_expiry};
pub use self::journals::{BookedJournal, BookedLeg, journal};
pub use self::transactions::{Category, TransactionFilter, categories, own_transactions, transactions};
pub(crate) use self::transfers::booked_transfers;
pub use self::transfers::{TransferState, transfer};
use crate::command::{Memo, Metadata};
use crate::id::{self, AccountId, IdError, Sequence};

/// Whose accounts may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those of one customer.
    Owner(Uuid),
    /// All of the tenant; for staff.
    Tenant,
}

impl Scope {
    /// As queries take it: none reads all.
    fn owner(self) -> Option<Uuid> {
        match self {
            Self::Owner(owner) => Some(owner),
            Self::Tenant => None,
        }
    }
}

impl From<Uuid> for Scope {
    fn from(owner: Uuid) -> Self {
        Self::Owner(owner)
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub data: Vec<T>,
    /// Where the next page starts, if there is more.
    pub next: Option<Cursor>,
}

/// The last row of a page, opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(i64);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        id::write(f, "", &self.0.to_be_bytes())
    }
}

impl FromStr for Cursor {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        id::read("", text).map(|bytes| Self(i64::from_be_bytes(bytes)))
    }
}

/// Cuts off the row that was fetched only to see whether there is more.
fn page<T>(mut rows: Vec<T>, limit: u16, place: impl Fn(&T) -> i64) -> (Vec<T>, Option<Cursor>) {
    let more = rows.len() > usize::from(limit);
    rows.truncate(usize::from(limit));
    let next = rows.last().filter(|_| more).map(|row| Cursor(place(row)));
    (rows, next)
}

/// The words of a journal.
#[derive(FromRow)]
pub(crate) struct MemoRow {
    description: Option<String>,
    category: Option<String>,
    reference: Option<String>,
    metadata: Option<Json<Metadata>>,
    value_date: Option<Date>,
}

impl From<MemoRow> for Memo {
    fn from(row: MemoRow) -> Self {
        Self {
            description: row.description,
            category: row.category,
            reference: row.reference,
            metadata: row.metadata.map(|metadata| metadata.0).unwrap_or_default(),
            value_date: row.value_date,
        }
    }
}

fn account_id(epoch: i32, id: i64) -> Result<AccountId, sqlx::Error> {
    Ok(AccountId { epoch: epoch.cast_unsigned(), sequence: sequence(id)? })
}

fn sequence(stored: i64) -> Result<Sequence, sqlx::Error> {
    stored.try_into().map_err(undecodable)
}

fn undecodable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

/// Of each account in `$1`, as `span`: the seqs between which (`after` exclusive, `upto` inclusive) lie the entries that
/// were booked after `$2` and at or before the given time; a time that is null is no bound.
///
/// Entries of an account are numbered without gaps and in order of time, so halving the distance finds the place with a
/// handful of look-ups, however many entries there are.
macro_rules! span {
    ($until:literal) => {
        concat!(
            "WITH RECURSIVE search (account_id, is_upper, bound, low, high) AS (
                SELECT account_id, is_upper, bound,
                    CASE WHEN is_upper AND bound IS NULL THEN version ELSE 0 END,
                    CASE WHEN NOT is_upper AND bound IS NULL THEN 0 ELSE version END
                FROM account_balances
                CROSS JOIN (VALUES (false, $2::timestamptz), (true, ",
            $until,
            ")) AS bounds (is_upper, bound)
                WHERE account_id = ANY($1)
                UNION ALL
                SELECT s.account_id, s.is_upper, s.bound,
                    CASE WHEN j.booked_at <= s.bound THEN e.seq ELSE s.low END,
                    CASE WHEN j.booked_at <= s.bound THEN s.high ELSE e.seq - 1 END
                FROM search s
                JOIN entries e ON e.account_id = s.account_id AND e.seq = (s.low + s.high + 1) / 2
                JOIN journals j USING (sequence)
                WHERE s.low < s.high
            ), span AS (
                SELECT account_id, min(low) FILTER (WHERE NOT is_upper) AS after, min(low) FILTER (WHERE is_upper) AS upto
                FROM search WHERE low = high GROUP BY account_id
            ) "
        )
    };
}
use span;

/// The last moment before `time` that the ledger can tell from it.
fn before(time: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    time.map(|time| time.saturating_sub(time::Duration::MICROSECOND))
}
