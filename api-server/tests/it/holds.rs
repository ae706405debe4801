//! Money is set aside, taken in parts, released, and free again when its time has come.

use std::sync::Arc;

use finaiflow_api::clock;
use finaiflow_api::sweep::Sweeper;
use finaiflow_api::tenant::Role;
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Client, World, unique};

async fn place(client: &Client<'_>, account: &str, amount: i64) -> String {
    let body = json!({"account_id": account, "amount": amount, "currency": "USD", "description": "Hotel"});
    client.write("/api/v1/holds", &unique(), &body).await.id()
}

#[tokio::test]
async fn a_hold_is_taken_in_parts_and_released() {
    let world = World::create().await;
    let (ada, bob, tess) =
        (world.user("acme", "ada").await, world.user("acme", "bob").await, world.user("acme", "tess").await);
    world.appoint(&[(&tess, Role::Teller)]).await;
    let account = ada.funded(1_000, "USD").await;
    let body = json!({"account_id": account, "amount": 700, "currency": "USD", "metadata": {"room": "12"}});
    let placed = ada.write("/api/v1/holds", "place", &body).await;
    let expected = json!({"id": placed.expect(201)["id"], "account_id": account, "destination_id": null, "status": "held",
        "amount": 700, "remaining": 700, "captured": 0, "currency": "USD", "description": null, "category": null,
        "reference": null, "metadata": {"room": "12"}, "value_date": placed.body["created_at"].as_str().unwrap()[..10],
        "created_at": placed.body["created_at"], "expires_at": null});
    assert_eq!(placed.body, expected);
    assert_eq!(ada.write("/api/v1/holds", "place", &body).await.bytes, placed.bytes);
    assert_eq!(ada.funds(&account).await, [1_000, 300, 700]);
    for (amount, problem) in [(301, "insufficient-funds"), (300, "")] {
        let path = format!("/api/v1/accounts/{account}/withdraw");
        let answer = ada.write(&path, &unique(), &json!({"amount": amount, "currency": "USD"})).await;
        assert_eq!(answer.problem().unwrap_or_default(), problem);
    }
    let path = format!("/api/v1/holds/{}", placed.id());
    for action in ["capture", "void"] {
        ada.act(&format!("{path}/{action}")).await.expect_problem(403, "forbidden");
        bob.act(&format!("{path}/{action}")).await.expect_problem(404, "not-found");
    }
    bob.get(&path).send().await.expect_problem(404, "not-found");
    let capture = format!("{path}/capture");
    tess.write(&capture, &unique(), &json!({"amount": 701})).await.expect_problem(422, "exceeds-hold");
    let part = tess.write(&capture, "part", &json!({"amount": 200, "keep_rest": true})).await;
    let told = ["status", "remaining", "captured"].map(|name| part.expect(200)[name].clone());
    assert_eq!(told, [json!("held"), json!(500), json!(200)]);
    assert_eq!(ada.funds(&account).await, [500, 0, 500]);
    let rest = tess.write(&capture, "rest", &json!({"amount": 100})).await;
    let told = ["status", "remaining", "captured"].map(|name| rest.expect(200)[name].clone());
    assert_eq!(told, [json!("captured"), json!(0), json!(300)]);
    world.restart();
    assert_eq!(tess.write(&capture, "part", &json!({"amount": 200, "keep_rest": true})).await.bytes, part.bytes);
    assert_eq!(ada.get(&path).send().await.expect(200), &rest.body);
    assert_eq!(ada.funds(&account).await, [400, 400, 0]);
    for action in ["capture", "void"] {
        tess.act(&format!("{path}/{action}")).await.expect_problem(409, "hold-settled");
    }

    let voided = place(&ada, &account, 400).await;
    assert_eq!(ada.funds(&account).await, [400, 0, 400]);
    assert_eq!(tess.act(&format!("/api/v1/holds/{voided}/void")).await.expect(200)["status"], "voided");
    assert_eq!(ada.funds(&account).await, [400, 400, 0]);
    let third = place(&ada, &account, 1).await;
    tess.act(&format!("/api/v1/holds/{third}/capture")).await.expect(200);
    let list = format!("/api/v1/accounts/{account}/holds");
    let page = ada.get(&format!("{list}?limit=2")).send().await;
    let seen: Vec<_> = page.expect(200)["data"].as_array().unwrap().iter().map(|h| h["id"].as_str().unwrap()).collect();
    assert_eq!(seen, [&third, &voided], "the newest first");
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let page = ada.get(&format!("{list}?limit=2&cursor={cursor}")).send().await;
    assert_eq!((&page.expect(200)["data"][0]["id"], &page.body["next_cursor"]), (&placed.body["id"], &json!(null)));
    bob.get(&list).send().await.expect_problem(404, "not-found");
    // Statements tell what was taken, with the words it was set aside with.
    let taken = ada.get(&format!("/api/v1/accounts/{account}/transactions?type=capture")).send().await;
    let amounts: Vec<_> = taken.expect(200)["data"].as_array().unwrap().iter().map(|t| &t["amount"]).collect();
    assert_eq!(amounts, [-1, -100, -200]);
    assert_eq!(taken.body["data"][0]["description"], "Hotel");
    world.close().await;
}

