//! Connections that die under load. A caller that hears `Unavailable` asks again with the same key, as clients do.

use std::time::Duration;

use finaiflow_ledger::command::{Command, Outcome};
use finaiflow_ledger::engine::{Engine, SubmitError};
use finaiflow_schema::names::Login;
use sqlx::AssertSqlSafe;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::{Bank, deposit, journal, json, user};

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
        tokio::time::sleep(Duration::from_millis(12)).await;
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
    for (command, outcome) in outcomes {
        let sequence = i64::from(journal(&outcome).unwrap().sequence);
        assert_eq!(bank.journals(&command.key).await, [sequence], "{}", command.key);
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
    assert_eq!(bank.journals("key").await.len(), 1);
    bank.close().await;
}
