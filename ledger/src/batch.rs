//! The rows one batch adds, as the schema's `apply_batch` takes them.
//!
//! What follows from the batch as a whole (epoch, time, the sequence of a journal from its place) is not here.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chain::{Anchor, Hash};
use crate::command::{AuditContext, Memo, Outcome, Rejection};
use crate::id::{AccountId, Leg, Sequence};
use crate::money::Currency;

/// Everything one batch adds besides its audit events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// One per change of the ledger, in order and without gaps.
    pub journals: Vec<Journal>,
    /// What the journals do to accounts, in order of journal and leg.
    pub entries: Vec<Entry>,
    /// Answers to remember.
    pub answers: Vec<StoredAnswer>,
}

impl Batch {
    /// Whether there is nothing to write. Every command that changes something also leaves its answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

/// What a journal records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum JournalKind {
    /// An account came to be; no entries.
    AccountOpened,
    /// An account got another name, status or limits; no entries.
    AccountChanged,
    /// Settlement to customer.
    Deposit,
    /// Customer to settlement.
    Withdrawal,
    /// Customer to customer.
    Transfer,
    /// Between any accounts, two or more.
    Journal,
    /// The entries of an earlier journal with their signs changed.
    Reversal,
    /// Money is set aside.
    HoldPlaced,
    /// Money that was set aside moves.
    HoldCaptured,
    /// Money that was set aside is free again.
    HoldVoided,
    /// The same, because its time had come.
    HoldExpired,
    /// The ledger goes on from an earlier point, after a restore; no entries.
    LedgerForked,
}

impl JournalKind {
    /// As it is stored, hashed and exported.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountOpened => "account_opened",
            Self::AccountChanged => "account_changed",
            Self::Deposit => "deposit",
            Self::Withdrawal => "withdrawal",
            Self::Transfer => "transfer",
            Self::Journal => "journal",
            Self::Reversal => "reversal",
            Self::HoldPlaced => "hold_placed",
            Self::HoldCaptured => "hold_captured",
            Self::HoldVoided => "hold_voided",
            Self::HoldExpired => "hold_expired",
            Self::LedgerForked => "ledger_forked",
        }
    }
}

/// A row of `journals`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its place in the ledger.
    pub sequence: Sequence,
    /// What it records.
    pub kind: JournalKind,
    /// The user who asked; nil for the bank itself.
    pub actor: Uuid,
    /// Currency of all its entries.
    pub currency: Currency,
    /// Minor units moved or held; 0 where nothing moves.
    pub amount: i64,
    /// The journal it reverses, or that of the hold it settles.
    pub refers_to: Option<Sequence>,
    /// The caller's own words. Of an account, the description is its name and the reference the reason of a change.
    pub memo: Memo,
    /// What no entry tells, as JSON ([`OpeningDetail`], [`ChangeDetail`], [`HoldDetail`], [`ForkDetail`]); hashed as it
    /// is spelled.
    pub detail: Option<String>,
    /// Blinds the commitment to the words; none where there are none.
    pub salt: Option<[u8; 16]>,
    /// Its link in the chain.
    pub hash: Hash,
    /// Where the request came from; it may have to be erased, so the hash leaves it out.
    pub origin: AuditContext,
}

/// The detail of [`JournalKind::AccountOpened`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpeningDetail {
    /// Whose money it holds.
    pub kind: String,
    /// The customer.
    #[serde(default)]
    pub owner: Option<Uuid>,
    /// What a customer uses it for; the kind again where there is no customer.
    #[serde(rename = "type")]
    pub account_type: String,
}

/// The detail of [`JournalKind::AccountChanged`]; what it does not name stays as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeDetail {
    /// The account.
    pub account: Sequence,
    /// Its status from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<crate::command::AccountStatus>,
    /// Its limits from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<crate::command::Limits>,
    /// Whether its data go and no others take their place: a journal without data says nothing of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clears_metadata: bool,
}

/// The detail of [`JournalKind::HoldPlaced`], if it has a destination or a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldDetail {
    /// Where captured money goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Sequence>,
    /// When what is left of it is released.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub expires_at: Option<time::OffsetDateTime>,
}

/// The detail of [`JournalKind::LedgerForked`]. Its journal follows `restored`, with which it is chained, in an epoch of
/// its own and at a sequence above `abandoned`: the only place where epoch and sequence jump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkDetail {
    /// The newest point known of what is given up.
    pub abandoned: Anchor,
    /// Where the ledger goes on from.
    pub restored: Anchor,
}

/// A row of `entries`, and what it makes of its account's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub account: AccountId,
    /// The account's version after it, from 1.
    pub seq: i64,
    /// The journal.
    pub sequence: Sequence,
    /// Its place within the journal.
    pub leg: Leg,
    /// Change of the booked balance.
    pub posted_delta: i64,
    /// Change of what is held.
    pub held_delta: i64,
    /// Booked balance after it.
    pub posted_after: i64,
    /// What is held after it.
    pub held_after: i64,
    /// What left the account on the day of the batch.
    pub spent_day: i64,
    /// What left the account in the month of the batch.
    pub spent_month: i64,
}

/// A row of `idempotency_keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// Whose key it is.
    pub principal: Uuid,
    /// The key.
    pub key: String,
    /// Digest of the request it belongs to.
    pub fingerprint: [u8; 32],
    /// The answer.
    pub outcome: StoredOutcome,
}

/// An answer as it is kept: what a journal can tell is not kept twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredOutcome {
    /// A transfer: told from its journal, in `sequence`.
    Transfer(Sequence),
    /// Anything else, in `outcome`.
    Whole(WholeOutcome),
}

/// An answer that is kept as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WholeOutcome {
    /// A bulk: the transfers that were booked have the sequences from `first` on, in order; the others were refused.
    Bulk {
        /// Sequence of the first transfer that was booked.
        first: Sequence,
        /// Why a transfer was refused; none where it was booked.
        refused: Vec<Option<Rejection>>,
    },
    /// The answer itself.
    Outcome(Box<Outcome>),
}
