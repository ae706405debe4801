//! Keys and logins that change under load, seen by every replica without a restart. The tests play the operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use finaiflow_schema::names::Login;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::fleet::{Answer, Client, Connection, Fleet, Load, Process, Request, User, get, log_in};
use crate::tenants_bank::{Bank, eventually, signing_key};

/// Asks one replica.
async fn ask(replica: &Process, request: &Request) -> Answer {
    Connection::open(replica.port).await.unwrap().send(request).await.unwrap()
}

/// Waits until each replica publishes exactly these keys.
async fn published(bank: &Bank, replicas: &[Process], kids: &[&str]) {
    for replica in replicas {
        let ask = || async {
            let keys = ask(replica, &get("/.well-known/jwks.json").to(&bank.name)).await;
            let keys = keys.expect(200)["keys"].as_array().unwrap().clone();
            let found: Vec<_> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
            (found == kids).then_some(())
        };
        eventually("the keys are published", ask).await;
    }
}

fn kid(user: &User) -> String {
    jsonwebtoken::decode_header(&user.access).unwrap().kid.unwrap()
}

/// Users who exchange their tokens and use them at both replicas without a pause, and never in vain.
struct Users {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Users {
    async fn start(fleet: &Fleet, bank: &Bank) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for number in 0..4 {
            let mut client = Client::new(&fleet.service);
            let mut user = client.sign_up(&bank.name, &format!("user{number}")).await;
            let (stop, rounds) = (Arc::clone(&stop), Arc::clone(&rounds));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let tokens = client.send(&user.exchange()).await.unwrap();
                    tokens.expect(200);
                    user = User::new(&user.tenant, &tokens);
                    for _ in 0..3 {
                        client.send(&user.profile()).await.unwrap().expect(200);
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self { stop, rounds, tasks }
    }

    /// Waits until each has gone on for a while.
    async fn go_on(&self) {
        let target = self.rounds.load(Ordering::Relaxed) + 40;
        let reached = || async {
            let failed = self.tasks.iter().any(JoinHandle::is_finished);
            (failed || self.rounds.load(Ordering::Relaxed) >= target).then_some(())
        };
        eventually("tokens are exchanged", reached).await;
    }

    async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no request fails");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_changed_by_hand_are_followed_without_a_restart() {
    let bank = Bank::ready().await;
    let fleet = Fleet::of(&bank);
    let replicas: [Process; 2] = tokio::join!(fleet.add(), fleet.add()).into();
    let users = Users::start(&fleet, &bank).await;
    let mut client = Client::new(&fleet.service);
    let old = client.sign_up(&bank.name, "ada").await;
    assert_eq!(kid(&old), "k1");

    // An administrator brings a new key in before it signs and takes the old one out when its tokens have expired,
    // and each time counts the Secret's generation on.
    let [k1, k2, k3] = [bank.signing_key.clone(), signing_key("k2"), signing_key("k3")];
    bank.write_keys(2, &[(&k1, "active"), (&k2, "pending")]).await;
    published(&bank, &replicas, &["k1", "k2"]).await;
    users.go_on().await;
    bank.write_keys(3, &[(&k1, "retiring"), (&k2, "active")]).await;
    for replica in &replicas {
        let login = || async {
            let tokens = ask(replica, &log_in("ada").to(&bank.name)).await;
            tokens.expect(200);
            (kid(&User::new(&bank.name, &tokens)) == "k2").then_some(())
        };
        eventually("the new key signs", login).await;
        ask(replica, &old.profile()).await.expect(200);
    }
    users.go_on().await;
    bank.write_keys(4, &[(&k2, "active")]).await;
    published(&bank, &replicas, &["k2"]).await;
    for replica in &replicas {
        ask(replica, &old.profile()).await.expect(401);
    }
    users.go_on().await;
    users.finish().await;

    // Somebody deletes the Secret; the operator makes another.
    let lost = client.log_in(&bank.name, "ada").await;
    bank.delete_secret("signing-keys").await;
    bank.patch_spec(json!({"displayName": "Without keys"})).await;
    for replica in &replicas {
        ask(replica, &lost.profile()).await.expect(200);
    }
    bank.write_keys(5, &[(&k3, "active")]).await;
    published(&bank, &replicas, &["k3"]).await;
    for replica in &replicas {
        ask(replica, &lost.profile()).await.expect(401);
        let tokens = ask(replica, &lost.exchange()).await;
        tokens.expect(200);
        let user = User::new(&bank.name, &tokens);
        assert_eq!(kid(&user), "k3", "nobody has to log in again");
        ask(replica, &user.profile()).await.expect(200);
    }
    drop((replicas, fleet));
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_login_fails_no_request_of_any_replica() {
    let bank = Bank::ready().await;
    let fleet = Fleet::of(&bank);
    let replicas = tokio::join!(fleet.add(), fleet.add());
    let load = Load::start(&fleet, &bank, 12, false).await;
    for (generation, new, old) in [(2, Login::AppB, Login::AppA), (3, Login::AppA, Login::AppB)] {
        load.go_on(50).await;
        bank.rotate_login(generation).await;
        bank.write_status(generation.into()).await;
        let swapped = || async { (bank.connections(old).await == 0 && bank.connections(new).await > 1).then_some(()) };
        eventually("only the new login is connected", swapped).await;
    }
    load.go_on(50).await;
    assert_eq!(load.settle(&bank).await, 0);
    drop((replicas, fleet));
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_password_of_the_same_login_loses_nothing() {
    let bank = Bank::ready().await;
    let fleet = Fleet::of(&bank);
    let replicas = tokio::join!(fleet.add(), fleet.add());
    let load = Load::start(&fleet, &bank, 12, true).await;
    bank.delete_secret("database").await;
    load.go_on(50).await;
    bank.set_password(Login::AppA, 2).await;
    // At the worst moment, when the password that the replicas know is good for no new connection.
    bank.end_connections().await;
    bank.write_status(2).await;
    load.go_on(50).await;
    let _third = fleet.add().await;
    load.go_on(50).await;
    load.settle(&bank).await;
    drop((replicas, fleet));
    bank.drop().await;
}
