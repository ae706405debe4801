//! Accounts are renamed, frozen, limited and closed, by those who may.

use axum::http::Method;
use finaiflow_api::tenant::Role;
use serde_json::{Value, json};

use crate::harness::{Answer, Client, World, unique};

async fn patch(client: &Client<'_>, account: &str, body: &Value) -> Answer {
    client.send(Method::PATCH, &format!("/api/v1/accounts/{account}"), &unique(), body).await
}

async fn limit(client: &Client<'_>, account: &str, body: &Value) -> Answer {
    client.send(Method::PUT, &format!("/api/v1/accounts/{account}/limits"), &unique(), body).await
}

async fn act(client: &Client<'_>, account: &str, action: &str) -> Answer {
    client.act(&format!("/api/v1/accounts/{account}/{action}")).await
}

#[tokio::test]
async fn an_account_is_described_as_its_owner_likes() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let body = json!({"type": "savings", "currency": "USD", "name": "Old", "metadata": {"goal": "boat"}});
    let opened = ada.write("/api/v1/accounts", &unique(), &body).await;
    assert_eq!(opened.expect(201)["metadata"], json!({"goal": "boat"}));
    let account = opened.id();
    let read = async || ada.get(&format!("/api/v1/accounts/{account}")).send().await;

    let renamed = patch(&ada, &account, &json!({"name": " New "})).await;
    assert_eq!((&renamed.expect(200)["name"], &renamed.body["metadata"]), (&json!("New"), &json!({"goal": "boat"})));
    assert_eq!(read().await.body, renamed.body);
    let other = patch(&ada, &account, &json!({"metadata": {"goal": "house", "by": ""}})).await;
    assert_eq!((&other.expect(200)["name"], &read().await.body), (&json!("New"), &other.body));
    // What is taken away is gone, for a server that has not seen it go too.
    let emptied = patch(&ada, &account, &json!({"metadata": {}})).await;
    assert_eq!(emptied.expect(200)["metadata"], json!({}));
    assert_eq!(read().await.body, emptied.body);
    world.restart();
    let again = patch(&ada, &account, &json!({"name": "Newer"})).await;
    assert_eq!(again.expect(200)["metadata"], json!({}));
    assert_eq!(patch(&ada, &account, &json!({})).await.expect(200), &again.body);

    patch(&ada, &account, &json!({"name": " "})).await.expect_invalid("/name");
    patch(&ada, &account, &json!({"metadata": {"a/b": "x".repeat(501)}})).await.expect_invalid("/metadata/a~1b");
    patch(&ada, &account, &json!({"metadata": {"a": 1}})).await.expect_invalid("/metadata/a");
    patch(&ada, &account, &json!({"status": "closed"})).await.expect_invalid("/status");
    world.close().await;
}

