//! What a thief with the API server's login could send to `apply_batch`, and that each check is needed.

use finaiflow_schema::testing::{TenantDb, connect};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use time::{Duration, OffsetDateTime};

use crate::books::{
    ALICE, BOB, Batch, EURO, OWNER, SETTLEMENT, contents, customer, deposit, entry, journal, key, movements, opening,
    settlement,
};
use crate::{execute, sqlstate};

type Attack = (&'static str, fn(&mut Batch), &'static str);

fn set(batch: &mut Batch, table: &str, row: usize, column: &str, value: impl Into<Value>) {
    batch.body[table][row][column] = value.into();
}

/// Each changes one thing in the good batch of journals 6 (transfer) and 7 (withdrawal).
const ATTACKS: &[Attack] = &[
    ("wrong epoch", |b| b.epoch = 1, "FF001"),
    ("stale head", |b| b.from = 4, "FF001"),
    ("head skipped", |b| b.from = 6, "FF001"),
    ("an empty batch over a range", |b| b.body = Value::Null, "FF002"),
    ("time stands still", |b| b.time = deposit().time, "FF002"),
    ("time goes back", |b| b.time -= Duration::days(1), "FF002"),
    ("time in the far future", |b| b.time = OffsetDateTime::from_unix_timestamp(253_370_764_800).unwrap(), "FF002"),
    ("range goes back", |b| b.to = 4, "FF002"),
    ("range too long", |b| b.to = 8, "FF002"),
    ("range too short", |b| b.to = 6, "FF002"),
    ("gap in the journals", |b| set(b, "journals", 1, "sequence", 8), "FF002"),
    ("journal twice", |b| set(b, "journals", 1, "sequence", 6), "23505"),
    ("journal of the past", |b| set(b, "journals", 0, "sequence", 5), "23505"),
    ("unknown kind", |b| set(b, "journals", 0, "kind", "gift"), "23514"),
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
        |b| b.body["entries"].as_array_mut().unwrap().push(entry(7, 1, 5, (ALICE, 3, 705))),
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
            *b = one(&journal(6, "transfer", "USD", 0));
            b.body["entries"] = json!([entry(6, 0, 0, (ALICE, 2, 1000)), entry(6, 1, 0, (BOB, 1, 0))]);
        },
        "FF004",
    ),
    (
        "account of unknown kind without a journal",
        |b| b.body["accounts"] = json!([with(customer(6, "USD"), "kind", "vault")]),
        "FF004",
    ),
    ("a third leg", |b| set(b, "entries", 1, "leg", 2), "23514"),
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
            *b = one(&journal(6, "transfer", "USD", 300));
            b.body["entries"] = json!([entry(6, 0, 300, (ALICE, 2, 700)), entry(6, 1, 300, (ALICE, 3, 1000))]);
        },
        "FF004",
    ),
    (
        "transfer from the settlement account",
        |b| {
            *b = one(&journal(6, "transfer", "USD", 300));
            b.body["entries"] = json!([entry(6, 0, 300, (SETTLEMENT, 2, -1300)), entry(6, 1, 300, (BOB, 1, 300))]);
        },
        "FF004",
    ),
    (
        "deposit out of a customer's account",
        |b| {
            *b = one(&journal(6, "deposit", "USD", 300));
            b.body["entries"] = json!([entry(6, 0, 300, (ALICE, 2, 700)), entry(6, 1, 300, (BOB, 1, 300))]);
        },
        "FF004",
    ),
    (
        "withdrawal into a customer's account",
        |b| {
            *b = one(&journal(6, "withdrawal", "USD", 300));
            b.body["entries"] = json!([entry(6, 0, 300, (ALICE, 2, 700)), entry(6, 1, 300, (BOB, 1, 300))]);
        },
        "FF004",
    ),
    (
        "a reversed deposit",
        |b| {
            *b = one(&journal(6, "deposit", "USD", 300));
            b.body["entries"] = json!([entry(6, 0, 300, (ALICE, 2, 700)), entry(6, 1, 300, (SETTLEMENT, 2, -700))]);
        },
        "FF004",
    ),
    (
        "overdraft",
        |b| {
            *b = one(&journal(6, "transfer", "USD", 1001));
            b.body["entries"] = json!([entry(6, 0, 1001, (ALICE, 2, -1)), entry(6, 1, 1001, (BOB, 1, 1001))]);
        },
        "FF005",
    ),
    (
        "overdraft made good in the same batch",
        |b| {
            b.body["journals"] = json!([journal(6, "transfer", "USD", 1), journal(7, "transfer", "USD", 1)]);
            b.body["entries"] = json!([
                entry(6, 0, 1, (BOB, 1, -1)),
                entry(6, 1, 1, (ALICE, 2, 1001)),
                entry(7, 0, 1, (ALICE, 3, 1000)),
                entry(7, 1, 1, (BOB, 2, 0)),
            ]);
        },
        "FF005",
    ),
    (
        "a balance beyond 2^53-1",
        |b| {
            let most = 9_007_199_254_740_991;
            *b = one(&journal(6, "deposit", "USD", most));
            b.body["entries"] =
                json!([entry(6, 0, most, (SETTLEMENT, 2, -1000 - most)), entry(6, 1, most, (ALICE, 2, 1000 + most))]);
        },
        "FF005",
    ),
    (
        "opening with entries",
        |b| {
            set(b, "journals", 0, "kind", "account_opened");
            b.body["accounts"] = json!([customer(6, "USD")]);
        },
        "FF004",
    ),
    ("opening without an account", |b| *b = one(&journal(6, "account_opened", "USD", 0)), "FF004"),
    ("opening with an amount", |b| opens(b, &customer(6, "USD"), 5), "FF004"),
    ("opening in another currency", |b| opens(b, &customer(6, "EUR"), 0), "FF004"),
    ("account without a journal", |b| b.body["accounts"] = json!([customer(6, "USD")]), "FF004"),
    ("account under another's journal", |b| opens(b, &customer(5, "USD"), 0), "FF004"),
    ("account that exists", |b| opens(b, &customer(ALICE, "USD"), 0), "23505"),
    ("second settlement account", |b| opens(b, &settlement(6, "USD"), 0), "23505"),
    ("account of unknown kind", |b| opens(b, &with(customer(6, "USD"), "kind", "vault"), 0), "FF004"),
    (
        "settlement account with an owner",
        |b| opens_chf(b, &with(settlement(6, "CHF"), "owner_id", OWNER.to_string())),
        "FF004",
    ),
    (
        "customer's account of the settlement type",
        |b| opens(b, &with(customer(6, "USD"), "type", "settlement"), 0),
        "FF004",
    ),
    (
        "customer's account without an owner",
        |b| opens(b, &with(customer(6, "USD"), "owner_id", Value::Null), 0),
        "FF004",
    ),
    ("currency in lower case", |b| opens(b, &customer(6, "usd"), 0), "23514"),
    ("used idempotency key", |b| b.body["idempotency"] = json!([key("deposit-5")]), "23505"),
    ("short fingerprint", |b| b.body["idempotency"] = json!([with(key("x"), "fingerprint", "\\xab")]), "23514"),
    ("journals that are no array", |b| b.body["journals"] = json!({"sequence": 6}), "22023"),
];

