//! Holds and pending transfers.

use time::macros::datetime;

use super::*;

fn seen(outcome: &Outcome) -> &Hold {
    let Outcome::Hold(hold) = outcome else { panic!("{outcome:?}") };
    hold
}

/// What was first held, is still, was taken, and the status.
fn progress(outcome: &Outcome) -> (i64, i64, i64, HoldStatus) {
    let hold = seen(outcome);
    (hold.amount, hold.remaining, hold.captured, hold.status)
}

#[test]
fn what_is_held_cannot_be_spent() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 100);
    assert_eq!(progress(&ledger.owner(ADA, hold(a, None, 60))), (60, 60, 0, HoldStatus::Held));
    assert_eq!(ledger.balance(a), (100, 60));
    assert_eq!(ledger.owner(ADA, withdraw(a, 41)), rejected(Rejection::InsufficientFunds));
    assert_eq!(ledger.owner(ADA, hold(a, None, 41)), rejected(Rejection::InsufficientFunds));
    assert!(matches!(ledger.owner(ADA, withdraw(a, 40)), Outcome::Transaction(_)));
}

#[test]
fn a_hold_is_taken_in_parts_and_the_rest_released() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 100);
    let held = ledger.held(ADA, hold(a, None, 60));
    assert_eq!(ledger.owner(ADA, capture(held, None, false)), rejected(Rejection::Forbidden), "the bank's business");
    assert_eq!(ledger.owner(ADA, void(held)), rejected(Rejection::Forbidden));
    assert_eq!(ledger.owner(BOB, void(held)), rejected(Rejection::NotFound));
    assert_eq!(progress(&ledger.staff(capture(held, Some(10), true))), (60, 50, 10, HoldStatus::Held));
    assert_eq!(ledger.balance(a), (90, 50));
    assert_eq!(ledger.staff(capture(held, Some(51), false)), rejected(Rejection::ExceedsHold));
    assert_eq!(progress(&ledger.staff(capture(held, Some(20), false))), (60, 0, 30, HoldStatus::Captured));
    assert_eq!(ledger.balance(a), (70, 0), "30 taken, 30 released");
    for kind in [capture(held, None, false), void(held), CommandKind::ExpireHold { hold: held }] {
        assert_eq!(ledger.staff(kind), rejected(Rejection::HoldSettled));
    }
    assert_eq!(ledger.balance(ledger.state.settlements[&usd()]), (-70, 0));
    let whole = ledger.held(ADA, hold(a, None, 70));
    assert_eq!(progress(&ledger.staff(capture(whole, None, true))), (70, 0, 70, HoldStatus::Captured));
    assert_eq!(ledger.balance(a), (0, 0));
}

#[test]
fn a_hold_that_is_voided_leaves_everything_as_it_was() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 100);
    let held = ledger.held(ADA, hold(a, None, 60));
    assert_eq!(progress(&ledger.staff(void(held))), (60, 0, 0, HoldStatus::Voided));
    assert_eq!(ledger.balance(a), (100, 0));
    let partly = ledger.held(ADA, hold(a, None, 60));
    ledger.staff(capture(partly, Some(1), true));
    assert_eq!(progress(&ledger.staff(void(partly))), (60, 0, 1, HoldStatus::Captured), "a part was taken");
    assert_eq!(ledger.staff(void(HoldId { epoch: EPOCH, sequence: sequence(99) })), rejected(Rejection::NotFound));
}

