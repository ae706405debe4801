//! The rules of the ledger: what each command of a batch does to the accounts it names.
//!
//! Nothing here touches a clock, a network or randomness, so the same state, commands and time always give the same
//! decision. Every movement is double entry: what one side gains the other loses.

mod accounts;
mod holds;
mod movements;

use std::collections::HashMap;

use time::{Date, Duration, OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::batch::{Batch, Entry, Journal, JournalKind, StoredAnswer, StoredOutcome, WholeOutcome};
use crate::chain::{self, Hash, Link, LinkEntry};
use crate::command::{
    AccountKind, AccountStatus, AccountType, Authority, Command, CommandKind, Hold, Limits, Memo, Metadata, Outcome,
    Rejection,
};
use crate::id::{AccountId, HoldId, JournalId, Leg, Sequence};
use crate::money::{Currency, MAX_MINOR_UNITS};

/// How long an answer is remembered under its key; the schema stores the same.
pub const KEY_LIFETIME: Duration = Duration::hours(24);

/// What the rules need to know to decide a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The end of the ledger.
    pub head: Head,
    /// The accounts the commands name and those of their holds and originals, where they exist.
    pub accounts: HashMap<AccountId, AccountState>,
    /// The settlement account of each currency that has one.
    pub settlements: HashMap<Currency, AccountId>,
    /// The holds the commands name, where they exist.
    pub holds: HashMap<HoldId, Hold>,
    /// The journals to reverse, where they exist.
    pub originals: HashMap<JournalId, Original>,
    /// What has been answered under the commands' (principal, key).
    pub answers: HashMap<(Uuid, String), Remembered>,
}

impl State {
    /// A state that knows of nothing but the head.
    #[must_use]
    pub fn at(head: Head) -> Self {
        Self {
            head,
            accounts: HashMap::new(),
            settlements: HashMap::new(),
            holds: HashMap::new(),
            originals: HashMap::new(),
            answers: HashMap::new(),
        }
    }
}

/// The end of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Grows when the ledger is restored.
    pub epoch: u32,
    /// The last journal.
    pub sequence: Sequence,
    /// Time of the last batch.
    pub time: OffsetDateTime,
    /// Hash of the last journal.
    pub hash: Hash,
}

/// An account as the rules see it. Balances are minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// Whose money it holds.
    pub kind: AccountKind,
    /// The customer.
    pub owner: Option<Uuid>,
    /// What the customer uses it for.
    pub account_type: Option<AccountType>,
    /// The only currency it holds.
    pub currency: Currency,
    /// Only an active account takes part in movements.
    pub status: AccountStatus,
    /// What a customer's account may do; others may do all.
    pub limits: Option<Limits>,
    /// Booked balance.
    pub posted: i64,
    /// What is held of it.
    pub held: i64,
    /// Number of its entries.
    pub version: i64,
    /// What has left it.
    pub spent: Spent,
    /// What is only told, shared because it hardly ever changes.
    pub described: std::sync::Arc<Described>,
}

/// What the rules tell of an account but never decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The owner's own name for it.
    pub name: String,
    /// The owner's own data.
    pub metadata: Metadata,
    /// When it was opened.
    pub created_at: OffsetDateTime,
}

/// What has left an account, for its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The UTC day of the last entry.
    pub on: Date,
    /// On that day.
    pub day: i64,
    /// In its month.
    pub month: i64,
}

impl Spent {
    /// What counts on `date`.
    fn at(self, date: Date) -> Self {
        let same_month = (self.on.year(), self.on.month()) == (date.year(), date.month());
        Self {
            on: date,
            day: if self.on == date { self.day } else { 0 },
            month: if same_month { self.month } else { 0 },
        }
    }
}

/// A journal that may be reversed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// What it recorded.
    pub kind: JournalKind,
    /// Currency of its entries.
    pub currency: Currency,
    /// Minor units moved.
    pub amount: i64,
    /// Its accounts and what they gained, in order of its legs.
    pub legs: Vec<(AccountId, i64)>,
    /// Whether another journal has undone it.
    pub reversed: bool,
}

