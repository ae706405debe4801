//! Looks at every commit, keeps books of its own from entries alone, and says what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use finaiflow_ledger::batch::{Entry, JournalKind};
use finaiflow_ledger::chain::{self, Hash, Link, LinkEntry};
use finaiflow_ledger::command::{AccountKind, HoldStatus};
use finaiflow_ledger::id::Sequence;
use finaiflow_ledger::money::{Currency, MAX_MINOR_UNITS};
use time::{Date, OffsetDateTime};

use crate::model::{Booked, Tables};

type Found = Result<(), String>;

/// The ledger as its journals and entries alone have it.
#[derive(Clone)]
pub struct Auditor {
    epoch: u32,
    sequence: i64,
    hash: Hash,
    time: OffsetDateTime,
    accounts: BTreeMap<Sequence, Account>,
    holds: BTreeMap<Sequence, Hold>,
    totals: BTreeMap<Currency, i128>,
    reversed: BTreeSet<Sequence>,
    /// The journals of each reference, which a client uses once.
    pub references: BTreeMap<String, Vec<Sequence>>,
}

#[derive(Clone, Default)]
struct Account {
    version: i64,
    posted: i64,
    held: i64,
    /// What left it when.
    spendings: Vec<(Date, i64)>,
}

#[derive(Clone)]
struct Hold {
    placed: Date,
    remaining: i64,
    captured: i64,
}

fn ensure(holds: bool, wrong: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(wrong()) }
}

impl Auditor {
    pub fn new(epoch: u32, time: OffsetDateTime) -> Self {
        Self {
            epoch,
            sequence: 0,
            hash: Hash::default(),
            time,
            accounts: BTreeMap::new(),
            holds: BTreeMap::new(),
            totals: BTreeMap::new(),
            reversed: BTreeSet::new(),
            references: BTreeMap::new(),
        }
    }

    /// The ledger was restored to where this auditor saw it.
    pub fn restored(&mut self, epoch: u32) {
        self.epoch = epoch;
    }

    /// What a commit has added, and the tables after it.
    pub fn batch(&mut self, tables: &Tables, added: &[Booked], time: OffsetDateTime) -> Found {
        ensure(time > self.time, || format!("a batch at {time} after one at {}", self.time))?;
        self.time = time;
        let mut touched = BTreeSet::new();
        for booked in added {
            let sequence = booked.journal.sequence;
            self.journal(tables, booked).map_err(|wrong| format!("journal {sequence}: {wrong}"))?;
            touched.extend(booked.entries.iter().map(|entry| entry.account.sequence));
        }
        ensure(self.totals.values().all(|total| *total == 0), || format!("totals are {:?}", self.totals))?;
        let head = tables.head;
        let seen = (head.epoch, i64::from(head.sequence), head.time, head.hash);
        let own = (self.epoch, self.sequence, self.time, self.hash);
        ensure(seen == own, || format!("the head is {seen:?}, not {own:?}"))?;
        touched.into_iter().try_for_each(|id| self.account(tables, id))
    }

    fn journal(&mut self, tables: &Tables, booked: &Booked) -> Found {
        let Booked { epoch, at, journal, entries } = booked;
        ensure(*epoch == self.epoch, || format!("of epoch {epoch} in epoch {}", self.epoch))?;
        self.sequence += 1;
        ensure(i64::from(journal.sequence) == self.sequence, || format!("where {} should be", self.sequence))?;
        let link = Link {
            epoch: *epoch,
            sequence: journal.sequence,
            booked_at: *at,
            kind: journal.kind.as_str(),
            actor: journal.actor,
            currency: journal.currency.code(),
            amount: journal.amount,
            refers_to: journal.refers_to,
            value_date: journal.memo.value_date,
            detail: journal.detail.as_deref(),
            commitment: journal.salt.and_then(|salt| chain::commitment(&salt, &journal.memo)),
        };
        self.hash = chain::hash(self.hash, &link, entries.iter().map(LinkEntry::from));
        ensure(journal.hash == self.hash, || "its hash does not follow".to_owned())?;
        let sum: i128 = entries.iter().map(|entry| i128::from(entry.posted_delta)).sum();
        ensure(sum == 0, || format!("it adds up to {sum}"))?;
        self.limits(booked);
        entries.iter().try_for_each(|entry| self.entry(tables, journal.currency, entry))?;
        self.holds(booked)?;
        if journal.kind == JournalKind::Reversal {
            let first = self.reversed.insert(journal.refers_to.unwrap_or_default());
            ensure(first, || "reversed again".to_owned())?;
        }
        if let Some(reference) = &journal.memo.reference {
            let journals = self.references.entry(reference.clone()).or_default();
            journals.push(journal.sequence);
            ensure(journals.len() == 1, || format!("{reference} was booked in {journals:?}"))?;
        }
        Ok(())
    }

