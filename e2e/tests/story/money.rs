//! Money moves through the API, exactly once, or not at all.

use finaiflow_e2e::{Api, Tenant, psql, unique};
use serde_json::{Value, json};

const MAX: i64 = (1 << 53) - 1;

fn amounts(user: &Api, account: &str) -> Vec<i64> {
    let body = user.get(&format!("/api/v1/accounts/{account}/transactions")).expect(200);
    body["data"].as_array().unwrap().iter().map(|t| t["amount"].as_i64().unwrap()).collect()
}

#[test]
fn the_story() {
    let tenant = Tenant::ready("story", &json!({}));
    let user = tenant.api().new_user();
    let profile = user.get("/api/v1/auth/profile").expect(200);
    assert_eq!(profile["name"], "Ada");

    let open = json!({"type": "checking", "currency": "USD", "name": "Everyday"});
    let key = unique();
    let first = user.write("/api/v1/accounts", &key, &open);
    assert_eq!(user.write("/api/v1/accounts", &key, &open), first, "the same key opens the account once");
    let everyday = first.expect(201)["id"].as_str().unwrap().to_owned();
    let savings = user.open_account("USD");

    let (deposit, key) = (json!({"amount": 10_000, "currency": "USD", "description": "salary"}), unique());
    let path = format!("/api/v1/accounts/{everyday}/deposit");
    let first = user.write(&path, &key, &deposit);
    assert_eq!(user.write(&path, &key, &deposit), first);
    assert_eq!(first.expect(201)["balance_after"], 10_000);

    let transfer = json!({"from_account_id": everyday, "to_account_id": savings, "amount": 2_500, "currency": "USD"});
    let key = unique();
    let first = user.write("/api/v1/transfers", &key, &transfer);
    assert_eq!(user.write("/api/v1/transfers", &key, &transfer), first);
    assert_eq!(first.expect(201)["status"], "completed");

    let (withdraw, key) = (json!({"amount": 500, "currency": "USD"}), unique());
    let path = format!("/api/v1/accounts/{everyday}/withdraw");
    let first = user.write(&path, &key, &withdraw);
    assert_eq!(user.write(&path, &key, &withdraw), first);
    let _ = first.expect(201);

    assert_eq!((user.balance(&everyday), user.balance(&savings)), (7_000, 2_500));
    assert_eq!(amounts(&user, &everyday), [-500, -2_500, 10_000], "newest first");
    assert_eq!(amounts(&user, &savings), [2_500]);
    tenant.assert_books();
    tenant.delete();
}

