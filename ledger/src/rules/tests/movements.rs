//! Deposits, withdrawals, transfers, bulks, journals of several legs, reversals.

use super::*;
use crate::command::JournalRecord;

fn booked(outcome: &Outcome) -> &JournalRecord {
    let Outcome::Journal(journal) = outcome else { panic!("{outcome:?}") };
    journal
}

#[test]
fn the_first_deposit_opens_the_settlement_account() {
    let a = account(1);
    let commands =
        [command(ADA, "a", open(ADA)), command(ADA, "b", deposit(a, 500)), command(ADA, "c", deposit(a, 20))];
    let decision = Ledger::new().batch(&commands);
    let kinds: Vec<_> = decision.batch.journals.iter().map(|journal| (journal.sequence.into(), journal.kind)).collect();
    assert_eq!(
        kinds,
        [
            (1_i64, JournalKind::AccountOpened),
            (2, JournalKind::AccountOpened),
            (3, JournalKind::Deposit),
            (4, JournalKind::Deposit)
        ]
    );
    assert_eq!(decision.state.settlements[&usd()], account(2));
    let Answer::Decided(Outcome::Transaction(second)) = &decision.answers[2] else { panic!("{:?}", decision.answers) };
    assert_eq!((second.amount, second.balance_after), (20, 520));
    assert_eq!(second.id.to_string(), "txn_aaaaaaiaaaaaaaaeae");
    let entries: Vec<_> =
        decision.batch.entries.iter().map(|e| (e.account.sequence.into(), e.seq, e.posted_after)).collect();
    assert_eq!(entries, [(2_i64, 1, -500), (1, 1, 500), (2, 2, -520), (1, 2, 520)]);
}

#[test]
fn a_rejected_first_deposit_leaves_nothing_but_its_answer() {
    let mut ledger = Ledger::new();
    let a = ledger.opened(open(ADA));
    ledger.staff(freeze(a));
    let decision = ledger.batch(&[command(ADA, "b", deposit(a, 5))]);
    assert_eq!(decision.answers, [Answer::Decided(rejected(Rejection::AccountNotActive))]);
    assert_eq!((decision.batch.journals.len(), decision.batch.answers.len()), (0, 1));
    assert!(decision.state.settlements.is_empty());
}

#[test]
fn money_is_refused_before_it_overflows() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, MAX_MINOR_UNITS);
    assert_eq!(ledger.owner(ADA, deposit(a, 1)), rejected(Rejection::LimitExceeded));
    // The settlement account is as full as the customers together, whoever they are.
    let b = ledger.opened(open(BOB));
    assert_eq!(ledger.owner(BOB, deposit(b, 1)), rejected(Rejection::LimitExceeded));
    assert!(matches!(ledger.owner(ADA, transfer(a, b, 7)), Outcome::Transfer(_)));
    assert_eq!(ledger.owner(BOB, deposit(b, 1)), rejected(Rejection::LimitExceeded));
    // So is what one journal moves, although each of its sides fits.
    let [from, to] = [AccountKind::Fee, AccountKind::Position].map(|kind| ledger.opened(internal(kind)));
    let legs = [(from, -MAX_MINOR_UNITS), (to, MAX_MINOR_UNITS - 1), (b, 1)];
    assert_eq!(booked(&ledger.staff(journal(&legs))).amount, MAX_MINOR_UNITS);
    let other = ledger.opened(internal(AccountKind::Fee));
    let legs = [(from, MAX_MINOR_UNITS), (other, 1), (to, -MAX_MINOR_UNITS), (b, -1)];
    assert_eq!(ledger.staff(journal(&legs)), rejected(Rejection::LimitExceeded));
}

