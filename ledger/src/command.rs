//! What callers ask of the ledger, and what it answers.
//!
//! An [`Outcome`] is stored beside the effect it reports and replayed for as long as its key lives, so the JSON of
//! everything it holds is a stored format: fields may be added with a default, never renamed or removed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::id::{AccountId, HoldId, JournalId};
use crate::money::{Amount, Currency};
pub use crate::outcome::{Account, Hold, JournalRecord, Outcome, Rejection, Transaction, Transfer};

/// One request to change the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The user on whose behalf it is asked.
    pub principal: Uuid,
    /// Whose accounts the principal may act on.
    pub authority: Authority,
    /// Idempotency key, unique per principal while it lives.
    pub key: String,
    /// Digest of the request: a key that comes back with another one is refused.
    pub fingerprint: [u8; 32],
    /// Random; hides free text in the chain until the text is told (`chain`).
    pub salt: [u8; 16],
    /// What to do.
    pub kind: CommandKind,
    /// Where the request came from, for the audit trail.
    pub audit: AuditContext,
}

/// Whose accounts a principal may act on. Another's is answered like one that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authority {
    /// Those the principal owns.
    Owner,
    /// Every account of the tenant.
    Staff,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandKind {
    /// Opens a customer account with a balance of zero.
    OpenAccount {
        /// The user who will own it.
        owner: Uuid,
        /// What it is for.
        account_type: AccountType,
        /// The only currency it holds.
        currency: Currency,
        /// The owner's own name for it.
        name: String,
        /// The owner's own data.
        metadata: Metadata,
    },
    /// Opens an account of the bank itself. Staff only.
    OpenInternal {
        /// What it is for; there is one settlement account per currency, which opens by itself.
        kind: AccountKind,
        /// The only currency it holds.
        currency: Currency,
        /// For people.
        name: String,
    },
    /// Changes a customer account.
    ChangeAccount {
        /// The account.
        account: AccountId,
        /// What becomes of it.
        change: AccountChange,
    },
    /// Money enters the bank.
    Deposit {
        /// The account credited.
        account: AccountId,
        /// How much.
        amount: Amount,
        /// Must be the account's.
        currency: Currency,
        /// The caller's own words.
        memo: Memo,
    },
    /// Money leaves the bank.
    Withdraw {
        /// The account debited.
        account: AccountId,
        /// How much.
        amount: Amount,
        /// Must be the account's.
        currency: Currency,
        /// The caller's own words.
        memo: Memo,
    },
    /// Money moves to another customer account of the tenant, whoever owns it.
    Transfer(NewTransfer),
    /// Several transfers under one key, in order.
    Bulk {
        /// The transfers, at most [`MAX_BULK`].
        transfers: Vec<NewTransfer>,
        /// Whether one that is refused refuses all.
        atomic: bool,
    },
    /// A journal of two or more legs over any accounts of the tenant. Staff only.
    Journal {
        /// Accounts and what they gain, which adds up to nothing; each account once.
        legs: Vec<(AccountId, i64)>,
        /// Must be that of all accounts.
        currency: Currency,
        /// The caller's own words.
        memo: Memo,
    },
    /// Undoes a journal as a whole, once. Customers may give back a transfer that they have received.
    Reverse {
        /// The journal.
        journal: JournalId,
        /// The caller's own words.
        memo: Memo,
    },
    /// Sets money aside: it is booked as before, and no longer available.
    PlaceHold {
        /// The account.
        account: AccountId,
        /// Where captured money goes, which makes it a pending transfer; else it leaves the bank.
        destination: Option<AccountId>,
        /// How much.
        amount: Amount,
        /// Must be the account's.
        currency: Currency,
        /// The caller's own words.
        memo: Memo,
        /// When what is left of it is released.
        expires_at: Option<OffsetDateTime>,
    },
    /// Takes money that was set aside. Staff, or the account's owner for a pending transfer.
    CaptureHold {
        /// The hold.
        hold: HoldId,
        /// How much of what is left; all of it if not said.
        amount: Option<Amount>,
        /// Whether what is left after it stays set aside.
        keep_rest: bool,
        /// The caller's own words.
        memo: Memo,
    },
    /// Releases what is left of a hold. Staff, or the account's owner for a pending transfer.
    VoidHold {
        /// The hold.
        hold: HoldId,
    },
    /// Releases what is left of a hold whose time has come; by the bank itself.
    ExpireHold {
        /// The hold.
        hold: HoldId,
    },
}

