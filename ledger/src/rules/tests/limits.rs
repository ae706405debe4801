//! What may leave an account at once, on a day and in a month.

use time::macros::datetime;

use super::*;

fn limit(ledger: &mut Ledger, account: AccountId, limits: Limits) {
    let changed = ledger.staff(change(account, AccountChange::Limit(limits)));
    assert!(matches!(changed, Outcome::AccountChanged(_)), "{changed:?}");
}

fn spending() -> Outcome {
    rejected(Rejection::SpendingLimitExceeded)
}

#[test]
fn what_is_available_does_not_fall_below_the_minimum() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 100), ledger.opened(open(BOB)));
    limit(&mut ledger, a, Limits { minimum_balance: 30, ..Limits::default() });
    assert_eq!(ledger.owner(ADA, withdraw(a, 71)), rejected(Rejection::InsufficientFunds));
    assert_eq!(ledger.owner(ADA, hold(a, None, 71)), rejected(Rejection::InsufficientFunds));
    assert!(matches!(ledger.owner(ADA, hold(a, None, 70)), Outcome::Hold(_)));
    assert_eq!(ledger.owner(ADA, transfer(a, b, 1)), rejected(Rejection::InsufficientFunds));
    // An overdraft; and whoever is below a minimum may still be paid.
    limit(&mut ledger, b, Limits { minimum_balance: -50, ..Limits::default() });
    assert!(matches!(ledger.owner(BOB, withdraw(b, 50)), Outcome::Transaction(_)));
    assert_eq!(ledger.owner(BOB, withdraw(b, 1)), rejected(Rejection::InsufficientFunds));
    limit(&mut ledger, b, Limits::default());
    assert!(matches!(ledger.owner(BOB, deposit(b, 1)), Outcome::Transaction(_)));
    assert_eq!(ledger.balance(b), (-49, 0));
}

#[test]
fn one_movement_takes_no_more_than_its_limit() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 1_000), ledger.opened(open(BOB)));
    limit(&mut ledger, a, Limits { per_transaction: Some(10), ..Limits::default() });
    for kind in [withdraw(a, 11), transfer(a, b, 11), hold(a, None, 11), hold(a, Some(b), 11)] {
        assert_eq!(ledger.owner(ADA, kind), spending());
    }
    for kind in [withdraw(a, 10), transfer(a, b, 10), hold(a, None, 10)] {
        assert!(!matches!(ledger.owner(ADA, kind), Outcome::Rejected(_)));
    }
    assert!(!matches!(ledger.owner(ADA, deposit(a, 500)), Outcome::Rejected(_)), "what comes in is not limited");
    let journal = ledger.staff(journal(&[(a, -500), (b, 500)]));
    assert!(matches!(journal, Outcome::Journal(_)), "nor is what staff book");
}

#[test]
fn a_day_and_a_month_begin_anew() {
    let mut ledger = Ledger::new();
    let (a, b) = (ledger.funded(ADA, 1_000), ledger.opened(open(BOB)));
    limit(&mut ledger, a, Limits { daily: Some(100), monthly: Some(250), ..Limits::default() });
    let moments = [
        (datetime!(2026-01-30 10:00 UTC), [60, 41, 40], [true, false, true]),
        (datetime!(2026-01-30 23:59:59.999 UTC), [1, 1, 1], [false, false, false]),
        (datetime!(2026-01-31 00:00 UTC), [100, 1, 1], [true, false, false]),
        (datetime!(2026-01-31 23:00 UTC), [1, 1, 1], [false, false, false]),
        // A new month: 250 again, but no more than 100 a day.
        (datetime!(2026-02-01 00:00 UTC), [100, 1, 1], [true, false, false]),
        (datetime!(2026-02-02 00:00 UTC), [100, 1, 1], [true, false, false]),
        (datetime!(2026-02-03 00:00 UTC), [51, 50, 1], [false, true, false]),
        // The same day of another year is another day.
        (datetime!(2027-02-03 00:00 UTC), [100, 1, 1], [true, false, false]),
    ];
    for (now, amounts, expected) in moments {
        ledger.now = now;
        for (amount, booked) in amounts.into_iter().zip(expected) {
            let outcome = ledger.owner(ADA, transfer(a, b, amount));
            assert_eq!(matches!(outcome, Outcome::Transfer(_)), booked, "{amount} at {now}: {outcome:?}");
            assert!(booked || outcome == spending());
        }
    }
    assert_eq!(ledger.spent(b), (0, 0));
}

#[test]
fn a_hold_counts_when_it_is_placed_and_what_is_released_is_given_back() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 1_000);
    limit(&mut ledger, a, Limits { daily: Some(100), ..Limits::default() });
    let held = ledger.held(ADA, hold(a, None, 100));
    assert_eq!((ledger.spent(a), ledger.owner(ADA, withdraw(a, 1))), ((100, 100), spending()));
    ledger.staff(capture(held, Some(30), false));
    assert_eq!(ledger.spent(a), (30, 30), "what was taken stays counted");
    let held = ledger.held(ADA, hold(a, None, 70));
    ledger.staff(capture(held, Some(10), true));
    assert_eq!(ledger.spent(a), (100, 100));
    ledger.staff(void(held));
    assert_eq!(ledger.spent(a), (40, 40));
}

#[test]
fn what_was_held_on_another_day_is_given_back_to_the_month_only() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 1_000);
    ledger.now = datetime!(2026-01-30 10:00 UTC);
    let [first, second] = [50, 20].map(|amount| ledger.held(ADA, hold(a, None, amount)));
    ledger.now = datetime!(2026-01-31 10:00 UTC);
    ledger.owner(ADA, withdraw(a, 5));
    ledger.staff(void(first));
    assert_eq!(ledger.spent(a), (5, 25));
    ledger.now = datetime!(2026-02-01 10:00 UTC);
    ledger.owner(ADA, withdraw(a, 7));
    ledger.staff(void(second));
    assert_eq!(ledger.spent(a), (7, 7), "nor to another month");
}
