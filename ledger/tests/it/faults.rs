//! Connections that die under load. A caller that hears `Unavailable` asks again with the same key, as clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use finaiflow_ledger::command::{Command, Outcome};
use finaiflow_ledger::engine::{Engine, SubmitError};
use finaiflow_schema::names::Login;
use sqlx::AssertSqlSafe;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Bank, deposit, hold, journal, json, release, user};

const CALLERS: u32 = 16;
const COMMANDS: u32 = 40;

async fn insist(engine: &Engine, command: Command) -> Outcome {
    for _ in 0..20 {
        match engine.submit(command.clone()).await {
            Ok(outcome) => return outcome,
            Err(SubmitError::Unavailable) => {}
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never available");
}

/// Ends random backends of the tenant's login until told to stop; returns how many.
async fn terminate(bank: &Bank, mut stop: watch::Receiver<bool>) -> i64 {
    let mut superuser = bank.superuser().await;
    let mut ended = 0;
    while !*stop.borrow_and_update() {
        ended += sqlx::query_scalar::<_, i64>(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND usename <> current_user AND backend_type = 'client backend'
                 AND random() < 0.5",
        )
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_done_twice_when_backends_die() {
    let bank = Bank::found(4).await;
    let mut accounts = Vec::new();
    for number in 0..CALLERS {
        accounts.push(bank.open(user(number.into()), "open", "USD").await.id);
    }
    let engines = [bank.engine.clone(), bank.second_engine(4)];
    let (stopping, stop) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let (engines, account) = (engines.clone(), accounts[number as usize]);
        tasks.spawn(async move {
            let mut outcomes = Vec::new();
            for command in 0..COMMANDS {
                let key = format!("c{number}-{command}");
                let engine = &engines[(number + command) as usize % 2];
                let deposit = deposit(user(number.into()), &key, account, 1);
                outcomes.push((deposit.clone(), insist(engine, deposit).await));
            }
            outcomes
        });
    }
    let load = async {
        let outcomes = tasks.join_all().await;
        stopping.send_replace(true);
        outcomes
    };
    let (ended, outcomes) = tokio::join!(terminate(&bank, stop), load);
    assert!(ended > 10, "only {ended} backends were ended");

    let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
    assert_eq!(outcomes.len(), (CALLERS * COMMANDS) as usize);
    let booked = bank.booked().await;
    for (command, outcome) in outcomes {
        let sequence = i64::from(journal(&outcome).unwrap().sequence);
        assert_eq!(booked[&command.key], [sequence], "{}", command.key);
        assert_eq!(json(&insist(&engines[0], command).await), json(&outcome));
    }
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:?}");
    let expected = i64::from(CALLERS) * (1 + i64::from(COMMANDS)) + 1;
    assert_eq!(i64::from(report.sequence), expected, "openings, deposits and the settlement account");
    engines[1].shutdown().await;
    bank.close().await;
}

#[tokio::test]
async fn a_database_that_comes_back_is_used_again() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let mut superuser = bank.superuser().await;
    let login = |allowed| AssertSqlSafe(format!("ALTER ROLE {} {allowed}", bank.db.names.login(Login::AppA).as_str()));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND usename <> current_user";
    sqlx::query(login("NOLOGIN")).execute(&mut superuser).await.unwrap();
    sqlx::query(end).execute(&mut superuser).await.unwrap();
    let started = std::time::Instant::now();
    assert_eq!(bank.engine.submit(deposit(ada, "key", a, 5)).await, Err(SubmitError::Unavailable));
    assert!(started.elapsed() < Duration::from_secs(15), "callers are not left waiting");
    sqlx::query(login("LOGIN")).execute(&mut superuser).await.unwrap();
    assert!(bank.engine.submit(deposit(ada, "key", a, 5)).await.is_ok());
    assert_eq!(bank.booked().await["key"].len(), 1);
    bank.close().await;
}

/// What a [`proxy`] does to the first batch that comes by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Lose {
    /// The database never hears it.
    Request,
    /// The database commits, the client never hears of it.
    Reply,
}

/// Relays connections to the database and cuts the first that writes a batch, which commits by itself. It is known by
/// the id of the request, which nothing else names.
async fn proxy(listener: TcpListener, database: (String, u16), lose: Lose, done: Arc<AtomicBool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut server = TcpStream::connect(&database).await.unwrap();
        let (mut sent, mut received) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok(count @ 1..) = client.read(&mut sent) => {
                    let cut = !done.load(Ordering::Relaxed) && sent[..count].windows(7).any(|word| word == b"req-key");
                    done.fetch_or(cut, Ordering::Relaxed);
                    if cut && lose == Lose::Request {
                        break;
                    }
                    server.write_all(&sent[..count]).await.unwrap();
                    if cut {
                        assert_ne!(server.read(&mut received).await.unwrap(), 0);
                        break;
                    }
                }
                Ok(count @ 1..) = server.read(&mut received) => client.write_all(&received[..count]).await.unwrap(),
                else => break,
            }
        }
    }
}

#[tokio::test]
async fn a_commit_that_is_cut_off_is_settled_once() {
    for lose in [Lose::Request, Lose::Reply] {
        let bank = Bank::found(2).await;
        let ada = user(1);
        let a = bank.open(ada, "open", "USD").await.id;
        let options: PgConnectOptions = bank.db.app_url.parse().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let cut_off = options.clone().host("127.0.0.1").port(listener.local_addr().unwrap().port());
        let database = (options.get_host().to_owned(), options.get_port());
        let cut = Arc::new(AtomicBool::new(false));
        let relay = tokio::spawn(proxy(listener, database, lose, Arc::clone(&cut)));
        let engine = bank.engine_on(PgPoolOptions::new().max_connections(1).connect_lazy_with(cut_off));

        let outcome = engine.submit(deposit(ada, "key", a, 5)).await.unwrap();
        assert_eq!(bank.booked().await["key"], [i64::from(journal(&outcome).unwrap().sequence)], "{lose:?}");
        assert_eq!(json(&bank.engine.submit(deposit(ada, "key", a, 5)).await.unwrap()), json(&outcome));
        assert!(cut.load(Ordering::Relaxed), "{lose:?}: nothing was cut off");
        assert!(bank.verify().await.balanced());
        engine.shutdown().await;
        relay.abort();
        bank.close().await;
    }
}

/// Longer than the engine is willing to wait.
#[tokio::test]
async fn a_head_that_stays_locked_is_given_up_on() {
    let bank = Bank::found(1).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let holder = hold(&bank).await;
    assert_eq!(bank.engine.submit(deposit(ada, "key", a, 5)).await, Err(SubmitError::Unavailable));
    release(holder).await;
    assert!(bank.engine.submit(deposit(ada, "key", a, 5)).await.is_ok());
    assert_eq!(bank.booked().await["key"].len(), 1);
    assert!(bank.verify().await.balanced());
    bank.close().await;
}
