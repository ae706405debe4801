//! Transfers in two steps, given back, and many at once.

use serde_json::{Value, json};

use crate::harness::{World, unique};

fn pending(from: &str, to: &str, amount: i64) -> Value {
    json!({"from_account_id": from, "to_account_id": to, "amount": amount, "currency": "USD", "pending": true,
        "description": "Deposit for the flat", "category": "housing"})
}

#[tokio::test]
async fn a_pending_transfer_waits_for_its_sender() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let eve = world.user("acme", "eve").await;
    let (from, to) = (ada.funded(1_000, "USD").await, bob.open("USD").await);
    let key = unique();
    let asked = ada.write("/api/v1/transfers", &key, &pending(&from, &to, 600)).await;
    assert_eq!((&asked.expect(201)["status"], &asked.body["expires_at"]), (&json!("pending"), &Value::Null));
    assert_eq!(ada.write("/api/v1/transfers", &key, &pending(&from, &to, 600)).await.bytes, asked.bytes);
    assert_eq!((ada.funds(&from).await, bob.funds(&to).await), ([1_000, 400, 600], [0, 0, 0]));
    ada.transfer(&from, &to, 401).await.expect_problem(422, "insufficient-funds");
    let path = format!("/api/v1/transfers/{}", asked.id());
    for party in [&ada, &bob] {
        assert_eq!(party.get(&path).send().await.expect(200), &asked.body);
    }
    for action in ["", "/complete", "/cancel", "/reverse"] {
        let call = if action.is_empty() {
            eve.get(&path)
        } else {
            eve.call(axum::http::Method::POST, &format!("{path}{action}")).key("k")
        };
        call.send().await.expect_problem(404, "not-found");
    }
    bob.act(&format!("{path}/complete")).await.expect_problem(403, "forbidden");
    bob.act(&format!("{path}/cancel")).await.expect_problem(403, "forbidden");
    bob.act(&format!("{path}/reverse")).await.expect_problem(409, "not-reversible");
    let complete = format!("{path}/complete");
    ada.write(&complete, &unique(), &json!({"amount": 601})).await.expect_problem(422, "exceeds-hold");
    ada.write(&complete, &unique(), &json!({"amount": 0})).await.expect_invalid("/amount");

    let done = ada.write(&complete, "done", &json!({"amount": 450})).await;
    assert_eq!((&done.expect(200)["status"], &done.body["amount"]), (&json!("completed"), &json!(450)));
    assert_eq!((ada.funds(&from).await, bob.funds(&to).await), ([550, 550, 0], [450, 450, 0]));
    world.restart();
    assert_eq!(ada.write(&complete, "done", &json!({"amount": 450})).await.bytes, done.bytes);
    assert_eq!(bob.get(&path).send().await.expect(200), &done.body);
    ada.act(&complete).await.expect_problem(409, "hold-settled");
    ada.act(&format!("{path}/cancel")).await.expect_problem(409, "hold-settled");
    // Both statements show a transfer with its words.
    for (client, account, kind, amount) in [(&ada, &from, "transfer_out", -450), (&bob, &to, "transfer_in", 450)] {
        let list = client.get(&format!("/api/v1/accounts/{account}/transactions?type={kind}")).send().await;
        let seen = &list.expect(200)["data"][0];
        assert_eq!((&seen["amount"], &seen["transfer_id"]), (&json!(amount), &asked.body["id"]));
        assert_eq!(seen["description"], "Deposit for the flat");
    }
    // Who received it gives it back; who sent it cannot.
    ada.act(&format!("{path}/reverse")).await.expect_problem(403, "forbidden");
    let back = bob.act(&format!("{path}/reverse")).await;
    assert_eq!((&back.expect(201)["status"], &back.body["amount"]), (&json!("reversed"), &json!(450)));
    assert_eq!((ada.funds(&from).await, bob.funds(&to).await), ([1_000, 1_000, 0], [0, 0, 0]));
    world.close().await;
}

