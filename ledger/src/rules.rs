//! The rules of the ledger: what each command of a batch does to the accounts it names.
//!
//! Nothing here touches a clock, a network or randomness, so the same state, commands and time always give the same
//! decision. Every movement is double entry: what one side gains the other loses.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::batch::{AccountKind, Batch, Entry, Journal, JournalKind, NewAccount, StoredAnswer};
use crate::command::{
    Account, AccountStatus, AccountType, Command, CommandKind, Memo, MovementStatus, Outcome, Rejection, Transaction,
    TransactionType, Transfer,
};
use crate::id::{AccountId, JournalId, Leg, Sequence, TransactionId};
use crate::money::{Amount, Currency, MAX_MINOR_UNITS};

/// How long an answer is remembered under its key; the schema stores the same.
pub const KEY_LIFETIME: Duration = Duration::hours(24);

/// What the rules need to know to decide a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The end of the ledger.
    pub head: Head,
    /// The accounts the commands name and the settlement accounts of their currencies, where they exist.
    pub accounts: HashMap<AccountId, AccountState>,
    /// The settlement account of each currency that has one.
    pub settlements: HashMap<Currency, AccountId>,
    /// What has been answered under the commands' (principal, key).
    pub answers: HashMap<(Uuid, String), Remembered>,
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
}

/// An account as the rules see it. Balances are minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountState {
    /// Whose money it holds.
    pub kind: AccountKind,
    /// The customer.
    pub owner: Option<Uuid>,
    /// The only currency it holds.
    pub currency: Currency,
    /// Only an active account takes part in movements.
    pub status: AccountStatus,
    /// Floor of `posted - held`; none where the balance may fall without end.
    pub minimum: Option<i64>,
    /// Booked balance.
    pub posted: i64,
    /// What is held of it.
    pub held: i64,
    /// Number of its entries.
    pub version: i64,
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
/// A rejection is remembered like any answer, except [`Rejection::NotFound`]: it says nothing about the ledger, and
/// remembering it would let a caller fill the tenant's storage by guessing ids.
#[must_use]
pub fn apply(state: State, commands: &[Command], now: OffsetDateTime) -> Decision {
    let now = now.to_offset(UtcOffset::UTC).truncate_to_microsecond();
    let time = now.max(state.head.time + Duration::MICROSECOND);
    let mut draft = Draft { state, batch: Batch::default(), time };
    let answers = commands.iter().map(|command| draft.answer(command)).collect();
    let Draft { mut state, batch, .. } = draft;
    if !batch.is_empty() {
        state.head.time = time;
    }
    Decision { time, answers, batch, state }
}

struct Draft {
    state: State,
    batch: Batch,
    time: OffsetDateTime,
}