/// The most transfers one command takes.
pub const MAX_BULK: usize = 500;

/// A movement between two customer accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTransfer {
    /// The account debited.
    pub from: AccountId,
    /// The account credited.
    pub to: AccountId,
    /// How much.
    pub amount: Amount,
    /// Must be that of both accounts.
    pub currency: Currency,
    /// The caller's own words.
    pub memo: Memo,
}

/// What becomes of a customer account. The reason is for the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// Another name, other data.
    Describe {
        /// The owner's own name for it.
        name: Option<String>,
        /// The owner's own data; replaces what there was.
        metadata: Option<Metadata>,
    },
    /// Stops an active account. Staff only.
    Freeze {
        /// Why.
        reason: Option<String>,
    },
    /// Lets a frozen account take part again. Staff only.
    Unfreeze {
        /// Why.
        reason: Option<String>,
    },
    /// Stops an empty account for good.
    Close {
        /// Why.
        reason: Option<String>,
    },
    /// Other limits. Staff only.
    Limit(Limits),
}

/// Names and values that mean nothing to the ledger.
pub type Metadata = BTreeMap<String, String>;

/// What an account may do, in minor units of its currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// What is available never falls below it by a movement; below zero it is an overdraft.
    pub minimum_balance: i64,
    /// The most one withdrawal, transfer or hold takes.
    #[serde(default)]
    pub per_transaction: Option<i64>,
    /// The most they take together on one UTC day.
    #[serde(default)]
    pub daily: Option<i64>,
    /// The most they take together in one UTC month.
    #[serde(default)]
    pub monthly: Option<i64>,
}

/// What the caller wrote about a movement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// For the statement.
    pub description: Option<String>,
    /// For budgets and reports.
    pub category: Option<String>,
    /// The caller's own number.
    pub reference: Option<String>,
    /// The caller's own data.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// The day from which it counts for interest; the UTC day of booking if not given.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "day::option")]
    pub value_date: Option<Date>,
}

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

impl Memo {
    /// Whether it holds no text that somebody wrote.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.description.is_none() && self.category.is_none() && self.reference.is_none() && self.metadata.is_empty()
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditContext {
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// The request's `X-Request-ID`.
    pub request_id: Option<Arc<str>>,
}

/// Whose money an account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AccountKind {
    /// A customer's.
    Customer,
    /// The outside world's: one per currency, the other side of deposits and withdrawals.
    Settlement,
    /// What the bank earns.
    Fee,
    /// What the bank holds on its own account.
    Position,
}

/// The side on which an account grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NormalSide {
    /// What the bank owns: a balance is below zero where it is large.
    Debit,
    /// What the bank owes or has earned.
    Credit,
}

impl AccountKind {
    /// The side on which accounts of this kind grow.
    #[must_use]
    pub fn normal_side(self) -> NormalSide {
        match self {
            Self::Customer | Self::Fee => NormalSide::Credit,
            Self::Settlement | Self::Position => NormalSide::Debit,
        }
    }
}

/// What a customer account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AccountType {
    /// Everyday payments.
    Checking,
    /// Money put aside.
    Savings,
    /// A company's payments.
    Business,
    /// Cash side of investments.
    Investment,
}

/// Whether an account takes part in movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum AccountStatus {
    /// It does.
    Active,
    /// Stopped for now.
    Frozen,
    /// Stopped for good.
    Closed,
}

/// What a movement is from one account's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum TransactionType {
    /// Money entered the bank.
    Deposit,
    /// Money left the bank.
    Withdrawal,
    /// Money came from another account.
    TransferIn,
    /// Money went to another account.
    TransferOut,
    /// Money that was held left the bank.
    Capture,
    /// A side of a journal of several legs.
    Journal,
    /// An earlier movement was undone.
    Reversal,
}

/// How far a movement has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementStatus {
    /// Its money is set aside.
    Pending,
    /// Booked.
    Completed,
    /// Given up before it was booked.
    Canceled,
    /// Booked, and undone.
    Reversed,
}

/// How far a hold has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum HoldStatus {
    /// Some of it is still set aside.
    Held,
    /// Nothing is left; at least a part was taken.
    Captured,
    /// Released untouched.
    Voided,
    /// Released untouched because its time had come.
    Expired,
}
