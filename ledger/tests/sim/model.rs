//! A model of the ledger's tables and of what the schema's `apply_batch` checks before it changes them.
//!
//! It knows rows only: accounts and holds follow from what the journals say, not from what the rules made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use finaiflow_ledger::batch::{
    ChangeDetail, Entry, HoldDetail, Journal, JournalKind, OpeningDetail, StoredAnswer, StoredOutcome, WholeOutcome,
};
use finaiflow_ledger::chain::Hash;
use finaiflow_ledger::command::{
    AccountKind, AccountStatus, Hold, HoldStatus, Limits, MovementStatus, Outcome, Transfer,
};
use finaiflow_ledger::id::{AccountId, HoldId, JournalId, Sequence};
use finaiflow_ledger::money::{Amount, MAX_MINOR_UNITS};
use finaiflow_ledger::rules::{
    AccountState, Decision, Described, Head, KEY_LIFETIME, Original, Remembered, Spent, State,
};
use finaiflow_ledger::store::{Result, StoreError};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::lies::Lie;

/// A journal with its entries, as stored.
#[derive(Debug, Clone)]
pub struct Booked {
    pub epoch: u32,
    pub at: OffsetDateTime,
    pub journal: Journal,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub fingerprint: [u8; 32],
    pub outcome: Kept,
    pub expires_at: OffsetDateTime,
}

/// An answer as the table has it.
#[derive(Debug, Clone)]
pub enum Kept {
    Transfer(Sequence),
    Json(String),
}

#[derive(Debug, Clone)]
pub struct Tables {
    pub head: Head,
    pub accounts: BTreeMap<Sequence, (AccountId, AccountState)>,
    pub holds: BTreeMap<Sequence, Hold>,
    pub journals: BTreeMap<Sequence, Booked>,
    pub keys: BTreeMap<(Uuid, String), Key>,
    /// The journals that were undone.
    reversed: BTreeSet<Sequence>,
}

/// What the reversals of a batch undo.
fn reversed(decision: &Decision) -> impl Iterator<Item = Sequence> {
    let reversals = decision.batch.journals.iter().filter(|journal| journal.kind == JournalKind::Reversal);
    reversals.filter_map(|journal| journal.refers_to)
}

fn refused(what: impl Into<String>) -> StoreError {
    StoreError::Refused(what.into())
}

fn require(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(refused(what)) }
}

impl Tables {
    pub fn new(epoch: u32, time: OffsetDateTime) -> Self {
        Self {
            head: Head { epoch, sequence: Sequence::default(), time, hash: Hash::default() },
            accounts: BTreeMap::new(),
            holds: BTreeMap::new(),
            journals: BTreeMap::new(),
            keys: BTreeMap::new(),
            reversed: BTreeSet::new(),
        }
    }

    /// All of `decision`, or nothing. Returns the journals that were added.
    pub fn apply(&mut self, from: Head, decision: &Decision, lie: Lie) -> Result<Vec<Booked>> {
        self.fence(from, decision, lie)?;
        self.unique(decision, lie)?;
        let before = (self.accounts.clone(), self.holds.clone());
        let added = match self.book_all(from, decision, lie) {
            Ok(added) => added,
            Err(error) => {
                (self.accounts, self.holds) = before;
                return Err(error);
            }
        };
        self.reversed.extend(reversed(decision));
        self.journals.extend(added.iter().map(|booked| (booked.journal.sequence, booked.clone())));
        decision.batch.answers.iter().for_each(|answer| self.keep(answer, decision.time));
        self.head.time = decision.time;
        if let Some(last) = decision.batch.journals.last() {
            self.head.sequence = last.sequence;
            self.head.hash = last.hash;
        }
        Ok(added)
    }

    /// The unique indexes: keys while they live, and reversals.
    fn unique(&self, decision: &Decision, lie: Lie) -> Result<()> {
        let mut keys = BTreeSet::new();
        for answer in &decision.batch.answers {
            let key = (answer.principal, answer.key.clone());
            let in_use = self.keys.get(&key).is_some_and(|key| key.expires_at > decision.time);
            if (in_use || !keys.insert(key)) && lie != Lie::KeysNotUnique {
                return Err(StoreError::KeyTaken);
            }
        }
        let mut again = self.reversed.clone();
        if reversed(decision).all(|original| again.insert(original)) { Ok(()) } else { Err(StoreError::KeyTaken) }
    }

    fn book_all(&mut self, from: Head, decision: &Decision, lie: Lie) -> Result<Vec<Booked>> {
        let mut added = Vec::new();
        let mut entries = &decision.batch.entries[..];
        for journal in &decision.batch.journals {
            let (own, rest) = entries.split_at(entries.iter().take_while(|e| e.sequence == journal.sequence).count());
            entries = rest;
            let booked =
                Booked { epoch: from.epoch, at: decision.time, journal: journal.clone(), entries: own.to_vec() };
            self.book(&booked, decision.batch.journals.len(), lie)?;
            added.push(booked);
        }
        require(entries.is_empty(), "entries without a journal")?;
        Ok(added)
    }

