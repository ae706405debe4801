//! What a thief with the API server's login could send to `apply_batch`, and that each check is needed.

use finaiflow_schema::testing::{TenantDb, connect};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

use crate::books::{
    ALICE, BOB, Batch, CARD, EURO, GROUNDS, HOLD, OWNER, PAID, PLEDGED, POUNDS, REVERSAL, SAVED, SETTLEMENT, SHUT,
    STOPPED, UNDONE, changed, contents, customer, deposit, entry, full, grounds, internal, journal, key, movements,
    opened, opening, referring, with,
};
use crate::{execute, sqlstate};

type Change = fn(&mut Batch);
type Attack = (&'static str, Change, &'static str);

/// The journals of an attack.
const F: i64 = GROUNDS + 1;
const S: i64 = GROUNDS + 2;

fn set(batch: &mut Batch, table: &str, number: usize, column: &str, value: impl Into<Value>) {
    row(batch, table, number)[column] = value.into();
}

/// A row of the batch, which may be one more than there are.
fn row<'b>(batch: &'b mut Batch, table: &str, number: usize) -> &'b mut Value {
    let rows = batch.body[table].as_array_mut().unwrap();
    if rows.len() == number {
        rows.push(Value::Null);
    }
    &mut rows[number]
}

/// Each changes one thing in the good batch of a transfer and a withdrawal, or is a batch of its own.
const ATTACKS: &[Attack] = &[
    ("wrong epoch", |b| b.epoch = 1, "FF001"),
    ("stale head", |b| b.from -= 1, "FF001"),
    ("head skipped", |b| b.from += 1, "FF001"),
    ("time stands still", |b| b.time -= Duration::seconds(2), "FF001"),
    ("time goes back", |b| b.time -= Duration::days(1), "FF001"),
    ("time in the far future", |b| b.time = OffsetDateTime::from_unix_timestamp(253_370_764_800).unwrap(), "FF002"),
    ("entries without journals", |b| b.body["journals"] = json!([]), "FF004"),
    ("one journal less", |b| drop(b.body["journals"].as_array_mut().unwrap().pop()), "FF004"),
    ("unknown kind", |b| set(b, "journals", 0, "kind", "gift"), "23514"),
    ("a hash that is none", |b| set(b, "journals", 1, "hash", "\\xab"), "23514"),
    ("no hash", |b| set(b, "journals", 1, "hash", Value::Null), "23502"),
    ("a short salt", |b| set(b, "journals", 1, "salt", "\\xab"), "23514"),
    ("zero amount", |b| set(b, "journals", 0, "amount", 0), "FF004"),
    ("negative amount", |b| set(b, "journals", 0, "amount", -300), "23514"),
    ("amount beyond 2^53-1", |b| set(b, "journals", 0, "amount", 9_007_199_254_740_992_i64), "23514"),
    ("fractional amount", |b| set(b, "journals", 0, "amount", 300.5), "22P02"),
    ("no actor", |b| set(b, "journals", 0, "actor", Value::Null), "23502"),
    ("journal in another currency", |b| set(b, "journals", 0, "currency", "EUR"), "FF004"),
    ("credit without debit", |b| drop(b.body["entries"].as_array_mut().unwrap().remove(0)), "FF004"),
    ("debit without credit", |b| drop(b.body["entries"].as_array_mut().unwrap().remove(1)), "FF003"),
    ("no entries at all", |b| b.body["entries"] = json!([]), "FF004"),
    (
        "credit larger than debit",
        |b| {
            set(b, "entries", 1, "posted_delta", 301);
            set(b, "entries", 1, "posted_after", 301);
            set(b, "entries", 2, "posted_after", 201);
        },
        "FF004",
    ),
    (
        "an extra entry for the thief",
        |b| b.body["entries"].as_array_mut().unwrap().push(entry(S, 1, 5, (ALICE, 3, 705))),
        "FF004",
    ),
    (
        "an extra entry of a journal before",
        |b| b.body["entries"].as_array_mut().unwrap().push(entry(5, 1, 5, (BOB, 3, 205))),
        "FF003",
    ),
    (
        "an entry of no journal",
        |b| b.body["entries"].as_array_mut().unwrap().push(entry(99, 1, 5, (EURO, 1, 5))),
        "FF004",
    ),
    (
        "debit smaller than credit",
        |b| {
            set(b, "entries", 0, "posted_delta", -299);
            set(b, "entries", 0, "posted_after", 701);
        },
        "FF004",
    ),
    (
        "a journal of nothing",
        |b| {
            *b = one(&journal(F, "transfer", "USD", 0));
            b.body["entries"] = json!([entry(F, 0, 0, (ALICE, 2, 1000)), entry(F, 1, 0, (BOB, 1, 0))]);
        },
        "FF004",
    ),
    ("less than what moves", |b| set(b, "journals", 0, "amount", 299), "FF004"),
    (
        "a transfer in three legs",
        |b| {
            to_bob(b, BOB);
            *row(b, "entries", 1) = entry(F, 1, 200, (BOB, 1, 200));
            *row(b, "entries", 2) = full(F, 2, (100, 0), (SETTLEMENT, 2, -900, 0));
        },
        "FF004",
    ),
    ("a third leg", |b| set(b, "entries", 1, "leg", 2), "FF004"),
    ("tampered posted_after", |b| set(b, "entries", 1, "posted_after", 3_000_000), "FF003"),
    ("tampered held_after", |b| set(b, "entries", 1, "held_after", -5), "FF003"),
    (
        "a hold released to nowhere",
        |b| {
            set(b, "entries", 1, "held_delta", -5);
            set(b, "entries", 1, "held_after", -5);
            set(b, "entries", 2, "held_after", -5);
        },
        "FF004",
    ),
    ("version skipped", |b| set(b, "entries", 0, "seq", 3), "FF003"),
    ("version repeated", |b| set(b, "entries", 0, "seq", 1), "23505"),
    (
        "entries out of ledger order",
        |b| {
            set(b, "entries", 1, "seq", 2);
            set(b, "entries", 2, "seq", 1);
        },
        "FF003",
    ),
    ("unknown account", |b| set(b, "entries", 1, "account_id", 99), "FF003"),
    ("only an unknown account", |b| to_bob(b, 99), "FF004"),
    ("account in another currency", |b| to_bob(b, EURO), "FF004"),
    (
        "transfer to oneself",
        |b| {
            *b = one(&journal(F, "transfer", "USD", 300));
            b.body["entries"] = json!([entry(F, 0, 300, (ALICE, 2, 700)), entry(F, 1, 300, (ALICE, 3, 1000))]);
        },
        "FF004",
    ),
    (
        "transfer from the settlement account",
        |b| {
            *b = one(&journal(F, "transfer", "USD", 300));
            b.body["entries"] = json!([entry(F, 0, 300, (SETTLEMENT, 2, -1300)), entry(F, 1, 300, (BOB, 1, 300))]);
        },
        "FF004",
    ),
    (
        "deposit out of a customer's account",
        |b| {
            *b = one(&journal(F, "deposit", "USD", 300));
            b.body["entries"] = json!([entry(F, 0, 300, (ALICE, 2, 700)), entry(F, 1, 300, (BOB, 1, 300))]);
        },
        "FF004",
    ),
    (
        "withdrawal into a customer's account",
        |b| {
            *b = one(&journal(F, "withdrawal", "USD", 300));
            b.body["entries"] = json!([entry(F, 0, 300, (ALICE, 2, 700)), entry(F, 1, 300, (BOB, 1, 300))]);
        },
        "FF004",
    ),
    (
        "a reversed deposit",
        |b| {
            *b = one(&journal(F, "deposit", "USD", 300));
            b.body["entries"] = json!([entry(F, 0, 300, (ALICE, 2, 700)), entry(F, 1, 300, (SETTLEMENT, 2, -700))]);
        },
        "FF004",
    ),
    (
        "overdraft",
        |b| {
            *b = one(&journal(F, "transfer", "USD", 1001));
            b.body["entries"] = json!([entry(F, 0, 1001, (ALICE, 2, -1)), entry(F, 1, 1001, (BOB, 1, 1001))]);
        },
        "FF005",
    ),
    (
        "overdraft made good in the same batch",
        |b| {
            b.body["journals"] = json!([journal(F, "transfer", "USD", 1), journal(S, "transfer", "USD", 1)]);
            b.body["entries"] = json!([
                entry(F, 0, 1, (BOB, 1, -1)),
                entry(F, 1, 1, (ALICE, 2, 1001)),
                entry(S, 0, 1, (ALICE, 3, 1000)),
                entry(S, 1, 1, (BOB, 2, 0)),
            ]);
        },
        "FF005",
    ),
    (
        "a balance beyond 2^53-1",
        |b| {
            let most = 9_007_199_254_740_991;
            *b = one(&journal(F, "deposit", "USD", most));
            b.body["entries"] =
                json!([entry(F, 0, most, (SETTLEMENT, 2, -1000 - most)), entry(F, 1, most, (ALICE, 2, 1000 + most))]);
        },
        "FF005",
    ),
    (
        "opening with entries",
        |b| {
            set(b, "journals", 0, "kind", "account_opened");
            set(b, "journals", 0, "detail", customer());
        },
        "FF004",
    ),
    ("opening of nothing", |b| *b = one(&journal(F, "account_opened", "USD", 0)), "23502"),
    ("opening with an amount", |b| opens(b, "USD", &customer(), 5), "FF004"),
    ("second settlement account", |b| opens(b, "USD", &internal("settlement"), 0), "23505"),
    ("account of unknown kind", |b| opens(b, "USD", &with(customer(), "kind", "vault"), 0), "23514"),
    (
        "settlement account with an owner",
        |b| opens(b, "CHF", &with(internal("settlement"), "owner", OWNER.to_string()), 0),
        "23514",
    ),
    ("fee account of another type", |b| opens(b, "CHF", &with(internal("fee"), "type", "checking"), 0), "23514"),
    (
        "customer's account of the settlement type",
        |b| opens(b, "USD", &with(customer(), "type", "settlement"), 0),
        "23514",
    ),
    ("customer's account without an owner", |b| opens(b, "USD", &with(customer(), "owner", Value::Null), 0), "23514"),
    (
        "paying into an account before it is open",
        |b| {
            *b = two(&journal(F, "deposit", "USD", 5), &opened(S, "USD", &customer()));
            b.body["entries"] = json!([entry(F, 0, 5, (SETTLEMENT, 2, -1005)), entry(F, 1, 5, (S, 1, 5))]);
        },
        "FF004",
    ),
    ("currency in lower case", |b| opens(b, "usd", &customer(), 0), "23514"),
    ("used idempotency key", |b| b.body["idempotency"] = json!([key("deposit-5")]), "23505"),
    ("short fingerprint", |b| b.body["idempotency"] = json!([with(key("x"), "fingerprint", "\\xab")]), "23514"),
    (
        "an answer and the journal that tells it",
        |b| b.body["idempotency"] = json!([with(key("x"), "sequence", F)]),
        "23514",
    ),
    ("a fork of the ledger", |b| *b = one(&journal(F, "ledger_forked", "USD", 0)), "FF004"),
];

