//! Many callers at once, on two engines with a pool each.

use std::sync::Arc;

use finaiflow_ledger::command::{Command, Outcome, Rejection};
use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::query;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::{Bank, Dice, deposit, journal, json, rejected, transfer, user, withdraw};

const CALLERS: usize = 64;
const COMMANDS: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balance_for_ten_withdrawals_gives_ten() {
    let bank = Bank::found(4).await;
    let ada = user(1);
    let a = bank.funded(ada, "a", 1_000).await;
    let engines = [bank.engine.clone(), bank.second_engine(4)];
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let engine = engines[number % 2].clone();
        tasks.spawn(async move { engine.submit(withdraw(ada, &format!("w{number}"), a, 100)).await });
    }
    let results = tasks.join_all().await;
    let booked = results.iter().filter(|result| matches!(result, Ok(Outcome::Transaction(_)))).count();
    let refused = results.iter().filter(|result| **result == Ok(rejected(Rejection::InsufficientFunds))).count();
    assert_eq!((booked, refused), (10, 90));
    assert_eq!(query::balance(&bank.pool, ada, a).await.unwrap().unwrap().balance, 0);
    assert!(bank.verify().await.balanced());
    bank.close().await;
}

/// A random movement from one of the caller's accounts to any.
fn movement(dice: &mut Dice, caller: Uuid, key: &str, own: AccountId, any: AccountId) -> Command {
    match dice.roll(4) {
        0 => deposit(caller, key, own, dice.amount(300)),
        1 => withdraw(caller, key, own, dice.amount(300)),
        _ => transfer(caller, key, own, any, dice.amount(300)),
    }
}

/// Submits random commands, some of them again on the other engine at the same time, and returns key and outcome.
async fn call(number: usize, engines: [Engine; 2], accounts: Arc<Vec<(Uuid, AccountId)>>) -> Vec<(String, Outcome)> {
    let mut dice = Dice::new(number as u64 + 1);
    let caller = user(number as u128 + 1);
    let own: Vec<_> = accounts.iter().filter(|(owner, _)| *owner == caller).map(|(_, id)| *id).collect();
    let mut outcomes = Vec::new();
    for command in 0..COMMANDS {
        let key = format!("c{number}-{command}");
        let (own, (_, any)) = (own[dice.roll(own.len())], accounts[dice.roll(accounts.len())]);
        let command = movement(&mut dice, caller, &key, own, any);
        let outcome = if dice.roll(4) == 0 {
            let (first, second) = tokio::join!(engines[0].submit(command.clone()), engines[1].submit(command.clone()));
            let first = first.unwrap();
            assert_eq!(json(&first), json(&second.unwrap()));
            first
        } else {
            engines[dice.roll(2)].submit(command.clone()).await.unwrap()
        };
        assert_eq!(json(&outcome), json(&engines[dice.roll(2)].submit(command).await.unwrap()), "a replay");
        outcomes.push((key, outcome));
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_keep_one_ledger() {
    let bank = Bank::found(4).await;
    let mut accounts = Vec::new();
    for number in 1..=CALLERS as u128 {
        accounts.push((user(number), bank.funded(user(number), "one", 1_000).await));
        accounts.push((user(number), bank.open(user(number), "two", "USD").await.id));
    }
    let accounts = Arc::new(accounts);
    let engines = [bank.engine.clone(), bank.second_engine(4)];
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        tasks.spawn(call(number, engines.clone(), Arc::clone(&accounts)));
    }
    let outcomes: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(outcomes.len(), CALLERS * COMMANDS);

    let mut booked = bank.booked().await;
    booked.retain(|key, _| key.starts_with('c'));
    let mut movements = 0;
    for (key, outcome) in &outcomes {
        let expected: Vec<i64> = journal(outcome).map(|journal| journal.sequence.into()).into_iter().collect();
        movements += expected.len();
        assert_eq!(booked.remove(key).unwrap_or_default(), expected, "{key}: {outcome:?}");
    }
    assert!(booked.is_empty(), "booked without an answer: {booked:?}");
    assert!(movements > CALLERS * COMMANDS / 4, "{movements} movements are too few to prove anything");

    let [trial] = &query::trial_balance(&bank.pool).await.unwrap()[..] else { panic!("one currency") };
    assert_eq!(trial.debits, trial.credits);
    let drift: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM account_balances b
         WHERE posted <> (SELECT coalesce(sum(posted_delta), 0) FROM entries e WHERE e.account_id = b.account_id)",
    )
    .fetch_one(&mut bank.superuser().await)
    .await
    .unwrap();
    assert_eq!(drift, 0, "balances are the sum of their entries");
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:?}");
    engines[1].shutdown().await;
    bank.close().await;
}
