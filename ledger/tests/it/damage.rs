//! The verifier against a ledger that somebody with every right has changed behind the rules' back.

use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::verify;
use finaiflow_schema::testing::connect;
use sqlx::{PgConnection, Row};

use crate::harness::{Bank, deposit, transfer, user, withdraw};

const SAVE: &str = "
    CREATE SCHEMA saved;
    CREATE TABLE saved.accounts AS TABLE accounts;
    CREATE TABLE saved.account_balances AS TABLE account_balances;
    CREATE TABLE saved.journals AS TABLE journals;
    CREATE TABLE saved.entries AS TABLE entries;
    CREATE TABLE saved.ledger_head AS TABLE ledger_head";

const REPAIR: &str = "
    DELETE FROM accounts; INSERT INTO accounts TABLE saved.accounts;
    DELETE FROM account_balances; INSERT INTO account_balances TABLE saved.account_balances;
    DELETE FROM journals; INSERT INTO journals TABLE saved.journals;
    DELETE FROM entries; INSERT INTO entries TABLE saved.entries;
    DELETE FROM ledger_head; INSERT INTO ledger_head TABLE saved.ledger_head";

/// Journals: 1 opens Ada's account, 2 USD settlement, 3 deposits 1000, 4 opens Bob's, 5 deposits 500, 6 withdraws 100
/// from Ada's, 7 transfers 50 to Bob's.
async fn bank() -> (Bank, AccountId, AccountId) {
    let bank = Bank::found(2).await;
    let (a, b) = (bank.funded(user(1), "a", 1_000).await, bank.funded(user(2), "b", 500).await);
    bank.engine.submit(withdraw(user(1), "w", a, 100)).await.unwrap();
    bank.engine.submit(transfer(user(1), "t", a, b, 50)).await.unwrap();
    (bank, a, b)
}

async fn execute(superuser: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(superuser).await.unwrap();
}

struct Damage {
    sql: &'static str,
    /// The finding that has to name it, and where.
    check: &'static str,
    account: Option<AccountId>,
    sequence: Option<i64>,
}

fn damages(a: AccountId, b: AccountId) -> Vec<Damage> {
    let damage = |sql, check, account, sequence| Damage { sql, check, account, sequence };
    vec![
        damage("UPDATE account_balances SET posted = posted + 1 WHERE account_id = 4", "balance", Some(b), None),
        damage("UPDATE account_balances SET posted = posted + 1 WHERE account_id = 4", "trial-balance", None, None),
        damage("UPDATE account_balances SET version = 9 WHERE account_id = 1", "balance", Some(a), None),
        damage("UPDATE account_balances SET held = -1 WHERE account_id = 1", "floor", Some(a), None),
        damage("DELETE FROM account_balances WHERE account_id = 1", "balance", Some(a), None),
        damage("INSERT INTO account_balances VALUES (99, 0, 0, 0, now())", "account", None, None),
        damage("DELETE FROM entries WHERE account_id = 1 AND seq = 2", "entry-order", Some(a), Some(7)),
        damage("DELETE FROM entries WHERE account_id = 1 AND seq = 2", "journal-balance", None, Some(6)),
        damage("DELETE FROM entries WHERE account_id = 1 AND seq = 3", "balance", Some(a), None),
        damage("DELETE FROM entries WHERE sequence = 7", "journal-entries", None, Some(7)),
        damage("UPDATE entries SET posted_delta = 7 WHERE sequence = 3 AND leg = 1", "entry-running", Some(a), Some(3)),
        damage("UPDATE entries SET posted_delta = 7 WHERE sequence = 3 AND leg = 1", "journal-balance", None, Some(3)),
        damage("UPDATE entries SET held_delta = 7 WHERE sequence = 5 AND leg = 1", "entry-running", Some(b), Some(5)),
        damage(
            "UPDATE entries SET posted_after = 9223372036854775807 WHERE sequence = 3 AND leg = 1",
            "entry-running",
            Some(a),
            Some(3),
        ),
        damage("UPDATE journals SET amount = 51 WHERE sequence = 7", "journal-amount", None, Some(7)),
        damage("UPDATE journals SET currency = 'EUR' WHERE sequence = 7", "entry-currency", Some(a), Some(7)),
        damage("UPDATE journals SET kind = 'account_opened' WHERE sequence = 7", "journal-entries", None, Some(7)),
        damage("DELETE FROM journals WHERE sequence = 6", "journal-order", None, Some(6)),
        damage("DELETE FROM journals WHERE sequence = 6", "entry-journal", None, Some(6)),
        damage("DELETE FROM journals WHERE sequence = 7", "head", None, None),
        damage("DELETE FROM journals WHERE sequence = 1", "account-opening", Some(a), None),
        damage("UPDATE ledger_head SET sequence = 8", "head", None, None),
        damage("DELETE FROM ledger_head", "head", None, None),
        damage("DELETE FROM accounts WHERE id = 4", "account", None, None),
        damage("UPDATE accounts SET minimum_balance = 851 WHERE id = 1", "floor", Some(a), None),
    ]
}