/// A movement that has been booked.
struct Booked {
    journal: JournalId,
    source_after: i64,
    destination_after: i64,
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
        let outcome = self.decide(command).unwrap_or_else(Outcome::Rejected);
        if outcome != Outcome::Rejected(Rejection::NotFound) {
            self.remember(command, key, &outcome);
        }
        Answer::Decided(outcome)
    }

    fn remember(&mut self, command: &Command, key: (Uuid, String), outcome: &Outcome) {
        self.batch.idempotency.push(StoredAnswer {
            principal: command.principal,
            key: command.key.clone(),
            fingerprint: command.fingerprint,
            outcome: outcome.clone(),
        });
        let remembered = Remembered {
            fingerprint: command.fingerprint,
            outcome: outcome.clone(),
            expires_at: self.time + KEY_LIFETIME,
        };
        self.state.answers.insert(key, remembered);
    }

    fn decide(&mut self, command: &Command) -> Result<Outcome, Rejection> {
        // Two is the most a command takes; asking first keeps a refused command from leaving half of itself behind.
        if self.state.head.sequence.next().and_then(Sequence::next).is_none() {
            return Err(Rejection::LimitExceeded);
        }
        let actor = command.principal;
        match &command.kind {
            CommandKind::OpenAccount { owner, account_type, currency, name } => {
                self.open_customer(actor, *owner, *account_type, *currency, name)
            }
            CommandKind::Deposit { account, amount, currency, memo } => {
                self.settle(actor, JournalKind::Deposit, *account, *amount, *currency, memo)
            }
            CommandKind::Withdraw { account, amount, currency, memo } => {
                self.settle(actor, JournalKind::Withdrawal, *account, *amount, *currency, memo)
            }
            CommandKind::Transfer { from, to, amount, currency, memo } => {
                self.transfer(actor, (*from, *to), *amount, *currency, memo)
            }
        }
    }

    fn open_customer(
        &mut self,
        actor: Uuid,
        owner: Uuid,
        account_type: AccountType,
        currency: Currency,
        name: &str,
    ) -> Result<Outcome, Rejection> {
        let state = AccountState::customer(owner, currency);
        let id = self.open(actor, state, Some(account_type), name.to_owned())?;
        Ok(Outcome::AccountOpened(Account {
            id,
            owner,
            account_type,
            currency,
            name: name.to_owned(),
            status: state.status,
            balance: state.posted,
            available: state.posted,
            created_at: self.time,
        }))
    }

    /// A deposit or a withdrawal: the other side is the settlement account of the currency.
    fn settle(
        &mut self,
        actor: Uuid,
        kind: JournalKind,
        account: AccountId,
        amount: Amount,
        currency: Currency,
        memo: &Memo,
    ) -> Result<Outcome, Rejection> {
        let customer = self.owned(actor, account)?;
        let leg = if kind == JournalKind::Deposit { Leg::Destination } else { Leg::Source };
        let settlement = if let Some(id) = self.state.settlements.get(&currency) {
            *id
        } else {
            let fresh = AccountState::settlement(currency);
            let (source, destination) = sides(leg, customer, fresh);
            moved(source, destination, amount, currency)?;
            self.open(actor, fresh, None, format!("Settlement {currency}"))?
        };
        let booked = self.post(actor, kind, sides(leg, account, settlement), amount, currency, memo)?;
        let (transaction_type, signed, balance_after) = match leg {
            Leg::Destination => (TransactionType::Deposit, amount.minor_units(), booked.destination_after),
            Leg::Source => (TransactionType::Withdrawal, -amount.minor_units(), booked.source_after),
        };
        Ok(Outcome::Transaction(Transaction {
            id: TransactionId { journal: booked.journal, leg },
            account_id: account,
            transaction_type,
            amount: signed,
            currency,
            balance_after,
            memo: memo.clone(),
            status: MovementStatus::Completed,
            created_at: self.time,
            transfer_id: None,
        }))
    }

    fn transfer(
        &mut self,
        actor: Uuid,
        (from, to): (AccountId, AccountId),
        amount: Amount,
        currency: Currency,
        memo: &Memo,
    ) -> Result<Outcome, Rejection> {
        self.owned(actor, from)?;
        if from == to {
            return Err(Rejection::SameAccount);
        }
        self.customer(to)?;
        let booked = self.post(actor, JournalKind::Transfer, (from, to), amount, currency, memo)?;
        Ok(Outcome::Transfer(Transfer {
            id: booked.journal,
            status: MovementStatus::Completed,
            from_account_id: from,
            to_account_id: to,
            amount,
            currency,
            memo: memo.clone(),
            created_at: self.time,
        }))
    }

    /// A customer's account, whoever the customer is.
    fn customer(&self, id: AccountId) -> Result<AccountState, Rejection> {
        let found = self.state.accounts.get(&id).copied();
        found.filter(|account| account.kind == AccountKind::Customer).ok_or(Rejection::NotFound)
    }

    /// An account of this customer; somebody else's is as good as none.
    fn owned(&self, principal: Uuid, id: AccountId) -> Result<AccountState, Rejection> {
        let account = self.customer(id)?;
        if account.owner == Some(principal) { Ok(account) } else { Err(Rejection::NotFound) }
    }

    fn next_place(&mut self) -> Result<JournalId, Rejection> {
        let head = &mut self.state.head;
        head.sequence = head.sequence.next().ok_or(Rejection::LimitExceeded)?;
        Ok(JournalId { epoch: head.epoch, sequence: head.sequence })
    }

    fn open(
        &mut self,
        actor: Uuid,
        account: AccountState,
        account_type: Option<AccountType>,
        name: String,
    ) -> Result<AccountId, Rejection> {
        let JournalId { epoch, sequence } = self.next_place()?;
        self.batch.journals.push(Journal {
            sequence,
            kind: JournalKind::AccountOpened,
            actor,
            currency: account.currency,
            amount: 0,
            memo: Memo::default(),
        });
        self.batch.accounts.push(NewAccount {
            id: sequence,
            owner_id: account.owner,
            kind: account.kind,
            account_type,
            currency: account.currency,
            name,
        });
        let id = AccountId { epoch, sequence };
        self.state.accounts.insert(id, account);
        if account.kind == AccountKind::Settlement {
            self.state.settlements.insert(account.currency, id);
        }
        Ok(id)
    }

    fn post(
        &mut self,
        actor: Uuid,
        kind: JournalKind,
        (source_id, destination_id): (AccountId, AccountId),
        amount: Amount,
        currency: Currency,
        memo: &Memo,
    ) -> Result<Booked, Rejection> {
        let known = |id| self.state.accounts.get(&id).copied().ok_or(Rejection::NotFound);
        let (source, destination) = moved(known(source_id)?, known(destination_id)?, amount, currency)?;
        let journal = self.next_place()?;
        self.batch.journals.push(Journal {
            sequence: journal.sequence,
            kind,
            actor,
            currency,
            amount: amount.minor_units(),
            memo: memo.clone(),
        });
        self.enter(journal, Leg::Source, source_id, source, -amount.minor_units());
        self.enter(journal, Leg::Destination, destination_id, destination, amount.minor_units());
        Ok(Booked { journal, source_after: source.posted, destination_after: destination.posted })
    }

    fn enter(&mut self, journal: JournalId, leg: Leg, id: AccountId, after: AccountState, posted_delta: i64) {
        self.batch.entries.push(Entry {
            account_id: id.sequence,
            seq: after.version,
            sequence: journal.sequence,
            leg,
            posted_delta,
            held_delta: 0,
            posted_after: after.posted,
            held_after: after.held,
        });
        self.state.accounts.insert(id, after);
    }
}