fn one(journal: &Value) -> Batch {
    Batch::new(5, 6, json!({ "journals": [journal] }))
}

fn with(mut row: Value, column: &str, value: impl Into<Value>) -> Value {
    row[column] = value.into();
    row
}

fn to_bob(batch: &mut Batch, account: i64) {
    *batch = one(&journal(6, "transfer", "USD", 300));
    batch.body["entries"] = json!([entry(6, 0, 300, (ALICE, 2, 700)), entry(6, 1, 300, (account, 1, 300))]);
}

fn opens(batch: &mut Batch, account: &Value, amount: i64) {
    *batch = one(&journal(6, "account_opened", "USD", amount));
    batch.body["accounts"] = json!([account]);
}

fn opens_chf(batch: &mut Batch, account: &Value) {
    *batch = one(&journal(6, "account_opened", "CHF", 0));
    batch.body["accounts"] = json!([account]);
}

/// Tries each attack by itself; returns those not answered as expected.
async fn unexpected(app: &mut PgConnection) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, attack, expected) in ATTACKS {
        let mut batch = movements();
        attack(&mut batch);
        let mut tx = app.begin().await.unwrap();
        let state = sqlstate(batch.apply(&mut tx).await);
        tx.rollback().await.unwrap();
        if state != *expected {
            wrong.push(format!("{name}: {state} instead of {expected}"));
        }
    }
    wrong
}

