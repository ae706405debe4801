//! What callers ask of the ledger, and what it answers.
//!
//! An [`Outcome`] is stored beside the effect it reports and replayed for as long as its key lives, so the JSON of
//! everything it holds is a stored format: fields may be added with a default, never renamed or removed.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::id::{AccountId, JournalId, TransactionId};
use crate::money::{Amount, Currency};

/// One request to change the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The user on whose behalf it is asked.
    pub principal: Uuid,
    /// Idempotency key, unique per principal while it lives.
    pub key: String,
    /// Digest of the request: a key that comes back with another one is refused.
    pub fingerprint: [u8; 32],
    /// What to do.
    pub kind: CommandKind,
    /// Where the request came from, for the audit trail.
    pub audit: AuditContext,
}

/// What a command does. The account acted on must belong to the principal.
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
    Transfer {
        /// The account debited.
        from: AccountId,
        /// The account credited.
        to: AccountId,
        /// How much.
        amount: Amount,
        /// Must be that of both accounts.
        currency: Currency,
        /// The caller's own words.
        memo: Memo,
    },
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
}

/// Where a request came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditContext {
    /// Address of the client.
    pub ip: Option<IpAddr>,
    /// The request's `X-Request-ID`.
    pub request_id: Option<String>,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionType {
    /// Money entered the bank.
    Deposit,
    /// Money left the bank.
    Withdrawal,
    /// Money came from another account.
    TransferIn,
    /// Money went to another account.
    TransferOut,
}

/// How far a movement has come. Every movement is final when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MovementStatus {
    /// Booked.
    Completed,
}

/// A customer account. Balances are minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Public id, `acc_…`.
    pub id: AccountId,
    /// The user who owns it.
    pub owner: Uuid,
    /// What it is for.
    #[serde(rename = "type")]
    pub account_type: AccountType,
    /// The only currency it holds.
    pub currency: Currency,
    /// The owner's own name for it.
    pub name: String,
    /// Whether it takes part in movements.
    pub status: AccountStatus,
    /// Booked balance.
    pub balance: i64,
    /// Booked balance without what is held.
    pub available: i64,
    /// When it was opened.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A movement as one account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Public id, `txn_…`.
    pub id: TransactionId,
    /// The account.
    pub account_id: AccountId,
    /// What it is from that account's point of view.
    #[serde(rename = "type")]
    pub transaction_type: TransactionType,
    /// Minor units: positive when the account gained.
    pub amount: i64,
    /// The account's currency.
    pub currency: Currency,
    /// Booked balance right after it, in minor units.
    pub balance_after: i64,
    /// The caller's own words.
    #[serde(flatten)]
    pub memo: Memo,
    /// Always completed.
    pub status: MovementStatus,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The transfer it is a side of, if it is.
    pub transfer_id: Option<JournalId>,
}

/// A movement between two customer accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Public id, `trf_…`.
    pub id: JournalId,
    /// Always completed.
    pub status: MovementStatus,
    /// The account debited.
    pub from_account_id: AccountId,
    /// The account credited.
    pub to_account_id: AccountId,
    /// How much moved.
    pub amount: Amount,
    /// The currency of both accounts.
    pub currency: Currency,
    /// The caller's own words.
    #[serde(flatten)]
    pub memo: Memo,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The account was opened.
    AccountOpened(Account),
    /// The deposit or withdrawal was booked.
    Transaction(Transaction),
    /// The transfer was booked.
    Transfer(Transfer),
    /// Nothing was booked.
    Rejected(Rejection),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The balance would pass the account's floor.
    InsufficientFunds,
    /// The account is in another currency.
    CurrencyMismatch,
    /// A transfer from an account to itself.
    SameAccount,
    /// An account is frozen or closed.
    AccountNotActive,
    /// No such account, or it is not the principal's.
    NotFound,
    /// A balance would pass what the ledger can represent.
    LimitExceeded,
}