/// The same with journals of several legs, reversals, holds and changes of accounts.
const LATER_ATTACKS: &[Attack] = &[
    ("a journal of nothing", |b| books(b, 0, &[(CARD, 0), (SAVED, 0)]), "FF004"),
    ("a journal of one leg", |b| books(b, 5, &[(CARD, -5)]), "FF004"),
    ("a journal out of balance", |b| books(b, 5, &[(CARD, -3), (SAVED, 5)]), "FF004"),
    ("a journal that loses money", |b| books(b, 3, &[(CARD, -5), (SAVED, 3)]), "FF004"),
    ("a journal that moves less than it says", |b| books(b, 6, &[(CARD, -5), (SAVED, 5)]), "FF004"),
    ("a journal with an idle leg", |b| books(b, 5, &[(CARD, -5), (SAVED, 5), (POUNDS, 0)]), "FF004"),
    ("a journal between currencies", |b| books(b, 5, &[(CARD, -5), (BOB, 5)]), "FF004"),
    ("a journal with a frozen account", |b| books(b, 5, &[(CARD, -5), (STOPPED, 5)]), "FF004"),
    ("a journal with a closed account", |b| books(b, 5, &[(CARD, -5), (SHUT, 5)]), "FF004"),
    ("a journal below the minimum", |b| books(b, 151, &[(CARD, -151), (SAVED, 151)]), "FF005"),
    (
        "a journal within one account",
        |b| {
            books(b, 5, &[(CARD, -5), (CARD, 5)]);
            set(b, "entries", 1, "seq", 8);
            set(b, "entries", 1, "posted_after", 450);
        },
        "FF004",
    ),
    (
        "a journal with a gap between its legs",
        |b| {
            books(b, 5, &[(CARD, -5), (SAVED, 5)]);
            set(b, "entries", 1, "leg", 2);
        },
        "FF004",
    ),
    (
        "a journal with a leg too many",
        |b| {
            books(b, 5, &[(CARD, -5), (SAVED, 5)]);
            set(b, "entries", 1, "leg", 62);
        },
        "23514",
    ),
    (
        "a journal that releases a hold",
        |b| {
            books(b, 5, &[(CARD, -5), (SAVED, 5)]);
            held(b, 0, -5, 295);
        },
        "FF004",
    ),
    ("a reversal of nothing", |b| reverses(b, None, 50), "FF004"),
    ("a reversal of a journal that is not there", |b| reverses(b, Some(99), 50), "FF004"),
    ("a reversal of itself", |b| reverses(b, Some(F), 50), "FF004"),
    ("a reversal of a part", |b| reverses(b, Some(PAID), 49), "FF004"),
    ("a reversal of another amount", |b| reverses(b, Some(PAID - 3), 50), "FF004"),
    ("a reversal of a hold", |b| reverses(b, Some(HOLD), 50), "FF004"),
    ("a second reversal", |b| reverses(b, Some(UNDONE), 10), "23505"),
    (
        "a reversal of a reversal",
        |b| {
            reverses(b, Some(REVERSAL), 10);
            move_back(b, 10);
        },
        "FF004",
    ),
    (
        "a reversal that repeats its journal",
        |b| {
            reverses(b, Some(PAID), 50);
            move_back(b, 50);
        },
        "FF004",
    ),
    (
        "a reversal from another's account",
        |b| {
            reverses(b, Some(PAID), 50);
            *row(b, "entries", 1) = full(F, 1, (-50, 0), (POUNDS, 2, -550, 0));
        },
        "FF004",
    ),
    (
        "a reversal with its legs exchanged",
        |b| {
            reverses(b, Some(PAID), 50);
            set(b, "entries", 0, "leg", 1);
            set(b, "entries", 1, "leg", 0);
        },
        "FF004",
    ),
    (
        "a reversal of a later journal",
        |b| {
            reverses(b, Some(S), 50);
            *row(b, "journals", 1) = journal(S, "transfer", "GBP", 50);
            *row(b, "entries", 2) = full(S, 0, (-50, 0), (CARD, 8, 450, 300));
            *row(b, "entries", 3) = full(S, 1, (50, 0), (SAVED, 5, 50, 0));
        },
        "FF004",
    ),
    (
        "two reversals of one journal",
        |b| {
            reverses(b, Some(PAID), 50);
            *row(b, "journals", 1) = referring(S, "reversal", 50, PAID);
            *row(b, "entries", 2) = full(S, 0, (50, 0), (CARD, 8, 550, 300));
            *row(b, "entries", 3) = full(S, 1, (-50, 0), (SAVED, 5, -50, 0));
        },
        "23505",
    ),
    ("a hold of nothing", |b| holds(b, 0, (CARD, 7, 450, 300)), "FF004"),
    ("a hold of more than there is", |b| holds(b, 151, (CARD, 7, 450, 451)), "FF005"),
    ("a hold on the bank's own account", |b| holds(b, 5, (POUNDS, 2, -500, 5)), "FF004"),
    ("a hold on a frozen account", |b| holds(b, 5, (STOPPED, 1, 0, 5)), "FF004"),
    ("a hold on an account in another currency", |b| holds(b, 5, (ALICE, 2, 1000, 5)), "FF004"),
    (
        "a hold that holds less than it says",
        |b| {
            holds(b, 5, (CARD, 7, 450, 304));
            set(b, "entries", 0, "held_delta", 4);
        },
        "FF004",
    ),
    (
        "a hold that pays",
        |b| {
            holds(b, 5, (CARD, 7, 1450, 305));
            set(b, "entries", 0, "posted_delta", 1000);
        },
        "FF004",
    ),
    (
        "a hold on two accounts",
        |b| {
            holds(b, 5, (CARD, 7, 450, 305));
            *row(b, "entries", 1) = full(F, 1, (0, 5), (SAVED, 4, 50, 5));
        },
        "FF004",
    ),
    ("a capture of no hold", |b| captures(b, 99, (CARD, 7, 450, 300), (5, 5)), "FF004"),
    ("a capture of another's hold", |b| captures(b, HOLD, (PLEDGED, 2, 0, 5), (5, 5)), "FF004"),
    ("a capture of more than is held", |b| captures(b, HOLD, (CARD, 7, 450, 300), (201, 201)), "FF004"),
    ("a capture that releases more than is held", |b| captures(b, HOLD, (CARD, 7, 450, 300), (5, 201)), "FF004"),
    ("a capture that keeps what it takes", |b| captures(b, HOLD, (CARD, 7, 450, 300), (5, 4)), "FF004"),
    ("a capture of nothing", |b| captures(b, HOLD, (CARD, 7, 450, 300), (0, 5)), "FF004"),
    ("a capture from a frozen account", |b| captures(b, HOLD, (STOPPED, 1, 0, 0), (5, 5)), "FF004"),
    (
        "a capture that takes less than it gives",
        |b| {
            captures(b, HOLD, (CARD, 7, 450, 300), (5, 5));
            *row(b, "entries", 1) = full(F, 1, (6, 0), (SAVED, 4, 56, 0));
        },
        "FF004",
    ),
    (
        "a capture that takes more than it says",
        |b| {
            captures(b, HOLD, (CARD, 7, 450, 300), (5, 5));
            set(b, "journals", 0, "amount", 4);
        },
        "FF004",
    ),
    (
        "a capture that gives to its own account",
        |b| {
            captures(b, HOLD, (CARD, 7, 450, 300), (5, 5));
            *row(b, "entries", 1) = full(F, 1, (5, 0), (CARD, 8, 450, 295));
        },
        "FF004",
    ),
    (
        "a capture that releases another hold",
        |b| {
            captures(b, HOLD, (CARD, 7, 450, 300), (5, 5));
            *row(b, "entries", 1) = full(F, 1, (5, -5), (PLEDGED, 2, 5, 0));
        },
        "FF004",
    ),
    (
        "a capture into another currency",
        |b| {
            captures(b, HOLD, (CARD, 7, 450, 300), (5, 5));
            *row(b, "entries", 1) = full(F, 1, (5, 0), (BOB, 1, 5, 0));
        },
        "FF004",
    ),
    (
        "a capture in three legs",
        |b| {
            captures(b, HOLD, (CARD, 7, 450, 300), (5, 5));
            *row(b, "entries", 1) = full(F, 1, (4, 0), (SAVED, 4, 54, 0));
            *row(b, "entries", 2) = full(F, 2, (1, 0), (POUNDS, 2, -499, 0));
        },
        "FF004",
    ),
    (
        "a capture from the bank's own account",
        |b| {
            captures(b, HOLD, (POUNDS, 2, -500, 0), (5, 5));
        },
        "FF004",
    ),
    (
        "a capture into a fee account",
        |b| {
            *b = two(&opened(F, "GBP", &internal("fee")), &referring(S, "hold_captured", 5, HOLD));
            b.body["entries"] = json!([full(S, 0, (-5, -5), (CARD, 7, 445, 295)), full(S, 1, (5, 0), (F, 1, 5, 0))]);
        },
        "FF004",
    ),
    (
        "a capture of a later hold",
        |b| {
            captures(b, S, (CARD, 7, 450, 300), (5, 5));
            *row(b, "journals", 1) = journal(S, "hold_placed", "GBP", 5);
            *row(b, "entries", 2) = full(S, 0, (0, 5), (CARD, 8, 445, 300));
        },
        "FF004",
    ),
    ("a release of more than is held", |b| releases(b, "hold_voided", 201), "FF004"),
    ("a release of more than the account has held", |b| releases(b, "hold_voided", 301), "FF005"),
    ("an expiry of more than is held", |b| releases(b, "hold_expired", 201), "FF004"),
    (
        "two releases of one hold",
        |b| {
            releases(b, "hold_voided", 150);
            *row(b, "journals", 1) = referring(S, "hold_expired", 150, HOLD);
            *row(b, "entries", 1) = full(S, 0, (0, -150), (CARD, 8, 450, 0));
        },
        "FF004",
    ),
    ("a release of nothing", |b| releases(b, "hold_voided", 0), "FF004"),
    (
        "a release that says less",
        |b| {
            releases(b, "hold_voided", 5);
            set(b, "journals", 0, "amount", 4);
        },
        "FF004",
    ),
    (
        "a release in another currency",
        |b| {
            releases(b, "hold_voided", 5);
            set(b, "journals", 0, "currency", "USD");
        },
        "FF004",
    ),
    (
        "a release that pays",
        |b| {
            releases(b, "hold_voided", 5);
            set(b, "entries", 0, "posted_delta", 5);
            set(b, "entries", 0, "posted_after", 455);
        },
        "FF004",
    ),
    (
        "a release on two accounts",
        |b| {
            releases(b, "hold_voided", 5);
            *row(b, "entries", 1) = full(F, 1, (0, -5), (PLEDGED, 2, 0, 0));
        },
        "FF004",
    ),
    ("a release from the bank's own account", |b| releases_of(b, (POUNDS, 2, -500, -5)), "FF004"),
    ("two changes in a batch", |b| *b = two(&freezes(F, CARD), &freezes(S, SAVED)), "FF002"),
    ("a change beside a movement", |b| set_second(b, &freezes(S, CARD)), "FF002"),
    ("a change of no account", |b| *b = one(&changed(F, "GBP", &Value::Null)), "FF004"),
    ("a change of an unknown account", |b| *b = one(&freezes(F, 99)), "FF004"),
    ("a change of the bank's own account", |b| *b = one(&freezes(F, POUNDS)), "FF004"),
    ("a minimum on the bank's own account", |b| limits(b, POUNDS, &json!({"minimum_balance": 0})), "FF004"),
    ("a change with an amount", |b| *b = one(&with(freezes(F, CARD), "amount", 5)), "FF004"),
    (
        "a change with entries",
        |b| {
            *b = one(&freezes(F, CARD));
            b.body["entries"] = json!([full(F, 0, (0, 0), (CARD, 7, 450, 300))]);
        },
        "FF004",
    ),
    ("a change in another currency", |b| *b = one(&with(freezes(F, CARD), "currency", "USD")), "FF004"),
    ("a closed account opened again", |b| becomes(b, SHUT, "active"), "FF004"),
    ("closing an account with money in it", |b| becomes(b, SAVED, "closed"), "FF004"),
    ("closing an account with money held", |b| becomes(b, PLEDGED, "closed"), "FF004"),
    ("an unknown status", |b| becomes(b, CARD, "gone"), "23514"),
    ("no minimum", |b| limits(b, CARD, &json!({"daily": 5})), "23514"),
    ("a limit below zero", |b| limits(b, CARD, &json!({"minimum_balance": 0, "daily": -5})), "23514"),
    ("limits that are none", |b| limits(b, CARD, &json!([])), "22023"),
    ("a change in words", |b| *b = one(&changed(F, "GBP", &"words".into())), "22P02"),
];