    fn entry(&mut self, tables: &Tables, currency: Currency, entry: &Entry) -> Found {
        let id = entry.account.sequence;
        let account = self.accounts.entry(id).or_default();
        account.version += 1;
        account.posted += entry.posted_delta;
        account.held += entry.held_delta;
        let own = (account.version, account.posted, account.held);
        let said = (entry.seq, entry.posted_after, entry.held_after);
        ensure(own == said, || format!("account {id} is {own:?} by its entries, and said to be {said:?}"))?;
        *self.totals.entry(currency).or_default() += i128::from(entry.posted_delta);
        let Some((_, row)) = tables.accounts.get(&id) else { return Err(format!("there is no account {id}")) };
        ensure(row.currency == currency, || format!("account {id} is in {}", row.currency))?;
        ensure(account.posted.abs() <= MAX_MINOR_UNITS && account.held >= 0, || format!("{id}: {own:?}"))?;
        if let Some(limits) = row.limits
            && entry.posted_delta < entry.held_delta
        {
            let floor = account.posted - account.held >= limits.minimum_balance;
            ensure(floor, || format!("account {id} is overdrawn: {own:?}, {limits:?}"))?;
        }
        Ok(())
    }

    /// Notes what leaves an account, as the rules of its limits have it.
    fn limits(&mut self, booked: &Booked) {
        let Booked { journal, entries, at, .. } = booked;
        let spent = match journal.kind {
            JournalKind::Withdrawal | JournalKind::Transfer | JournalKind::HoldPlaced => (at.date(), journal.amount),
            JournalKind::HoldCaptured | JournalKind::HoldVoided | JournalKind::HoldExpired => {
                let placed = journal.refers_to.and_then(|id| self.holds.get(&id)).map_or(at.date(), |hold| hold.placed);
                (placed, entries[0].held_delta - entries[0].posted_delta)
            }
            _ => return,
        };
        self.accounts.entry(entries[0].account.sequence).or_default().spendings.push(spent);
    }

    fn holds(&mut self, booked: &Booked) -> Found {
        let Booked { journal, entries, at, .. } = booked;
        match journal.kind {
            JournalKind::HoldPlaced => {
                let hold = Hold { placed: at.date(), remaining: journal.amount, captured: 0 };
                self.holds.insert(journal.sequence, hold);
                Ok(())
            }
            JournalKind::HoldCaptured | JournalKind::HoldVoided | JournalKind::HoldExpired => {
                let hold = journal.refers_to.and_then(|id| self.holds.get_mut(&id)).ok_or("of no hold")?;
                hold.remaining += entries[0].held_delta;
                hold.captured -= entries[0].posted_delta;
                ensure(hold.remaining >= 0, || "more was released than was held".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn account(&self, tables: &Tables, id: Sequence) -> Found {
        let (own, (_, row)) = (&self.accounts[&id], &tables.accounts[&id]);
        let balances = (own.version, own.posted, own.held);
        let kept = (row.version, row.posted, row.held);
        ensure(balances == kept, || format!("account {id} is {balances:?} by its entries, and kept as {kept:?}"))?;
        let on = row.spent.on;
        let sum = |within: &dyn Fn(Date) -> bool| -> i64 {
            own.spendings.iter().filter(|(day, _)| within(*day)).map(|(_, amount)| amount).sum()
        };
        let month = |day: Date| (day.year(), day.month());
        let spent = (sum(&|day| day == on), sum(&|day| month(day) == month(on)));
        let counted = (row.spent.day, row.spent.month);
        ensure(spent == counted || row.kind != AccountKind::Customer, || {
            format!("{spent:?} left account {id} by {on}, and {counted:?} is counted")
        })
    }

    /// Everything once more, at the end.
    pub fn end(&self, tables: &Tables) -> Found {
        self.accounts.keys().try_for_each(|id| self.account(tables, *id))?;
        for (id, (_, row)) in &tables.accounts {
            let moved = self.accounts.contains_key(id) || (row.posted, row.held, row.version) == (0, 0, 0);
            ensure(moved, || format!("account {id} has a balance and no entries"))?;
        }
        for (id, row) in &tables.holds {
            let own = self.holds.get(id).map(|hold| (hold.remaining, hold.captured));
            ensure(own == Some((row.remaining, row.captured)), || format!("hold {id} is {row:?}, not {own:?}"))?;
            ensure((row.status == HoldStatus::Held) == (row.remaining > 0), || format!("hold {id} is {row:?}"))?;
        }
        for (id, account) in &self.accounts {
            let held: i64 =
                tables.holds.values().filter(|hold| hold.account_id.sequence == *id).map(|hold| hold.remaining).sum();
            ensure(held == account.held, || format!("account {id} has {} held, its holds {held}", account.held))?;
        }
        let dense = tables.journals.keys().zip(1_i64..).all(|(sequence, nth)| i64::from(*sequence) == nth);
        ensure(dense && i64::try_from(tables.journals.len()) == Ok(self.sequence), || "journals are missing".to_owned())
    }
}
