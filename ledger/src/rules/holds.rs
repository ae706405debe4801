//! Holds: money is set aside, then taken or released. A hold with a destination is a pending transfer.
//!
//! A hold counts against the account's limits when it is placed. What is released of it is given back if the day, and
//! the month, are still the same.

use time::OffsetDateTime;

use super::accounts::as_json;
use super::{Change, Draft, Heading, ready};
use crate::batch::{HoldDetail, JournalKind};
use crate::command::{Authority, Command, Hold, HoldStatus, Memo, Outcome, Rejection};
use crate::id::{AccountId, HoldId};
use crate::money::{Amount, Currency};

impl Draft {
    pub(super) fn place_hold(
        &mut self,
        command: &Command,
        (account, destination): (AccountId, Option<AccountId>),
        (amount, currency): (Amount, Currency),
        memo: &Memo,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<Outcome, Rejection> {
        let source = self.acted_on(command, account)?;
        if destination == Some(account) {
            return Err(Rejection::SameAccount);
        }
        let other = destination.map(|id| self.customer(id)).transpose()?;
        ready([source].into_iter().chain(other), currency)?;
        if expires_at.is_some_and(|time| time <= self.time) {
            return Err(Rejection::HoldExpired);
        }
        let expires_at = expires_at.map(OffsetDateTime::truncate_to_microsecond);
        let minor_units = amount.minor_units();
        let detail = HoldDetail { destination: destination.map(|id| id.sequence), expires_at };
        let heading = Heading {
            command,
            kind: JournalKind::HoldPlaced,
            currency,
            amount: minor_units,
            refers_to: None,
            memo: memo.clone(),
            detail: as_json(&detail).filter(|_| destination.is_some() || expires_at.is_some()),
        };
        let change = Change { account, posted: 0, held: minor_units, spent: (minor_units, minor_units) };
        let journal = self.book(heading, &[change])?;
        let id = HoldId { epoch: journal.epoch, sequence: journal.sequence };
        let hold = Hold {
            id,
            account_id: account,
            destination_id: destination,
            amount: minor_units,
            remaining: minor_units,
            captured: 0,
            currency,
            status: HoldStatus::Held,
            memo: memo.clone(),
            created_at: self.time,
            expires_at,
        };
        Ok(self.keep_hold(hold))
    }

    pub(super) fn capture_hold(
        &mut self,
        command: &Command,
        id: HoldId,
        amount: Option<Amount>,
        keep_rest: bool,
        memo: &Memo,
    ) -> Result<Outcome, Rejection> {
        let mut hold = self.settled_by(command, id)?;
        if hold.expires_at.is_some_and(|time| time <= self.time) {
            return Err(Rejection::HoldExpired);
        }
        let taken = amount.map_or(hold.remaining, Amount::minor_units);
        if taken > hold.remaining {
            return Err(Rejection::ExceedsHold);
        }
        let released = if keep_rest { taken } else { hold.remaining };
        let source = self.customer(hold.account_id)?;
        let currency = source.currency;
        let destination = hold.destination_id.map(|id| self.customer(id)).transpose()?;
        ready([source].into_iter().chain(destination), currency)?;
        let back = self.given_back(&hold, released - taken);
        let to = match hold.destination_id {
            Some(to) => to,
            // A hold can only be placed on an account that was paid into, so its settlement account exists; the place
            // for one more journal is asked for all the same.
            None if self.state.head.sequence.next().and_then(crate::id::Sequence::next).is_some() => {
                self.settlement(command, currency)?
            }
            None => return Err(Rejection::LimitExceeded),
        };
        let heading = Heading {
            command,
            kind: JournalKind::HoldCaptured,
            currency,
            amount: taken,
            refers_to: Some(id.sequence),
            memo: memo.clone(),
            detail: None,
        };
        let changes = [
            Change { account: hold.account_id, posted: -taken, held: -released, spent: back },
            Change::posted(to, taken),
        ];
        self.book(heading, &changes)?;
        hold.captured += taken;
        hold.remaining -= released;
        if hold.remaining == 0 {
            hold.status = HoldStatus::Captured;
        }
        Ok(self.keep_hold(hold))
    }

    /// Sets free what is left of a hold.
    pub(super) fn release_hold(
        &mut self,
        command: &Command,
        id: HoldId,
        kind: JournalKind,
    ) -> Result<Outcome, Rejection> {
        let mut hold = self.settled_by(command, id)?;
        let expires = kind == JournalKind::HoldExpired;
        if expires && hold.expires_at.is_none_or(|time| time > self.time) {
            return Err(Rejection::HoldExpired);
        }
        let account = self.customer(hold.account_id)?;
        let heading = Heading {
            command,
            kind,
            currency: account.currency,
            amount: hold.remaining,
            refers_to: Some(id.sequence),
            memo: Memo::default(),
            detail: None,
        };
        let spent = self.given_back(&hold, hold.remaining);
        self.book(heading, &[Change { account: hold.account_id, posted: 0, held: -hold.remaining, spent }])?;
        hold.remaining = 0;
        hold.status = match (hold.captured, expires) {
            (1.., _) => HoldStatus::Captured,
            (_, true) => HoldStatus::Expired,
            (_, false) => HoldStatus::Voided,
        };
        Ok(self.keep_hold(hold))
    }

    /// A hold that the principal may settle, and of which something is left. What a customer may settle is what goes to
    /// another customer; other holds are the bank's business.
    fn settled_by(&self, command: &Command, id: HoldId) -> Result<Hold, Rejection> {
        let hold = self.state.holds.get(&id).ok_or(Rejection::NotFound)?;
        self.acted_on(command, hold.account_id)?;
        if command.authority == Authority::Owner && hold.destination_id.is_none() {
            return Err(Rejection::Forbidden);
        }
        if hold.status == HoldStatus::Held { Ok(hold.clone()) } else { Err(Rejection::HoldSettled) }
    }

    /// What a release takes off the account's counters of the day and of the month.
    fn given_back(&self, hold: &Hold, released: i64) -> (i64, i64) {
        let (placed, now) = (hold.created_at.date(), self.time.date());
        let same_month = (placed.year(), placed.month()) == (now.year(), now.month());
        (if placed == now { -released } else { 0 }, if same_month { -released } else { 0 })
    }

    fn keep_hold(&mut self, hold: Hold) -> Outcome {
        self.state.holds.insert(hold.id, hold.clone());
        Outcome::Hold(hold)
    }
}