/// An earlier answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Digest of the request it belongs to.
    pub fingerprint: [u8; 32],
    /// The answer.
    pub outcome: Outcome,
    /// From then on the key counts as unused.
    pub expires_at: OffsetDateTime,
}

/// What becomes of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Decided now.
    Decided(Outcome),
    /// Decided before: the first answer again.
    Replayed(Outcome),
    /// The key belongs to another request.
    KeyReused,
}

/// What becomes of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Time of the batch.
    pub time: OffsetDateTime,
    /// One answer per command, in order.
    pub answers: Vec<Answer>,
    /// What has to be written for the answers to be true.
    pub batch: Batch,
    /// The state once it is written.
    pub state: State,
}

/// Decides `commands` one after the other, each on what the ones before it left.
///
/// The batch is booked at `now`, or a microsecond after the last one if the clock has not moved past it.
/// A rejection is remembered like any answer, except [`Rejection::NotFound`] and [`Rejection::Forbidden`]: they say
/// nothing about the ledger, and remembering them would let a caller fill the tenant's storage by guessing ids.
#[must_use]
pub fn apply(state: State, commands: &[Command], now: OffsetDateTime) -> Decision {
    let now = now.to_offset(UtcOffset::UTC).truncate_to_microsecond();
    let time = now.max(state.head.time + Duration::MICROSECOND);
    let mut draft = Draft { state, batch: Batch::default(), time, undo: None };
    let answers: Vec<_> = commands.iter().map(|command| draft.answer(command)).collect();
    let Draft { mut state, batch, .. } = draft;
    if answers.iter().any(|answer| matches!(answer, Answer::Decided(_))) {
        state.head.time = time;
    }
    Decision { time, answers, batch, state }
}

/// Whether an answer is kept under its key.
#[must_use]
pub fn is_remembered(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Rejected(Rejection::NotFound | Rejection::Forbidden))
}

struct Draft {
    state: State,
    batch: Batch,
    time: OffsetDateTime,
    /// The accounts as they were, while what is done may have to be undone.
    undo: Option<Vec<(AccountId, AccountState)>>,
}

/// What a journal says besides its entries.
struct Heading<'a> {
    command: &'a Command,
    kind: JournalKind,
    currency: Currency,
    amount: i64,
    refers_to: Option<Sequence>,
    memo: Memo,
    detail: Option<String>,
}

/// What a journal does to one account.
#[derive(Clone, Copy)]
struct Change {
    account: AccountId,
    posted: i64,
    held: i64,
    /// What counts against the account's limits of the day and of the month; below zero where it is given back.
    spent: (i64, i64),
}

impl Change {
    /// Money comes in, or goes where no limit counts it.
    fn posted(account: AccountId, posted: i64) -> Self {
        Self { account, posted, held: 0, spent: (0, 0) }
    }
}

impl Draft {
    fn answer(&mut self, command: &Command) -> Answer {
        let key = (command.principal, command.key.clone());
        if let Some(earlier) = self.state.answers.get(&key).filter(|earlier| earlier.expires_at > self.time) {
            return if earlier.fingerprint == command.fingerprint {
                Answer::Replayed(earlier.outcome.clone())
            } else {
                Answer::KeyReused
            };
        }
        let before = self.state.head.sequence;
        let outcome = self.decide(command).unwrap_or_else(Outcome::Rejected);
        if is_remembered(&outcome) {
            self.remember(command, key, &outcome, before);
        }
        Answer::Decided(outcome)
    }

    fn remember(&mut self, command: &Command, key: (Uuid, String), outcome: &Outcome, before: Sequence) {
        let stored = match outcome {
            Outcome::Transfer(transfer) => StoredOutcome::Transfer(transfer.id.sequence),
            Outcome::Bulk(transfers) => StoredOutcome::Whole(WholeOutcome::Bulk {
                first: before.next().unwrap_or(before),
                refused: transfers.iter().map(|transfer| transfer.as_ref().err().copied()).collect(),
            }),
            other => StoredOutcome::Whole(WholeOutcome::Outcome(Box::new(other.clone()))),
        };
        self.batch.answers.push(StoredAnswer {
            principal: command.principal,
            key: command.key.clone(),
            fingerprint: command.fingerprint,
            outcome: stored,
        });
        let remembered = Remembered {
            fingerprint: command.fingerprint,
            outcome: outcome.clone(),
            expires_at: self.time + KEY_LIFETIME,
        };
        self.state.answers.insert(key, remembered);
    }

