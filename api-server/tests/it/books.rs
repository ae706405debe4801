//! The books of the bank, for those who keep them and those who check them.

use finaiflow_api::tenant::Role;
use serde_json::{Value, json};

use crate::harness::{World, unique};

fn leg(account: &str, amount: i64) -> Value {
    json!({"account_id": account, "amount": amount})
}

#[tokio::test]
async fn a_journal_moves_money_between_any_accounts_and_back() {
    let world = World::create().await;
    let (ada, tess) = (world.user("acme", "ada").await, world.user("acme", "tess").await);
    let audrey = world.user("acme", "audrey").await;
    world.appoint(&[(&tess, Role::Teller), (&audrey, Role::Auditor)]).await;
    let (a, b, euros) = (ada.funded(1_000, "USD").await, ada.funded(50, "USD").await, ada.open("EUR").await);
    let fee = json!({"kind": "fee", "currency": "USD", "name": "Monthly fees"});
    let opened = tess.write("/api/v1/ledger-accounts", "fee", &fee).await;
    let expected = json!({"id": opened.expect(201)["id"], "kind": "fee", "normal_side": "credit", "currency": "USD",
        "name": "Monthly fees", "balance": 0});
    assert_eq!(opened.body, expected);
    let fees = opened.id();

    let path = "/api/v1/journals";
    let body = json!({"currency": "USD", "legs": [leg(&a, -30), leg(&b, -20), leg(&fees, 50)], "description": "March",
        "metadata": {"run": "3"}});
    let posted = tess.write(path, "post", &body).await;
    let journal = posted.expect(201);
    assert_eq!(
        (&journal["kind"], &journal["amount"], &journal["status"]),
        (&json!("journal"), &json!(50), &json!("completed"))
    );
    assert_eq!(journal["actor_id"], json!(tess.user_id().await));
    let read = format!("{path}/{}", posted.id());
    assert_eq!(audrey.get(&read).send().await.expect(200), journal);
    world.restart();
    assert_eq!(tess.write(path, "post", &body).await.bytes, posted.bytes);
    assert_eq!(tess.write("/api/v1/ledger-accounts", "fee", &fee).await.bytes, opened.bytes);
    let statement = ada.get(&format!("/api/v1/accounts/{a}/transactions")).send().await;
    let seen = &statement.expect(200)["data"][0];
    assert_eq!(
        (&seen["type"], &seen["amount"], &seen["description"]),
        (&json!("journal"), &json!(-30), &json!("March"))
    );

    for (legs, status, problem) in [
        (json!([leg(&a, -1), leg(&b, 2)]), 422, "unbalanced"),
        (json!([leg(&a, 0), leg(&b, 0)]), 422, "unbalanced"),
        (json!([leg(&a, -1), leg(&a, 1)]), 422, "same-account"),
        (json!([leg(&a, -1), leg(&euros, 1)]), 422, "currency-mismatch"),
        (json!([leg(&b, -31), leg(&a, 31)]), 422, "insufficient-funds"),
        (json!([leg("acc_aaaaaaiaaaaaaaab", -1), leg(&a, 1)]), 404, "not-found"),
    ] {
        let before = world.books().await;
        let body = json!({"currency": "USD", "legs": legs});
        tess.write(path, &unique(), &body).await.expect_problem(status, problem);
        assert_eq!(world.books().await, before);
    }
    for (legs, pointer) in [
        (json!([leg(&a, 1)]), "/legs"),
        (json!([]), "/legs"),
        (json!([leg("acc_x", 1), leg(&a, -1)]), "/legs/0/account_id"),
        (json!([leg(&b, 1), leg(&a, -9_007_199_254_740_992)]), "/legs/1/amount"),
    ] {
        let body = json!({"currency": "USD", "legs": legs});
        tess.write(path, &unique(), &body).await.expect_invalid(pointer);
    }

    let back = tess.write(&format!("{read}/reverse"), "back", &json!({"reference": "error"})).await;
    assert_eq!((&back.expect(201)["kind"], &back.body["refers_to"]), (&json!("reversal"), &journal["id"]));
    assert_eq!(tess.write(&format!("{read}/reverse"), "back", &json!({"reference": "error"})).await.bytes, back.bytes);
    tess.act(&format!("{read}/reverse")).await.expect_problem(409, "already-reversed");
    let reversal = format!("{path}/{}", back.id());
    tess.act(&format!("{reversal}/reverse")).await.expect_problem(409, "not-reversible");
    assert_eq!(audrey.get(&read).send().await.expect(200)["status"], "reversed");
    assert_eq!(audrey.get(&reversal).send().await.expect(200), &back.body);
    assert_eq!((ada.balance(&a).await, ada.balance(&b).await), (1_000, 50));
    world.close().await;
}

