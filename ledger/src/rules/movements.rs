//! Movements: deposits, withdrawals, transfers, journals of several legs, reversals.

use std::collections::HashSet;

use super::{Change, Draft, Heading, ready};
use crate::batch::JournalKind;
use crate::command::{
    Authority, Command, JournalRecord, Memo, MovementStatus, NewTransfer, Outcome, Rejection, Transaction,
    TransactionType, Transfer,
};
use crate::id::{AccountId, JournalId, Leg, TransactionId};
use crate::money::{Amount, Currency, MAX_MINOR_UNITS};

impl Draft {
    /// A deposit or a withdrawal: between a customer and the outside world.
    pub(super) fn settle(
        &mut self,
        command: &Command,
        kind: JournalKind,
        id: AccountId,
        amount: Amount,
        currency: Currency,
        memo: &Memo,
    ) -> Result<Outcome, Rejection> {
        let minor_units = amount.minor_units();
        let account = self.acted_on(command, id)?;
        ready([account].into_iter(), currency)?;
        let (transaction_type, leg, signed) = match kind {
            JournalKind::Deposit => (TransactionType::Deposit, Leg::DESTINATION, minor_units),
            _ => (TransactionType::Withdrawal, Leg::SOURCE, -minor_units),
        };
        let spent = if signed < 0 { (minor_units, minor_units) } else { (0, 0) };
        let customer = Change { account: id, posted: signed, held: 0, spent };
        // Judged before the settlement account is opened, so that a refusal leaves nothing behind.
        account.changed(&customer, self.time.date())?;
        if self.state.head.sequence.next().and_then(crate::id::Sequence::next).is_none() {
            return Err(Rejection::LimitExceeded);
        }
        let settlement = Change::posted(self.settlement(command, currency)?, -signed);
        let changes = if leg == Leg::SOURCE { [customer, settlement] } else { [settlement, customer] };
        let heading =
            Heading { command, kind, currency, amount: minor_units, refers_to: None, memo: memo.clone(), detail: None };
        let journal = self.book(heading, &changes)?;
        Ok(Outcome::Transaction(Transaction {
            id: TransactionId { journal, leg },
            account_id: id,
            transaction_type,
            amount: signed,
            currency,
            balance_after: self.known(id)?.posted,
            memo: memo.clone(),
            status: MovementStatus::Completed,
            created_at: self.time,
            transfer_id: None,
        }))
    }

    pub(super) fn transfer(&mut self, command: &Command, asked: &NewTransfer) -> Result<Transfer, Rejection> {
        let &NewTransfer { from, to, amount, currency, ref memo } = asked;
        let source = self.acted_on(command, from)?;
        if from == to {
            return Err(Rejection::SameAccount);
        }
        ready([source, self.customer(to)?].into_iter(), currency)?;
        let minor_units = amount.minor_units();
        let changes = [
            Change { account: from, posted: -minor_units, held: 0, spent: (minor_units, minor_units) },
            Change::posted(to, minor_units),
        ];
        let heading = Heading {
            command,
            kind: JournalKind::Transfer,
            currency,
            amount: minor_units,
            refers_to: None,
            memo: memo.clone(),
            detail: None,
        };
        Ok(Transfer {
            id: self.book(heading, &changes)?.into(),
            status: MovementStatus::Completed,
            from_account_id: from,
            to_account_id: to,
            amount,
            currency,
            memo: memo.clone(),
            created_at: self.time,
        })
    }

    /// Each transfer by itself, or all or none.
    pub(super) fn bulk(&mut self, command: &Command, transfers: &[NewTransfer], atomic: bool) -> Outcome {
        let head = self.state.head;
        let (journals, entries) = (self.batch.journals.len(), self.batch.entries.len());
        self.undo = atomic.then(Vec::new);
        let mut outcomes = Vec::with_capacity(transfers.len());
        for (index, transfer) in transfers.iter().enumerate() {
            match self.transfer(command, transfer) {
                Err(rejection) if atomic => {
                    self.batch.journals.truncate(journals);
                    self.batch.entries.truncate(entries);
                    self.state.accounts.extend(self.undo.take().into_iter().flatten().rev());
                    self.state.head = head;
                    return Outcome::BulkRejected { index, rejection };
                }
                outcome => outcomes.push(outcome),
            }
        }
        self.undo = None;
        Outcome::Bulk(outcomes)
    }

