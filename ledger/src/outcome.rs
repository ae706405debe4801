//! What the ledger answers, and the things it tells of.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::command::{AccountStatus, AccountType, HoldStatus, Limits, Memo, Metadata, MovementStatus, TransactionType};
use crate::id::{AccountId, HoldId, JournalId, TransactionId, TransferId};
use crate::money::{Amount, Currency};

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
    /// What it may do.
    #[serde(default)]
    pub limits: Limits,
    /// The owner's own data.
    #[serde(default)]
    pub metadata: Metadata,
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
    /// Completed, or reversed.
    pub status: MovementStatus,
    /// When it was booked.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The transfer it is a side of, if it is.
    pub transfer_id: Option<TransferId>,
}

/// A movement between two customer accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Public id, `trf_…`.
    pub id: TransferId,
    /// Completed when it is answered; what is pending is a [`Hold`].
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

/// Money set aside. Amounts are minor units of `currency`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Public id, `hld_…`.
    pub id: HoldId,
    /// The account.
    pub account_id: AccountId,
    /// Where captured money goes, if it is a pending transfer.
    pub destination_id: Option<AccountId>,
    /// What was set aside at first.
    pub amount: i64,
    /// What is still set aside.
    pub remaining: i64,
    /// What was taken.
    pub captured: i64,
    /// The account's currency.
    pub currency: Currency,
    /// How far it has come.
    pub status: HoldStatus,
    /// The words it was placed with.
    #[serde(flatten)]
    pub memo: Memo,
    /// When it was placed.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When what is left of it is released.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
}

/// A journal of several legs, or one that undoes another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// Public id, `jrn_…`.
    pub id: JournalId,
    /// The journal it undoes, if it does.
    pub reverses: Option<JournalId>,
    /// What moved, in minor units: the sum of all that accounts gained.
    pub amount: i64,
    /// The currency of all accounts.
    pub currency: Currency,
    /// The accounts and what they gained, in minor units.
    pub legs: Vec<(AccountId, i64)>,
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
    /// The bank's own account was opened.
    InternalOpened(AccountId),
    /// The account was changed.
    AccountChanged(Account),
    /// The deposit or withdrawal was booked.
    Transaction(Transaction),
    /// The transfer was booked.
    Transfer(Transfer),
    /// What became of each transfer.
    Bulk(Vec<Result<Transfer, Rejection>>),
    /// Nothing was booked, because the transfer of this index (from 0) was refused.
    BulkRejected {
        /// Index of the first transfer that was refused.
        index: usize,
        /// Why.
        rejection: Rejection,
    },
    /// The journal or reversal was booked.
    Journal(JournalRecord),
    /// The hold as it is now.
    Hold(Hold),
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
    /// A transfer from an account to itself, or a journal that names one twice.
    SameAccount,
    /// An account is frozen or closed.
    AccountNotActive,
    /// No such account, hold or journal, or it is not the principal's.
    NotFound,
    /// A balance would pass what the ledger can represent.
    LimitExceeded,
    /// More than the account may move at once, in a day or in a month.
    SpendingLimitExceeded,
    /// The account's status does not allow the change: closed for good, frozen already, not frozen.
    StatusConflict,
    /// An account that holds money, or owes it, is not closed.
    AccountNotEmpty,
    /// The legs of a journal do not add up to zero, or one is zero, or there are too few or too many.
    Unbalanced,
    /// The journal is of a kind that cannot be undone.
    NotReversible,
    /// The journal was undone before.
    AlreadyReversed,
    /// Nothing is left of the hold.
    HoldSettled,
    /// The hold's time has come, or, for an expiry, has not.
    HoldExpired,
    /// More than is left of the hold.
    ExceedsHold,
    /// Only staff may.
    Forbidden,
}