#[test]
fn only_the_owner_or_staff_take_and_nobody_learns_of_foreign_accounts() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    let settlement = ledger.state.settlements[&usd()];
    let foreign = [withdraw(a, 1), deposit(a, 1), transfer(a, b, 1), hold(a, None, 1), close(a)];
    for kind in foreign {
        assert_eq!(ledger.owner(BOB, kind), rejected(Rejection::NotFound));
    }
    for kind in [transfer(a, account(99), 1), transfer(a, settlement, 1), withdraw(settlement, 1)] {
        assert_eq!(ledger.owner(ADA, kind), rejected(Rejection::NotFound));
    }
    assert_eq!(ledger.owner(ADA, transfer(a, a, 1)), rejected(Rejection::SameAccount));
    assert!(matches!(ledger.owner(ADA, transfer(a, b, 1)), Outcome::Transfer(_)));
    assert!(matches!(ledger.staff(transfer(a, b, 1)), Outcome::Transfer(_)));
    assert!(matches!(ledger.staff(withdraw(a, 1)), Outcome::Transaction(_)));
    let euros = ledger.opened(open_in(BOB, eur()));
    assert_eq!(ledger.owner(ADA, transfer(a, euros, 1)), rejected(Rejection::CurrencyMismatch));
    assert_eq!(ledger.owner(BOB, deposit(euros, 1)), rejected(Rejection::CurrencyMismatch));
}

#[test]
fn an_atomic_bulk_is_booked_as_a_whole_or_not_at_all() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    let bulk = |amounts: [i64; 3], atomic| {
        let transfers = amounts.into_iter().map(|amount| new_transfer(a, b, amount)).collect();
        CommandKind::Bulk { transfers, atomic }
    };
    let before = ledger.state.clone();
    let decision =
        ledger.batch(&[command(ADA, "one", bulk([60, 30, 20], true)), command(ADA, "two", transfer(a, b, 1))]);
    let refused = Outcome::BulkRejected { index: 2, rejection: Rejection::InsufficientFunds };
    assert_eq!(decision.answers[0], Answer::Decided(refused));
    let Answer::Decided(Outcome::Transfer(transfer)) = &decision.answers[1] else { panic!("{:?}", decision.answers) };
    assert_eq!(transfer.id.sequence, before.head.sequence.next().unwrap(), "nothing is left of the bulk");
    assert_eq!((ledger.balance(a), ledger.balance(b), ledger.spent(a)), ((99, 0), (1, 0), (1, 1)));
    let Outcome::Bulk(done) = ledger.owner(ADA, bulk([60, 40, 20], false)) else { panic!("not a bulk") };
    assert_eq!(done[1], Err(Rejection::InsufficientFunds), "each by itself");
    assert_eq!((done[0].is_ok(), done[2].is_ok(), ledger.balance(a)), (true, true, (19, 0)));
    let Outcome::Bulk(done) = ledger.owner(ADA, bulk([9, 9, 1], true)) else { panic!("not a bulk") };
    assert!(done.iter().all(Result::is_ok));
    assert_eq!(ledger.balance(b), (100, 0));
}

#[test]
fn a_bulk_is_kept_as_what_its_journals_do_not_tell() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 10), ledger.opened(open(BOB)));
    let transfers = [4, 100, 6].map(|amount| new_transfer(a, b, amount)).to_vec();
    let next = ledger.state.head.sequence.next().unwrap();
    let decision = ledger.batch(&[command(ADA, "bulk", CommandKind::Bulk { transfers, atomic: false })]);
    let kept = WholeOutcome::Bulk { first: next, refused: vec![None, Some(Rejection::InsufficientFunds), None] };
    assert_eq!(decision.batch.answers[0].outcome, StoredOutcome::Whole(kept.clone()));
    let text = serde_json::to_string(&kept).unwrap();
    assert_eq!(text, r#"{"first":5,"refused":[null,"insufficient_funds",null]}"#);
    assert_eq!(serde_json::from_str::<WholeOutcome>(&text).unwrap(), kept);
}

#[test]
fn a_journal_of_several_legs_adds_up() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.funded(BOB, 5));
    let fee = ledger.opened(internal(AccountKind::Fee));
    let legs = [(a, -30), (b, 28), (fee, 2)];
    assert_eq!(ledger.owner(ADA, journal(&legs)), rejected(Rejection::Forbidden));
    let outcome = ledger.staff(journal(&legs));
    assert_eq!((booked(&outcome).amount, &booked(&outcome).legs[..]), (30, &legs[..]));
    assert_eq!([a, b, fee].map(|id| ledger.balance(id).0), [70, 33, 2]);
    for unbalanced in [&[(a, -1), (b, 2)][..], &[(a, -1)], &[(a, -1), (b, 1), (fee, 0)], &[]] {
        assert_eq!(ledger.staff(journal(unbalanced)), rejected(Rejection::Unbalanced));
    }
    assert_eq!(ledger.staff(journal(&[(a, -1), (a, 1)])), rejected(Rejection::SameAccount));
    assert_eq!(ledger.staff(journal(&[(a, -71), (b, 71)])), rejected(Rejection::InsufficientFunds));
    assert_eq!(ledger.staff(journal(&[(a, -1), (account(99), 1)])), rejected(Rejection::NotFound));
    let many: Vec<_> = (0..=i64::try_from(Leg::MAX).unwrap()).map(|number| (account(number + 1), 1)).collect();
    assert_eq!(ledger.staff(journal(&many)), rejected(Rejection::Unbalanced), "more than a journal holds");
    ledger.staff(freeze(b));
    assert_eq!(ledger.staff(journal(&legs)), rejected(Rejection::AccountNotActive));
}

