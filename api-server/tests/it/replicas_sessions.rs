//! Sessions that several replicas serve at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fleet::{Answer, Client, Connection, Fleet, Load, Request, User, log_in};
use crate::tenants_bank::{Bank, eventually};

/// How long a revocation may go unnoticed.
const NOTICED: Duration = Duration::from_secs(1);

/// Sends the same request several times at once to each replica.
async fn at_once(ports: [u16; 2], request: &Request) -> Vec<Answer> {
    let ports = ports.into_iter().cycle().take(8);
    let send = async |port| Connection::open(port).await.unwrap().send(request).await.unwrap();
    join_all(ports.map(send)).await
}

/// A token's first use was that much earlier.
async fn age(bank: &Bank, seconds: u32) {
    let shift = format!("UPDATE tenant.refresh_tokens SET first_used_at = first_used_at - interval '{seconds} s'");
    bank.execute(&shift).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_has_one_successor_wherever_it_is_exchanged() {
    let bank = Bank::ready().await;
    let fleet = Fleet::of(&bank);
    let replicas = tokio::join!(fleet.add(), fleet.add());
    let ports = [replicas.0.port, replicas.1.port];
    let mut user = Client::new(&fleet.service).sign_up(&bank.name, "ada").await;
    let rounds = 20;
    let mut before = user.clone();
    for _ in 0..rounds {
        let answers = at_once(ports, &user.exchange()).await;
        before = std::mem::replace(&mut user, User::new(&bank.name, &answers[0]));
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.text("/refresh_token") == user.refresh));
    }
    let tokens: i64 = bank.read("SELECT count(*) FROM tenant.refresh_tokens").await;
    assert_eq!(tokens, rounds + 1, "no branch");

    age(&bank, 9).await;
    assert!(
        at_once(ports, &before.exchange()).await.iter().all(|answer| answer.text("/refresh_token") == user.refresh)
    );
    // Repeating it has not prolonged the time in which it may be repeated.
    age(&bank, 2).await;
    let (stolen, theirs) = (before.exchange(), user.exchange());
    let (reused, next) = tokio::join!(at_once(ports, &stolen), at_once(ports, &theirs));
    assert!(reused.iter().all(|answer| answer.status == 401));
    for answer in next {
        match answer.status {
            200 => user = User::new(&bank.name, &answer),
            status => assert_eq!(status, 401),
        }
    }
    assert!(at_once(ports, &user.exchange()).await.iter().all(|answer| answer.status == 401), "the whole family");
    let revoked: i64 = bank
        .read("SELECT count(*) FROM tenant.sessions WHERE revoke_reason = 'refresh_reuse' AND revoked_at <= now()")
        .await;
    let events: i64 = bank.read("SELECT count(*) FROM tenant.audit_events WHERE event = 'session.refresh_reuse'").await;
    assert_eq!((revoked, events), (1, 1), "committed, once, although the answer is 401");
    drop((replicas, fleet));
    bank.drop().await;
}

/// A session in use at one replica without a pause.
struct Watch {
    /// When the last request was sent that was let in.
    admitted: Arc<Mutex<Option<Instant>>>,
    task: JoinHandle<()>,
}

impl Watch {
    fn start(port: u16, user: User, stop: Arc<AtomicBool>) -> Self {
        let admitted = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&admitted);
        let task = tokio::spawn(async move {
            let mut connection = Connection::open(port).await.unwrap();
            while !stop.load(Ordering::Relaxed) {
                let sent = Instant::now();
                match connection.send(&user.profile()).await.unwrap().status {
                    200 => *noted.lock().unwrap() = Some(sent),
                    status => assert!(status == 401 || status == 503, "{status}"),
                }
            }
        });
        Self { admitted, task }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_is_refused_by_every_replica_within_a_second() {
    let bank = Bank::ready().await;
    // So few that requests wait for each other.
    bank.patch_spec(json!({"limits": {"connections": 3}})).await;
    let fleet = Fleet::of(&bank);
    let replicas = tokio::join!(fleet.add(), fleet.add());
    let ports = [replicas.0.port, replicas.1.port];
    let load = Load::start(&fleet, &bank, 6, true).await;
    let mut client = Client::new(&fleet.service);
    let mut sessions = vec![client.sign_up(&bank.name, "ada").await];
    for _ in 0..3 {
        sessions.push(client.log_in(&bank.name, "ada").await);
    }
    let thief = sessions[2].clone();
    client.insist(&thief.exchange()).await.expect(200);
    age(&bank, 11).await;
    // Whose account is to be disabled.
    sessions.push(client.sign_up(&bank.name, "eve").await);

    let stop = Arc::new(AtomicBool::new(false));
    let watch = |session: &User| ports.map(|port| Watch::start(port, session.clone(), Arc::clone(&stop)));
    let watches: Vec<_> = sessions.iter().map(watch).collect();
    let used =
        || async { watches.iter().flatten().all(|watch| watch.admitted.lock().unwrap().is_some()).then_some(()) };
    eventually("every session is in use", used).await;
    load.go_on(50).await;
    let mut told = Vec::new();
    for (number, session) in sessions.iter().enumerate() {
        match number {
            2 => client.insist(&thief.exchange()).await.expect(401).clone(),
            4 => {
                bank.execute("UPDATE tenant.users SET status = 'disabled' WHERE email = 'eve@example.com'").await;
                json!(null)
            }
            _ => client.insist(&session.post("/api/v1/auth/logout", &json!(null))).await.expect(204).clone(),
        };
        told.push(Instant::now());
    }
    sleep(2 * NOTICED).await;
    stop.store(true, Ordering::Relaxed);
    for (number, (told, watches)) in told.into_iter().zip(watches).enumerate() {
        for watch in watches {
            watch.task.await.unwrap();
            let last = watch.admitted.lock().unwrap().unwrap().saturating_duration_since(told);
            assert!(last < NOTICED, "session {number}: {last:?} later");
        }
    }
    for user in &sessions {
        let again = client.insist(&user.exchange()).await;
        again.expect(401);
    }
    client.insist(&log_in("eve").to(&bank.name)).await.expect(401);
    load.settle(&bank).await;
    drop((replicas, fleet));
    bank.drop().await;
}
