//! The verifier against a ledger that somebody with every right has changed behind the rules' back.

use finaiflow_ledger::chain::{self, Hash};
use finaiflow_ledger::command::{AccountChange, Authority, Command, CommandKind, Limits, Memo, Metadata, Outcome};
use finaiflow_ledger::id::{AccountId, HoldId, JournalId, Sequence};
use finaiflow_ledger::verify::{self, Record};
use finaiflow_schema::testing::connect;
use sqlx::{PgConnection, Row};
use time::macros::datetime;
use uuid::Uuid;

use crate::harness::{Bank, amount, command, currency, deposit, transfer, user, withdraw};

const SAVE: &str = "
    CREATE SCHEMA saved;
    CREATE TABLE saved.accounts AS TABLE accounts;
    CREATE TABLE saved.account_balances AS TABLE account_balances;
    CREATE TABLE saved.journals AS TABLE journals;
    CREATE TABLE saved.entries AS TABLE entries;
    CREATE TABLE saved.holds AS TABLE holds;
    CREATE TABLE saved.ledger_head AS TABLE ledger_head";

const REPAIR: &str = "
    DELETE FROM accounts; INSERT INTO accounts TABLE saved.accounts;
    DELETE FROM account_balances; INSERT INTO account_balances TABLE saved.account_balances;
    DELETE FROM journals; INSERT INTO journals TABLE saved.journals;
    DELETE FROM entries; INSERT INTO entries TABLE saved.entries;
    DELETE FROM holds; INSERT INTO holds TABLE saved.holds;
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

fn by_staff(key: &str, kind: CommandKind) -> Command {
    Command { authority: Authority::Staff, ..command(user(9), key, kind) }
}

/// Goes on: 8 holds 100 on Ada's for Bob's, 9 captures 40 of it, 10 reverses the transfer, 11 limits Bob's, 12 renames
/// Ada's, 13 freezes Bob's. Ada has 860 with 60 held, Bob 540.
async fn busy_bank() -> (Bank, AccountId, AccountId) {
    let (bank, a, b) = bank().await;
    let place = |sequence: i64| (a.epoch, Sequence::try_from(sequence).unwrap());
    let ((epoch, held), (_, transferred)) = (place(8), place(7));
    let limits = Limits { minimum_balance: -10, daily: Some(5_000), ..Limits::default() };
    let metadata = Metadata::from([("b".to_owned(), "2".to_owned()), ("aa".to_owned(), "ü".to_owned())]);
    let commands = [
        command(
            user(1),
            "hold",
            CommandKind::PlaceHold {
                account: a,
                destination: Some(b),
                amount: amount(100),
                currency: currency("USD"),
                memo: Memo { metadata: metadata.clone(), ..Memo::default() },
                expires_at: Some(datetime!(2099-01-01 00:00:00.25 UTC)),
            },
        ),
        command(
            user(1),
            "capture",
            CommandKind::CaptureHold {
                hold: HoldId { epoch, sequence: held },
                amount: Some(amount(40)),
                keep_rest: true,
                memo: Memo::default(),
            },
        ),
        by_staff(
            "reverse",
            CommandKind::Reverse { journal: JournalId { epoch, sequence: transferred }, memo: Memo::default() },
        ),
        by_staff("limit", CommandKind::ChangeAccount { account: b, change: AccountChange::Limit(limits) }),
        command(
            user(1),
            "rename",
            CommandKind::ChangeAccount {
                account: a,
                change: AccountChange::Describe { name: Some("Spare".to_owned()), metadata: Some(metadata) },
            },
        ),
        by_staff("freeze", CommandKind::ChangeAccount { account: b, change: AccountChange::Freeze { reason: None } }),
    ];
    for command in commands {
        let outcome = bank.engine.submit(command).await.unwrap();
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }
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
        damage("DELETE FROM entries WHERE account_id = 1 AND seq = 6", "balance", Some(a), None),
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
        damage("DELETE FROM journals WHERE sequence = 13", "head", None, None),
        damage("DELETE FROM journals WHERE sequence = 1", "account-opening", Some(a), None),
        damage("UPDATE ledger_head SET sequence = 99", "head", None, None),
        damage("UPDATE ledger_head SET epoch = epoch + 1", "head", None, None),
        damage("UPDATE ledger_head SET hash = decode(repeat('00', 32), 'hex')", "head", None, None),
        damage("UPDATE ledger_head SET head_time = head_time - interval '1 hour'", "head", None, None),
        damage("DELETE FROM ledger_head", "head", None, None),
        damage("DELETE FROM accounts WHERE id = 4", "account", None, None),
        damage("UPDATE accounts SET minimum_balance = 851 WHERE id = 1", "floor", Some(a), None),
    ]
}

