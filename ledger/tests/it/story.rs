//! Each command and each read once, and what is left behind.

use std::sync::atomic::Ordering;

use finaiflow_ledger::command::{
    AccountChange, Authority, Command, CommandKind, Memo, Outcome, Rejection, TransactionType,
};
use finaiflow_ledger::engine::SubmitError;
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::money::MAX_MINOR_UNITS;
use finaiflow_ledger::query::{self, TransactionFilter};
use sqlx::Row;
use uuid::Uuid;

use crate::harness::{
    Bank, amount, command, currency, deposit, journal, json, open, rejected, transfer, user, withdraw,
};

/// One connection is enough for the engine and the reads: neither ever holds two.
#[tokio::test]
async fn money_moves_and_is_read_back() {
    let bank = Bank::found(1).await;
    let (ada, bob) = (user(1), user(2));
    let opened = bank.open(ada, "open-a", "USD").await;
    let (a, b) = (opened.id, bank.open(bob, "open-b", "USD").await.id);
    let commands = [
        deposit(ada, "deposit", a, 10_000),
        withdraw(ada, "withdraw", a, 1_500),
        transfer(ada, "transfer", a, b, 2_500),
    ];
    let mut outcomes = Vec::new();
    for command in commands {
        outcomes.push(bank.engine.submit(command).await.unwrap());
    }

    let account = query::account(&bank.pool, ada, a).await.unwrap().unwrap();
    assert_eq!((account.balance, account.available), (6_000, 6_000));
    assert_eq!((account.created_at, &account.name), (opened.created_at, &opened.name));
    assert_eq!(query::account(&bank.pool, bob, a).await.unwrap(), None, "a foreign account");
    let balance = query::balance(&bank.pool, bob, b).await.unwrap().unwrap();
    assert_eq!((balance.balance, balance.available, balance.held), (2_500, 2_500, 0));
    assert_eq!(balance.currency, currency("USD"));

    let page = query::transactions(&bank.pool, ada, a, &TransactionFilter::default(), None, 10).await.unwrap().unwrap();
    assert_eq!(page.next, None);
    let seen: Vec<_> = page.data.iter().map(|t| (t.transaction_type, t.amount, t.balance_after)).collect();
    assert_eq!(
        seen,
        [
            (TransactionType::TransferOut, -2_500, 6_000),
            (TransactionType::Withdrawal, -1_500, 8_500),
            (TransactionType::Deposit, 10_000, 10_000),
        ]
    );
    assert_eq!(Outcome::Transaction(page.data[1].clone()), outcomes[1], "what is read is what was answered");
    assert_eq!(Outcome::Transaction(page.data[2].clone()), outcomes[0]);
    assert_eq!(page.data[0].transfer_id, journal(&outcomes[2]).map(Into::into));
    let incoming =
        query::transactions(&bank.pool, bob, b, &TransactionFilter::default(), None, 10).await.unwrap().unwrap().data;
    assert_eq!((incoming[0].transaction_type, incoming[0].amount), (TransactionType::TransferIn, 2_500));
    assert_eq!(incoming[0].transfer_id, page.data[0].transfer_id);
    assert_ne!(incoming[0].id, page.data[0].id);
    assert_eq!(query::transactions(&bank.pool, bob, a, &TransactionFilter::default(), None, 10).await.unwrap(), None);

    let [trial] = &query::trial_balance(&bank.pool).await.unwrap()[..] else { panic!("one currency") };
    assert_eq!((trial.debits, trial.credits), (8_500, 8_500));
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:?}");
    assert_eq!(i64::from(report.sequence), 6, "three openings and three movements");
    bank.close().await;
}