fn one(journal: &Value) -> Batch {
    Batch::new(GROUNDS, F, json!({ "journals": [journal] }))
}

fn two(first: &Value, second: &Value) -> Batch {
    Batch::new(GROUNDS, S, json!({ "journals": [first, second] }))
}

fn set_second(batch: &mut Batch, journal: &Value) {
    books(batch, 5, &[(CARD, -5), (SAVED, 5)]);
    *row(batch, "journals", 1) = journal.clone();
}

fn to_bob(batch: &mut Batch, account: i64) {
    *batch = one(&journal(F, "transfer", "USD", 300));
    batch.body["entries"] = json!([entry(F, 0, 300, (ALICE, 2, 700)), entry(F, 1, 300, (account, 1, 300))]);
}

fn opens(batch: &mut Batch, currency: &str, detail: &Value, amount: i64) {
    *batch = one(&with(opened(F, currency, detail), "amount", amount));
}

/// An account of `grounds` after one more entry.
fn after(account: i64, posted_delta: i64) -> (i64, i64, i64, i64) {
    let (seq, posted, held) = match account {
        CARD => (7, 450, 300),
        SAVED => (4, 50, 0),
        POUNDS => (2, -500, 0),
        _ => (1, 0, 0),
    };
    (account, seq, posted + posted_delta, held)
}

