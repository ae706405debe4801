//! What was: balances at a moment, and lists of movements by filter, page by page.

use serde_json::{Value, json};

use crate::harness::{Answer, Client, World, unique};

async fn book(client: &Client<'_>, path: &str, body: Value) -> Value {
    client.write(path, &unique(), &body).await.expect(201).clone()
}

fn amounts(answer: &Answer) -> Vec<i64> {
    answer.expect(200)["data"].as_array().unwrap().iter().map(|t| t["amount"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn a_balance_is_told_as_of_any_moment() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let account = ada.open("USD").await;
    let opened = ada.get(&format!("/api/v1/accounts/{account}")).send().await.body["created_at"].clone();
    let mut moments = vec![(opened.as_str().unwrap().to_owned(), [0, 0, 0])];
    let mut balance = 0;
    for amount in 1..=9 {
        let booked = ada.deposit(&account, amount, "USD").await;
        balance += amount;
        moments.push((booked.expect(201)["created_at"].as_str().unwrap().to_owned(), [balance, balance, 0]));
    }
    let hold = book(&ada, "/api/v1/holds", json!({"account_id": account, "amount": 5, "currency": "USD"})).await;
    moments.push((hold["created_at"].as_str().unwrap().to_owned(), [45, 40, 5]));
    let path = format!("/api/v1/accounts/{account}/balance");
    for (version, (moment, funds)) in moments.iter().enumerate() {
        let answer = ada.get(&format!("{path}?as_of={moment}")).send().await;
        let told = ["balance", "available", "held"].map(|name| answer.expect(200)[name].as_i64().unwrap());
        assert_eq!((told, &answer.body["version"]), (*funds, &json!(version)), "{moment}");
        assert_eq!(answer.body["as_of"], json!(moment));
        bob.get(&format!("{path}?as_of={moment}")).send().await.expect_problem(404, "not-found");
    }
    let later = ada.get(&format!("{path}?as_of=9999-12-31T23:59:59-23:00")).send().await;
    assert_eq!((&later.expect(200)["balance"], &later.body["version"]), (&json!(45), &json!(10)));
    assert!(later.body["as_of"].as_str().unwrap() < "2999", "what is to come is not told: {}", later.body);
    for before in ["2000-01-01T00:00:00Z", "0000-01-01T00:00:00%2B23:59"] {
        ada.get(&format!("{path}?as_of={before}")).send().await.expect_problem(404, "not-found");
    }
    for bad in ["now", "2026-03-01", "2026-03-01T00:00:00", "2026-02-30T00:00:00Z", "%00"] {
        ada.get(&format!("{path}?as_of={bad}")).send().await.expect_invalid("/as_of");
    }
    world.close().await;
}

#[tokio::test]
async fn movements_are_found_by_what_they_are() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let (account, savings, theirs) = (ada.open("USD").await, ada.open("USD").await, bob.open("USD").await);
    let deposit = json!({"amount": 10_000, "currency": "USD", "description": "Salary March", "category": "income",
        "reference": "PAY-1", "metadata": {"employer": "Initech"}, "value_date": "2026-02-28"});
    let salary = book(&ada, &format!("/api/v1/accounts/{account}/deposit"), deposit).await;
    assert_eq!((&salary["value_date"], &salary["metadata"]["employer"]), (&json!("2026-02-28"), &json!("Initech")));
    let pay = |to: &str, amount: i64, category: &str, description: &str| {
        json!({"from_account_id": account, "to_account_id": to, "amount": amount, "currency": "USD", "category": category,
            "description": description})
    };
    book(&ada, "/api/v1/transfers", pay(&theirs, 2_000, "housing", "Rent MARCH")).await;
    book(&ada, "/api/v1/transfers", pay(&savings, 500, "savings", "50% for later")).await;
    let withdrawal = json!({"amount": 300, "currency": "USD", "category": "housing"});
    let last = book(&ada, &format!("/api/v1/accounts/{account}/withdraw"), withdrawal).await;
    let of_account = format!("/api/v1/accounts/{account}/transactions");
    let find = async |query: &str| amounts(&ada.get(&format!("{of_account}?{query}")).send().await);
    assert_eq!(find("").await, [-300, -500, -2_000, 10_000]);
    assert_eq!(ada.get(&of_account).send().await.body["data"][3], salary);
    for (query, expected) in [
        ("type=deposit", &[10_000][..]),
        ("type=transfer_out", &[-500, -2_000]),
        ("type=transfer_in", &[]),
        ("category=housing", &[-300, -2_000]),
        ("category=Housing", &[]),
        ("min_amount=500", &[-500, -2_000, 10_000]),
        ("max_amount=500", &[-300, -500]),
        ("min_amount=400&max_amount=2000", &[-500, -2_000]),
        ("q=march", &[-2_000, 10_000]),
        ("q=pay-1", &[10_000]),
        ("q=50%25%20for", &[-500]),
        ("q=_", &[]),
        ("q=march&type=deposit", &[10_000]),
    ] {
        assert_eq!(find(query).await, expected, "{query}");
    }
    let (first, last) = (salary["created_at"].as_str().unwrap(), last["created_at"].as_str().unwrap());
    assert_eq!(find(&format!("from={last}")).await, [-300], "from is included");
    assert_eq!(find(&format!("to={last}")).await, [-500, -2_000, 10_000], "to is not");
    assert_eq!(find(&format!("from={first}&to={last}&category=housing")).await, [-2_000]);
    assert!(find(&format!("to={first}")).await.is_empty());
    for (query, pointer) in [
        ("type=gift", "/type"),
        ("min_amount=0", "/min_amount"),
        ("max_amount=1.5", "/max_amount"),
        ("q=", "/q"),
        ("category=%0A", "/category"),
        ("from=yesterday", "/from"),
        ("to=1&to=2", "/to"),
        ("account=x", "/account"),
    ] {
        for list in [&of_account, "/api/v1/transactions"] {
            ada.get(&format!("{list}?{query}")).send().await.expect_invalid(pointer);
        }
    }

    // All own accounts: what went from one to the other is seen from both.
    let all = async |query: &str| amounts(&ada.get(&format!("/api/v1/transactions?{query}")).send().await);
    assert_eq!(all("").await, [-300, 500, -500, -2_000, 10_000]);
    assert_eq!(all("type=transfer_in").await, [500]);
    assert_eq!(all(&format!("to={last}&q=LATER")).await, [500, -500]);
    assert_eq!(amounts(&bob.get("/api/v1/transactions").send().await), [2_000]);
    let categories = ada.get("/api/v1/categories").send().await;
    let told = [("housing", 2), ("savings", 2), ("income", 1)]
        .map(|(category, transactions)| json!({"category": category, "transactions": transactions}));
    assert_eq!(categories.expect(200)["data"], json!(told));
    assert_eq!(bob.get("/api/v1/categories").send().await.expect(200)["data"][0]["category"], "housing");
    world.close().await;
}

/// Pages that are read while others write show what was there when the first was read, once each.
#[tokio::test]
async fn pages_stay_in_place_while_money_moves() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let accounts = [ada.funded(1_000_000, "USD").await, ada.funded(1_000_000, "USD").await];
    for amount in 1..=20 {
        ada.transfer(&accounts[amount % 2], &accounts[(amount + 1) % 2], i64::try_from(amount).unwrap())
            .await
            .expect(201);
    }
    for (list, expected) in
        [(format!("/api/v1/accounts/{}/transactions", accounts[0]), 20), ("/api/v1/transactions".to_owned(), 40)]
    {
        for filter in ["", "&max_amount=20", "&type=transfer_in"] {
            let (mut path, mut seen) = (format!("{list}?limit=3{filter}"), Vec::new());
            loop {
                let page = ada.get(&path).send().await;
                let data = page.expect(200)["data"].as_array().unwrap().clone();
                assert!(data.len() <= 3);
                seen.extend(
                    data.into_iter().filter(|t| t["amount"].as_i64().unwrap().abs() <= 20).map(|t| t["id"].to_string()),
                );
                // A newcomer that fits each of the filters.
                ada.transfer(&accounts[1], &accounts[0], 1).await.expect(201);
                let Some(cursor) = page.body["next_cursor"].as_str() else { break };
                path = format!("{list}?limit=3{filter}&cursor={cursor}");
            }
            let unique: std::collections::HashSet<_> = seen.iter().collect();
            assert_eq!(unique.len(), seen.len(), "{list} {filter}");
            assert!(
                seen.len() >= if filter.contains("type") { expected / 2 } else { expected },
                "{list} {filter}: {seen:?}"
            );
        }
    }
    world.close().await;
}