#[tokio::test]
async fn lists_are_paged_without_gaps() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let mut accounts = Vec::new();
    for number in 0..5 {
        accounts.push(bank.open(ada, &format!("open-{number}"), "USD").await.id);
        bank.open(user(2), &format!("open-{number}"), "USD").await;
    }
    for number in 1..=7 {
        bank.engine.submit(deposit(ada, &format!("deposit-{number}"), accounts[0], number)).await.unwrap();
    }
    let (mut read, mut cursor) = (Vec::new(), None);
    loop {
        let page = query::accounts(&bank.pool, ada, cursor, 2).await.unwrap();
        read.extend(page.data.iter().map(|account| account.id));
        // A client sees the cursor as text only.
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            break;
        }
        assert_eq!(page.data.len(), 2);
    }
    assert_eq!(read, accounts);

    let (mut read, mut cursor) = (Vec::new(), None);
    loop {
        let page = query::transactions(&bank.pool, ada, accounts[0], &TransactionFilter::default(), cursor, 3)
            .await
            .unwrap()
            .unwrap();
        read.extend(page.data.iter().map(|transaction| transaction.amount));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(read, [7, 6, 5, 4, 3, 2, 1]);
    bank.close().await;
}

#[tokio::test]
async fn a_refusal_changes_nothing_and_is_remembered() {
    let bank = Bank::found(2).await;
    let (ada, bob) = (user(1), user(2));
    let (a, b) = (bank.funded(ada, "a", 1_000).await, bank.funded(bob, "b", 1_000).await);
    let euros = bank.open(ada, "euros", "EUR").await.id;
    let frozen = bank.funded(ada, "frozen", 1_000).await;
    let freeze = CommandKind::ChangeAccount { account: frozen, change: AccountChange::Freeze { reason: None } };
    let freeze = Command { authority: Authority::Staff, ..command(user(9), "freeze", freeze) };
    assert!(matches!(bank.engine.submit(freeze).await, Ok(Outcome::AccountChanged(_))));
    let head = bank.head().await;
    let mut elsewhere = a;
    elsewhere.epoch += 1;
    // The first deposit opened the settlement account right after Ada's own.
    let settlement = AccountId { sequence: a.sequence.next().unwrap(), ..a };
    let cases = [
        (withdraw(ada, "1", a, 1_001), Rejection::InsufficientFunds),
        (transfer(ada, "2", a, b, 1_001), Rejection::InsufficientFunds),
        (deposit(ada, "3", euros, 5), Rejection::CurrencyMismatch),
        (transfer(ada, "4", a, euros, 5), Rejection::CurrencyMismatch),
        (transfer(ada, "5", a, a, 5), Rejection::SameAccount),
        (deposit(ada, "6", frozen, 5), Rejection::AccountNotActive),
        (transfer(ada, "7", a, frozen, 5), Rejection::AccountNotActive),
        (deposit(ada, "8", a, MAX_MINOR_UNITS), Rejection::LimitExceeded),
    ];
    let unknown = [
        withdraw(ada, "9", b, 5),
        transfer(ada, "10", b, a, 5),
        withdraw(ada, "11", elsewhere, 5),
        transfer(ada, "12", a, settlement, 5),
    ];
    for (command, rejection) in &cases {
        assert_eq!(bank.engine.submit(command.clone()).await, Ok(rejected(*rejection)), "{}", command.key);
    }
    for command in &unknown {
        assert_eq!(bank.engine.submit(command.clone()).await, Ok(rejected(Rejection::NotFound)), "{}", command.key);
    }
    assert_eq!(bank.head().await, head, "no journal");
    assert_eq!(query::balance(&bank.pool, ada, a).await.unwrap().unwrap().balance, 1_000);

    bank.engine.submit(deposit(ada, "more", a, 1_000)).await.unwrap();
    assert_eq!(
        bank.engine.submit(cases[0].0.clone()).await,
        Ok(rejected(Rejection::InsufficientFunds)),
        "the first answer"
    );
    let keys: Vec<String> = sqlx::query_scalar("SELECT key FROM idempotency_keys WHERE key ~ '^[0-9]'")
        .fetch_all(&mut bank.superuser().await)
        .await
        .unwrap();
    assert_eq!(keys.len(), cases.len(), "an unknown account is not remembered: {keys:?}");
    assert!(bank.verify().await.balanced());
    bank.close().await;
}