#[test]
fn a_reversal_undoes_a_journal_once() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    let Outcome::Transfer(sent) = ledger.owner(ADA, transfer(a, b, 40)) else { panic!("not booked") };
    let original = i64::from(sent.id.sequence);
    assert_eq!(ledger.owner(ADA, reverse(original)), rejected(Rejection::NotFound), "who sent may not take back");
    let back = ledger.owner(BOB, reverse(original));
    assert_eq!(booked(&back).legs, [(a, 40), (b, -40)]);
    assert_eq!(booked(&back).reverses, Some(sent.id.into()));
    assert_eq!((ledger.balance(a), ledger.balance(b)), ((100, 0), (0, 0)));
    assert_eq!(ledger.owner(BOB, reverse(original)), rejected(Rejection::AlreadyReversed));
    assert_eq!(ledger.staff(reverse(original)), rejected(Rejection::AlreadyReversed));
    let undone = i64::from(booked(&back).id.sequence);
    assert_eq!(ledger.staff(reverse(undone)), rejected(Rejection::NotReversible), "nor is a reversal undone");
    let held = ledger.held(ADA, hold(a, None, 5));
    assert_eq!(ledger.staff(reverse(held.sequence.into())), rejected(Rejection::NotReversible));
    assert_eq!(ledger.staff(reverse(1)), rejected(Rejection::NotFound), "an opening moved nothing");
    assert_eq!(ledger.staff(reverse(1_000)), rejected(Rejection::NotFound));
}

#[test]
fn what_was_spent_cannot_be_taken_back() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    let Outcome::Transfer(sent) = ledger.owner(ADA, transfer(a, b, 40)) else { panic!("not booked") };
    ledger.owner(BOB, withdraw(b, 1));
    let original = i64::from(sent.id.sequence);
    assert_eq!(ledger.staff(reverse(original)), rejected(Rejection::InsufficientFunds));
    ledger.owner(BOB, deposit(b, 1));
    assert!(matches!(ledger.staff(reverse(original)), Outcome::Journal(_)), "a refusal has not used it up");
    // Twice in one batch is once too.
    let Outcome::Transfer(sent) = ledger.owner(ADA, transfer(a, b, 7)) else { panic!("not booked") };
    let twice = ["x", "y"].map(|key| staff(key, reverse(sent.id.sequence.into())));
    let decision = ledger.batch(&twice);
    assert!(matches!(decision.answers[0], Answer::Decided(Outcome::Journal(_))));
    assert_eq!(decision.answers[1], Answer::Decided(rejected(Rejection::AlreadyReversed)));
}

#[test]
fn deposits_and_withdrawals_are_reversed_by_staff_only() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 100);
    let Outcome::Transaction(taken) = ledger.owner(ADA, withdraw(a, 30)) else { panic!("not booked") };
    let original = i64::from(taken.id.journal.sequence);
    assert_eq!(ledger.owner(ADA, reverse(original)), rejected(Rejection::NotFound));
    assert!(matches!(ledger.staff(reverse(original)), Outcome::Journal(_)));
    assert_eq!(ledger.balance(a), (100, 0));
}

#[test]
fn the_answer_says_of_the_value_date_what_its_journal_says() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    for value_date in [None, Some(START.date()), START.date().next_day()] {
        let memo = Memo { value_date, ..Memo::default() };
        let transfer = NewTransfer { memo, ..new_transfer(a, b, 1) };
        let Outcome::Transfer(told) = ledger.owner(ADA, CommandKind::Transfer(transfer)) else { panic!("refused") };
        let (stored, ..) = ledger.journals.last().unwrap();
        assert_eq!(told.memo, stored.memo, "a replay is told from the journal");
    }
}