    fn decide(&mut self, command: &Command) -> Result<Outcome, Rejection> {
        match &command.kind {
            CommandKind::OpenAccount { owner, account_type, currency, name, metadata } => {
                self.open_customer(command, *owner, *account_type, *currency, (name, metadata))
            }
            CommandKind::OpenInternal { kind, currency, name } => self.open_internal(command, *kind, *currency, name),
            CommandKind::ChangeAccount { account, change } => self.change_account(command, *account, change),
            CommandKind::Deposit { account, amount, currency, memo } => {
                self.settle(command, JournalKind::Deposit, *account, *amount, *currency, memo)
            }
            CommandKind::Withdraw { account, amount, currency, memo } => {
                self.settle(command, JournalKind::Withdrawal, *account, *amount, *currency, memo)
            }
            CommandKind::Transfer(transfer) => self.transfer(command, transfer).map(Outcome::Transfer),
            CommandKind::Bulk { transfers, atomic } => Ok(self.bulk(command, transfers, *atomic)),
            CommandKind::Journal { legs, currency, memo } => self.journal(command, legs, *currency, memo),
            CommandKind::Reverse { journal, memo } => self.reverse(command, *journal, memo),
            CommandKind::PlaceHold { account, destination, amount, currency, memo, expires_at } => {
                self.place_hold(command, (*account, *destination), (*amount, *currency), memo, *expires_at)
            }
            CommandKind::CaptureHold { hold, amount, keep_rest, memo } => {
                self.capture_hold(command, *hold, *amount, *keep_rest, memo)
            }
            CommandKind::VoidHold { hold } => self.release_hold(command, *hold, JournalKind::HoldVoided),
            CommandKind::ExpireHold { hold } => self.release_hold(command, *hold, JournalKind::HoldExpired),
        }
    }

    fn known(&self, id: AccountId) -> Result<&AccountState, Rejection> {
        self.state.accounts.get(&id).ok_or(Rejection::NotFound)
    }

    /// A customer's account, whoever the customer is.
    fn customer(&self, id: AccountId) -> Result<&AccountState, Rejection> {
        self.known(id).ok().filter(|account| account.kind == AccountKind::Customer).ok_or(Rejection::NotFound)
    }

    /// A customer's account that the principal may act on; somebody else's is as good as none.
    fn acted_on(&self, command: &Command, id: AccountId) -> Result<&AccountState, Rejection> {
        let account = self.customer(id)?;
        let may = command.authority == Authority::Staff || account.owner == Some(command.principal);
        if may { Ok(account) } else { Err(Rejection::NotFound) }
    }

    fn next_place(&mut self) -> Result<JournalId, Rejection> {
        let head = &mut self.state.head;
        head.sequence = head.sequence.next().ok_or(Rejection::LimitExceeded)?;
        Ok(JournalId { epoch: head.epoch, sequence: head.sequence })
    }

    /// Books one journal, or nothing: `changes` are judged before anything is written.
    fn book(&mut self, heading: Heading<'_>, changes: &[Change]) -> Result<JournalId, Rejection> {
        let mut after = Vec::with_capacity(changes.len());
        for change in changes {
            after.push(self.known(change.account)?.changed(change, self.time.date())?);
        }
        let id = self.next_place()?;
        let first = self.batch.entries.len();
        for (number, (change, account)) in changes.iter().zip(after).enumerate() {
            self.batch.entries.push(Entry {
                account: change.account,
                seq: account.version,
                sequence: id.sequence,
                leg: Leg::nth(number).ok_or(Rejection::Unbalanced)?,
                posted_delta: change.posted,
                held_delta: change.held,
                posted_after: account.posted,
                held_after: account.held,
                spent_day: account.spent.day,
                spent_month: account.spent.month,
            });
            let before = self.state.accounts.insert(change.account, account);
            if let (Some(undo), Some(before)) = (&mut self.undo, before) {
                undo.push((change.account, before));
            }
        }
        let journal = self.linked(heading, id, first);
        self.batch.journals.push(journal);
        Ok(id)
    }