#[tokio::test]
async fn a_key_gives_its_first_answer_for_a_day() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    bank.clock_offset.store(-25 * 3600, Ordering::Relaxed);
    let a = bank.funded(ada, "a", 1_000).await;
    let first = bank.engine.submit(deposit(ada, "key", a, 5)).await.unwrap();
    let again = bank.engine.submit(deposit(ada, "key", a, 5)).await.unwrap();
    assert_eq!(json(&first), json(&again));
    let elsewhere = bank.second_engine(1);
    assert_eq!(json(&first), json(&elsewhere.submit(deposit(ada, "key", a, 5)).await.unwrap()));
    let mut other = deposit(ada, "key", a, 6);
    other.fingerprint = [8; 32];
    assert_eq!(bank.engine.submit(other.clone()).await, Err(SubmitError::KeyReused));
    let foreign = bank.engine.submit(open(user(2), "key", "USD")).await;
    assert!(matches!(foreign, Ok(Outcome::AccountOpened(_))), "keys are each principal's own: {foreign:?}");
    assert_eq!(bank.booked().await["key"].len(), 1);

    bank.clock_offset.store(0, Ordering::Relaxed);
    let later = bank.engine.submit(other.clone()).await.unwrap();
    assert_eq!(bank.booked().await["key"].len(), 2, "an expired key counts as unused");
    assert_eq!(json(&later), json(&bank.engine.submit(other).await.unwrap()));
    assert!(bank.verify().await.balanced());
    bank.close().await;
}

#[tokio::test]
async fn every_decision_is_told_once_by_its_journal_or_by_an_audit_event() {
    let bank = Bank::found(2).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let unknown = "acc_aaaaaaiaaaaaaayn".parse().unwrap();
    for command in [
        deposit(ada, "deposit", a, 500),
        deposit(ada, "deposit", a, 500),
        withdraw(ada, "withdraw", a, 501),
        transfer(ada, "transfer", unknown, a, 1),
    ] {
        bank.engine.submit(command).await.unwrap();
    }
    let mut superuser = bank.superuser().await;
    let journals = "SELECT kind, actor, host(ip) AS ip, request_id FROM journals ORDER BY sequence";
    let journals = sqlx::query(journals).fetch_all(&mut superuser).await.unwrap();
    let kinds: Vec<String> = journals.iter().map(|row| row.get("kind")).collect();
    assert_eq!(kinds, ["account_opened", "account_opened", "deposit"], "a replay is no journal");
    assert_eq!(journals[2].get::<Uuid, _>("actor"), ada);
    assert_eq!(journals[2].get::<String, _>("ip"), "2001:db8::7");
    assert_eq!(journals[2].get::<String, _>("request_id"), "req-deposit");

    let events = "SELECT event || ' ' || outcome AS what, subject, detail::text, host(ip) AS ip, request_id, actor
                  FROM audit_events ORDER BY id";
    let events = sqlx::query(events).fetch_all(&mut superuser).await.unwrap();
    let what: Vec<String> = events.iter().map(|row| row.get("what")).collect();
    assert_eq!(what, ["ledger.withdraw failure", "ledger.transfer denied"]);
    let refused = &events[0];
    assert_eq!((refused.get::<Uuid, _>("actor"), refused.get::<String, _>("subject")), (ada, a.to_string()));
    assert_eq!(refused.get::<String, _>("ip"), "2001:db8::7");
    assert_eq!(refused.get::<String, _>("request_id"), "req-withdraw");
    let detail: serde_json::Value = serde_json::from_str(&refused.get::<String, _>("detail")).unwrap();
    assert_eq!((detail["amount"].as_i64(), detail["currency"].as_str()), (Some(501), Some("USD")));
    assert_eq!(detail["rejection"], "insufficient_funds");
    assert!(events[1].get::<String, _>("detail").contains("not_found"));
    bank.close().await;
}

#[tokio::test]
async fn a_command_without_words_is_booked_too() {
    let bank = Bank::found(1).await;
    let ada = user(1);
    let a = bank.open(ada, "open", "USD").await.id;
    let kind = CommandKind::Deposit { account: a, amount: amount(1), currency: currency("USD"), memo: Memo::default() };
    let mut bare = command(ada, "deposit", kind);
    bare.audit.ip = None;
    bare.audit.request_id = None;
    bank.engine.submit(bare).await.unwrap();
    let [transaction] = &query::transactions(&bank.pool, ada, a, &TransactionFilter::default(), None, 5)
        .await
        .unwrap()
        .unwrap()
        .data[..]
    else {
        panic!("one transaction")
    };
    assert_eq!(transaction.memo, Memo::default());
    bank.close().await;
}