#[tokio::test]
async fn a_frozen_account_stands_still_until_it_is_let_go() {
    let world = World::create().await;
    let (ada, tess) = (world.user("acme", "ada").await, world.user("acme", "tess").await);
    world.appoint(&[(&tess, Role::Teller)]).await;
    let (account, other) = (ada.funded(100, "USD").await, ada.funded(100, "USD").await);
    for action in ["freeze", "unfreeze"] {
        act(&ada, &account, action).await.expect_problem(403, "forbidden");
    }
    act(&tess, &account, "unfreeze").await.expect_problem(409, "status-conflict");
    let path = format!("/api/v1/accounts/{account}/freeze");
    let frozen = tess.write(&path, "k", &json!({"reason": "stolen card"})).await;
    assert_eq!(frozen.expect(200)["status"], "frozen");
    assert_eq!(tess.write(&path, "k", &json!({"reason": "stolen card"})).await.bytes, frozen.bytes);
    tess.write(&path, "k", &json!({})).await.expect_problem(422, "idempotency-key-reused");
    act(&tess, &account, "freeze").await.expect_problem(409, "status-conflict");
    let why = "SELECT count(*) FROM acme.journals WHERE kind = 'account_changed' AND reference = 'stolen card'";
    assert_eq!(world.read::<i64>(why).await, 1, "why is kept");

    let before = world.books().await;
    let movement = json!({"amount": 1, "currency": "USD"});
    for action in ["deposit", "withdraw"] {
        let path = format!("/api/v1/accounts/{account}/{action}");
        ada.write(&path, &unique(), &movement).await.expect_problem(409, "account-not-active");
    }
    ada.transfer(&account, &other, 1).await.expect_problem(409, "account-not-active");
    ada.transfer(&other, &account, 1).await.expect_problem(409, "account-not-active");
    let hold = json!({"account_id": account, "amount": 1, "currency": "USD"});
    ada.write("/api/v1/holds", &unique(), &hold).await.expect_problem(409, "account-not-active");
    act(&ada, &account, "close").await.expect_problem(409, "status-conflict");
    assert_eq!(world.books().await, before);

    // A body without a content type is none that is understood; nothing at all, or null, is no reason.
    let path = format!("/api/v1/accounts/{account}/unfreeze");
    let call = || tess.call(Method::POST, &path).key(&unique());
    call().body("{}").send().await.expect_problem(415, "unsupported-media-type");
    call().header("content-type", "application/json").send().await.expect_problem(400, "malformed");
    call().header("content-type", "application/json").body("[]").send().await.expect_invalid("");
    assert_eq!(tess.post(&path, &Value::Null).key("thawed").send().await.expect(200)["status"], "active");
    let again = tess.call(Method::POST, &path).key("thawed").send().await;
    assert_eq!(again.expect(200)["status"], "active");
    ada.transfer(&account, &other, 1).await.expect(201);
    world.close().await;
}

#[tokio::test]
async fn only_an_empty_account_is_closed_and_for_good() {
    let world = World::create().await;
    let (ada, tess) = (world.user("acme", "ada").await, world.user("acme", "tess").await);
    world.appoint(&[(&tess, Role::Teller)]).await;
    let (account, other) = (ada.funded(100, "USD").await, ada.open("USD").await);
    act(&ada, &account, "close").await.expect_problem(409, "account-not-empty");
    ada.transfer(&account, &other, 100).await.expect(201);
    let call = ada.post(&format!("/api/v1/accounts/{account}/close"), &json!({"reason": "x\n"})).key(&unique());
    call.send().await.expect_invalid("/reason");
    assert_eq!(act(&ada, &account, "close").await.expect(200)["status"], "closed");
    for action in ["close", "freeze", "unfreeze"] {
        act(&tess, &account, action).await.expect_problem(409, "status-conflict");
    }
    patch(&ada, &account, &json!({"name": "x"})).await.expect_problem(409, "status-conflict");
    limit(&tess, &account, &json!({})).await.expect_problem(409, "status-conflict");
    ada.transfer(&other, &account, 1).await.expect_problem(409, "account-not-active");
    // Its history stays.
    let path = format!("/api/v1/accounts/{account}/transactions");
    assert_eq!(ada.get(&path).send().await.expect(200)["data"].as_array().unwrap().len(), 2);
    // A frozen one is closed by staff only.
    let frozen = ada.open("USD").await;
    act(&tess, &frozen, "freeze").await.expect(200);
    act(&ada, &frozen, "close").await.expect_problem(409, "status-conflict");
    act(&tess, &frozen, "close").await.expect(200);
    world.close().await;
}

