//! Every documented refusal of a money or account command, and that none of them changes anything.

use finaiflow_ledger::query::trial_balance;
use serde_json::{Value, json};

use crate::harness::{World, unique};

const UNKNOWN: &str = "acc_aaaaaaiaaaaaaaab";

#[tokio::test]
async fn refused_movements_change_nothing() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (dollars, euros) = (ada.funded(1_000, "USD").await, ada.funded(1_000, "EUR").await);
    let theirs = bob.funded(1_000, "USD").await;
    let before = world.books().await;

    let transfer = |from: &str, to: &str, amount: i64, currency: &str| json!({"from_account_id": from, "to_account_id": to, "amount": amount, "currency": currency});
    for (body, status, code) in [
        (transfer(&dollars, &theirs, 1_001, "USD"), 422, "insufficient-funds"),
        (transfer(&dollars, &theirs, 9_007_199_254_740_991, "USD"), 422, "insufficient-funds"),
        (transfer(&dollars, &euros, 1, "USD"), 422, "currency-mismatch"),
        (transfer(&dollars, &theirs, 1, "EUR"), 422, "currency-mismatch"),
        (transfer(&dollars, &dollars, 1, "USD"), 422, "same-account"),
        (transfer(&theirs, &dollars, 1, "USD"), 404, "not-found"),
        (transfer(UNKNOWN, &dollars, 1, "USD"), 404, "not-found"),
        (transfer(&dollars, UNKNOWN, 1, "USD"), 404, "not-found"),
        (transfer(&dollars, "acc_unknown", 1, "USD"), 404, "not-found"),
        (transfer("", &dollars, 1, "USD"), 404, "not-found"),
    ] {
        ada.write("/api/v1/transfers", &unique(), &body).await.expect_problem(status, code);
    }

    let movement = |amount: i64, currency: &str| json!({"amount": amount, "currency": currency});
    for (account, body, status, code) in [
        (&*dollars, movement(1_001, "USD"), 422, "insufficient-funds"),
        (&dollars, movement(1, "EUR"), 422, "currency-mismatch"),
        (&theirs, movement(1, "USD"), 404, "not-found"),
        (UNKNOWN, movement(1, "USD"), 404, "not-found"),
        ("not-an-id", movement(1, "USD"), 404, "not-found"),
    ] {
        let path = format!("/api/v1/accounts/{account}/withdraw");
        ada.write(&path, &unique(), &body).await.expect_problem(status, code);
    }
    for (account, currency, status, code) in [
        (&*dollars, "EUR", 422, "currency-mismatch"),
        (&theirs, "USD", 404, "not-found"),
        (UNKNOWN, "USD", 404, "not-found"),
        ("not-an-id", "USD", 404, "not-found"),
    ] {
        ada.deposit(account, 1, currency).await.expect_problem(status, code);
    }
    ada.deposit(&dollars, 9_007_199_254_740_991, "USD").await.expect_problem(422, "limit-exceeded");

    assert_eq!(world.books().await, before);
    let books = trial_balance(&world.acme.pool).await.unwrap();
    assert!(books.iter().all(|balance| balance.debits == balance.credits), "{books:?}");
    world.close().await;
}