#[test]
fn a_hold_expires_when_its_time_has_come_and_not_before() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 100);
    let time = datetime!(2026-01-02 00:00 UTC);
    let until = |minor_units, time| {
        let mut kind = hold(a, None, minor_units);
        let CommandKind::PlaceHold { expires_at, .. } = &mut kind else { panic!("a hold") };
        *expires_at = Some(time);
        kind
    };
    assert_eq!(ledger.owner(ADA, until(1, START)), rejected(Rejection::HoldExpired));
    let [first, second] = [10, 20].map(|amount| ledger.held(ADA, until(amount, time)));
    let expire = |hold| CommandKind::ExpireHold { hold };
    ledger.now = time - Duration::SECOND;
    assert_eq!(ledger.staff(expire(first)), rejected(Rejection::HoldExpired));
    ledger.staff(capture(second, Some(5), true));
    ledger.now = time;
    assert_eq!(ledger.staff(capture(first, None, false)), rejected(Rejection::HoldExpired));
    assert_eq!(ledger.owner(ADA, expire(first)), rejected(Rejection::Forbidden));
    assert_eq!(progress(&ledger.staff(expire(first))), (10, 0, 0, HoldStatus::Expired));
    assert_eq!(progress(&ledger.staff(expire(second))), (20, 0, 5, HoldStatus::Captured));
    let forever = ledger.held(ADA, hold(a, None, 1));
    assert_eq!(ledger.staff(expire(forever)), rejected(Rejection::HoldExpired), "it has no time");
    assert_eq!(ledger.balance(a), (95, 1));
}

#[test]
fn a_pending_transfer_is_its_senders_to_complete_or_cancel() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    assert_eq!(ledger.owner(ADA, hold(a, Some(a), 1)), rejected(Rejection::SameAccount));
    assert_eq!(ledger.owner(ADA, hold(a, Some(account(99)), 1)), rejected(Rejection::NotFound));
    let [first, second] = [30, 40].map(|amount| ledger.held(ADA, hold(a, Some(b), amount)));
    assert_eq!(ledger.owner(BOB, capture(first, None, false)), rejected(Rejection::NotFound), "not the receiver's");
    assert_eq!(progress(&ledger.owner(ADA, capture(first, None, false))), (30, 0, 30, HoldStatus::Captured));
    assert_eq!(progress(&ledger.owner(ADA, void(second))), (40, 0, 0, HoldStatus::Voided));
    assert_eq!((ledger.balance(a), ledger.balance(b)), ((70, 0), (30, 0)));
    let (captured, ..) = &ledger.journals[ledger.journals.len() - 2];
    assert_eq!((captured.kind, captured.refers_to), (JournalKind::HoldCaptured, Some(first.sequence)));
    let third = ledger.held(ADA, hold(a, Some(b), 1));
    ledger.staff(freeze(b));
    assert_eq!(ledger.owner(ADA, capture(third, None, false)), rejected(Rejection::AccountNotActive));
    assert_eq!(ledger.owner(ADA, hold(a, Some(b), 1)), rejected(Rejection::AccountNotActive));
    assert!(matches!(ledger.owner(ADA, void(third)), Outcome::Hold(_)), "cancelling needs nobody else");
}

#[test]
fn money_that_was_captured_can_be_given_back() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    let held = ledger.held(ADA, hold(a, Some(b), 30));
    ledger.owner(ADA, capture(held, Some(20), false));
    let captured = i64::from(ledger.state.head.sequence);
    assert_eq!(ledger.owner(ADA, reverse(captured)), rejected(Rejection::NotFound), "not by who sent it");
    assert!(matches!(ledger.owner(BOB, reverse(captured)), Outcome::Journal(_)));
    assert_eq!((ledger.balance(a), ledger.balance(b)), ((100, 0), (0, 0)));
    let held = ledger.held(ADA, hold(a, None, 30));
    ledger.staff(capture(held, None, false));
    let captured = i64::from(ledger.state.head.sequence);
    assert_eq!(ledger.owner(ADA, reverse(captured)), rejected(Rejection::NotFound), "the bank's business");
    assert!(matches!(ledger.staff(reverse(captured)), Outcome::Journal(_)));
}

#[test]
fn an_overdraft_is_captured_before_anything_was_paid_in() {
    let mut ledger = Ledger::new();
    let a = ledger.opened(open(ADA));
    ledger.staff(change(a, AccountChange::Limit(Limits { minimum_balance: -10, ..Limits::default() })));
    let held = ledger.held(ADA, hold(a, None, 10));
    assert_eq!(progress(&ledger.staff(capture(held, None, false))), (10, 0, 10, HoldStatus::Captured));
    assert_eq!(ledger.balance(ledger.state.settlements[&usd()]), (10, 0), "opened for it");
}