#[tokio::test]
async fn limits_bind_to_the_last_cent() {
    let world = World::create().await;
    let (ada, tess) = (world.user("acme", "ada").await, world.user("acme", "tess").await);
    world.appoint(&[(&tess, Role::Teller)]).await;
    let account = ada.funded(100_000, "USD").await;
    limit(&ada, &account, &json!({"daily": 1})).await.expect_problem(403, "forbidden");
    for (body, pointer) in [
        (json!({"daily": -1}), "/daily"),
        (json!({"per_transaction": 9_007_199_254_740_992_i64}), "/per_transaction"),
        (json!({"minimum_balance": -9_007_199_254_740_992_i64}), "/minimum_balance"),
        (json!({"weekly": 1}), "/weekly"),
        (json!({"monthly": "1"}), "/monthly"),
    ] {
        limit(&tess, &account, &body).await.expect_invalid(pointer);
    }
    let set = limit(&tess, &account, &json!({"per_transaction": 500, "daily": 1_030, "monthly": null})).await;
    let expected = json!({"minimum_balance": 0, "per_transaction": 500, "daily": 1_030, "monthly": null});
    assert_eq!(set.expect(200)["limits"], expected);
    assert_eq!(ada.get(&format!("/api/v1/accounts/{account}")).send().await.body["limits"], expected);

    let path = format!("/api/v1/accounts/{account}/withdraw");
    let withdraw = async |amount: i64| ada.write(&path, &unique(), &json!({"amount": amount, "currency": "USD"})).await;
    withdraw(501).await.expect_problem(422, "limit-exceeded");
    // Fifty at once, of 50 each, against 1,030 a day: twenty fit.
    let answers = futures::future::join_all((0..50).map(|_| withdraw(50))).await;
    let booked = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(booked, 20);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        refused.expect_problem(422, "limit-exceeded");
    }
    assert_eq!(ada.balance(&account).await, 99_000);
    world.restart();
    withdraw(31).await.expect_problem(422, "limit-exceeded");
    withdraw(30).await.expect(201);

    // An overdraft, and none any more for what is not there: only what takes is refused.
    let overdrawn = ada.open("USD").await;
    limit(&tess, &overdrawn, &json!({"minimum_balance": -100})).await.expect(200);
    ada.transfer(&overdrawn, &account, 101).await.expect_problem(422, "insufficient-funds");
    ada.transfer(&overdrawn, &account, 100).await.expect(201);
    assert_eq!(ada.funds(&overdrawn).await, [-100, -100, 0]);
    limit(&tess, &overdrawn, &json!({})).await.expect(200);
    ada.transfer(&overdrawn, &account, 1).await.expect_problem(422, "insufficient-funds");
    ada.transfer(&account, &overdrawn, 50).await.expect_problem(422, "limit-exceeded");
    ada.deposit(&overdrawn, 50, "USD").await.expect(201);
    act(&ada, &overdrawn, "close").await.expect_problem(409, "account-not-empty");
    world.close().await;
}