/// What follows from journals without any money being wrong.
fn subtle_damages(a: AccountId, b: AccountId) -> Vec<Damage> {
    let damage = |sql, check, account, sequence| Damage { sql, check, account, sequence };
    let chain = |sql, sequence| damage(sql, "chain", None, Some(sequence));
    vec![
        chain("UPDATE journals SET description = 'else' WHERE sequence = 6", 6),
        chain("UPDATE journals SET description = NULL WHERE sequence = 6", 6),
        chain("UPDATE journals SET metadata = '{\"b\": \"3\"}' WHERE sequence = 8", 8),
        chain("UPDATE journals SET metadata = '[1]' WHERE sequence = 8", 8),
        chain("UPDATE journals SET salt = decode(repeat('ab', 16), 'hex') WHERE sequence = 6", 6),
        chain("UPDATE journals SET commitment = decode(repeat('ab', 32), 'hex') WHERE sequence = 6", 6),
        chain("UPDATE journals SET hash = decode(repeat('ab', 32), 'hex') WHERE sequence = 6", 6),
        chain("UPDATE journals SET actor = gen_random_uuid() WHERE sequence = 6", 6),
        chain("UPDATE journals SET booked_at = booked_at + interval '1 microsecond' WHERE sequence = 6", 6),
        chain("UPDATE journals SET value_date = '2020-01-01' WHERE sequence = 6", 6),
        chain("UPDATE journals SET detail = '{}' WHERE sequence = 6", 6),
        chain("UPDATE journals SET detail = (detail::text || ' ')::json WHERE sequence = 1", 1),
        chain("UPDATE journals SET refers_to = 5 WHERE sequence = 6", 6),
        chain("UPDATE entries SET leg = 1 - leg WHERE sequence = 6", 6),
        chain("DELETE FROM entries WHERE sequence = 6; DELETE FROM journals WHERE sequence = 6", 7),
        chain(
            "UPDATE journals SET sequence = 1000 WHERE sequence = 6; UPDATE journals SET sequence = 6 WHERE sequence = 7;
             UPDATE journals SET sequence = 7 WHERE sequence = 1000; UPDATE entries SET sequence = 13 - sequence
             WHERE sequence IN (6, 7)",
            6,
        ),
        chain(
            "INSERT INTO journals SELECT 14, epoch, kind, booked_at, actor, currency, amount, description, category,
                reference, refers_to, value_date, metadata, detail, salt, commitment, hash, ip, request_id
             FROM journals WHERE sequence = 13;
             UPDATE ledger_head SET sequence = 14",
            14,
        ),
        damage("DELETE FROM journals WHERE sequence BETWEEN 6 AND 8", "journal-order", None, Some(6)),
        damage("UPDATE journals SET epoch = epoch + 1 WHERE sequence >= 7", "epoch", None, Some(7)),
        damage("UPDATE journals SET description = 'x' WHERE sequence = 13", "journal-text", None, Some(13)),
        damage(
            "UPDATE journals SET commitment = decode(repeat('ab', 32), 'hex') WHERE sequence = 6",
            "journal-text",
            None,
            Some(6),
        ),
        damage("UPDATE journals SET refers_to = 6 WHERE sequence = 10", "reversal", None, Some(10)),
        damage("DELETE FROM journals WHERE sequence = 7", "reversal", None, Some(10)),
        damage("UPDATE holds SET remaining = 61", "hold", Some(a), Some(8)),
        damage("UPDATE holds SET captured = 41", "hold", Some(a), Some(8)),
        damage("UPDATE holds SET account_id = 4", "hold", Some(a), Some(8)),
        damage("UPDATE holds SET destination_id = 2", "hold", Some(a), Some(8)),
        damage("UPDATE holds SET expires_at = expires_at - interval '1 microsecond'", "hold", Some(a), Some(8)),
        damage("UPDATE holds SET status = 'captured', remaining = 0", "hold", Some(a), Some(8)),
        damage("DELETE FROM holds", "hold", Some(a), Some(8)),
        damage(
            "INSERT INTO holds SELECT 7, epoch, 4, NULL, 5, 5, 0, 'held', NULL, now() FROM ledger_head",
            "hold",
            Some(b),
            Some(7),
        ),
        damage("DELETE FROM journals WHERE sequence = 8", "hold", Some(a), Some(8)),
        damage("UPDATE journals SET refers_to = 7 WHERE sequence = 9", "hold", Some(a), Some(7)),
        damage("UPDATE accounts SET status = 'active' WHERE id = 4", "account-state", Some(b), None),
        damage("UPDATE accounts SET daily_limit = NULL WHERE id = 4", "account-state", Some(b), None),
        damage("UPDATE accounts SET minimum_balance = -11 WHERE id = 4", "account-state", Some(b), None),
        damage("UPDATE accounts SET monthly_limit = 7 WHERE id = 1", "account-state", Some(a), None),
        damage("UPDATE accounts SET owner_id = gen_random_uuid() WHERE id = 1", "account-state", Some(a), None),
        damage("UPDATE accounts SET type = 'savings' WHERE id = 1", "account-state", Some(a), None),
        damage("UPDATE accounts SET name = 'else' WHERE id = 1", "account-state", Some(a), None),
        damage("UPDATE accounts SET metadata = NULL WHERE id = 1", "account-state", Some(a), None),
        damage("UPDATE account_balances SET spent_day = spent_day + 1 WHERE account_id = 1", "spent", Some(a), None),
        damage("UPDATE account_balances SET spent_month = 0 WHERE account_id = 1", "spent", Some(a), None),
        damage("UPDATE account_balances SET spent_month = 5 WHERE account_id = 4", "spent", Some(b), None),
    ]
}

