//! Replicas that come, go, die and lose their database while money moves.

use std::time::Duration;

use finaiflow_schema::names::Login;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::fleet::{Client, Connection, Fleet, Load, get, post};
use crate::harness::{PASSWORD, unique};
use crate::tenants_bank::{Bank, eventually};

/// Stands between the replicas and PostgreSQL. When that is away, every connection ends, and so does each new one.
async fn gate(listener: TcpListener, database: u16, away: watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut away = away.clone();
        tokio::spawn(async move {
            let relay = async {
                let mut server = TcpStream::connect(("127.0.0.1", database)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            };
            tokio::select! {
                biased;
                _ = away.wait_for(|away| *away) => {}
                _ = relay => {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_replicas_each_acknowledged_movement_is_booked_once() {
    let mut bank = Bank::create().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let database = std::mem::replace(&mut bank.port, listener.local_addr().unwrap().port());
    let (away, gated) = watch::channel(false);
    let gate = tokio::spawn(gate(listener, database, gated));
    bank.complete().await;
    let fleet = Fleet::of(&bank);
    let (first, second, third) = tokio::join!(fleet.add(), fleet.add(), fleet.add());
    let load = Load::start(&fleet, &bank, 12, true).await;
    load.go_on(100).await;
    assert!(bank.connections(Login::AppA).await <= 18, "20 less a reserve: nobody takes another's part");

    drop(first); // as kill -9 does
    load.go_on(100).await;
    let fourth = fleet.add().await;
    load.go_on(100).await;
    second.terminate();
    second.ended().await;
    load.go_on(100).await;

    away.send_replace(true);
    bank.end_connections().await;
    sleep(Duration::from_secs(1)).await;
    away.send_replace(false);
    load.go_on(100).await;
    drop((third, fourth)); // nobody is left
    let _fifth = fleet.add().await;
    load.go_on(100).await;

    assert!(load.settle(&bank).await > 0, "nobody noticed");
    drop(fleet);
    gate.abort();
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_told_to_stop_loses_no_request() {
    let bank = Bank::ready().await;
    let fleet = Fleet::of(&bank);
    let (first, second) = tokio::join!(fleet.add(), fleet.add());
    let load = Load::start(&fleet, &bank, 12, false).await;
    load.go_on(100).await;

    let mut kept = Connection::open(first.port).await.unwrap();
    assert!(!kept.send(&get("/livez")).await.unwrap().closes);
    first.terminate();
    let unready = || async { Connection::open(first.port).await.ok()?.send(&get("/readyz")).await.ok() };
    eventually("unready but answering", || async { unready().await.filter(|answer| answer.status == 503) }).await;
    assert!(kept.send(&get("/livez")).await.unwrap().closes, "clients are told to connect elsewhere");
    first.ended().await;
    load.go_on(100).await;

    let _third = fleet.add().await;
    second.terminate();
    second.ended().await;
    load.go_on(100).await;
    assert_eq!(load.settle(&bank).await, 0);
    drop(fleet);
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_known_to_every_replica() {
    let bank = Bank::ready().await;
    let fleet = Fleet::of(&bank);
    let replicas = tokio::join!(fleet.add(), fleet.add());
    let mut client = Client::new(&fleet.service);
    let user = client.sign_up(&bank.name, "ada").await;
    let account = client.open_account(&user).await;
    let mut one = Connection::open(replicas.0.port).await.unwrap();
    let mut other = Connection::open(replicas.1.port).await.unwrap();
    let path = format!("/api/v1/accounts/{account}/deposit");
    let deposit = |amount| user.post(&path, &json!({"amount": amount, "currency": "USD"}));

    for round in 1..=20 {
        let request = deposit(round).key(&unique());
        let (first, second) = tokio::join!(one.send(&request), other.send(&request));
        let (first, second) = (first.unwrap(), second.unwrap());
        first.expect(201);
        assert_eq!((first.status, &first.text), (second.status, &second.text));
    }
    let key = unique();
    let overdraft =
        user.post(&path.replace("deposit", "withdraw"), &json!({"amount": 211, "currency": "USD"})).key(&key);
    assert_eq!(one.send(&overdraft).await.unwrap().text("/type"), "https://finaiflow.io/problems/insufficient-funds");
    one.send(&deposit(1).key(&unique())).await.unwrap().expect(201);
    assert_eq!(other.send(&overdraft).await.unwrap().text("/type"), "https://finaiflow.io/problems/insufficient-funds");
    let reused = other.send(&deposit(211).key(&key)).await.unwrap();
    assert_eq!(reused.text("/type"), "https://finaiflow.io/problems/idempotency-key-reused");
    let balance = other.send(&user.get(&format!("/api/v1/accounts/{account}/balance"))).await.unwrap();
    assert_eq!(balance.expect(200)["balance"], 20 * 21 / 2 + 1);

    let body = json!({"email": "bob@example.com", "password": PASSWORD, "name": "Bob"});
    let register = post("/api/v1/auth/register", &body).to(&bank.name).key("k");
    let (first, second) = tokio::join!(one.send(&register), other.send(&register));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((201, &first.text), (second.status, &second.text));
    drop((replicas, fleet));
    bank.drop().await;
}