    fn fence(&self, from: Head, decision: &Decision, lie: Lie) -> Result<()> {
        let Head { epoch, sequence, time, .. } = self.head;
        let there = (epoch == from.epoch || lie == Lie::EpochIgnored) && sequence == from.sequence;
        let there = there || matches!(lie, Lie::FenceDropped | Lie::FenceAndVersionDropped);
        if !there || decision.time <= time {
            return Err(StoreError::Fenced);
        }
        let mut next = from.sequence;
        for journal in &decision.batch.journals {
            next = next.next().ok_or_else(|| refused("no more sequences"))?;
            require(journal.sequence == next, "journals are not numbered as they come")?;
        }
        Ok(())
    }

    fn book(&mut self, booked: &Booked, journals: usize, lie: Lie) -> Result<()> {
        let Booked { journal, entries, .. } = booked;
        for (leg, entry) in entries.iter().enumerate() {
            require(i16::from(entry.leg) == i16::try_from(leg).unwrap(), "legs are not numbered")?;
            self.move_by(booked, entry, lie)?;
        }
        let posted: Vec<_> = entries.iter().map(|entry| entry.posted_delta).collect();
        require(posted.iter().map(|delta| i128::from(*delta)).sum::<i128>() == 0, "a journal does not add up")?;
        let kinds: Vec<_> = entries.iter().map(|entry| self.accounts[&entry.account.sequence].1.kind).collect();
        let held: Vec<_> = entries.iter().map(|entry| entry.held_delta).collect();
        let (amount, idle) = (journal.amount, held.iter().all(|delta| *delta == 0));
        let (customer, settlement) = (AccountKind::Customer, AccountKind::Settlement);
        let two = |kinds: [AccountKind; 2], found: &[AccountKind]| {
            amount > 0 && found == kinds && posted[0] == -amount && entries[0].account != entries[1].account
        };
        let allowed = match journal.kind {
            JournalKind::AccountOpened | JournalKind::AccountChanged => amount == 0 && entries.is_empty(),
            JournalKind::Deposit => idle && two([settlement, customer], &kinds),
            JournalKind::Withdrawal => idle && two([customer, settlement], &kinds),
            JournalKind::Transfer => idle && two([customer, customer], &kinds),
            JournalKind::Journal | JournalKind::Reversal => {
                let moved: i64 = posted.iter().filter(|delta| **delta > 0).sum();
                idle && amount > 0 && moved == amount && entries.len() >= 2 && !posted.contains(&0)
            }
            JournalKind::HoldPlaced => amount > 0 && held == [amount] && kinds == [customer],
            JournalKind::HoldCaptured => {
                amount > 0 && posted[0] == -amount && held[0] <= -amount && held[1] == 0 && kinds[0] == customer
            }
            JournalKind::HoldVoided | JournalKind::HoldExpired => {
                amount > 0 && held == [-amount] && kinds == [customer]
            }
            JournalKind::LedgerForked => false,
        };
        require(allowed, "a journal of this kind is not so")?;
        match journal.kind {
            JournalKind::AccountOpened => self.open(booked),
            JournalKind::AccountChanged if journals == 1 => self.change(journal),
            JournalKind::AccountChanged => Err(refused("an account changes in a batch of its own")),
            JournalKind::Reversal => self.reverse(booked),
            JournalKind::HoldPlaced => self.place(booked),
            JournalKind::HoldCaptured | JournalKind::HoldVoided | JournalKind::HoldExpired => self.settle(booked),
            _ => Ok(()),
        }
    }

    fn move_by(&mut self, booked: &Booked, entry: &Entry, lie: Lie) -> Result<()> {
        let (id, account) =
            self.accounts.get_mut(&entry.account.sequence).ok_or_else(|| refused("an entry of no account"))?;
        let released = matches!(booked.journal.kind, JournalKind::HoldVoided | JournalKind::HoldExpired);
        require(released || account.status == AccountStatus::Active, "the account is not active")?;
        require(*id == entry.account && id.sequence < entry.sequence, "the account is another")?;
        require(account.currency == booked.journal.currency, "another currency")?;
        let after = (
            account.version + 1,
            account.posted.saturating_add(entry.posted_delta),
            account.held.saturating_add(entry.held_delta),
        );
        let continues = after == (entry.seq, entry.posted_after, entry.held_after);
        require(continues || lie == Lie::FenceAndVersionDropped, "an entry does not continue its account")?;
        require(entry.posted_after.abs() <= MAX_MINOR_UNITS && entry.held_after >= 0, "beyond what there is")?;
        if let Some(limits) = account.limits {
            let floor = entry.posted_delta >= entry.held_delta
                || entry.posted_after - entry.held_after >= limits.minimum_balance;
            require(floor, "below the minimum")?;
        }
        (account.version, account.posted, account.held) = (entry.seq, entry.posted_after, entry.held_after);
        account.spent = Spent { on: booked.at.date(), day: entry.spent_day, month: entry.spent_month };
        Ok(())
    }