#[tokio::test]
async fn a_pending_transfer_is_canceled_and_nothing_has_moved() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (from, to) = (ada.funded(1_000, "USD").await, bob.open("USD").await);
    let path = format!(
        "/api/v1/transfers/{}",
        ada.write("/api/v1/transfers", &unique(), &pending(&from, &to, 600)).await.id()
    );
    let canceled = ada.act(&format!("{path}/cancel")).await;
    assert_eq!((&canceled.expect(200)["status"], &canceled.body["amount"]), (&json!("canceled"), &json!(600)));
    assert_eq!(ada.funds(&from).await, [1_000, 1_000, 0]);
    ada.act(&format!("{path}/complete")).await.expect_problem(409, "hold-settled");
    assert_eq!(bob.get(&path).send().await.expect(200)["status"], "canceled");
    assert!(bob.get("/api/v1/transactions").send().await.expect(200)["data"].as_array().unwrap().is_empty());

    let mut late = pending(&from, &to, 1);
    late["expires_at"] = json!("2020-01-01T00:00:00Z");
    ada.write("/api/v1/transfers", &unique(), &late).await.expect_problem(409, "hold-expired");
    late["expires_at"] = json!("soon");
    ada.write("/api/v1/transfers", &unique(), &late).await.expect_invalid("/expires_at");
    late["expires_at"] = json!("2999-01-01T00:00:00Z");
    let kept = ada.write("/api/v1/transfers", &unique(), &late).await;
    assert_eq!(kept.expect(201)["expires_at"], "2999-01-01T00:00:00Z");
    late["pending"] = json!(false);
    ada.write("/api/v1/transfers", &unique(), &late).await.expect_invalid("/expires_at");
    // One that moved at once was never pending.
    let moved = ada.transfer(&from, &to, 1).await.id();
    for action in ["complete", "cancel"] {
        ada.act(&format!("/api/v1/transfers/{moved}/{action}")).await.expect_problem(409, "status-conflict");
    }
    // A hold without a destination is no transfer, for staff either.
    let hold = json!({"account_id": from, "amount": 1, "currency": "USD"});
    let hold = ada.write("/api/v1/holds", &unique(), &hold).await.id().replace("hld_", "trf_");
    ada.get(&format!("/api/v1/transfers/{hold}")).send().await.expect_problem(404, "not-found");
    ada.act(&format!("/api/v1/transfers/{hold}/complete")).await.expect_problem(404, "not-found");
    world.close().await;
}

#[tokio::test]
async fn a_transfer_is_given_back_once() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (from, to) = (ada.funded(1_000, "USD").await, bob.open("USD").await);
    let moved = ada.transfer(&from, &to, 300).await;
    let path = format!("/api/v1/transfers/{}", moved.id());
    assert_eq!(bob.get(&path).send().await.expect(200), &moved.body);
    let reverse = format!("{path}/reverse");
    ada.act(&reverse).await.expect_problem(403, "forbidden");
    let spent = bob.transfer(&to, &from, 200).await;
    bob.act(&reverse).await.expect_problem(422, "insufficient-funds");
    ada.act(&format!("/api/v1/transfers/{}/reverse", spent.id())).await.expect(201);

    let body = json!({"description": "sent twice", "reference": "R-7"});
    let back = bob.write(&reverse, "k", &body).await;
    assert_eq!(back.expect(201)["status"], "reversed");
    world.restart();
    assert_eq!(bob.write(&reverse, "k", &body).await.bytes, back.bytes);
    bob.write(&reverse, "k", &json!({})).await.expect_problem(422, "idempotency-key-reused");
    bob.act(&reverse).await.expect_problem(409, "already-reversed");
    assert_eq!((ada.balance(&from).await, bob.balance(&to).await), (1_000, 0));
    assert_eq!(ada.get(&path).send().await.expect(200), &back.body);
    let list = ada.get(&format!("/api/v1/accounts/{from}/transactions")).send().await;
    let seen: Vec<_> = list.expect(200)["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["type"].as_str().unwrap(), t["status"].as_str().unwrap()))
        .collect();
    assert_eq!(seen[0], ("reversal", "completed"));
    assert!(seen.contains(&("transfer_out", "reversed")), "{seen:?}");
    world.close().await;
}

fn item(from: &str, to: &str, amount: i64) -> Value {
    json!({"from_account_id": from, "to_account_id": to, "amount": amount, "currency": "USD"})
}