fn books(batch: &mut Batch, amount: i64, legs: &[(i64, i64)]) {
    *batch = one(&journal(F, "journal", "GBP", amount));
    let entry = |(leg, &(account, delta)): (i64, _)| full(F, leg, (delta, 0), after(account, delta));
    batch.body["entries"] = (0..).zip(legs).map(entry).collect();
}

/// A journal as that of SAVED to CARD, which would undo one from CARD to SAVED.
fn reverses(batch: &mut Batch, original: Option<i64>, amount: i64) {
    *batch = one(&with(journal(F, "reversal", "GBP", amount), "refers_to", original));
    batch.body["entries"] =
        json!([full(F, 0, (amount, 0), after(CARD, amount)), full(F, 1, (-amount, 0), after(SAVED, -amount))]);
}

fn move_back(batch: &mut Batch, amount: i64) {
    batch.body["entries"] =
        json!([full(F, 0, (-amount, 0), after(CARD, -amount)), full(F, 1, (amount, 0), after(SAVED, amount))]);
}

fn holds(batch: &mut Batch, amount: i64, account: (i64, i64, i64, i64)) {
    *batch = one(&journal(F, "hold_placed", "GBP", amount));
    batch.body["entries"] = json!([full(F, 0, (0, amount), account)]);
}