#[test]
fn refusals_change_nothing() {
    let (tenant, other) = (Tenant::ready("refusals", &json!({})), Tenant::ready("neighbour", &json!({})));
    let (user, stranger, neighbour) = (tenant.api().new_user(), tenant.api().new_user(), other.api().new_user());
    let (usd, eur) = (user.open_account("USD"), user.open_account("EUR"));
    let (theirs, foreign) = (stranger.open_account("USD"), neighbour.open_account("USD"));
    user.deposit(&usd, 1_000, "USD");
    stranger.deposit(&theirs, 1_000, "USD");
    let head = format!("select sequence from {}.ledger_head", tenant.schema());
    let sequence = || psql(&head);
    let before = sequence();

    let transfer = |from: &str, to: &str, amount: Value, currency: &str| {
        let body = json!({"from_account_id": from, "to_account_id": to, "amount": amount, "currency": currency});
        user.write("/api/v1/transfers", &unique(), &body)
    };
    transfer(&usd, &theirs, json!(1_001), "USD").expect_problem(422, "insufficient-funds");
    transfer(&usd, &eur, json!(1), "USD").expect_problem(422, "currency-mismatch");
    transfer(&usd, &theirs, json!(1), "EUR").expect_problem(422, "currency-mismatch");
    transfer(&usd, &usd, json!(1), "USD").expect_problem(422, "same-account");
    for amount in [json!(0), json!(-1), json!(1.5), json!(1.0), json!("1"), json!(MAX + 1), Value::Null] {
        let answer = transfer(&usd, &theirs, amount, "USD");
        answer.expect_problem(422, "validation-failed");
        assert_eq!(answer.body["errors"][0]["pointer"], "/amount");
    }
    transfer(&theirs, &usd, json!(1), "USD").expect_problem(404, "not-found");
    transfer(&foreign, &usd, json!(1), "USD").expect_problem(404, "not-found");
    transfer(&usd, &foreign, json!(1), "USD").expect_problem(404, "not-found");
    transfer(&usd, "acc_unknown", json!(1), "USD").expect_problem(404, "not-found");
    user.get(&format!("/api/v1/accounts/{theirs}/balance")).expect_problem(404, "not-found");
    user.get(&format!("/api/v1/accounts/{foreign}/transactions")).expect_problem(404, "not-found");
    let withdraw = json!({"amount": 1_001, "currency": "USD"});
    user.write(&format!("/api/v1/accounts/{usd}/withdraw"), &unique(), &withdraw)
        .expect_problem(422, "insufficient-funds");
    user.post("/api/v1/transfers", &json!({})).expect_problem(400, "idempotency-key-missing");
    assert_eq!(sequence(), before, "a refusal moved the ledger");
    assert_eq!((user.balance(&usd), user.balance(&eur), stranger.balance(&theirs)), (1_000, 0, 1_000));
    tenant.assert_books();

    // Tokens are good for one tenant.
    let _ = neighbour.get("/api/v1/accounts").expect(200);
    neighbour.at(&tenant.name).get("/api/v1/accounts").expect_problem(401, "unauthenticated");
    tenant.api().get("/api/v1/accounts").expect_problem(401, "unauthenticated");
    Api::new("no-such-bank").get("/api/v1/accounts").expect_problem(404, "tenant-not-found");
    tenant.delete();
    other.delete();
}

#[test]
fn a_used_key_with_another_body_is_refused() {
    let tenant = Tenant::ready("keys", &json!({}));
    let user = tenant.api().new_user();
    let account = user.open_account("USD");
    let (path, key) = (format!("/api/v1/accounts/{account}/deposit"), unique());
    let _ = user.write(&path, &key, &json!({"amount": 1, "currency": "USD"})).expect(201);
    let second = user.write(&path, &key, &json!({"amount": 2, "currency": "USD"}));
    second.expect_problem(422, "idempotency-key-reused");
    assert_eq!(user.balance(&account), 1);
    tenant.delete();
}

#[test]
fn concurrent_withdrawals_never_overdraw() {
    let tenant = Tenant::ready("race", &json!({}));
    let user = tenant.api().new_user();
    let account = user.open_account("USD");
    user.deposit(&account, 10, "USD");
    let path = format!("/api/v1/accounts/{account}/withdraw");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| user.write(&path, &unique(), &json!({"amount": 1, "currency": "USD"})).status))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|s| **s == 201).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|s| **s == 422).count(), 30, "{statuses:?}");
    assert_eq!(user.balance(&account), 0);
    tenant.assert_books();
    tenant.delete();
}

#[test]
fn settings_change_without_a_restart() {
    let tenant = Tenant::ready("live", &json!({}));
    let user = tenant.api().new_user();
    let account = user.open_account("USD");
    user.deposit(&account, 5, "USD");
    let change = |spec: Value| finaiflow_e2e::apply(&Tenant::manifest(&tenant.name, &spec)).unwrap();
    let becomes = |status: u16| {
        finaiflow_e2e::eventually(10, &format!("answer {status}"), || {
            let answer = user.get("/api/v1/accounts");
            if answer.status == status { Ok(()) } else { Err(answer.body.to_string()) }
        });
    };
    let _ = change(json!({"suspend": true}));
    becomes(403);
    user.get("/api/v1/accounts").expect_problem(403, "tenant-suspended");
    let _ = change(json!({"suspend": false}));
    becomes(200);
    assert_eq!(user.balance(&account), 5);
    tenant.delete();
}
