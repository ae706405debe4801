//! Users and tenants never see each other.

use std::sync::Arc;

use axum::http::Method;
use finaiflow_api::tenant::{Entry, State, Tenant};
use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::store::Postgres;
use serde_json::json;

use crate::harness::{BASE_DOMAIN, World, pool, settings, signing_keys, unique};

#[tokio::test]
async fn accounts_of_others_do_not_exist() {
    let world = World::create().await;
    let (ada, bob) = (world.user("acme", "ada").await, world.user("acme", "bob").await);
    let eve = world.user("globex", "eve").await;
    let own = ada.funded(100, "USD").await;
    let theirs = bob.funded(100, "USD").await;
    // Opened first at the neighbour, as `own` was here: the ids differ all the same.
    let foreign = eve.open("USD").await;
    for account in [&theirs, &foreign] {
        for path in ["", "/balance", "/transactions"] {
            ada.get(&format!("/api/v1/accounts/{account}{path}")).send().await.expect_problem(404, "not-found");
        }
    }
    for (from, to) in [(&theirs, &own), (&foreign, &own), (&own, &foreign)] {
        let body = json!({"from_account_id": from, "to_account_id": to, "amount": 1, "currency": "USD"});
        ada.write("/api/v1/transfers", &unique(), &body).await.expect_problem(404, "not-found");
    }
    let list = ada.get("/api/v1/accounts").send().await;
    let ids: Vec<_> = list.expect(200)["data"].as_array().unwrap().iter().map(|account| &account["id"]).collect();
    assert_eq!(ids, [&json!(own)]);

    let body = json!({"from_account_id": own, "to_account_id": theirs, "amount": 1, "currency": "USD"});
    ada.write("/api/v1/transfers", &unique(), &body).await.expect(201);
    assert_eq!(bob.balance(&theirs).await, 101);
    world.close().await;
}

#[tokio::test]
async fn a_token_is_good_for_its_tenant_only() {
    let world = World::create().await;
    let mut ada = world.user("acme", "ada").await;
    // The same user name exists next door, and the token is in the cache of verified ones.
    world.user("globex", "ada").await;
    ada.get("/api/v1/accounts").send().await.expect(200);
    ada.tenant = Some("globex".to_owned());
    ada.get("/api/v1/accounts").send().await.expect_problem(401, "unauthenticated");
    ada.get("/api/v1/auth/profile").send().await.expect_problem(401, "unauthenticated");
    ada.tenant = Some("acme".to_owned());
    ada.get("/api/v1/accounts").send().await.expect(200);

    // Even with the neighbour's keys: the claim differs.
    let (acme, globex) = (&world.acme, &world.globex);
    let (name, claim_id) = (globex.name.clone(), globex.claim_id);
    let (pool, engine, data_key) = (globex.pool.clone(), globex.engine.clone(), globex.data_key.clone());
    let confused = Tenant {
        name,
        target: Arc::default(),
        claim_id,
        settings: settings(),
        pool,
        engine,
        keys: acme.keys.clone(),
        data_key,
    };
    world.serve(&Arc::new(confused));
    ada.tenant = Some("globex".to_owned());
    ada.get("/api/v1/accounts").send().await.expect_problem(401, "unauthenticated");
    world.close().await;
}

#[tokio::test]
async fn refresh_tokens_and_credentials_do_not_cross() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let body = json!({"email": "ada@example.com", "password": crate::harness::PASSWORD});
    let login = ada.post("/api/v1/auth/login", &body).send().await;
    let refresh = json!({"refresh_token": login.expect(200)["refresh_token"]});
    let next_door = world.client("globex");
    next_door.post("/api/v1/auth/login", &body).send().await.expect_problem(401, "unauthenticated");
    next_door.post("/api/v1/auth/refresh", &refresh).send().await.expect_problem(401, "unauthenticated");
    ada.post("/api/v1/auth/refresh", &refresh).send().await.expect(200);
    world.close().await;
}