impl AccountState {
    fn customer(owner: Uuid, currency: Currency) -> Self {
        Self {
            kind: AccountKind::Customer,
            owner: Some(owner),
            currency,
            status: AccountStatus::Active,
            minimum: Some(0),
            posted: 0,
            held: 0,
            version: 0,
        }
    }

    fn settlement(currency: Currency) -> Self {
        Self {
            kind: AccountKind::Settlement,
            owner: None,
            currency,
            status: AccountStatus::Active,
            minimum: None,
            posted: 0,
            held: 0,
            version: 0,
        }
    }

    fn changed(self, delta: i64) -> Result<Self, Rejection> {
        let posted = self
            .posted
            .checked_add(delta)
            .filter(|posted| (-MAX_MINOR_UNITS..=MAX_MINOR_UNITS).contains(posted))
            .ok_or(Rejection::LimitExceeded)?;
        let version = self.version.checked_add(1).ok_or(Rejection::LimitExceeded)?;
        Ok(Self { posted, version, ..self })
    }
}

/// Orders the customer's side, which is on `leg`, and the other one as (source, destination).
fn sides<T>(leg: Leg, customer: T, other: T) -> (T, T) {
    match leg {
        Leg::Source => (customer, other),
        Leg::Destination => (other, customer),
    }
}

/// Both accounts after `amount` has moved between them, if it may.
fn moved(
    source: AccountState,
    destination: AccountState,
    amount: Amount,
    currency: Currency,
) -> Result<(AccountState, AccountState), Rejection> {
    let both = [source, destination];
    if both.iter().any(|account| account.status != AccountStatus::Active) {
        return Err(Rejection::AccountNotActive);
    }
    if both.iter().any(|account| account.currency != currency) {
        return Err(Rejection::CurrencyMismatch);
    }
    let debited = source.changed(-amount.minor_units())?;
    let available = debited.posted.checked_sub(debited.held).ok_or(Rejection::LimitExceeded)?;
    if source.minimum.is_some_and(|minimum| available < minimum) {
        return Err(Rejection::InsufficientFunds);
    }
    Ok((debited, destination.changed(amount.minor_units())?))
}

#[cfg(test)]
mod tests;