#[tokio::test]
async fn a_bulk_stands_and_falls_as_it_says() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (from, to) = (ada.funded(100, "USD").await, bob.open("USD").await);
    let path = "/api/v1/transfers/bulk";
    let mut worded = item(&from, &to, 20);
    worded["description"] = json!("Wages");
    worded["metadata"] = json!({"run": "7"});
    let transfers = json!([
        item(&from, &to, 60),
        worded,
        item(&from, &to, 40),
        item(&to, &from, 1),
        item(&from, &from, 1),
        item(&from, &to, 20)
    ]);
    let body = json!({"mode": "independent", "transfers": transfers});
    let done = ada.write(path, "one", &body).await;
    let results = done.expect(201)["results"].as_array().unwrap();
    let told = results.iter().map(|result| match result["status"].as_str().unwrap() {
        "completed" => "completed",
        _ => result["problem"]["type"].as_str().unwrap().rsplit('/').next().unwrap(),
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        ["completed", "completed", "insufficient-funds", "not-found", "same-account", "completed"]
    );
    assert_eq!(results[2]["problem"]["status"], 422);
    assert_eq!(
        (&results[1]["transfer"]["description"], &results[1]["transfer"]["metadata"]["run"]),
        (&json!("Wages"), &json!("7"))
    );
    let first = results[0]["transfer"]["id"].as_str().unwrap();
    assert_eq!(bob.get(&format!("/api/v1/transfers/{first}")).send().await.expect(200), &results[0]["transfer"]);
    assert_eq!((ada.balance(&from).await, bob.balance(&to).await), (0, 100));
    for _ in 0..2 {
        let before = world.books().await;
        assert_eq!(ada.write(path, "one", &body).await.bytes, done.bytes);
        assert_eq!(world.books().await, before);
        world.restart();
    }
    let mut other = body.clone();
    other["mode"] = json!("atomic");
    ada.write(path, "one", &other).await.expect_problem(422, "idempotency-key-reused");

    // All or none; the first that is refused says why.
    ada.deposit(&from, 100, "USD").await.expect(201);
    let before = world.books().await;
    let refused =
        json!({"mode": "atomic", "transfers": [item(&from, &to, 60), item(&from, &to, 40), item(&from, &to, 1)]});
    let answer = ada.write(path, "two", &refused).await;
    let errors = &answer.expect_problem(422, "insufficient-funds")["errors"];
    assert_eq!(errors[0]["pointer"], "/transfers/2", "{errors}");
    assert_eq!(errors.as_array().unwrap().len(), 1);
    let foreign = json!({"mode": "atomic", "transfers": [item(&from, &to, 1), item(&to, &from, 1)]});
    assert_eq!(
        ada.write(path, &unique(), &foreign).await.expect_problem(404, "not-found")["errors"][0]["pointer"],
        "/transfers/1"
    );
    assert_eq!(world.books().await, before);
    ada.deposit(&from, 1, "USD").await.expect(201);
    world.restart();
    ada.write(path, "two", &refused).await.expect_problem(422, "insufficient-funds");
    ada.write(path, "three", &refused).await.expect(201);
    assert_eq!((ada.balance(&from).await, bob.balance(&to).await), (0, 201));
    world.close().await;
}

#[tokio::test]
async fn a_bulk_takes_five_hundred_and_names_what_does_not_fit() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let (from, to) = (ada.funded(500, "USD").await, ada.open("USD").await);
    let path = "/api/v1/transfers/bulk";
    let mut long = item(&from, &to, 1);
    long["description"] = json!("ü".repeat(500));
    long["category"] = json!("ü".repeat(64));
    long["reference"] = json!("ü".repeat(128));
    long["metadata"] = json!({"a": "ü".repeat(500), "b": "ü".repeat(500)});
    let answer = ada.write(path, &unique(), &json!({"mode": "atomic", "transfers": vec![long.clone(); 500]})).await;
    assert_eq!(answer.expect(201)["results"].as_array().unwrap().len(), 500);
    assert_eq!(ada.balance(&to).await, 500);
    for (count, mode) in [(0, "atomic"), (501, "independent")] {
        let body = json!({"mode": mode, "transfers": vec![item(&from, &to, 1); count]});
        ada.write(path, &unique(), &body).await.expect_invalid("/transfers");
    }
    let huge = "x".repeat(4 * 1024 * 1024);
    ada.write(path, &unique(), &json!({"mode": "atomic", "transfers": [], "huge": huge}))
        .await
        .expect_problem(413, "payload-too-large");
    let bad = |field: &str, value: Value| {
        let mut bad = item(&from, &to, 1);
        bad[field] = value;
        json!({"mode": "independent", "transfers": [item(&from, &to, 1), bad]})
    };
    for (field, value) in [
        ("to_account_id", json!("acc_x")),
        ("amount", json!(0)),
        ("amount", json!("1")),
        ("currency", json!("usd")),
        ("description", json!("")),
        ("value_date", json!("2026-02-30")),
        ("pending", json!(true)),
    ] {
        ada.write(path, &unique(), &bad(field, value)).await.expect_invalid(&format!("/transfers/1/{field}"));
    }
    ada.write(path, &unique(), &json!({"mode": "maybe", "transfers": []})).await.expect_invalid("/mode");
    ada.write(path, &unique(), &json!({"transfers": []})).await.expect_invalid("/mode");
    world.close().await;
}