    fn open(&mut self, booked: &Booked) -> Result<()> {
        let Booked { journal, at, epoch, .. } = booked;
        let detail: OpeningDetail = parsed(journal.detail.as_deref())?;
        let kind = word(&detail.kind)?;
        let customer = kind == AccountKind::Customer;
        let state = AccountState {
            kind,
            owner: detail.owner,
            account_type: customer.then(|| word(&detail.account_type)).transpose()?,
            currency: journal.currency,
            status: AccountStatus::Active,
            limits: customer.then(Limits::default),
            posted: 0,
            held: 0,
            version: 0,
            spent: Spent { on: at.date(), day: 0, month: 0 },
            described: Arc::new(Described {
                name: journal.memo.description.clone().unwrap_or_default(),
                metadata: journal.memo.metadata.clone(),
                created_at: *at,
            }),
        };
        let taken = kind == AccountKind::Settlement
            && self.accounts.values().any(|(_, other)| other.kind == kind && other.currency == state.currency);
        require(!taken, "a second settlement account")?;
        self.accounts.insert(journal.sequence, (AccountId { epoch: *epoch, sequence: journal.sequence }, state));
        Ok(())
    }

    fn change(&mut self, journal: &Journal) -> Result<()> {
        let detail: ChangeDetail = parsed(journal.detail.as_deref())?;
        let account = self.accounts.get_mut(&detail.account).map(|(_, account)| account);
        let account =
            account.filter(|account| account.kind == AccountKind::Customer && account.status != AccountStatus::Closed);
        let account = account.ok_or_else(|| refused("no account that could be changed"))?;
        let empty = account.posted == 0 && account.held == 0;
        require(detail.status != Some(AccountStatus::Closed) || empty, "an account is closed that is not empty")?;
        account.status = detail.status.unwrap_or(account.status);
        account.limits = detail.limits.or(account.limits);
        let described = Arc::make_mut(&mut account.described);
        if let Some(name) = &journal.memo.description {
            described.name.clone_from(name);
        }
        // As the schema has it: no metadata leaves what there was, unless it is said to be cleared.
        if parsed::<serde_json::Value>(journal.detail.as_deref())?["clears_metadata"] == true {
            described.metadata.clear();
        }
        if !journal.memo.metadata.is_empty() {
            described.metadata.clone_from(&journal.memo.metadata);
        }
        Ok(())
    }

    fn reverse(&self, booked: &Booked) -> Result<()> {
        let original = booked.journal.refers_to.and_then(|id| self.journals.get(&id));
        let original = original.ok_or_else(|| refused("the reversal of nothing"))?;
        let legs = |booked: &Booked, sign: i64| -> Vec<_> {
            booked.entries.iter().map(|entry| (entry.account, sign * entry.posted_delta)).collect()
        };
        require(legs(original, -1) == legs(booked, 1), "the reversal of something else")
    }

    fn place(&mut self, booked: &Booked) -> Result<()> {
        let Booked { journal, entries, at, epoch } = booked;
        let detail = journal.detail.as_deref().map(|detail| parsed::<HoldDetail>(Some(detail))).transpose()?;
        let destination = detail.as_ref().and_then(|detail| detail.destination);
        let hold = Hold {
            id: HoldId { epoch: *epoch, sequence: journal.sequence },
            account_id: entries[0].account,
            destination_id: destination.map(|id| self.accounts[&id].0),
            currency: journal.currency,
            amount: journal.amount,
            remaining: journal.amount,
            captured: 0,
            status: HoldStatus::Held,
            memo: journal.memo.clone(),
            created_at: *at,
            expires_at: detail.and_then(|detail| detail.expires_at),
        };
        self.holds.insert(journal.sequence, hold);
        Ok(())
    }

    fn settle(&mut self, booked: &Booked) -> Result<()> {
        let Booked { journal, entries, .. } = booked;
        let hold = journal.refers_to.and_then(|id| self.holds.get_mut(&id));
        let released = -entries[0].held_delta;
        let hold = hold.filter(|hold| hold.account_id == entries[0].account && hold.remaining >= released);
        let hold = hold.ok_or_else(|| refused("a hold is not there, or not enough of it is left"))?;
        hold.remaining -= released;
        hold.captured -= entries[0].posted_delta;
        hold.status = match (hold.remaining, hold.captured, journal.kind) {
            (1.., ..) => HoldStatus::Held,
            (_, 1.., _) => HoldStatus::Captured,
            (.., JournalKind::HoldExpired) => HoldStatus::Expired,
            _ => HoldStatus::Voided,
        };
        Ok(())
    }