#[tokio::test]
async fn every_attack_is_refused_and_changes_nothing() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    opening().apply(&mut app).await.unwrap();
    deposit().apply(&mut app).await.unwrap();
    assert_eq!(unexpected(&mut app).await, Vec::<String>::new());

    let before = contents(&mut app).await;
    for (name, attack, _) in ATTACKS {
        let mut batch = movements();
        attack(&mut batch);
        assert!(batch.apply(&mut app).await.is_err(), "{name}");
    }
    assert_eq!(contents(&mut app).await, before);
    movements().apply(&mut app).await.unwrap();
    assert_eq!(sqlstate(movements().apply(&mut app).await), "FF001", "a replay");
    db.drop().await;
}

/// A check of `apply_batch`, and the text that stands for its absence.
const CHECKS: &[(&str, &str)] = &[
    ("(v_head.epoch, v_head.sequence) IS DISTINCT FROM (p_epoch, p_from)", "v_head.epoch IS DISTINCT FROM p_epoch"),
    ("(v_head.epoch, v_head.sequence) IS DISTINCT FROM (p_epoch, p_from)", "v_head.sequence IS DISTINCT FROM p_from"),
    ("p_time > v_head.head_time", "true"),
    ("p_time < clock_timestamp() + interval '1 day'", "true"),
    ("IF v_opened <> coalesce(jsonb_array_length(p_batch -> 'accounts'), 0)", "IF false"),
    ("IF NOT v_dense", "IF false"),
    ("count(*) = p_to - p_from", "true"),
    ("max(sequence) = p_to", "true"),
    ("IF v_discontinued > 0", "IF false"),
    ("r.seq = b.version + r.nth", "true"),
    ("r.posted_after = b.posted + r.posted_sum", "true"),
    ("r.held_after = b.held + r.held_sum", "true"),
    ("IF v_forbidden > 0", "IF false"),
    ("j.amount = 0", "true"),
    ("a.id = j.sequence AND a.currency = j.currency", "a.id = j.sequence"),
    ("a.id = j.sequence AND a.currency = j.currency", "a.currency = j.currency"),
    ("j.amount > 0", "true"),
    ("source.posted_delta = -j.amount", "true"),
    ("destination.posted_delta = j.amount", "true"),
    ("destination.held_delta = 0", "true"),
    ("source.currency = j.currency AND destination.currency = j.currency", "true"),
    ("source.account_id <> destination.account_id", "true"),
    (
        "('deposit', 'settlement', 'customer'),",
        "('deposit', 'settlement', 'customer'), ('deposit', 'customer', 'customer'),",
    ),
    (
        "('deposit', 'settlement', 'customer'),",
        "('deposit', 'settlement', 'customer'), ('deposit', 'customer', 'settlement'),",
    ),
    (
        "('transfer', 'customer', 'customer')",
        "('transfer', 'customer', 'customer'), ('transfer', 'settlement', 'customer')",
    ),
    ("abs((SELECT count(*) FROM entry) - 2 * count(*) FILTER (WHERE NOT opens))", "0"),
    ("abs(v_opened - count(*) FILTER (WHERE opens))", "0"),
    ("abs(r.posted_after) > 9007199254740991", "false"),
    ("r.posted_after - r.held_after < a.minimum_balance", "false"),
    ("PERFORM keep_outcomes(p_batch -> 'idempotency', p_time);", ""),
];

#[tokio::test]
async fn without_any_one_of_its_checks_an_attack_succeeds() {
    let db = TenantDb::create().await;
    let mut app = connect(&db.app_url).await;
    opening().apply(&mut app).await.unwrap();
    deposit().apply(&mut app).await.unwrap();
    let mut superuser = db.superuser().await;
    let definition: String =
        sqlx::query_scalar("SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = to_regnamespace($1) AND proname = 'apply_batch'")
            .bind(db.names.schema.as_str())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
    let mut unneeded = Vec::new();
    for (check, absence) in CHECKS {
        assert!(definition.contains(check), "{check}");
        execute(&mut superuser, &db.names.schema, &definition.replace(check, absence)).await.unwrap();
        if unexpected(&mut app).await.is_empty() {
            unneeded.push(*check);
        }
    }
    assert_eq!(unneeded, Vec::<&str>::new(), "nothing notices their absence");
    db.drop().await;
}