    pub(super) fn journal(
        &mut self,
        command: &Command,
        legs: &[(AccountId, i64)],
        currency: Currency,
        memo: &Memo,
    ) -> Result<Outcome, Rejection> {
        if command.authority != Authority::Staff {
            return Err(Rejection::Forbidden);
        }
        let sum: i128 = legs.iter().map(|(_, gained)| i128::from(*gained)).sum();
        if !(2..=Leg::MAX).contains(&legs.len()) || sum != 0 || legs.iter().any(|(_, gained)| *gained == 0) {
            return Err(Rejection::Unbalanced);
        }
        if legs.iter().map(|(account, _)| account).collect::<HashSet<_>>().len() < legs.len() {
            return Err(Rejection::SameAccount);
        }
        self.post(command, JournalKind::Journal, None, legs, currency, memo)
    }

    pub(super) fn reverse(&mut self, command: &Command, id: JournalId, memo: &Memo) -> Result<Outcome, Rejection> {
        let original = self.state.originals.get(&id).ok_or(Rejection::NotFound)?;
        let (kind, currency, reversed) = (original.kind, original.currency, original.reversed);
        let legs: Vec<_> = original.legs.iter().map(|(account, gained)| (*account, -gained)).collect();
        if command.authority == Authority::Owner {
            // What a customer undoes is money that came in from another: whoever sent it may not take it back. What was
            // captured for nobody came to the bank, which is no customer.
            let gave = legs.iter().filter(|(_, gained)| *gained < 0).map(|(account, _)| *account);
            let all_own = gave.map(|account| self.acted_on(command, account)).collect::<Result<Vec<_>, _>>().is_ok();
            if !matches!(kind, JournalKind::Transfer | JournalKind::HoldCaptured) || !all_own {
                return Err(Rejection::NotFound);
            }
        }
        if !reversible(kind) {
            return Err(Rejection::NotReversible);
        }
        if reversed {
            return Err(Rejection::AlreadyReversed);
        }
        let outcome = self.post(command, JournalKind::Reversal, Some(id), &legs, currency, memo)?;
        if let Some(original) = self.state.originals.get_mut(&id) {
            original.reversed = true;
        }
        Ok(outcome)
    }

    fn post(
        &mut self,
        command: &Command,
        kind: JournalKind,
        reverses: Option<JournalId>,
        legs: &[(AccountId, i64)],
        currency: Currency,
        memo: &Memo,
    ) -> Result<Outcome, Rejection> {
        let accounts = legs.iter().map(|(account, _)| self.known(*account)).collect::<Result<Vec<_>, _>>()?;
        ready(accounts.iter().copied(), currency)?;
        let gained: i128 = legs.iter().map(|(_, gained)| i128::from(*gained).max(0)).sum();
        let amount =
            i64::try_from(gained).ok().filter(|sum| *sum <= MAX_MINOR_UNITS).ok_or(Rejection::LimitExceeded)?;
        let changes: Vec<_> = legs.iter().map(|(account, gained)| Change::posted(*account, *gained)).collect();
        let heading = Heading {
            command,
            kind,
            currency,
            amount,
            refers_to: reverses.map(|journal| journal.sequence),
            memo: memo.clone(),
            detail: None,
        };
        Ok(Outcome::Journal(JournalRecord {
            id: self.book(heading, &changes)?,
            reverses,
            amount,
            currency,
            legs: legs.to_vec(),
            memo: memo.clone(),
            created_at: self.time,
        }))
    }
}

/// Whether a journal of this kind moved money and can be undone.
const fn reversible(kind: JournalKind) -> bool {
    matches!(
        kind,
        JournalKind::Deposit
            | JournalKind::Withdrawal
            | JournalKind::Transfer
            | JournalKind::Journal
            | JournalKind::HoldCaptured
    )
}
