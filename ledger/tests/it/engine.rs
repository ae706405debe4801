//! How the engine gathers, gives up and stops, with the head held so that batches form as the test wants them.

use std::time::Duration;

use finaiflow_ledger::command::{Command, Outcome};
use finaiflow_ledger::engine::{Engine, SubmitError};
use tokio::task::JoinHandle;

use crate::harness::{Bank, Submitted, deposit, hold, json, open, release, user, withdraw};

fn submit(engine: &Engine, command: Command) -> JoinHandle<Submitted> {
    let engine = engine.clone();
    tokio::spawn(async move { engine.submit(command).await })
}

/// Starts a batch that waits for the head, then has `commands` gather behind it.
async fn gather(engine: &Engine, first: Command, commands: Vec<Command>) -> Vec<JoinHandle<Submitted>> {
    let mut waiting = vec![submit(engine, first)];
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.extend(commands.into_iter().map(|command| submit(engine, command)));
    tokio::time::sleep(Duration::from_millis(50)).await;
    waiting
}

async fn times(bank: &Bank) -> i64 {
    let count = "SELECT count(DISTINCT booked_at) FROM journals WHERE kind = 'deposit'";
    sqlx::query_scalar(count).fetch_one(&mut bank.superuser().await).await.unwrap()
}

#[tokio::test]
async fn what_waits_is_committed_together() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let holder = hold(&bank).await;
    let commands = (0..200).map(|number| deposit(ada, &format!("d{number}"), a, 1)).collect();
    let waiting = gather(&bank.engine, deposit(ada, "first", a, 1), commands).await;
    assert_eq!(bank.pool.size() - u32::try_from(bank.pool.num_idle()).unwrap(), 1, "one connection per engine");
    release(holder).await;
    for task in waiting {
        assert!(matches!(task.await.unwrap(), Ok(Outcome::Transaction(_))));
    }
    assert_eq!(times(&bank).await, 2, "the first and those that gathered behind it");
    assert!(bank.verify().await.balanced());
    bank.close().await;
}

#[tokio::test]
async fn duplicates_in_one_batch_share_the_first_answer() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.funded(ada, "a", 100).await;
    let holder = hold(&bank).await;
    let mut other = withdraw(ada, "same", a, 60);
    other.fingerprint = [9; 32];
    let mut commands = vec![withdraw(ada, "same", a, 60); 20];
    commands.push(other);
    let mut waiting = gather(&bank.engine, deposit(ada, "first", a, 1), commands).await;
    release(holder).await;
    assert_eq!(waiting.pop().unwrap().await.unwrap(), Err(SubmitError::KeyReused));
    let first = json(&waiting.remove(1).await.unwrap().unwrap());
    for task in waiting.drain(1..) {
        assert_eq!(json(&task.await.unwrap().unwrap()), first);
    }
    assert_eq!(bank.booked().await["same"].len(), 1);
    bank.close().await;
}

#[tokio::test]
async fn a_command_the_database_refuses_fails_alone() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let holder = hold(&bank).await;
    let mut commands: Vec<_> = (1..=30).map(|number| deposit(ada, &format!("d{number}"), a, number)).collect();
    // PostgreSQL stores no NUL in text, and no key too long for an index row; the rules know of neither.
    commands[7] = deposit(ada, "nul\0", a, 1);
    commands[22] = deposit(ada, &incompressible(9_000), a, 1);
    let waiting = gather(&bank.engine, deposit(ada, "first", a, 1), commands).await;
    release(holder).await;
    for (number, task) in waiting.into_iter().enumerate() {
        let result = task.await.unwrap();
        if number == 8 || number == 23 {
            assert!(matches!(result, Err(SubmitError::Corrupt(_))), "{number}: {result:?}");
            continue;
        }
        let Ok(Outcome::Transaction(transaction)) = result else { panic!("{number}: {result:?}") };
        assert_eq!(transaction.amount, i64::try_from(number.max(1)).unwrap(), "each caller has its own answer");
    }
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:?}");
    assert_eq!(bank.head().await, 2 + 29, "two openings, thirty-one commands, two refused");
    bank.close().await;
}

fn incompressible(length: usize) -> String {
    let mut dice = crate::harness::Dice::new(1);
    (0..length).map(|_| char::from(b'!' + u8::try_from(dice.roll(90)).unwrap())).collect()
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_matter() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let holder = hold(&bank).await;
    let waiting = gather(&bank.engine, deposit(ada, "first", a, 1), vec![deposit(ada, "second", a, 1)]).await;
    for task in &waiting {
        task.abort();
    }
    release(holder).await;
    for key in ["first", "second"] {
        assert!(bank.engine.submit(deposit(ada, key, a, 1)).await.is_ok());
        assert_eq!(bank.booked().await[key].len(), 1);
    }
    bank.close().await;
}

#[tokio::test]
async fn shutdown_carries_out_what_waits() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let holder = hold(&bank).await;
    let commands = (0..20).map(|number| deposit(ada, &format!("d{number}"), a, 1)).collect();
    let waiting = gather(&bank.engine, deposit(ada, "first", a, 1), commands).await;
    let engine = bank.engine.clone();
    let shutdown = tokio::spawn(async move { engine.shutdown().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!shutdown.is_finished(), "it waits for the batch");
    assert_eq!(bank.engine.submit(open(ada, "late", "USD")).await, Err(SubmitError::Unavailable));
    release(holder).await;
    shutdown.await.unwrap();
    for task in waiting {
        let result = task.await.unwrap();
        assert!(matches!(result, Ok(Outcome::Transaction(_))), "{result:?}");
    }
    // The pool takes a connection back a moment after it is dropped.
    let all_idle = async {
        while bank.pool.size() != u32::try_from(bank.pool.num_idle()).unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), all_idle).await.expect("an idle engine holds no connection");
    bank.close().await;
}