    fn keep(&mut self, answer: &StoredAnswer, time: OffsetDateTime) {
        let outcome = match &answer.outcome {
            StoredOutcome::Transfer(sequence) => Kept::Transfer(*sequence),
            StoredOutcome::Whole(outcome) => Kept::Json(serde_json::to_string(outcome).unwrap()),
        };
        let key = Key { fingerprint: answer.fingerprint, outcome, expires_at: time + KEY_LIFETIME };
        self.keys.insert((answer.principal, answer.key.clone()), key);
    }

    /// The answer under a key, told from its journals where it is not kept.
    pub fn remembered(&self, key: &(Uuid, String)) -> Result<Option<Remembered>> {
        let Some(Key { fingerprint, outcome, expires_at }) = self.keys.get(key) else { return Ok(None) };
        let outcome = match outcome {
            Kept::Transfer(sequence) => Outcome::Transfer(self.transfer(*sequence)?),
            Kept::Json(json) => match serde_json::from_str(json).map_err(|error| refused(error.to_string()))? {
                WholeOutcome::Outcome(outcome) => *outcome,
                WholeOutcome::Bulk { mut first, refused } => {
                    let mut told = Vec::new();
                    for refusal in refused {
                        told.push(refusal.map_or_else(|| self.transfer(first).map(Ok), |refusal| Ok(Err(refusal)))?);
                        if refusal.is_none() {
                            first = first.next().unwrap();
                        }
                    }
                    Outcome::Bulk(told)
                }
            },
        };
        Ok(Some(Remembered { fingerprint: *fingerprint, outcome, expires_at: *expires_at }))
    }

    fn transfer(&self, sequence: Sequence) -> Result<Transfer> {
        let booked = self.journals.get(&sequence).filter(|booked| booked.journal.kind == JournalKind::Transfer);
        let Booked { epoch, at, journal, entries } = booked.ok_or_else(|| refused("an answer names no transfer"))?;
        Ok(Transfer {
            id: JournalId { epoch: *epoch, sequence }.into(),
            status: MovementStatus::Completed,
            from_account_id: entries[0].account,
            to_account_id: entries[1].account,
            amount: Amount::try_from(journal.amount).unwrap(),
            currency: journal.currency,
            memo: journal.memo.clone(),
            created_at: *at,
        })
    }

    /// Whether what an engine keeps of a batch is what is stored of it.
    pub fn agree(&self, kept: &State) -> std::result::Result<(), String> {
        let differs = |what: &dyn std::fmt::Debug, stored: &dyn std::fmt::Debug| {
            Err(format!("an engine keeps {what:?}, and stored is {stored:?}"))
        };
        for (id, account) in &kept.accounts {
            let stored = self.accounts.get(&id.sequence);
            if stored != Some(&(*id, account.clone())) {
                return differs(account, &stored);
            }
        }
        for (id, hold) in &kept.holds {
            let stored = self.holds.get(&id.sequence);
            if stored != Some(hold) {
                return differs(hold, &stored);
            }
        }
        for (currency, id) in &kept.settlements {
            let stored = self.accounts.get(&id.sequence).map(|(_, account)| (account.kind, account.currency));
            if stored != Some((AccountKind::Settlement, *currency)) {
                return differs(id, &stored);
            }
        }
        if kept.head == self.head { Ok(()) } else { differs(&kept.head, &self.head) }
    }

    pub fn original(&self, sequence: Sequence) -> Option<(JournalId, Original)> {
        let Booked { epoch, journal, entries, .. } =
            self.journals.get(&sequence).filter(|booked| !booked.entries.is_empty())?;
        let original = Original {
            kind: journal.kind,
            currency: journal.currency,
            amount: journal.amount,
            legs: entries.iter().map(|entry| (entry.account, entry.posted_delta)).collect(),
            reversed: self.reversed.contains(&sequence),
        };
        Some((JournalId { epoch: *epoch, sequence }, original))
    }
}

fn parsed<T: serde::de::DeserializeOwned>(detail: Option<&str>) -> Result<T> {
    serde_json::from_str(detail.unwrap_or_default()).map_err(|error| refused(error.to_string()))
}

fn word<T: serde::de::DeserializeOwned>(word: &str) -> Result<T> {
    serde_json::from_value(word.into()).map_err(|error: serde_json::Error| refused(error.to_string()))
}
