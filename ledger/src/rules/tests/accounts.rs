//! Opening and changing accounts, and who may.

use super::*;

fn changed(outcome: &Outcome) -> &crate::command::Account {
    let Outcome::AccountChanged(account) = outcome else { panic!("{outcome:?}") };
    account
}

#[test]
fn customers_open_accounts_for_themselves_and_staff_for_anybody() {
    let mut ledger = Ledger::new();
    let Outcome::AccountOpened(opened) = ledger.owner(ADA, open(ADA)) else { panic!("not opened") };
    assert_eq!((opened.owner, opened.status, opened.balance), (user(ADA), AccountStatus::Active, 0));
    assert_eq!(opened.limits, Limits::default());
    assert_eq!(ledger.owner(ADA, open(BOB)), rejected(Rejection::Forbidden));
    let Outcome::AccountOpened(opened) = ledger.staff(open_in(BOB, eur())) else { panic!("not opened") };
    assert_eq!((opened.owner, opened.currency), (user(BOB), eur()));
}

#[test]
fn the_banks_own_accounts_are_opened_by_staff() {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.owner(ADA, internal(AccountKind::Fee)), rejected(Rejection::Forbidden));
    assert_eq!(ledger.staff(internal(AccountKind::Customer)), rejected(Rejection::Forbidden));
    let fee = ledger.opened(internal(AccountKind::Fee));
    let position = ledger.opened(internal(AccountKind::Position));
    assert_ne!(fee, position);
    let settlement = ledger.opened(internal(AccountKind::Settlement));
    assert_eq!(ledger.state.settlements[&usd()], settlement);
    assert_eq!(ledger.staff(internal(AccountKind::Settlement)), rejected(Rejection::StatusConflict), "one a currency");
    let a = ledger.funded(ADA, 5);
    assert_eq!((ledger.balance(a), ledger.balance(settlement)), ((5, 0), (-5, 0)));
    for kind in [freeze(fee), close(position), deposit(fee, 1), hold(fee, None, 1)] {
        assert_eq!(ledger.staff(kind), rejected(Rejection::NotFound), "they are no customer's");
    }
}

#[test]
fn the_status_of_an_account_goes_its_way() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 10);
    for kind in [freeze(a), unfreeze(a), change(a, AccountChange::Limit(Limits::default()))] {
        assert_eq!(ledger.owner(ADA, kind), rejected(Rejection::Forbidden));
    }
    assert_eq!(ledger.staff(unfreeze(a)), rejected(Rejection::StatusConflict));
    assert_eq!(changed(&ledger.staff(freeze(a))).status, AccountStatus::Frozen);
    assert_eq!(ledger.staff(freeze(a)), rejected(Rejection::StatusConflict));
    for kind in [deposit(a, 1), withdraw(a, 1), hold(a, None, 1)] {
        assert_eq!(ledger.owner(ADA, kind), rejected(Rejection::AccountNotActive));
    }
    assert_eq!(ledger.owner(ADA, close(a)), rejected(Rejection::StatusConflict), "no slipping away");
    assert_eq!(changed(&ledger.staff(unfreeze(a))).status, AccountStatus::Active);
    assert_eq!(ledger.owner(ADA, close(a)), rejected(Rejection::AccountNotEmpty));
    ledger.owner(ADA, withdraw(a, 10));
    assert_eq!(ledger.owner(BOB, close(a)), rejected(Rejection::NotFound));
    assert_eq!(changed(&ledger.owner(ADA, close(a))).status, AccountStatus::Closed);
    for kind in [close(a), unfreeze(a), freeze(a), change(a, AccountChange::Limit(Limits::default()))] {
        assert_eq!(ledger.staff(kind), rejected(Rejection::StatusConflict), "closed for good");
    }
    assert_eq!(ledger.owner(ADA, deposit(a, 1)), rejected(Rejection::AccountNotActive));
}

#[test]
fn staff_close_a_frozen_account_when_it_is_empty() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 10);
    let held = ledger.held(ADA, hold(a, None, 10));
    ledger.staff(freeze(a));
    assert_eq!(ledger.staff(close(a)), rejected(Rejection::AccountNotEmpty));
    assert!(matches!(ledger.staff(void(held)), Outcome::Hold(_)), "what is held is released from a frozen account");
    ledger.staff(unfreeze(a));
    ledger.owner(ADA, withdraw(a, 10));
    ledger.staff(freeze(a));
    assert_eq!(changed(&ledger.staff(close(a))).status, AccountStatus::Closed);
}

#[test]
fn a_change_says_what_it_changes_and_nothing_else() {
    let mut ledger = Ledger::new();
    let a = ledger.funded(ADA, 10);
    let colour = Metadata::from([("colour".to_owned(), "blue".to_owned())]);
    let describe = |name: Option<&str>, metadata| AccountChange::Describe { name: name.map(str::to_owned), metadata };
    let renamed = ledger.owner(ADA, change(a, describe(Some("Holidays"), None)));
    assert_eq!((changed(&renamed).name.as_str(), changed(&renamed).metadata.len()), ("Holidays", 0));
    let coloured = ledger.owner(ADA, change(a, describe(None, Some(colour.clone()))));
    assert_eq!((changed(&coloured).name.as_str(), &changed(&coloured).metadata), ("Holidays", &colour));
    let limits = Limits { minimum_balance: -5, per_transaction: Some(3), daily: None, monthly: Some(9) };
    let limited = ledger.staff(change(a, AccountChange::Limit(limits)));
    assert_eq!((changed(&limited).limits, &changed(&limited).metadata), (limits, &colour));
    ledger.staff(change(a, AccountChange::Freeze { reason: Some("court order".to_owned()) }));
    let [.., (renamed, ..), (coloured, ..), (limited, ..), (frozen, ..)] = &ledger.journals[..] else { panic!("few") };
    assert_eq!(renamed.memo.description.as_deref(), Some("Holidays"));
    assert_eq!(coloured.memo.metadata, colour);
    assert_eq!(frozen.memo.reference.as_deref(), Some("court order"));
    let detail = |journal: &Journal| journal.detail.clone().unwrap();
    assert_eq!(detail(renamed), r#"{"account":1}"#);
    assert_eq!(
        detail(limited),
        r#"{"account":1,"limits":{"minimum_balance":-5,"per_transaction":3,"daily":null,"monthly":9}}"#
    );
    assert_eq!(detail(frozen), r#"{"account":1,"status":"frozen"}"#);
}

#[test]
fn an_opening_says_whose_account_it_is() {
    let mut ledger = Ledger::new();
    ledger.owner(ADA, open(ADA));
    ledger.staff(internal(AccountKind::Fee));
    let details: Vec<_> = ledger.journals.iter().map(|(journal, ..)| journal.detail.clone().unwrap()).collect();
    let owner = user(ADA);
    assert_eq!(details[0], format!(r#"{{"kind":"customer","owner":"{owner}","type":"checking"}}"#));
    assert_eq!(details[1], r#"{"kind":"fee","owner":null,"type":"fee"}"#);
}
