//! The same rules written for reading: wide integers, linear searches, one command at a time. What has left an account
//! is a list of what left when, not two counters.

use super::*;

#[derive(Default)]
pub(super) struct Oracle {
    next: i64,
    now: Option<OffsetDateTime>,
    pub(super) accounts: BTreeMap<i64, Account>,
    pub(super) holds: BTreeMap<i64, Held>,
    pub(super) journals: BTreeMap<i64, Booked>,
    /// Account, day and how much.
    spendings: Vec<(i64, Date, i128)>,
    keys: Vec<(Uuid, String, u8, OffsetDateTime, Verdict)>,
}

#[derive(Clone)]
pub(super) struct Account {
    kind: AccountKind,
    owner: Option<Uuid>,
    currency: Currency,
    status: AccountStatus,
    limits: Limits,
    pub(super) balance: i128,
    pub(super) held: i128,
    name: String,
    metadata: Metadata,
}

pub(super) struct Held {
    account: i64,
    to: Option<i64>,
    placed: Date,
    remaining: i128,
    captured: i128,
    status: HoldStatus,
    expires_at: Option<OffsetDateTime>,
}

pub(super) struct Booked {
    kind: JournalKind,
    currency: Currency,
    legs: Vec<(i64, i128)>,
    reversed: bool,
}

/// What matters of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Opened(i64),
    Changed(AccountStatus, Limits, String, Metadata),
    /// A deposit or withdrawal, and the balance after it.
    Settled(i64, i128),
    Transferred(i64),
    Bulk(Vec<Result<i64, Rejection>>),
    BulkRefused(usize, Rejection),
    Journal(i64),
    Hold(i64, i128, i128, HoldStatus),
    Refused(Rejection),
    Reused,
}

type Judged<T> = Result<T, Rejection>;

const FULL: i128 = MAX_MINOR_UNITS as i128;

fn number(id: AccountId) -> i64 {
    id.sequence.into()
}

impl Oracle {
    pub(super) fn answer(&mut self, command: &Command, now: OffsetDateTime) -> Verdict {
        self.now = Some(now);
        let [fingerprint, ..] = command.fingerprint;
        let key = self
            .keys
            .iter()
            .find(|(who, key, _, until, _)| *who == command.principal && *key == command.key && *until > now);
        if let Some((_, _, first, _, verdict)) = key {
            return if *first == fingerprint { verdict.clone() } else { Verdict::Reused };
        }
        let verdict = self.decide(command).unwrap_or_else(Verdict::Refused);
        if !matches!(verdict, Verdict::Refused(Rejection::NotFound | Rejection::Forbidden)) {
            let key = (command.principal, command.key.clone(), fingerprint, now + KEY_LIFETIME, verdict.clone());
            self.keys.push(key);
        }
        verdict
    }

