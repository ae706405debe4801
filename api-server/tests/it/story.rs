//! A customer's first hour, as the README tells it.

use finaiflow_ledger::query::trial_balance;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{PASSWORD, World, unique};

fn is_utc(value: &Value) -> bool {
    let text = value.as_str().unwrap();
    text.ends_with('Z') && OffsetDateTime::parse(text, &Rfc3339).is_ok()
}

#[tokio::test]
async fn a_customer_opens_accounts_and_moves_money() {
    let world = World::create().await;
    let mut ada = world.client("acme");
    let body = json!({"email": " Ada@Example.com", "password": PASSWORD, "name": "Ada"});
    let registered = ada.post("/api/v1/auth/register", &body).send().await;
    let user = registered.expect(201);
    assert!(user["id"].as_str().unwrap().starts_with("usr_") && is_utc(&user["created_at"]));
    assert_eq!((&user["email"], &user["name"]), (&json!("Ada@Example.com"), &json!("Ada")));
    assert_eq!(user.as_object().unwrap().len(), 4);

    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let login = ada.post("/api/v1/auth/login", &body).send().await;
    let tokens = login.expect(200);
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(1800)));
    assert_eq!(login.headers["cache-control"], "no-store");
    ada.token = Some(tokens["access_token"].as_str().unwrap().to_owned());
    assert_eq!(ada.get("/api/v1/auth/profile").send().await.expect(200), user);

    let body = json!({"type": "savings", "currency": "USD", "name": "Rainy days"});
    let opened = ada.write("/api/v1/accounts", &unique(), &body).await;
    let account = opened.expect(201);
    assert!(is_utc(&account["created_at"]));
    let expected = json!({"id": account["id"], "type": "savings", "currency": "USD", "name": "Rainy days",
        "owner_id": user["id"], "status": "active", "balance": 0, "available": 0, "held": 0, "metadata": {},
        "limits": {"minimum_balance": 0, "per_transaction": null, "daily": null, "monthly": null},
        "created_at": account["created_at"]});
    assert_eq!(*account, expected);
    let savings = account["id"].as_str().unwrap();
    let checking = ada.open("USD").await;

    let body =
        json!({"amount": 10_000, "currency": "USD", "description": "Salary", "category": "income", "reference": "R1"});
    let deposit = ada.write(&format!("/api/v1/accounts/{checking}/deposit"), &unique(), &body).await;
    let deposit = deposit.expect(201);
    let expected = json!({"id": deposit["id"], "account_id": checking, "type": "deposit", "amount": 10_000,
        "currency": "USD", "balance_after": 10_000, "description": "Salary", "category": "income", "reference": "R1",
        "metadata": {}, "value_date": deposit["created_at"].as_str().unwrap()[..10],
        "status": "completed", "created_at": deposit["created_at"], "transfer_id": null});
    assert_eq!(*deposit, expected);
    assert!(deposit["id"].as_str().unwrap().starts_with("txn_") && is_utc(&deposit["created_at"]));

    let body = json!({"from_account_id": checking, "to_account_id": savings, "amount": 2_500, "currency": "USD"});
    let transfer = ada.write("/api/v1/transfers", &unique(), &body).await;
    let transfer = transfer.expect(201);
    let expected = json!({"id": transfer["id"], "status": "completed", "from_account_id": checking,
        "to_account_id": savings, "amount": 2_500, "currency": "USD", "description": null, "category": null,
        "reference": null, "metadata": {}, "value_date": transfer["created_at"].as_str().unwrap()[..10],
        "created_at": transfer["created_at"], "expires_at": null});
    assert_eq!(*transfer, expected);

    let body = json!({"amount": 500, "currency": "USD"});
    let withdrawal = ada.write(&format!("/api/v1/accounts/{checking}/withdraw"), &unique(), &body).await;
    let withdrawal = withdrawal.expect(201);
    assert_eq!(withdrawal["amount"], -500);
    assert_eq!((&withdrawal["type"], &withdrawal["balance_after"]), (&json!("withdrawal"), &json!(7_000)));

    let balance = ada.get(&format!("/api/v1/accounts/{checking}/balance")).send().await;
    let balance = balance.expect(200);
    let expected = json!({"account_id": checking, "currency": "USD", "balance": 7_000, "available": 7_000, "held": 0,
        "version": 3, "as_of": balance["as_of"]});
    assert_eq!(*balance, expected);
    assert!(is_utc(&balance["as_of"]));

    let history = ada.get(&format!("/api/v1/accounts/{checking}/transactions")).send().await;
    let history = history.expect(200);
    let types: Vec<_> = history["data"].as_array().unwrap().iter().map(|t| t["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["withdrawal", "transfer_out", "deposit"]);
    assert_eq!(history["data"][0], *withdrawal);
    assert_eq!(history["data"][1]["transfer_id"], transfer["id"]);
    assert_eq!(history["next_cursor"], Value::Null);

    let books = trial_balance(&world.acme.pool).await.unwrap();
    assert_eq!(
        books.iter().map(|b| (b.currency.code(), b.debits, b.credits)).collect::<Vec<_>>(),
        [("USD", 9_500, 9_500)]
    );
    world.close().await;
}

#[tokio::test]
async fn lists_are_walked_by_cursor_without_gap_or_repetition() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let mut opened = Vec::new();
    for _ in 0..5 {
        opened.push(ada.open("USD").await);
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/accounts?limit=2".to_owned();
    loop {
        let page = ada.get(&path).send().await;
        let page = page.expect(200);
        let data = page["data"].as_array().unwrap();
        assert!((1..=2).contains(&data.len()));
        seen.extend(data.iter().map(|account| account["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/accounts?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, opened);

    for amount in 1..=3 {
        ada.deposit(&opened[0], amount, "USD").await.expect(201);
    }
    let path = format!("/api/v1/accounts/{}/transactions?limit=2", opened[0]);
    let first = ada.get(&path).send().await;
    let cursor = first.expect(200)["next_cursor"].as_str().unwrap().to_owned();
    ada.deposit(&opened[0], 4, "USD").await.expect(201);
    let second = ada.get(&format!("{path}&cursor={cursor}")).send().await;
    let amounts: Vec<_> = second.expect(200)["data"].as_array().unwrap().iter().map(|t| &t["amount"]).collect();
    assert_eq!(amounts, [1], "a new movement does not shift the pages");
    world.close().await;
}