#[tokio::test]
async fn staff_see_both_sides_of_the_books() {
    let world = World::create().await;
    let (ada, tess) = (world.user("acme", "ada").await, world.user("acme", "tess").await);
    let (account, _) = (ada.funded(700, "USD").await, ada.funded(5, "EUR").await);
    world.appoint(&[(&tess, Role::Teller)]).await;
    let position = json!({"kind": "position", "currency": "USD", "name": "Cash"});
    let cash = tess.write("/api/v1/ledger-accounts", &unique(), &position).await;
    assert_eq!(cash.expect(201)["normal_side"], "debit");
    for (body, pointer) in [
        (json!({"kind": "settlement", "currency": "USD", "name": "x"}), "/kind"),
        (json!({"kind": "fee", "currency": "CHF", "name": "x"}), "/currency"),
        (json!({"kind": "fee", "currency": "USD", "name": ""}), "/name"),
    ] {
        tess.write("/api/v1/ledger-accounts", &unique(), &body).await.expect_invalid(pointer);
    }
    let list = tess.get("/api/v1/ledger-accounts").send().await;
    let told: Vec<_> = list.expect(200)["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| (a["kind"].as_str().unwrap(), a["currency"].as_str().unwrap(), a["balance"].as_i64().unwrap()))
        .collect();
    assert_eq!(told, [("settlement", "USD", -700), ("settlement", "EUR", -5), ("position", "USD", 0)]);
    let settlement = list.body["data"][0]["id"].as_str().unwrap();
    let statement = tess.get(&format!("/api/v1/accounts/{settlement}/transactions")).send().await;
    assert_eq!(statement.expect(200)["data"][0]["amount"], -700);
    assert_eq!(tess.balance(settlement).await, -700);
    tess.get(&format!("/api/v1/accounts/{settlement}")).send().await.expect_problem(404, "not-found");
    tess.transfer(settlement, &account, 1).await.expect_problem(404, "not-found");
    tess.transfer(&account, settlement, 1).await.expect_problem(404, "not-found");
    let books = tess.get("/api/v1/trial-balance").send().await;
    let sides =
        [("EUR", 5), ("USD", 700)].map(|(currency, sum)| json!({"currency": currency, "debits": sum, "credits": sum}));
    assert_eq!(books.expect(200)["data"], json!(sides));

    // Every kind of journal is told, openings too.
    let opening = account.replace("acc_", "jrn_");
    let opening = tess.get(&format!("/api/v1/journals/{opening}")).send().await;
    assert_eq!((&opening.expect(200)["kind"], &opening.body["legs"]), (&json!("account_opened"), &json!([])));
    let body = json!({"account_id": account, "amount": 9, "currency": "USD"});
    let hold = ada.write("/api/v1/holds", &unique(), &body).await.id().replace("hld_", "jrn_");
    let placed = tess.get(&format!("/api/v1/journals/{hold}")).send().await;
    assert_eq!(placed.expect(200)["legs"], json!([{"account_id": account, "amount": 0, "held": 9}]));
    tess.act(&format!("/api/v1/journals/{hold}/reverse")).await.expect_problem(409, "not-reversible");
    tess.get("/api/v1/journals/jrn_aaaaaaiaaaaaaaab").send().await.expect_problem(404, "not-found");
    world.close().await;
}