    fn decide(&mut self, command: &Command) -> Judged<Verdict> {
        let is_staff = command.authority == Authority::Staff;
        match &command.kind {
            CommandKind::OpenAccount { owner, currency, name, metadata, .. } => {
                require(is_staff || *owner == command.principal, Rejection::Forbidden)?;
                let id = self.open(AccountKind::Customer, Some(*owner), *currency);
                let account = self.accounts.get_mut(&id).unwrap();
                (account.name, account.metadata) = (name.clone(), metadata.clone());
                Ok(Verdict::Opened(id))
            }
            CommandKind::OpenInternal { kind, currency, .. } => {
                require(is_staff && *kind != AccountKind::Customer, Rejection::Forbidden)?;
                let taken = *kind == AccountKind::Settlement && self.settlement(*currency).is_some();
                require(!taken, Rejection::StatusConflict)?;
                Ok(Verdict::Opened(self.open(*kind, None, *currency)))
            }
            CommandKind::ChangeAccount { account, change } => self.change(command, number(*account), change),
            CommandKind::Deposit { account, amount, currency, .. } => {
                self.settle(command, number(*account), amount.minor_units().into(), *currency)
            }
            CommandKind::Withdraw { account, amount, currency, .. } => {
                self.settle(command, number(*account), -i128::from(amount.minor_units()), *currency)
            }
            CommandKind::Transfer(asked) => self.transfer(command, asked).map(Verdict::Transferred),
            CommandKind::Bulk { transfers, atomic } => Ok(self.bulk(command, transfers, *atomic)),
            CommandKind::Journal { legs, currency, .. } => {
                require(is_staff, Rejection::Forbidden)?;
                let legs: Vec<_> = legs.iter().map(|(id, gained)| (number(*id), i128::from(*gained))).collect();
                let sum: i128 = legs.iter().map(|leg| leg.1).sum();
                let sound = (2..=62).contains(&legs.len()) && sum == 0 && legs.iter().all(|leg| leg.1 != 0);
                require(sound, Rejection::Unbalanced)?;
                let twice = legs.iter().any(|(id, _)| legs.iter().filter(|other| other.0 == *id).count() > 1);
                require(!twice, Rejection::SameAccount)?;
                self.post(JournalKind::Journal, &legs, *currency).map(Verdict::Journal)
            }
            CommandKind::Reverse { journal, .. } => self.reverse(command, journal.sequence.into()),
            CommandKind::PlaceHold { .. } => self.place(command),
            CommandKind::CaptureHold { hold, amount, keep_rest, .. } => {
                let amount = amount.map(|amount| amount.minor_units().into());
                self.capture(command, hold.sequence.into(), amount, *keep_rest)
            }
            CommandKind::VoidHold { hold } => self.release(command, hold.sequence.into(), JournalKind::HoldVoided),
            CommandKind::ExpireHold { hold } => self.release(command, hold.sequence.into(), JournalKind::HoldExpired),
        }
    }

    fn today(&self) -> Date {
        self.now.unwrap().date()
    }

