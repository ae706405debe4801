//! The rules, theme by theme, and against an oracle that is slow, wide and obvious.

mod accounts;
mod chain;
mod holds;
mod keys;
mod limits;
mod movements;
mod oracle;
mod properties;

use std::collections::{BTreeMap, HashMap};

use time::macros::datetime;

use super::*;
use crate::command::{AccountChange, AuditContext, HoldStatus, NewTransfer};
use crate::money::Amount;

const START: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
const EPOCH: u32 = 1;
const ADA: u128 = 1;
const BOB: u128 = 2;

fn usd() -> Currency {
    "USD".parse().unwrap()
}

fn eur() -> Currency {
    "EUR".parse().unwrap()
}

fn user(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn sequence(number: i64) -> Sequence {
    Sequence::try_from(number).unwrap()
}

fn account(number: i64) -> AccountId {
    AccountId { epoch: EPOCH, sequence: sequence(number) }
}

fn amount(minor_units: i64) -> Amount {
    Amount::try_from(minor_units).unwrap()
}

fn empty() -> State {
    State::at(Head { epoch: EPOCH, sequence: sequence(0), time: START, hash: Hash::default() })
}

fn command(principal: u128, key: &str, kind: CommandKind) -> Command {
    Command {
        principal: user(principal),
        authority: Authority::Owner,
        key: key.to_owned(),
        fingerprint: [0; 32],
        salt: [0; 16],
        kind,
        audit: AuditContext::default(),
    }
}

fn staff(key: &str, kind: CommandKind) -> Command {
    Command { authority: Authority::Staff, ..command(99, key, kind) }
}

fn open(owner: u128) -> CommandKind {
    open_in(owner, usd())
}

fn open_in(owner: u128, currency: Currency) -> CommandKind {
    CommandKind::OpenAccount {
        owner: user(owner),
        account_type: AccountType::Checking,
        currency,
        name: "Everyday".to_owned(),
        metadata: Metadata::new(),
    }
}

fn internal(kind: AccountKind) -> CommandKind {
    CommandKind::OpenInternal { kind, currency: usd(), name: "The bank's own".to_owned() }
}

fn change(account: AccountId, change: AccountChange) -> CommandKind {
    CommandKind::ChangeAccount { account, change }
}

fn freeze(account: AccountId) -> CommandKind {
    change(account, AccountChange::Freeze { reason: None })
}

fn unfreeze(account: AccountId) -> CommandKind {
    change(account, AccountChange::Unfreeze { reason: None })
}

fn close(account: AccountId) -> CommandKind {
    change(account, AccountChange::Close { reason: None })
}

fn deposit(account: AccountId, minor_units: i64) -> CommandKind {
    CommandKind::Deposit { account, amount: amount(minor_units), currency: usd(), memo: Memo::default() }
}

fn withdraw(account: AccountId, minor_units: i64) -> CommandKind {
    CommandKind::Withdraw { account, amount: amount(minor_units), currency: usd(), memo: Memo::default() }
}

fn new_transfer(from: AccountId, to: AccountId, minor_units: i64) -> NewTransfer {
    NewTransfer { from, to, amount: amount(minor_units), currency: usd(), memo: Memo::default() }
}

fn transfer(from: AccountId, to: AccountId, minor_units: i64) -> CommandKind {
    CommandKind::Transfer(new_transfer(from, to, minor_units))
}

fn journal(legs: &[(AccountId, i64)]) -> CommandKind {
    CommandKind::Journal { legs: legs.to_vec(), currency: usd(), memo: Memo::default() }
}

fn reverse(number: i64) -> CommandKind {
    CommandKind::Reverse { journal: JournalId { epoch: EPOCH, sequence: sequence(number) }, memo: Memo::default() }
}

fn hold(account: AccountId, destination: Option<AccountId>, minor_units: i64) -> CommandKind {
    let (amount, currency, memo) = (amount(minor_units), usd(), Memo::default());
    CommandKind::PlaceHold { account, destination, amount, currency, memo, expires_at: None }
}

fn capture(hold: HoldId, minor_units: Option<i64>, keep_rest: bool) -> CommandKind {
    CommandKind::CaptureHold { hold, amount: minor_units.map(amount), keep_rest, memo: Memo::default() }
}

fn void(hold: HoldId) -> CommandKind {
    CommandKind::VoidHold { hold }
}

fn rejected(rejection: Rejection) -> Outcome {
    Outcome::Rejected(rejection)
}

/// A ledger that is told one batch after another, as an engine would, and looked at after each.
struct Ledger {
    state: State,
    now: OffsetDateTime,
    keys: u32,
    /// All journals with their entries and times.
    journals: Vec<(Journal, Vec<Entry>, OffsetDateTime)>,
}

impl Ledger {
    fn new() -> Self {
        Self { state: empty(), now: START, keys: 0, journals: Vec::new() }
    }

    /// A customer's account with money in it.
    fn funded(&mut self, owner: u128, minor_units: i64) -> AccountId {
        let id = self.opened(open(owner));
        self.owner(owner, deposit(id, minor_units));
        id
    }

    fn opened(&mut self, kind: CommandKind) -> AccountId {
        match self.staff(kind) {
            Outcome::AccountOpened(account) => account.id,
            Outcome::InternalOpened(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn held(&mut self, owner: u128, kind: CommandKind) -> HoldId {
        let Outcome::Hold(hold) = self.owner(owner, kind) else { panic!("no hold") };
        hold.id
    }

    /// What is in an account: booked and held.
    fn balance(&self, id: AccountId) -> (i64, i64) {
        let account = &self.state.accounts[&id];
        (account.posted, account.held)
    }

    /// What has left an account, today and this month.
    fn spent(&self, id: AccountId) -> (i64, i64) {
        let spent = self.state.accounts[&id].spent.at(self.now.date());
        (spent.day, spent.month)
    }

    fn owner(&mut self, principal: u128, kind: CommandKind) -> Outcome {
        let key = self.key();
        self.one(command(principal, &key, kind))
    }

    fn staff(&mut self, kind: CommandKind) -> Outcome {
        let key = self.key();
        self.one(staff(&key, kind))
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("auto-{}", self.keys)
    }

    fn one(&mut self, command: Command) -> Outcome {
        match self.batch(&[command]).answers.remove(0) {
            Answer::Decided(outcome) | Answer::Replayed(outcome) => outcome,
            Answer::KeyReused => panic!("the key was used before"),
        }
    }

    fn batch(&mut self, commands: &[Command]) -> Decision {
        let before = self.state.clone();
        let decision = apply(before.clone(), commands, self.now);
        check(&before, &decision);
        self.state = decision.state.clone();
        for journal in &decision.batch.journals {
            let entries: Vec<_> =
                decision.batch.entries.iter().filter(|entry| entry.sequence == journal.sequence).copied().collect();
            self.remember(journal, &entries);
            self.journals.push((journal.clone(), entries, decision.time));
        }
        decision
    }

    /// What an engine would load for a reversal.
    fn remember(&mut self, journal: &Journal, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let original = Original {
            kind: journal.kind,
            currency: journal.currency,
            amount: journal.amount,
            legs: entries.iter().map(|entry| (entry.account, entry.posted_delta)).collect(),
            reversed: false,
        };
        self.state.originals.insert(JournalId { epoch: EPOCH, sequence: journal.sequence }, original);
    }
}

/// The hash of a journal as it is stored, after one with the hash `previous`.
fn recomputed(previous: Hash, journal: &Journal, entries: &[Entry], time: OffsetDateTime) -> Hash {
    let link = Link {
        epoch: EPOCH,
        sequence: journal.sequence,
        booked_at: time,
        kind: journal.kind.as_str(),
        actor: journal.actor,
        currency: journal.currency.code(),
        amount: journal.amount,
        refers_to: journal.refers_to,
        value_date: journal.memo.value_date,
        detail: journal.detail.as_deref(),
        commitment: journal.salt.and_then(|salt| crate::chain::commitment(&salt, &journal.memo)),
    };
    crate::chain::hash(previous, &link, entries.iter().map(LinkEntry::from))
}

/// What holds after every batch, whatever was asked: journals balance, sequences and versions are dense, the chain
/// recomputes, running balances follow from what was there before, and no currency has more or less than nothing.
fn check(before: &State, decision: &Decision) {
    let (mut next, mut hash) = (i64::from(before.head.sequence), before.head.hash);
    for journal in &decision.batch.journals {
        next += 1;
        assert_eq!(i64::from(journal.sequence), next);
        let sides: Vec<_> =
            decision.batch.entries.iter().filter(|entry| entry.sequence == journal.sequence).copied().collect();
        assert_eq!(sides.iter().map(|entry| i128::from(entry.posted_delta)).sum::<i128>(), 0);
        assert!(sides.iter().enumerate().all(|(number, entry)| Leg::nth(number) == Some(entry.leg)));
        for entry in &sides {
            assert_eq!(decision.state.accounts[&entry.account].currency, journal.currency);
        }
        hash = recomputed(hash, journal, &sides, decision.time);
        assert_eq!(journal.hash, hash, "journal {next}");
    }
    assert_eq!((i64::from(decision.state.head.sequence), decision.state.head.hash), (next, hash));
    let mut running: HashMap<AccountId, (i64, i64, i64)> =
        before.accounts.iter().map(|(id, account)| (*id, (account.version, account.posted, account.held))).collect();
    for entry in &decision.batch.entries {
        let (version, posted, held) = running.entry(entry.account).or_default();
        *version += 1;
        *posted += entry.posted_delta;
        *held += entry.held_delta;
        assert_eq!((entry.seq, entry.posted_after, entry.held_after), (*version, *posted, *held));
    }
    let mut totals: BTreeMap<Currency, i128> = BTreeMap::new();
    for (id, account) in &decision.state.accounts {
        let expected = running.get(id).copied().unwrap_or_default();
        assert_eq!((account.version, account.posted, account.held), expected);
        *totals.entry(account.currency).or_default() += i128::from(account.posted);
        assert!(account.posted.abs() <= MAX_MINOR_UNITS && account.held >= 0);
    }
    assert!(totals.values().all(|total| *total == 0), "{totals:?}");
}