#[tokio::test]
async fn a_hold_is_free_when_its_time_has_come() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (account, to) = (ada.funded(1_000, "USD").await, bob.open("USD").await);
    let mut sweeper = Sweeper::new(Arc::clone(&world.directory), clock::system());
    // Time enough to be placed on a busy machine, and not long to wait for.
    let due = clock::system()() + time::Duration::seconds(3);
    let expires_at = due.format(&Rfc3339).unwrap();
    let hold = json!({"account_id": account, "amount": 400, "currency": "USD", "expires_at": expires_at});
    let transfer = json!({"from_account_id": account, "to_account_id": to, "amount": 300, "currency": "USD",
        "pending": true, "expires_at": expires_at});
    let hold = format!("/api/v1/holds/{}", ada.write("/api/v1/holds", &unique(), &hold).await.id());
    let transfer = format!("/api/v1/transfers/{}", ada.write("/api/v1/transfers", &unique(), &transfer).await.id());
    let kept = place(&ada, &account, 100).await;
    sweeper.round().await;
    assert_eq!(ada.funds(&account).await, [1_000, 200, 800], "it is not time yet");
    sweeper.round().await;
    while clock::system()() < due {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ada.act(&format!("{transfer}/complete")).await.expect_problem(409, "hold-expired");
    // Two replicas at once, neither of which has seen a request since.
    let mut other = Sweeper::new(Arc::clone(&world.directory), clock::system());
    futures::join!(sweeper.round(), other.round());
    assert_eq!(ada.funds(&account).await, [1_000, 900, 100]);
    assert_eq!(ada.get(&hold).send().await.expect(200)["status"], "expired");
    assert_eq!(bob.get(&transfer).send().await.expect(200)["status"], "canceled");
    assert_eq!(ada.get(&format!("/api/v1/holds/{kept}")).send().await.expect(200)["status"], "held");
    let released: i64 = world.read("SELECT count(*) FROM acme.journals WHERE kind = 'hold_expired'").await;
    assert_eq!(released, 2, "each once");
    ada.transfer(&account, &to, 900).await.expect(201);
    world.close().await;
}

#[tokio::test]
async fn what_is_past_its_time_is_deleted_where_a_tenant_is_used() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    let keys = "SELECT count(*) FROM acme.idempotency_keys";
    let mut sweeper = Sweeper::new(Arc::clone(&world.directory), clock::system());
    sweeper.round().await;
    assert_eq!(world.read::<i64>(keys).await, 1, "a live key stays");
    world.execute("UPDATE acme.idempotency_keys SET expires_at = now() - interval '1 second'").await;
    sweeper.round().await;
    assert_eq!(world.read::<i64>(keys).await, 1, "nobody has used the tenant since");
    ada.balance(&account).await;
    sweeper.round().await;
    assert_eq!(world.read::<i64>(keys).await, 0);
    world.close().await;
}