    fn take(&mut self) -> i64 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, kind: AccountKind, owner: Option<Uuid>, currency: Currency) -> i64 {
        let id = self.take();
        let (status, limits, name) = (AccountStatus::Active, Limits::default(), String::new());
        let account =
            Account { kind, owner, currency, status, limits, balance: 0, held: 0, name, metadata: Metadata::new() };
        self.accounts.insert(id, account);
        id
    }

    fn settlement(&self, currency: Currency) -> Option<i64> {
        let is = |account: &Account| account.kind == AccountKind::Settlement && account.currency == currency;
        self.accounts.iter().find(|(_, account)| is(account)).map(|(id, _)| *id)
    }

    fn customer(&self, id: i64) -> Judged<&Account> {
        let account = self.accounts.get(&id).filter(|account| account.kind == AccountKind::Customer);
        account.ok_or(Rejection::NotFound)
    }

    fn own(&self, command: &Command, id: i64) -> Judged<&Account> {
        let account = self.customer(id)?;
        let may = command.authority == Authority::Staff || account.owner == Some(command.principal);
        require(may, Rejection::NotFound)?;
        Ok(account)
    }

    fn ready(&self, ids: &[i64], currency: Currency) -> Judged<()> {
        let all = |test: &dyn Fn(&Account) -> bool| ids.iter().all(|id| test(&self.accounts[id]));
        require(all(&|account| account.status == AccountStatus::Active), Rejection::AccountNotActive)?;
        require(all(&|account| account.currency == currency), Rejection::CurrencyMismatch)
    }

    fn spent(&self, id: i64, within: impl Fn(Date) -> bool) -> i128 {
        self.spendings.iter().filter(|(account, day, _)| *account == id && within(*day)).map(|spent| spent.2).sum()
    }

    /// Whether an account may gain `posted` and have `held` more set aside, of which `spent` counts.
    fn judge(&self, id: i64, posted: i128, held: i128, spent: i128) -> Judged<()> {
        let account = &self.accounts[&id];
        let (balance, all_held) = (account.balance + posted, account.held + held);
        require(balance.abs() <= FULL && (0..=FULL).contains(&all_held), Rejection::LimitExceeded)?;
        if account.kind != AccountKind::Customer {
            return Ok(());
        }
        let limits = account.limits;
        let floor = posted >= held || balance - all_held >= limits.minimum_balance.into();
        require(floor, Rejection::InsufficientFunds)?;
        if spent == 0 {
            return Ok(());
        }
        let (today, month) = (self.today(), |day: Date| (day.year(), day.month()));
        let limited = [
            (limits.per_transaction, 0),
            (limits.daily, self.spent(id, |day| day == today)),
            (limits.monthly, self.spent(id, |day| month(day) == month(today))),
        ];
        let within = limited.iter().all(|(limit, before)| limit.is_none_or(|limit| before + spent <= limit.into()));
        require(within, Rejection::SpendingLimitExceeded)
    }

    /// Books legs that have been judged.
    fn book(&mut self, kind: JournalKind, currency: Currency, legs: &[(i64, i128)]) -> i64 {
        for (id, gained) in legs {
            self.accounts.get_mut(id).unwrap().balance += gained;
        }
        let id = self.take();
        self.journals.insert(id, Booked { kind, currency, legs: legs.to_vec(), reversed: false });
        id
    }

    fn settle(&mut self, command: &Command, id: i64, gained: i128, currency: Currency) -> Judged<Verdict> {
        self.own(command, id)?;
        self.ready(&[id], currency)?;
        let spent = (-gained).max(0);
        self.judge(id, gained, 0, spent)?;
        let outside = match self.settlement(currency) {
            Some(outside) => outside,
            None => self.open(AccountKind::Settlement, None, currency),
        };
        self.judge(outside, -gained, 0, 0)?;
        self.spendings.push((id, self.today(), spent));
        let journal = if gained < 0 {
            self.book(JournalKind::Withdrawal, currency, &[(id, gained), (outside, -gained)])
        } else {
            self.book(JournalKind::Deposit, currency, &[(outside, -gained), (id, gained)])
        };
        Ok(Verdict::Settled(journal, self.accounts[&id].balance))
    }

    fn transfer(&mut self, command: &Command, asked: &NewTransfer) -> Judged<i64> {
        let (from, to, amount) = (number(asked.from), number(asked.to), i128::from(asked.amount.minor_units()));
        self.own(command, from)?;
        require(from != to, Rejection::SameAccount)?;
        self.customer(to)?;
        self.ready(&[from, to], asked.currency)?;
        self.judge(from, -amount, 0, amount)?;
        self.judge(to, amount, 0, 0)?;
        self.spendings.push((from, self.today(), amount));
        Ok(self.book(JournalKind::Transfer, asked.currency, &[(from, -amount), (to, amount)]))
    }

    fn bulk(&mut self, command: &Command, transfers: &[NewTransfer], atomic: bool) -> Verdict {
        let (next, accounts, spendings) = (self.next, self.accounts.clone(), self.spendings.clone());
        let mut results = Vec::new();
        for (index, transfer) in transfers.iter().enumerate() {
            match self.transfer(command, transfer) {
                Err(rejection) if atomic => {
                    (self.next, self.accounts, self.spendings) = (next, accounts, spendings);
                    self.journals.retain(|id, _| *id <= next);
                    return Verdict::BulkRefused(index, rejection);
                }
                result => results.push(result),
            }
        }
        Verdict::Bulk(results)
    }

    fn post(&mut self, kind: JournalKind, legs: &[(i64, i128)], currency: Currency) -> Judged<i64> {
        let ids: Vec<_> = legs.iter().map(|leg| leg.0).collect();
        require(ids.iter().all(|id| self.accounts.contains_key(id)), Rejection::NotFound)?;
        self.ready(&ids, currency)?;
        let moved: i128 = legs.iter().map(|leg| leg.1.max(0)).sum();
        require(moved <= FULL, Rejection::LimitExceeded)?;
        for (id, gained) in legs {
            self.judge(*id, *gained, 0, 0)?;
        }
        Ok(self.book(kind, currency, legs))
    }

    fn reverse(&mut self, command: &Command, id: i64) -> Judged<Verdict> {
        let original = self.journals.get(&id).ok_or(Rejection::NotFound)?;
        if command.authority == Authority::Owner {
            let received = [JournalKind::Transfer, JournalKind::HoldCaptured].contains(&original.kind);
            require(received, Rejection::NotFound)?;
            self.own(command, original.legs[1].0)?;
        }
        let never = [JournalKind::Reversal, JournalKind::HoldPlaced, JournalKind::HoldVoided, JournalKind::HoldExpired];
        require(!never.contains(&original.kind), Rejection::NotReversible)?;
        require(!original.reversed, Rejection::AlreadyReversed)?;
        let legs: Vec<_> = original.legs.iter().map(|(account, gained)| (*account, -gained)).collect();
        let reversal = self.post(JournalKind::Reversal, &legs, original.currency)?;
        self.journals.get_mut(&id).unwrap().reversed = true;
        Ok(Verdict::Journal(reversal))
    }

    fn place(&mut self, command: &Command) -> Judged<Verdict> {
        let CommandKind::PlaceHold { account, destination, amount, currency, expires_at, .. } = &command.kind else {
            panic!("not a hold");
        };
        let (account, to, amount) = (number(*account), destination.map(number), i128::from(amount.minor_units()));
        self.own(command, account)?;
        require(to != Some(account), Rejection::SameAccount)?;
        to.map(|to| self.customer(to)).transpose()?;
        self.ready(&[account].into_iter().chain(to).collect::<Vec<_>>(), *currency)?;
        require(expires_at.is_none_or(|time| time > self.now.unwrap()), Rejection::HoldExpired)?;
        self.judge(account, 0, amount, amount)?;
        self.accounts.get_mut(&account).unwrap().held += amount;
        self.spendings.push((account, self.today(), amount));
        let id = self.book(JournalKind::HoldPlaced, *currency, &[(account, 0)]);
        let (placed, expires_at) = (self.today(), *expires_at);
        let held = Held { account, to, placed, remaining: amount, captured: 0, status: HoldStatus::Held, expires_at };
        self.holds.insert(id, held);
        Ok(self.hold(id))
    }

    fn hold(&self, id: i64) -> Verdict {
        let hold = &self.holds[&id];
        Verdict::Hold(id, hold.remaining, hold.captured, hold.status)
    }

    fn settles(&self, command: &Command, id: i64) -> Judged<&Held> {
        let hold = self.holds.get(&id).ok_or(Rejection::NotFound)?;
        self.own(command, hold.account)?;
        require(command.authority == Authority::Staff || hold.to.is_some(), Rejection::Forbidden)?;
        require(hold.status == HoldStatus::Held, Rejection::HoldSettled)?;
        Ok(hold)
    }

    fn capture(&mut self, command: &Command, id: i64, amount: Option<i128>, keep_rest: bool) -> Judged<Verdict> {
        let hold = self.settles(command, id)?;
        require(hold.expires_at.is_none_or(|time| time > self.now.unwrap()), Rejection::HoldExpired)?;
        let (account, to, all) = (hold.account, hold.to, hold.remaining);
        let taken = amount.unwrap_or(all);
        require(taken <= all, Rejection::ExceedsHold)?;
        let currency = self.accounts[&account].currency;
        self.ready(&[account].into_iter().chain(to).collect::<Vec<_>>(), currency)?;
        let to = match to.or_else(|| self.settlement(currency)) {
            Some(to) => to,
            None => self.open(AccountKind::Settlement, None, currency),
        };
        let released = if keep_rest { taken } else { all };
        self.judge(account, -taken, -released, 0)?;
        self.judge(to, taken, 0, 0)?;
        self.free(id, released, released - taken);
        let hold = self.holds.get_mut(&id).unwrap();
        hold.captured += taken;
        if hold.remaining == 0 {
            hold.status = HoldStatus::Captured;
        }
        self.book(JournalKind::HoldCaptured, currency, &[(account, -taken), (to, taken)]);
        Ok(self.hold(id))
    }

    fn release(&mut self, command: &Command, id: i64, kind: JournalKind) -> Judged<Verdict> {
        let hold = self.settles(command, id)?;
        let expires = kind == JournalKind::HoldExpired;
        let due = hold.expires_at.is_some_and(|time| time <= self.now.unwrap());
        require(due || !expires, Rejection::HoldExpired)?;
        let (account, all) = (hold.account, hold.remaining);
        self.free(id, all, all);
        let hold = self.holds.get_mut(&id).unwrap();
        hold.status = match (hold.captured, expires) {
            (1.., _) => HoldStatus::Captured,
            (_, true) => HoldStatus::Expired,
            (_, false) => HoldStatus::Voided,
        };
        let currency = self.accounts[&account].currency;
        self.book(kind, currency, &[(account, 0)]);
        Ok(self.hold(id))
    }

    /// Releases part of a hold. What was not taken had not left the account on the day it was held after all.
    fn free(&mut self, id: i64, released: i128, untouched: i128) {
        let hold = self.holds.get_mut(&id).unwrap();
        hold.remaining -= released;
        self.accounts.get_mut(&hold.account).unwrap().held -= released;
        self.spendings.push((hold.account, hold.placed, -untouched));
    }

    fn change(&mut self, command: &Command, id: i64, change: &AccountChange) -> Judged<Verdict> {
        let before = self.own(command, id)?.clone();
        let is_staff = command.authority == Authority::Staff;
        let anybody = matches!(change, AccountChange::Describe { .. } | AccountChange::Close { .. });
        require(is_staff || anybody, Rejection::Forbidden)?;
        require(before.status != AccountStatus::Closed, Rejection::StatusConflict)?;
        let mut after = before.clone();
        match change {
            AccountChange::Describe { name, metadata } => {
                after.name = name.clone().unwrap_or(after.name);
                after.metadata = metadata.clone().unwrap_or(after.metadata);
            }
            AccountChange::Freeze { .. } => {
                require(before.status == AccountStatus::Active, Rejection::StatusConflict)?;
                after.status = AccountStatus::Frozen;
            }
            AccountChange::Unfreeze { .. } => {
                require(before.status == AccountStatus::Frozen, Rejection::StatusConflict)?;
                after.status = AccountStatus::Active;
            }
            AccountChange::Close { .. } => {
                require(is_staff || before.status == AccountStatus::Active, Rejection::StatusConflict)?;
                require(before.balance == 0 && before.held == 0, Rejection::AccountNotEmpty)?;
                after.status = AccountStatus::Closed;
            }
            AccountChange::Limit(limits) => after.limits = *limits,
        }
        self.take();
        let verdict = Verdict::Changed(after.status, after.limits, after.name.clone(), after.metadata.clone());
        self.accounts.insert(id, after);
        Ok(verdict)
    }
}