/// Who may do what: a customer, an auditor and a teller, on an account that is none of theirs.
#[tokio::test]
async fn staff_may_what_their_role_says_and_no_more() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (audrey, tess) = (world.user("acme", "audrey").await, world.user("acme", "tess").await);
    // Whoever has a role next door has none here.
    let eve = world.user("globex", "eve").await;
    let account = ada.funded(1_000, "USD").await;
    let own = [&bob, &audrey, &tess].map(|client| client.funded(10, "USD"));
    let [bobs, audreys, tess_own] = futures::future::join_all(own).await.try_into().unwrap();
    let staff = [(&audrey, Role::Auditor), (&tess, Role::Teller)];
    let owner = format!("/api/v1/accounts?owner={}", ada.user_id().await);
    bob.get(&owner).send().await.expect_problem(403, "forbidden");
    world.appoint(&staff).await;

    let hold = json!({"account_id": account, "amount": 1, "currency": "USD"});
    let transfer = ada.transfer(&account, &bobs, 1).await.id();
    let hold = ada.write("/api/v1/holds", &unique(), &hold).await.id();
    let journal = transfer.replace("trf_", "jrn_");
    // Read: the status for a customer, an auditor and a teller.
    for (path, statuses) in [
        (format!("/api/v1/accounts/{account}"), [404, 200, 200]),
        (format!("/api/v1/accounts/{account}/balance"), [404, 200, 200]),
        (format!("/api/v1/accounts/{account}/balance?as_of=2999-01-01T00:00:00Z"), [404, 200, 200]),
        (format!("/api/v1/accounts/{account}/transactions"), [404, 200, 200]),
        (format!("/api/v1/accounts/{account}/holds"), [404, 200, 200]),
        (format!("/api/v1/holds/{hold}"), [404, 200, 200]),
        (format!("/api/v1/transfers/{transfer}"), [200, 200, 200]),
        (format!("/api/v1/journals/{journal}"), [403, 200, 200]),
        (owner.clone(), [403, 200, 200]),
        ("/api/v1/ledger-accounts".to_owned(), [403, 200, 200]),
        ("/api/v1/trial-balance".to_owned(), [403, 200, 200]),
    ] {
        for (client, status) in [&bob, &audrey, &tess].into_iter().zip(statuses) {
            client.get(&path).send().await.expect(status);
        }
    }
    let listed = audrey.get(&owner).send().await;
    assert_eq!(listed.expect(200)["data"][0]["id"], json!(account));
    assert_eq!(audrey.get("/api/v1/accounts").send().await.expect(200)["data"][0]["id"], json!(audreys));
    eve.get(&format!("/api/v1/accounts/{account}")).send().await.expect_problem(404, "not-found");

    // Act.
    let money = json!({"amount": 1, "currency": "USD"});
    let legs =
        json!({"currency": "USD", "legs": [{"account_id": account, "amount": -1}, {"account_id": bobs, "amount": 1}]});
    let to_tess = json!({"from_account_id": account, "to_account_id": tess_own, "amount": 1, "currency": "USD"});
    let fee = json!({"kind": "fee", "currency": "USD", "name": "Fees"});
    let place = json!({"account_id": account, "amount": 1, "currency": "USD"});
    world.reconfigure(|settings| settings.self_deposit = false);
    ada.deposit(&account, 1, "USD").await.expect_problem(403, "forbidden");
    world.appoint(&staff).await;
    for (method, path, body, statuses) in [
        (Method::PATCH, format!("/api/v1/accounts/{account}"), json!({"name": "x"}), [404, 404, 200]),
        (Method::PUT, format!("/api/v1/accounts/{account}/limits"), json!({"daily": 900}), [404, 404, 200]),
        (Method::POST, format!("/api/v1/accounts/{account}/freeze"), json!({}), [404, 404, 200]),
        (Method::POST, format!("/api/v1/accounts/{account}/unfreeze"), json!({}), [404, 404, 200]),
        (Method::POST, format!("/api/v1/accounts/{account}/deposit"), money.clone(), [404, 404, 201]),
        (Method::POST, format!("/api/v1/accounts/{account}/withdraw"), money.clone(), [404, 404, 201]),
        (Method::POST, "/api/v1/transfers".to_owned(), to_tess, [404, 404, 201]),
        (Method::POST, "/api/v1/holds".to_owned(), place, [404, 404, 201]),
        (Method::POST, format!("/api/v1/holds/{hold}/capture"), json!({}), [404, 403, 200]),
        (Method::POST, "/api/v1/journals".to_owned(), legs, [403, 403, 201]),
        (Method::POST, format!("/api/v1/journals/{journal}/reverse"), json!({}), [403, 403, 201]),
        (Method::POST, "/api/v1/ledger-accounts".to_owned(), fee, [403, 403, 201]),
        (Method::POST, format!("/api/v1/accounts/{account}/close"), json!({}), [404, 404, 409]),
    ] {
        for (client, status) in [&bob, &audrey, &tess].into_iter().zip(statuses) {
            client.send(method.clone(), &path, &unique(), &body).await.expect(status);
        }
    }
    // A role that is taken away is gone with the next request.
    world.appoint(&[]).await;
    tess.get(&format!("/api/v1/accounts/{account}")).send().await.expect_problem(404, "not-found");
    audrey.get("/api/v1/trial-balance").send().await.expect_problem(403, "forbidden");
    world.close().await;
}