#[tokio::test]
async fn a_request_belongs_to_exactly_one_tenant() {
    let world = World::create().await;
    let entry = |state| Entry { hosts: Vec::new(), state };
    world.directory.replace("frozen", entry(State::Suspended));
    world.directory.replace("broken", entry(State::Unavailable("secret/path is missing".to_owned())));
    let ask = async |host: Option<&str>, header: Option<&str>| {
        let mut client = world.client("acme");
        client.tenant = header.map(str::to_owned);
        let call = client.get("/api/v1/auth/profile");
        match host {
            Some(host) => call.header("host", host).send().await,
            None => call.send().await,
        }
    };
    ask(None, None).await.expect_problem(400, "tenant-required");
    ask(Some("127.0.0.1:8000"), None).await.expect_problem(400, "tenant-required");
    ask(Some("acme.bank.test"), Some("globex")).await.expect_problem(400, "tenant-ambiguous");
    ask(None, Some("nobody")).await.expect_problem(404, "tenant-not-found");
    ask(Some("nobody.bank.test"), None).await.expect_problem(404, "tenant-not-found");
    ask(None, Some("frozen")).await.expect_problem(403, "tenant-suspended");
    let unavailable = ask(None, Some("broken")).await;
    unavailable.expect_problem(503, "overloaded");
    assert!(!unavailable.body.to_string().contains("secret"), "{}", unavailable.body);
    for (host, header) in [
        (Some(format!("acme.{BASE_DOMAIN}:8000")), None),
        (Some("PAY.acme.test".to_owned()), None),
        (Some("pay.acme.test".to_owned()), Some("acme")),
        (Some("10.1.2.3".to_owned()), Some("acme")),
        (None, Some("acme")),
    ] {
        ask(host.as_deref(), header).await.expect_problem(401, "unauthenticated");
    }
    world.close().await;
}

#[tokio::test]
async fn a_suspended_tenant_answers_nobody() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    ada.get("/api/v1/accounts").send().await.expect(200);
    world.directory.replace("acme", Entry { hosts: Vec::new(), state: State::Suspended });
    ada.get("/api/v1/accounts").send().await.expect_problem(403, "tenant-suspended");
    ada.write("/api/v1/transfers", "k", &json!({})).await.expect_problem(403, "tenant-suspended");
    ada.get("/.well-known/jwks.json").send().await.expect_problem(403, "tenant-suspended");
    ada.get("/api/v1/info").send().await.expect_problem(403, "tenant-suspended");
    world.serve(&world.acme);
    ada.get("/api/v1/accounts").send().await.expect(200);
    world.close().await;
}

#[tokio::test]
async fn a_tenant_whose_database_is_away_is_overloaded_and_others_are_not() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    let lost = pool("postgres://nobody:nothing@127.0.0.1:9/none");
    let acme = &world.acme;
    let (name, claim_id, keys) = (acme.name.clone(), acme.claim_id, acme.keys.clone());
    let engine = Engine::new(Postgres::new(lost.clone()), finaiflow_api::clock::system());
    let data_key = acme.data_key.clone();
    world.serve(&Arc::new(Tenant {
        name,
        target: Arc::default(),
        claim_id,
        settings: settings(),
        pool: lost,
        engine,
        keys,
        data_key,
    }));
    ada.get("/api/v1/accounts").send().await.expect_problem(503, "overloaded");
    ada.get(&format!("/api/v1/accounts/{account}/balance")).send().await.expect_problem(503, "overloaded");
    ada.deposit(&account, 1, "USD").await.expect_problem(503, "overloaded");
    let body = json!({"email": "ada@example.com", "password": "x"});
    ada.post("/api/v1/auth/login", &body).send().await.expect_problem(503, "overloaded");
    let eve = world.user("globex", "eve").await;
    eve.call(Method::GET, "/api/v1/accounts").send().await.expect(200);
    world.close().await;
}

#[tokio::test]
async fn a_key_that_is_gone_verifies_nothing() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let acme = &world.acme;
    let (name, claim_id, pool) = (acme.name.clone(), acme.claim_id, acme.pool.clone());
    let (engine, data_key) = (acme.engine.clone(), acme.data_key.clone());
    let rotated = Tenant {
        name,
        target: Arc::default(),
        claim_id,
        settings: settings(),
        pool,
        engine,
        keys: signing_keys(),
        data_key,
    };
    world.serve(&Arc::new(rotated));
    ada.get("/api/v1/accounts").send().await.expect_problem(401, "unauthenticated");
    world.close().await;
}