#[tokio::test]
async fn every_damage_is_named() {
    let (bank, a, b) = busy_bank().await;
    let mut superuser = bank.superuser().await;
    execute(&mut superuser, SAVE).await;
    for damage in damages(a, b).into_iter().chain(subtle_damages(a, b)) {
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

/// All journals as the chain has them.
async fn records(connection: &mut PgConnection) -> Vec<Record> {
    let (records, more) = verify::page(connection, 0, 1_000).await.unwrap();
    assert_eq!(more, None);
    records
}

/// Another actor in journal 6, and every hash after it as it then has to be.
async fn rewrite(superuser: &mut PgConnection) {
    let mut records = records(superuser).await;
    let mut previous = Hash::default();
    for record in &mut records {
        if i64::from(record.sequence) == 6 {
            record.actor = Uuid::nil();
        }
        record.hash = record.hash_after(previous);
        previous = record.hash;
        sqlx::query("UPDATE journals SET actor = $2, hash = $3 WHERE sequence = $1")
            .bind(i64::from(record.sequence))
            .bind(record.actor)
            .bind(record.hash.0.as_slice())
            .execute(&mut *superuser)
            .await
            .unwrap();
    }
    let head = sqlx::query("UPDATE ledger_head SET hash = $1").bind(previous.0.as_slice());
    head.execute(superuser).await.unwrap();
}

#[tokio::test]
async fn a_suffix_that_is_written_anew_is_known_by_what_was_verified_before() {
    let (bank, a, _) = busy_bank().await;
    let mut maintenance = connect(&bank.db.maintenance_url).await;
    let mut superuser = bank.superuser().await;
    execute(&mut superuser, SAVE).await;
    rewrite(&mut superuser).await;
    assert!(bank.verify().await.balanced(), "nothing but an anchor knows better");
    execute(&mut superuser, REPAIR).await;

    let anchored = bank.verify().await;
    verify::record(&mut maintenance, &anchored).await.unwrap();
    bank.engine.submit(deposit(user(1), "later", a, 5)).await.unwrap();
    assert!(bank.verify().await.balanced(), "a ledger that only went on");
    rewrite(&mut superuser).await;
    let report = bank.verify().await;
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    assert_eq!((finding.check.as_str(), finding.sequence), ("anchor", Some(13)));
    assert!(finding.detail.starts_with(&format!("journal 13 had hash {}", anchored.hash)), "{}", finding.detail);
    execute(&mut superuser, REPAIR).await;

    let tail = "DELETE FROM journals WHERE sequence = 13; UPDATE accounts SET status = 'active' WHERE id = 4;
        UPDATE ledger_head SET (sequence, hash) = (SELECT sequence, hash FROM journals ORDER BY sequence DESC LIMIT 1)";
    execute(&mut superuser, tail).await;
    let report = bank.verify().await;
    let [finding] = &report.findings[..] else { panic!("{report:#?}") };
    assert_eq!((finding.check.as_str(), finding.sequence), ("anchor", Some(13)));
    assert!(finding.detail.ends_with("the chain ends at journal 12"), "{}", finding.detail);
    bank.close().await;
}

#[tokio::test]
async fn text_can_be_erased_and_the_chain_still_holds() {
    let (bank, ..) = busy_bank().await;
    let mut superuser = bank.superuser().await;
    let commitments: Vec<_> = records(&mut superuser).await.iter().map(|record| record.commitment).collect();
    for (commitment, sequence) in commitments.iter().zip(1_i64..) {
        sqlx::query(
            "UPDATE journals SET description = NULL, category = NULL, reference = NULL, metadata = NULL, salt = NULL,
                 commitment = $2 WHERE sequence = $1",
        )
        .bind(sequence)
        .bind(commitment.map(|commitment| commitment.0.to_vec()))
        .execute(&mut superuser)
        .await
        .unwrap();
    }
    let report = bank.verify().await;
    assert!(report.balanced(), "{report:#?}");
    let words =
        Memo {
            description: Some("für Ünïcode – ok".to_owned()), reference: Some("w".to_owned()), ..Memo::default()
        };
    assert_ne!(
        commitments[5],
        chain::commitment(&[0; 16], &words),
        "blinded: words that are guessed are not confirmed"
    );
    bank.close().await;
}

#[tokio::test]
async fn a_range_is_verified_by_itself() {
    let (bank, ..) = busy_bank().await;
    let (mut maintenance, mut superuser) = (connect(&bank.db.maintenance_url).await, bank.superuser().await);
    let place = |sequence: i64| Sequence::try_from(sequence).unwrap();
    let walked = verify::range(&mut maintenance, place(4), place(9)).await.unwrap();
    assert_eq!((walked.findings(), walked.journals), (&[][..], 6));
    assert_eq!(walked.last.map(|last| last.sequence), Some(place(9)));
    execute(&mut superuser, "UPDATE journals SET actor = gen_random_uuid() WHERE sequence = 9").await;
    for (from, to, faults) in [(4, 9, 1), (9, 9, 1), (10, 13, 0), (1, 8, 0), (1, 1_000, 1), (50, 60, 0)] {
        let walked = verify::range(&mut maintenance, place(from), place(to)).await.unwrap();
        assert_eq!(walked.findings().len(), faults, "{from} to {to}");
    }
    bank.close().await;
}