/// Takes from an account, given as it will be numbered and was before, and releases; SAVED gains.
fn captures(batch: &mut Batch, hold: i64, before: (i64, i64, i64, i64), (taken, released): (i64, i64)) {
    let (account, seq, posted, set_aside) = before;
    *batch = one(&referring(F, "hold_captured", taken, hold));
    batch.body["entries"] = json!([
        full(F, 0, (-taken, -released), (account, seq, posted - taken, set_aside - released)),
        full(F, 1, (taken, 0), after(SAVED, taken)),
    ]);
}

fn releases(batch: &mut Batch, kind: &str, amount: i64) {
    *batch = one(&referring(F, kind, amount, HOLD));
    batch.body["entries"] = json!([full(F, 0, (0, -amount), (CARD, 7, 450, 300 - amount))]);
}

fn releases_of(batch: &mut Batch, after: (i64, i64, i64, i64)) {
    *batch = one(&referring(F, "hold_voided", 5, HOLD));
    batch.body["entries"] = json!([full(F, 0, (0, -5), after)]);
}

fn held(batch: &mut Batch, row: usize, delta: i64, after: i64) {
    set(batch, "entries", row, "held_delta", delta);
    set(batch, "entries", row, "held_after", after);
}

fn freezes(sequence: i64, account: i64) -> Value {
    changed(sequence, "GBP", &json!({"account": account, "status": "frozen"}))
}

