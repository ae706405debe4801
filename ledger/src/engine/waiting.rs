//! Who waits for a batch, so that neither many callers nor one account keep the others out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::QUEUE_LENGTH;
use crate::command::{CommandKind, NewTransfer};
use crate::id::AccountId;

/// Movements that may wait; a bulk counts each of its transfers.
const MAX_MOVEMENTS: usize = 4 * QUEUE_LENGTH;

/// Of these, what may take from one account.
const MAX_PER_ACCOUNT: usize = MAX_MOVEMENTS / 4;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    movements: AtomicUsize,
    by_account: Mutex<HashMap<AccountId, usize>>,
}

/// A place among those who wait, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    waiting: Arc<Waiting>,
    account: Option<AccountId>,
    movements: usize,
}

impl Waiting {
    /// A place for a command; none when too many wait, in all or for its account.
    pub(super) fn enter(waiting: &Arc<Self>, kind: &CommandKind) -> Option<Slot> {
        let (account, movements) = (debited(kind), movements(kind));
        let before = waiting.movements.fetch_add(movements, Ordering::Relaxed);
        let mut slot = Slot { waiting: Arc::clone(waiting), account: None, movements };
        // A lone bulk is let in whatever its size.
        if before > 0 && before + movements > MAX_MOVEMENTS {
            return None;
        }
        if let Some(account) = account {
            let mut by_account = waiting.by_account.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_account.entry(account).or_default();
            if *count > 0 && *count + movements > MAX_PER_ACCOUNT {
                return None;
            }
            *count += movements;
            slot.account = Some(account);
        }
        Some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.waiting.movements.fetch_sub(self.movements, Ordering::Relaxed);
        if let Some(account) = self.account {
            let mut by_account = self.waiting.by_account.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_account.get_mut(&account) {
                *count -= self.movements;
                if *count == 0 {
                    by_account.remove(&account);
                }
            }
        }
    }
}

/// How many movements a command asks for.
pub(super) fn movements(kind: &CommandKind) -> usize {
    match kind {
        CommandKind::Bulk { transfers, .. } => transfers.len().max(1),
        _ => 1,
    }
}

/// The account that a command takes money from: whoever floods it waits by himself. Where money comes in, a busy
/// account is nobody's fault. A bulk counts for the account of its first transfer.
fn debited(kind: &CommandKind) -> Option<AccountId> {
    match kind {
        CommandKind::Withdraw { account, .. }
        | CommandKind::PlaceHold { account, .. }
        | CommandKind::ChangeAccount { account, .. }
        | CommandKind::Transfer(NewTransfer { from: account, .. }) => Some(*account),
        CommandKind::Bulk { transfers, .. } => transfers.first().map(|transfer| transfer.from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Memo;
    use crate::id::Sequence;

    fn transfers(from: i64, count: usize) -> CommandKind {
        let account = |number| AccountId { epoch: 1, sequence: Sequence::try_from(number).unwrap() };
        let transfer = NewTransfer {
            from: account(from),
            to: account(9),
            amount: 1.try_into().unwrap(),
            currency: "USD".parse().unwrap(),
            memo: Memo::default(),
        };
        CommandKind::Bulk { transfers: vec![transfer; count], atomic: false }
    }

    #[test]
    fn one_account_cannot_take_every_place() {
        let waiting = Arc::new(Waiting::default());
        let enter = |account, count| Waiting::enter(&waiting, &transfers(account, count));
        let flood: Vec<_> = (0..MAX_PER_ACCOUNT / 500).map_while(|_| enter(1, 500)).collect();
        assert_eq!(flood.len(), MAX_PER_ACCOUNT / 500);
        assert!(enter(1, 500).is_none(), "its share is taken");
        assert!(enter(2, 500).is_some(), "others come in");
        drop(flood);
        assert!(enter(1, 500).is_some());
        assert_eq!(waiting.movements.load(Ordering::Relaxed), 0, "every place is given back");
        assert!(waiting.by_account.lock().unwrap().is_empty());
    }

    #[test]
    fn places_end_for_all_together() {
        let waiting = Arc::new(Waiting::default());
        let taken: Vec<_> = (0..).map_while(|account| Waiting::enter(&waiting, &transfers(account, 500))).collect();
        assert_eq!(taken.len(), MAX_MOVEMENTS / 500);
        assert!(Waiting::enter(&waiting, &transfers(-0, MAX_MOVEMENTS)).is_none());
        drop(taken);
        assert!(Waiting::enter(&waiting, &transfers(1, 2 * MAX_MOVEMENTS)).is_some(), "a lone one of any size");
    }
}