#[tokio::test]
async fn every_damage_is_named() {
    let (bank, a, b) = bank().await;
    let mut superuser = bank.superuser().await;
    execute(&mut superuser, SAVE).await;
    for damage in damages(a, b) {
        assert!(bank.verify().await.balanced(), "before: {}", damage.sql);
        execute(&mut superuser, damage.sql).await;
        let report = bank.verify().await;
        assert!(
            report.findings.iter().any(|finding| {
                (finding.check.as_str(), finding.account_id, finding.sequence)
                    == (damage.check, damage.account, damage.sequence)
            }),
            "{}: {} {:?} {:?} is not in {:#?}",
            damage.sql,
            damage.check,
            damage.account,
            damage.sequence,
            report.findings
        );
        execute(&mut superuser, REPAIR).await;
    }
    bank.close().await;
}

#[tokio::test]
async fn one_wrong_balance_is_one_finding_with_both_numbers() {
    let (bank, a, _) = bank().await;
    execute(&mut bank.superuser().await, "UPDATE account_balances SET posted = 851 WHERE account_id = 1").await;
    let report = bank.verify().await;
    let [balance, trial] = &report.findings[..] else { panic!("{:#?}", report.findings) };
    assert_eq!((balance.check.as_str(), balance.account_id), ("balance", Some(a)));
    assert!(balance.detail.contains("851") && balance.detail.contains("850"), "{}", balance.detail);
    assert_eq!(trial.check, "trial-balance");
    bank.close().await;
}

#[tokio::test]
async fn the_maintenance_role_records_what_it_found() {
    let (bank, a, _) = bank().await;
    let mut maintenance = connect(&bank.db.maintenance_url).await;
    let good = verify::run(&mut maintenance).await.unwrap();
    verify::record(&mut maintenance, &good).await.unwrap();
    execute(&mut bank.superuser().await, "UPDATE account_balances SET posted = 0 WHERE account_id = 1").await;
    let bad = verify::run(&mut maintenance).await.unwrap();
    verify::record(&mut maintenance, &bad).await.unwrap();

    let rows = sqlx::query(
        "SELECT balanced, epoch = (SELECT epoch FROM ledger_head) AS in_epoch, sequence, findings::text
                            FROM ledger_verifications ORDER BY id",
    )
    .fetch_all(&mut maintenance)
    .await
    .unwrap();
    let recorded: Vec<(bool, bool, i64)> =
        rows.iter().map(|row| (row.get("balanced"), row.get("in_epoch"), row.get("sequence"))).collect();
    assert_eq!(recorded, [(true, true, 7), (false, true, 7)]);
    assert_eq!(rows[0].get::<String, _>("findings"), "[]");
    let findings: serde_json::Value = serde_json::from_str(&rows[1].get::<String, _>("findings")).unwrap();
    assert_eq!(findings[0]["check"], "balance");
    assert_eq!(findings[0]["account_id"], a.to_string());
    assert!(good.started_at <= good.finished_at && good.finished_at <= bad.started_at);
    bank.close().await;
}

#[tokio::test]
async fn a_ruined_ledger_is_counted_and_every_check_is_heard() {
    let (bank, a, _) = bank().await;
    for number in 0..150 {
        bank.engine.submit(deposit(user(1), &format!("d{number}"), a, 1)).await.unwrap();
    }
    execute(
        &mut bank.superuser().await,
        "UPDATE entries SET posted_delta = posted_delta + 1; UPDATE account_balances SET posted = 0 WHERE account_id = 1",
    )
    .await;
    let report = bank.verify().await;
    assert_eq!(report.findings.len(), usize::from(verify::MAX_FINDINGS) + 1);
    let last = report.findings.last().unwrap();
    assert_eq!(last.check, "more-findings");
    assert!(last.detail.starts_with(char::is_numeric), "{}", last.detail);
    for check in ["balance", "entry-running", "journal-balance", "journal-amount"] {
        assert!(report.findings.iter().any(|finding| finding.check == check), "{check}");
    }
    bank.close().await;
}