#[tokio::test]
async fn amounts_that_are_none_are_refused_at_the_field() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.funded(1_000, "USD").await;
    let other = ada.open("USD").await;
    let before = world.books().await;
    for amount in
        ["0", "-1", "1.5", "1.0", "1e3", "\"5\"", "null", "9007199254740992", "1e400", "99999999999999999999999"]
    {
        for (path, ends) in [
            (format!("/api/v1/accounts/{account}/deposit"), String::new()),
            (format!("/api/v1/accounts/{account}/withdraw"), String::new()),
            ("/api/v1/transfers".to_owned(), format!(r#","from_account_id":"{account}","to_account_id":"{other}""#)),
        ] {
            let body = format!(r#"{{"amount":{amount},"currency":"USD"{ends}}}"#);
            let call = ada.post(&path, &Value::Null).key(&unique()).body(body);
            call.send().await.expect_invalid("/amount");
        }
    }
    assert_eq!(world.books().await, before);
    world.close().await;
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_refused_at_the_field() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    let deposit = format!("/api/v1/accounts/{account}/deposit");
    for (body, pointer) in [
        (json!({"currency": "USD"}), "/amount"),
        (json!({"amount": 1}), "/currency"),
        (json!({"amount": 1, "currency": "usd"}), "/currency"),
        (json!({"amount": 1, "currency": 840}), "/currency"),
        (json!({"amount": 1, "currency": "USD", "memo": "x"}), "/memo"),
        (json!({"amount": 1, "currency": "USD", "description": "x".repeat(501)}), "/description"),
        (json!({"amount": 1, "currency": "USD", "category": ""}), "/category"),
        (json!({"amount": 1, "currency": "USD", "reference": "a\u{0}b"}), "/reference"),
        (json!([1, "USD"]), ""),
    ] {
        ada.write(&deposit, &unique(), &body).await.expect_invalid(pointer);
    }
    for (body, pointer) in [
        (json!({"type": "current", "currency": "USD", "name": "n"}), "/type"),
        (json!({"type": "settlement", "currency": "USD", "name": "n"}), "/type"),
        (json!({"type": "checking", "currency": "GBP", "name": "n"}), "/currency"),
        (json!({"type": "checking", "currency": "XXX", "name": "n"}), "/currency"),
        (json!({"type": "checking", "currency": "USD", "name": " "}), "/name"),
        (json!({"type": "checking", "currency": "USD"}), "/name"),
        (json!({"type": "checking", "currency": "USD", "name": "n", "balance": 5}), "/balance"),
    ] {
        ada.write("/api/v1/accounts", &unique(), &body).await.expect_invalid(pointer);
    }
    world.close().await;
}

#[tokio::test]
async fn an_account_that_is_not_active_takes_no_part() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let (frozen, active) = (ada.funded(100, "USD").await, ada.funded(100, "USD").await);
    world.execute("UPDATE acme.accounts SET status = 'frozen' WHERE id = 1").await;
    let shown = ada.get(&format!("/api/v1/accounts/{frozen}")).send().await;
    assert_eq!(shown.expect(200)["status"], "frozen");
    let body = json!({"from_account_id": active, "to_account_id": frozen, "amount": 1, "currency": "USD"});
    ada.write("/api/v1/transfers", &unique(), &body).await.expect_problem(409, "account-not-active");
    ada.deposit(&frozen, 1, "USD").await.expect_problem(409, "account-not-active");
    let path = format!("/api/v1/accounts/{frozen}/withdraw");
    let body = json!({"amount": 1, "currency": "USD"});
    ada.write(&path, &unique(), &body).await.expect_problem(409, "account-not-active");
    world.close().await;
}

#[tokio::test]
async fn depositing_needs_the_tenants_leave() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    world.reconfigure(|settings| settings.self_deposit = false);
    ada.deposit(&account, 1, "USD").await.expect_problem(403, "forbidden");
    world.reconfigure(|settings| settings.self_deposit = true);
    ada.deposit(&account, 1, "USD").await.expect(201);
    world.close().await;
}

#[tokio::test]
async fn concurrent_withdrawals_never_overdraw() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.funded(10, "USD").await;
    let path = format!("/api/v1/accounts/{account}/withdraw");
    let body = json!({"amount": 1, "currency": "USD"});
    let keys: Vec<_> = (0..30).map(|_| unique()).collect();
    let answers = futures::future::join_all(keys.iter().map(|key| ada.write(&path, key, &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 10);
    assert_eq!(answers.iter().filter(|answer| answer.problem() == Some("insufficient-funds")).count(), 20);
    assert_eq!(ada.balance(&account).await, 0);
    world.close().await;
}
