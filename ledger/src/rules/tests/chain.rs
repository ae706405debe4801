//! The chain, from the rules' side. That it recomputes is checked after every batch of every test.

use super::*;

fn told(words: &str, salt: u8) -> Command {
    let memo = Memo { description: Some(words.to_owned()), ..Memo::default() };
    let kind = CommandKind::Deposit { account: account(1), amount: amount(5), currency: usd(), memo };
    Command { salt: [salt; 16], ..command(ADA, "told", kind) }
}

fn last(command: Command) -> Journal {
    let mut ledger = Ledger::new();
    ledger.funded(ADA, 1);
    ledger.one(command);
    ledger.journals.pop().unwrap().0
}

#[test]
fn another_salt_hides_the_same_text_behind_another_commitment() {
    let (first, again, other) = (last(told("rent", 1)), last(told("rent", 1)), last(told("rent", 2)));
    assert_eq!(first.hash, again.hash);
    assert_ne!(first.hash, other.hash);
    let commitment = |journal: &Journal| crate::chain::commitment(&journal.salt.unwrap(), &journal.memo).unwrap();
    assert_ne!(commitment(&first), commitment(&other));
    assert_ne!(commitment(&first), commitment(&last(told("rend", 1))), "another text");
}

#[test]
fn journals_of_one_command_are_blinded_apart_and_those_without_text_not_at_all() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    let memo = Memo { description: Some("rent".to_owned()), ..Memo::default() };
    let transfers = vec![NewTransfer { memo, ..new_transfer(a, b, 1) }; 2];
    ledger.owner(ADA, CommandKind::Bulk { transfers, atomic: true });
    let [.., (first, ..), (second, ..)] = &ledger.journals[..] else { panic!("two") };
    assert!(first.salt.is_some() && first.salt != second.salt);
    ledger.owner(ADA, transfer(a, b, 1));
    assert_eq!(ledger.journals.last().unwrap().0.salt, None);
}

#[test]
fn a_refused_atomic_bulk_leaves_the_chain_where_it_was() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 10), ledger.opened(open(BOB)));
    let head = ledger.state.head;
    let transfers = [10, 1].map(|amount| new_transfer(a, b, amount)).to_vec();
    let outcome = ledger.owner(ADA, CommandKind::Bulk { transfers, atomic: true });
    assert!(matches!(outcome, Outcome::BulkRejected { index: 1, .. }));
    assert_eq!((ledger.state.head.sequence, ledger.state.head.hash), (head.sequence, head.hash));
}