    /// The journal with its link in the chain; its entries are the batch's from `first` on.
    fn linked(&mut self, heading: Heading<'_>, id: JournalId, first: usize) -> Journal {
        let Heading { command, kind, currency, amount, refers_to, memo, detail } = heading;
        // A command may book several journals, and no two texts are blinded alike.
        let salt = salt_of(command, id.sequence);
        let commitment = chain::commitment(&salt, &memo);
        let link = Link {
            epoch: id.epoch,
            sequence: id.sequence,
            booked_at: self.time,
            kind: kind.as_str(),
            actor: command.principal,
            currency: currency.code(),
            amount,
            refers_to,
            value_date: memo.value_date,
            detail: detail.as_deref(),
            commitment,
        };
        let entries = self.batch.entries[first..].iter().map(LinkEntry::from);
        let hash = chain::hash(self.state.head.hash, &link, entries);
        self.state.head.hash = hash;
        let salt = commitment.map(|_| salt);
        Journal {
            sequence: id.sequence,
            kind,
            actor: command.principal,
            currency,
            amount,
            refers_to,
            memo,
            detail,
            salt,
            hash,
            origin: command.audit.clone(),
        }
    }
}

/// The command's salt for the journal at `sequence`.
fn salt_of(command: &Command, sequence: Sequence) -> [u8; 16] {
    (u128::from_be_bytes(command.salt) ^ u128::from(i64::from(sequence).cast_unsigned())).to_be_bytes()
}

impl From<&Entry> for LinkEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            account: entry.account.sequence,
            seq: entry.seq,
            leg: entry.leg.into(),
            posted_delta: entry.posted_delta,
            held_delta: entry.held_delta,
            posted_after: entry.posted_after,
            held_after: entry.held_after,
        }
    }
}

impl AccountState {
    /// The account after `change`, if its balance may be so.
    fn changed(&self, change: &Change, date: Date) -> Result<Self, Rejection> {
        let fits = |sum: Option<i64>| sum.filter(|sum| (-MAX_MINOR_UNITS..=MAX_MINOR_UNITS).contains(sum));
        let posted = fits(self.posted.checked_add(change.posted)).ok_or(Rejection::LimitExceeded)?;
        let held =
            fits(self.held.checked_add(change.held)).filter(|held| *held >= 0).ok_or(Rejection::LimitExceeded)?;
        let version = self.version.checked_add(1).ok_or(Rejection::LimitExceeded)?;
        // Only what makes less available can be refused for want of it.
        if let Some(limits) = self.limits
            && change.posted < change.held
            && posted.saturating_sub(held) < limits.minimum_balance
        {
            return Err(Rejection::InsufficientFunds);
        }
        let spent = self.spent.at(date);
        let count = |counted: i64, more| counted.saturating_add(more).max(0);
        let spent =
            Spent { on: date, day: count(spent.day, change.spent.0), month: count(spent.month, change.spent.1) };
        if change.spent.0 > 0 && self.limits.is_some_and(|limits| !limits.allow(change.spent.0, spent)) {
            return Err(Rejection::SpendingLimitExceeded);
        }
        Ok(Self { posted, held, version, spent, ..self.clone() })
    }
}

impl Limits {
    /// Whether `amount` may leave an account of which `spent` has left with it.
    fn allow(&self, amount: i64, spent: Spent) -> bool {
        let within = |sum: i64, limit: Option<i64>| limit.is_none_or(|limit| sum <= limit);
        within(amount, self.per_transaction) && within(spent.day, self.daily) && within(spent.month, self.monthly)
    }
}

/// Both or all take part in movements, in `currency`.
fn ready<'a>(
    mut accounts: impl Iterator<Item = &'a AccountState> + Clone,
    currency: Currency,
) -> Result<(), Rejection> {
    if accounts.clone().any(|account| account.status != AccountStatus::Active) {
        return Err(Rejection::AccountNotActive);
    }
    if accounts.any(|account| account.currency != currency) { Err(Rejection::CurrencyMismatch) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
