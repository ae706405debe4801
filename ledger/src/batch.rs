//! The rows one batch adds, in the shape the schema's `apply_batch` takes them: fields are column names.
//!
//! What follows from the arguments of `apply_batch` (epoch, times) and what every new account starts with is not here.

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::command::{AccountType, Memo, Outcome};
use crate::id::{Leg, Sequence};
use crate::money::Currency;

/// Everything one batch adds besides its audit events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Batch {
    /// One per command that succeeded, and one per settlement account opened on the way; sequences are dense.
    pub journals: Vec<Journal>,
    /// Accounts opened.
    pub accounts: Vec<NewAccount>,
    /// Sides of the journals that move money, in order.
    pub entries: Vec<Entry>,
    /// Answers to remember.
    pub idempotency: Vec<StoredAnswer>,
}

impl Batch {
    /// Whether there is nothing to write. Every command that changes something also leaves its answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.idempotency.is_empty()
    }
}

/// What a journal records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum JournalKind {
    /// An account came to be; no entries.
    AccountOpened,
    /// Settlement to customer.
    Deposit,
    /// Customer to settlement.
    Withdrawal,
    /// Customer to customer.
    Transfer,
}

/// A row of `journals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Journal {
    /// Its place in the ledger.
    pub sequence: Sequence,
    /// What it records.
    pub kind: JournalKind,
    /// The user who asked.
    pub actor: Uuid,
    /// Currency of all its entries.
    pub currency: Currency,
    /// Minor units moved; 0 where nothing moves.
    pub amount: i64,
    /// The caller's own words.
    #[serde(flatten)]
    pub memo: Memo,
}

/// Whose money an account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AccountKind {
    /// A customer's.
    Customer,
    /// The outside world's: one per currency, the other side of deposits and withdrawals.
    Settlement,
}

/// A row of `accounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewAccount {
    /// Sequence of the journal that opens it.
    pub id: Sequence,
    /// The owner; none for a settlement account.
    pub owner_id: Option<Uuid>,
    /// Whose money it holds.
    pub kind: AccountKind,
    /// What the customer uses it for; none for a settlement account.
    #[serde(rename = "type", serialize_with = "type_column")]
    pub account_type: Option<AccountType>,
    /// The only currency it holds.
    pub currency: Currency,
    /// For people.
    pub name: String,
}

/// A row of `entries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The account.
    pub account_id: Sequence,
    /// The account's version after it, from 1.
    pub seq: i64,
    /// The journal.
    pub sequence: Sequence,
    /// The side of the journal.
    pub leg: Leg,
    /// Change of the booked balance.
    pub posted_delta: i64,
    /// Change of what is held.
    pub held_delta: i64,
    /// Booked balance after it.
    pub posted_after: i64,
    /// What is held after it.
    pub held_after: i64,
}

/// A row of `idempotency_keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredAnswer {
    /// Whose key it is.
    pub principal: Uuid,
    /// The key.
    pub key: String,
    /// Digest of the request it belongs to.
    #[serde(serialize_with = "bytea")]
    pub fingerprint: [u8; 32],
    /// The answer.
    pub outcome: Outcome,
}

/// The column is never null: an account that is no customer's has its kind for a type.
#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn type_column<S: Serializer>(account_type: &Option<AccountType>, serializer: S) -> Result<S::Ok, S::Error> {
    match account_type {
        Some(account_type) => account_type.serialize(serializer),
        None => AccountKind::Settlement.serialize(serializer),
    }
}

/// PostgreSQL's hexadecimal input form of `bytea`.
fn bytea<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("\\x{}", data_encoding::HEXLOWER.encode(bytes)))
}