fn becomes(batch: &mut Batch, account: i64, status: &str) {
    *batch = one(&changed(F, "GBP", &json!({"account": account, "status": status})));
}

fn limits(batch: &mut Batch, account: i64, limits: &Value) {
    *batch = one(&changed(F, "GBP", &json!({"account": account, "limits": limits})));
}

fn attacks() -> impl Iterator<Item = &'static Attack> {
    ATTACKS.iter().chain(LATER_ATTACKS)
}

/// Tries each attack by itself; returns those not answered as expected, or only the first.
async fn unexpected(app: &mut PgConnection, all: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, attack, expected) in attacks() {
        let mut batch = movements(GROUNDS);
        attack(&mut batch);
        let mut tx = app.begin().await.unwrap();
        let state = sqlstate(batch.apply(&mut tx).await);
        tx.rollback().await.unwrap();
        if state != *expected {
            wrong.push(format!("{name}: {state} instead of {expected}"));
            if !all {
                break;
            }
        }
    }
    wrong
}

async fn prepare(app: &mut PgConnection) {
    for batch in [opening(), deposit()].into_iter().chain(grounds()) {
        batch.apply(app).await.unwrap();
    }
}

#[tokio::test]
async fn every_attack_is_refused_and_changes_nothing() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    prepare(&mut app).await;
    assert_eq!(unexpected(&mut app, true).await, Vec::<String>::new());

    let before = contents(&mut app).await;
    for (name, attack, _) in attacks() {
        let mut batch = movements(GROUNDS);
        attack(&mut batch);
        assert!(batch.apply(&mut app).await.is_err(), "{name}");
    }
    assert_eq!(contents(&mut app).await, before);
    movements(GROUNDS).apply(&mut app).await.unwrap();
    assert_eq!(sqlstate(movements(GROUNDS).apply(&mut app).await), "FF001", "a replay");
    db.drop().await;
}

