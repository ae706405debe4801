//! A write repeated under its key answers the same and changes nothing.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, World, unique};

#[tokio::test]
async fn every_write_is_replayed() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let (from, to) = (ada.funded(1_000, "USD").await, ada.open("USD").await);
    let movement = json!({"amount": 100, "currency": "USD"});
    for (path, body, status) in [
        ("/api/v1/accounts".to_owned(), json!({"type": "savings", "currency": "USD", "name": "n"}), 201),
        (format!("/api/v1/accounts/{from}/deposit"), movement.clone(), 201),
        (format!("/api/v1/accounts/{from}/withdraw"), movement.clone(), 201),
        (
            "/api/v1/transfers".to_owned(),
            json!({"from_account_id": from, "to_account_id": to, "amount": 1, "currency": "USD"}),
            201,
        ),
        // A refusal is an outcome too: it stays although the money arrives in between.
        (format!("/api/v1/accounts/{to}/withdraw"), json!({"amount": 50_000, "currency": "USD"}), 422),
    ] {
        let key = unique();
        let first = ada.write(&path, &key, &body).await;
        first.expect(status);
        let before = world.books().await;
        let again = ada.write(&path, &key, &body).await;
        assert_eq!(again.expect(status)["type"], first.body["type"]);
        if status == 201 {
            assert_eq!(again.bytes, first.bytes, "{path}");
        }
        assert_eq!(world.books().await, before, "{path}");
    }
    ada.deposit(&to, 100_000, "USD").await.expect(201);
    world.close().await;
}

#[tokio::test]
async fn a_refusal_stays_a_refusal() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    let path = format!("/api/v1/accounts/{account}/withdraw");
    let body = json!({"amount": 1, "currency": "USD"});
    ada.write(&path, "k", &body).await.expect_problem(422, "insufficient-funds");
    ada.deposit(&account, 10, "USD").await.expect(201);
    ada.write(&path, "k", &body).await.expect_problem(422, "insufficient-funds");
    assert_eq!(ada.balance(&account).await, 10);
    world.close().await;
}

#[tokio::test]
async fn spelling_does_not_matter_and_content_does() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let (account, other) = (ada.open("USD").await, ada.open("USD").await);
    let path = format!("/api/v1/accounts/{account}/deposit");
    let first = ada.post(&path, &Value::Null).key("k").body(r#"{"amount":5,"currency":"USD"}"#).send().await;
    first.expect(201);
    let spelled = r#" { "currency" : "USD", "description": null, "amount" : 5 } "#;
    let again = ada.post(&path, &Value::Null).key("k").body(spelled).send().await;
    assert_eq!(again.bytes, first.bytes);
    for (path, body) in [
        (path.clone(), json!({"amount": 6, "currency": "USD"})),
        (path.clone(), json!({"amount": 5, "currency": "EUR"})),
        (path.clone(), json!({"amount": 5, "currency": "USD", "reference": "r"})),
        (format!("/api/v1/accounts/{other}/deposit"), json!({"amount": 5, "currency": "USD"})),
        (format!("/api/v1/accounts/{account}/withdraw"), json!({"amount": 5, "currency": "USD"})),
    ] {
        ada.write(&path, "k", &body).await.expect_problem(422, "idempotency-key-reused");
    }
    assert_eq!(ada.balance(&account).await, 5);
    world.close().await;
}

#[tokio::test]
async fn a_money_or_account_write_needs_a_usable_key() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    for path in [
        "/api/v1/accounts",
        "/api/v1/transfers",
        &format!("/api/v1/accounts/{account}/deposit"),
        &format!("/api/v1/accounts/{account}/withdraw"),
    ] {
        ada.post(path, &json!({})).send().await.expect_problem(400, "idempotency-key-missing");
        for key in ["", "with space", &"k".repeat(256)] {
            ada.post(path, &json!({})).key(key).send().await.expect_problem(400, "idempotency-key-missing");
        }
    }
    world.close().await;
}

#[tokio::test]
async fn keys_are_each_users_own() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let body = json!({"type": "savings", "currency": "USD", "name": "n"});
    let hers = ada.write("/api/v1/accounts", "same", &body).await;
    let his = bob.write("/api/v1/accounts", "same", &body).await;
    assert_ne!(hers.expect(201)["id"], his.expect(201)["id"]);
    world.close().await;
}

#[tokio::test]
async fn one_key_sent_many_times_at_once_has_one_effect() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    let path = format!("/api/v1/accounts/{account}/deposit");
    let body = json!({"amount": 7, "currency": "USD"});
    let answers = futures::future::join_all((0..20).map(|_| ada.write(&path, "k", &body))).await;
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.bytes == answers[0].bytes));
    assert_eq!(ada.balance(&account).await, 7);
    world.close().await;
}

#[tokio::test]
async fn registration_honours_a_key() {
    let world = World::create().await;
    let anybody = world.client("acme");
    let path = "/api/v1/auth/register";
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
    let both = futures::join!(anybody.write(path, "k", &body), anybody.write(path, "k", &body));
    assert_eq!(both.0.expect(201), both.1.expect(201));
    assert_eq!(anybody.write(path, "k", &body).await.bytes, both.0.bytes);
    assert_eq!(world.read::<i64>("SELECT count(*) FROM acme.users").await, 1);

    let mut other = body.clone();
    other["password"] = json!("another password");
    anybody.write(path, "k", &other).await.expect_problem(422, "idempotency-key-reused");
    anybody.write(path, "another", &body).await.expect_problem(409, "email-taken");
    anybody.post(path, &body).send().await.expect_problem(409, "email-taken");
    anybody.write(path, "", &body).await.expect_problem(400, "idempotency-key-missing");
    let bob = json!({"email": "bob@example.com", "password": PASSWORD, "name": "Bob"});
    anybody.write(path, "k", &bob).await.expect(201);
    let kept: String = world.read("SELECT string_agg(outcome::text, '') FROM acme.idempotency_keys").await;
    assert!(kept.contains("ada@example.com") && !kept.contains(PASSWORD) && !kept.contains("argon2"), "{kept}");
    world.close().await;
}