fn require(holds: bool, otherwise: Rejection) -> Judged<()> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// An answer of the rules in the oracle's words.
pub(super) fn verdict(answer: &Answer) -> Verdict {
    let outcome = match answer {
        Answer::KeyReused => return Verdict::Reused,
        Answer::Decided(outcome) | Answer::Replayed(outcome) => outcome,
    };
    match outcome {
        Outcome::AccountOpened(account) => Verdict::Opened(number(account.id)),
        Outcome::InternalOpened(id) => Verdict::Opened(number(*id)),
        Outcome::AccountChanged(account) => {
            Verdict::Changed(account.status, account.limits, account.name.clone(), account.metadata.clone())
        }
        Outcome::Transaction(done) => Verdict::Settled(done.id.journal.sequence.into(), done.balance_after.into()),
        Outcome::Transfer(transfer) => Verdict::Transferred(transfer.id.sequence.into()),
        Outcome::Bulk(results) => {
            let told = |result: &Result<crate::command::Transfer, _>| {
                result.as_ref().map(|transfer| transfer.id.sequence.into()).map_err(|rejection| *rejection)
            };
            Verdict::Bulk(results.iter().map(told).collect())
        }
        Outcome::BulkRejected { index, rejection } => Verdict::BulkRefused(*index, *rejection),
        Outcome::Journal(journal) => Verdict::Journal(journal.id.sequence.into()),
        Outcome::Hold(hold) => {
            Verdict::Hold(hold.id.sequence.into(), hold.remaining.into(), hold.captured.into(), hold.status)
        }
        Outcome::Rejected(rejection) => Verdict::Refused(*rejection),
    }
}