/// What the attacks are made from is sound: without the one thing that is wrong in each, they are booked.
#[tokio::test]
async fn what_the_attacks_change_is_allowed_without_it() {
    let allowed: &[(&str, Change)] = &[
        ("journal", |b| books(b, 7, &[(CARD, -7), (SAVED, 5), (POUNDS, 2)])),
        ("journal of two", |b| books(b, 150, &[(CARD, -150), (SAVED, 150)])),
        ("reversal", |b| reverses(b, Some(PAID), 50)),
        ("hold", |b| holds(b, 150, (CARD, 7, 450, 450))),
        ("capture", |b| captures(b, HOLD, (CARD, 7, 450, 300), (200, 200))),
        ("capture of a part", |b| captures(b, HOLD, (CARD, 7, 450, 300), (5, 200))),
        ("void", |b| releases(b, "hold_voided", 200)),
        ("expiry", |b| releases(b, "hold_expired", 200)),
        ("change", |b| *b = one(&freezes(F, CARD))),
        ("limits", |b| limits(b, CARD, &json!({"minimum_balance": 0, "daily": 5}))),
    ];
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    prepare(&mut app).await;
    for (name, change) in allowed {
        let mut batch = movements(GROUNDS);
        change(&mut batch);
        let mut tx = app.begin().await.unwrap();
        assert_eq!(sqlstate(batch.apply(&mut tx).await), "ok", "{name}");
        tx.rollback().await.unwrap();
    }
    db.drop().await;
}

/// A check, and the text that stands for its absence.
struct Check {
    function: &'static str,
    /// The check is the first one after this text.
    after: &'static str,
    text: &'static str,
    absence: &'static str,
}

const fn check(function: &'static str, after: &'static str, text: &'static str, absence: &'static str) -> Check {
    Check { function, after, text, absence }
}

const fn batch(after: &'static str, text: &'static str, absence: &'static str) -> Check {
    Check { function: "apply_batch", after, text, absence }
}

const MOVEMENT: &str = "('deposit', 'withdrawal', 'transfer') THEN";
const JOURNAL: &str = "('journal', 'reversal') THEN";
const PLACED: &str = "'hold_placed' THEN";
const CAPTURED: &str = "'hold_captured' THEN";
const RELEASED: &str = "('hold_voided', 'hold_expired') THEN";

const CHECKS: &[Check] = &[
    batch("", "AND epoch = p_epoch", ""),
    batch("", "AND sequence = p_from", ""),
    batch("", "AND head_time < p_time", ""),
    batch("", "IF NOT FOUND", "IF false"),
    batch("", "p_time < clock_timestamp() + interval '1 day'", "true"),
    batch("", "PERFORM open_accounts(p_from);", ""),
    batch("", "a.status = 'active' AND", ""),
    batch("", "AND a.id < e.sequence", ""),
    batch("", "e.seq = lag(e.seq, 1, b.version) OVER account + 1", "true"),
    batch("", "e.posted_after = lag(e.posted_after, 1, b.posted) OVER account + e.posted_delta", "true"),
    batch("", "e.held_after = lag(e.held_after, 1, b.held) OVER account + e.held_delta", "true"),
    batch("", "abs(e.posted_after) > 9007199254740991", "false"),
    batch("", "e.held_after < 0", "false"),
    batch("", "e.posted_after - e.held_after < a.minimum_balance", "false"),
    batch("'account_changed') THEN", "amount = 0", "true"),
    batch("'account_changed') THEN", "legs = 0", "true"),
    batch(MOVEMENT, "amount > 0", "true"),
    batch(MOVEMENT, "legs = 2", "true"),
    batch(MOVEMENT, "is_one_currency", "true"),
    batch(MOVEMENT, "is_open", "true"),
    batch(MOVEMENT, "is_between", "true"),
    batch(MOVEMENT, "source_posted = -amount", "true"),
    batch(MOVEMENT, "net = 0", "true"),
    batch(MOVEMENT, "NOT is_held", "true"),
    batch(
        MOVEMENT,
        "('deposit', 'settlement', 'customer')",
        "('deposit', 'settlement', 'customer'), ('deposit', 'customer', 'customer')",
    ),
    batch(
        MOVEMENT,
        "('deposit', 'settlement', 'customer')",
        "('deposit', 'settlement', 'customer'), ('deposit', 'customer', 'settlement')",
    ),
    batch(
        MOVEMENT,
        "('withdrawal', 'customer', 'settlement')",
        "('withdrawal', 'customer', 'settlement'), ('withdrawal', 'customer', 'customer')",
    ),
    batch(
        MOVEMENT,
        "('transfer', 'customer', 'customer')",
        "('transfer', 'customer', 'customer'), ('transfer', 'settlement', 'customer')",
    ),
    batch(JOURNAL, "is_numbered", "true"),
    batch(JOURNAL, "is_one_currency", "true"),
    batch(JOURNAL, "is_open", "true"),
    batch(JOURNAL, "is_between", "true"),
    batch(JOURNAL, "moved = amount", "true"),
    batch(JOURNAL, "net = 0", "true"),
    batch(JOURNAL, "NOT is_idle", "true"),
    batch(JOURNAL, "NOT is_held", "true"),
    batch(PLACED, "amount > 0", "true"),
    batch(PLACED, "legs = 1", "true"),
    batch(PLACED, "is_one_currency", "true"),
    batch(PLACED, "is_open", "true"),
    batch(PLACED, "net = 0", "true"),
    batch(PLACED, "source_held = amount", "true"),
    batch(PLACED, "source = 'customer'", "true"),
    batch(CAPTURED, "amount > 0", "true"),
    batch(CAPTURED, "legs = 2", "true"),
    batch(CAPTURED, "is_one_currency", "true"),
    batch(CAPTURED, "is_open", "true"),
    batch(CAPTURED, "is_between", "true"),
    batch(CAPTURED, "source_posted = -amount", "true"),
    batch(CAPTURED, "net = 0", "true"),
    batch(CAPTURED, "source_held <= -amount", "true"),
    batch(CAPTURED, "destination_held = 0", "true"),
    batch(CAPTURED, "source = 'customer'", "true"),
    batch(CAPTURED, "destination IN ('customer', 'settlement')", "true"),
    batch(RELEASED, "amount > 0", "true"),
    batch(RELEASED, "legs = 1", "true"),
    batch(RELEASED, "is_one_currency", "true"),
    batch(RELEASED, "net = 0", "true"),
    batch(RELEASED, "source_held = -amount", "true"),
    batch(RELEASED, "source = 'customer'", "true"),
    batch("", "ELSE false", "ELSE true"),
    batch("", "IF v_discontinued > 0", "IF false"),
    batch("", "IF v_forbidden > 0", "IF false"),
    batch("", "IF v_beyond > 0", "IF false"),
    batch("", "PERFORM book_holds(p_from);", ""),
    batch("", "PERFORM check_reversals(p_from);", ""),
    batch("", "PERFORM change_accounts(p_from);", ""),
    batch("", "PERFORM keep_outcomes(k_principal, k_key, k_fingerprint, k_sequence, k_outcome, p_time);", ""),
    check("change_accounts", "", "(SELECT count(*) FROM journals WHERE sequence > p_from) <> 1", "false"),
    check("change_accounts", "", "a.id = c.account AND", "a.id = coalesce(c.account, 7) AND"),
    check("change_accounts", "", "a.kind = 'customer' AND", ""),
    check("change_accounts", "", "AND a.currency = v_journal.currency", ""),
    check("change_accounts", "", "a.status <> 'closed' AND", ""),
    check("change_accounts", "", "c.status IS DISTINCT FROM 'closed' OR", "true OR"),
    check("change_accounts", "", "b.posted = 0", "true"),
    check("change_accounts", "", "b.held = 0", "true"),
    check("change_accounts", "", "IF NOT FOUND", "IF false"),
    check("book_holds", "", "h.account_id = s.account_id AND", ""),
    check("book_holds", "", "h.id < s.first AND", ""),
    check("book_holds", "", "AND h.remaining >= s.released", ""),
    check("book_holds", "", "IF v_settled IS DISTINCT FROM v_matched", "IF false"),
    check("check_reversals", "", "AND o.sequence < r.sequence", ""),
    check("check_reversals", "", "AND o.kind IN ('deposit', 'withdrawal', 'transfer', 'journal', 'hold_captured')", ""),
    check("check_reversals", "", "USING (leg, account_id)", "USING (account_id)"),
    check("check_reversals", "", "USING (leg, account_id)", "USING (leg)"),
    check("check_reversals", "", "undone.posted_delta IS DISTINCT FROM -done.posted_delta", "false"),
    check("keep_outcomes", "", "IF v_kept <> coalesce(cardinality(p_keys), 0)", "IF false"),
    check("keep_outcomes", "", "WHERE stored.expires_at <= excluded.created_at", ""),
];

impl Check {
    /// The function without this check.
    fn removed_from(&self, definition: &str) -> String {
        let at = definition.find(self.after).unwrap() + self.after.len();
        let (before, rest) = definition.split_at(at);
        assert!(rest.contains(self.text), "{} after {}", self.text, self.after);
        format!("{before}{}", rest.replacen(self.text, self.absence, 1))
    }
}

#[tokio::test]
async fn without_any_one_of_its_checks_an_attack_succeeds() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    prepare(&mut app).await;
    let mut superuser = db.superuser().await;
    let mut unneeded = Vec::new();
    for check in CHECKS {
        let definition: String = sqlx::query_scalar(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND proname = $2",
        )
        .bind(db.names.schema.as_str())
        .bind(check.function)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        execute(&mut superuser, &db.names.schema, &check.removed_from(&definition)).await.unwrap();
        if unexpected(&mut app, false).await.is_empty() {
            unneeded.push((check.function, check.after, check.text));
        }
        execute(&mut superuser, &db.names.schema, &definition).await.unwrap();
    }
    assert!(unneeded.is_empty(), "nothing notices the absence of {unneeded:#?}");
    db.drop().await;
}
