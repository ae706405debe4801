//! Restores to a journal between two artefacts, and what a bank does after them.

use std::collections::BTreeMap;

use finaiflow_backup::manifest::{Kind, SignedManifest};
use finaiflow_backup::restore::{self, Plan, PlanError, Target, Use, restore};
use finaiflow_backup::rows::{self, Moment, Tally};
use finaiflow_backup::seal::Identities;
use finaiflow_backup::vault::Vault;
use finaiflow_ledger::chain::{Anchor, Hash};
use finaiflow_ledger::command::{
    AccountChange, AccountType, Authority, CommandKind, Limits, Memo, Metadata, NewTransfer, Outcome,
};
use finaiflow_ledger::id::Sequence;
use finaiflow_ledger::money::Amount;
use finaiflow_schema::names::TenantNames;
use finaiflow_schema::provision::{close_restore, open_restore};
use finaiflow_schema::testing::{TenantDb, connect, random_password};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use time::Duration;

use crate::bank::{Bank, IDENTITY, backed_up, chains, command, emptied, now, owner, taken, vault};
use crate::harness::Directory;

const BOOKS: [&str; 7] =
    ["accounts", "account_balances", "journals", "entries", "holds", "ledger_head", "idempotency_keys"];

/// Where the ledger is, and the digests of the books.
async fn books(url: &str, names: Option<&TenantNames>) -> (i64, BTreeMap<String, Tally>) {
    let mut conn = connect(url).await;
    let mut moment = Moment::open(&mut conn, names).await.unwrap();
    let mut digests = BTreeMap::new();
    for section in moment.sections(None).into_iter().filter(|section| BOOKS.contains(&section.table.as_str())) {
        let tally = moment.copy(&section, None, async |_| Ok::<_, rows::Error>(())).await.unwrap();
        digests.insert(section.table.to_string(), tally);
    }
    (moment.ledger.sequence.into(), digests)
}

fn amount(minor_units: i64) -> Amount {
    minor_units.try_into().unwrap()
}

/// One of everything that can be booked, one after the other.
async fn work(bank: &Bank, round: usize, mut each: impl AsyncFnMut(&Bank)) {
    let usd = || "USD".parse().unwrap();
    let [one, two] = [bank.accounts[0], bank.accounts[1]];
    let mut number = 0;
    let mut submit = async |kind: CommandKind| {
        number += 1;
        let staff = matches!(
            kind,
            CommandKind::Journal { .. }
                | CommandKind::Reverse { .. }
                | CommandKind::ChangeAccount { .. }
                | CommandKind::CaptureHold { .. }
                | CommandKind::VoidHold { .. }
                | CommandKind::ExpireHold { .. }
        );
        let mut command = command(format!("{round} work {number}"), kind);
        if staff {
            command.authority = Authority::Staff;
        }
        let outcome = bank.engine.submit(command).await.unwrap();
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{number}: {outcome:?}");
        each(bank).await;
        outcome
    };
    let memo = Memo::default;
    let hold = |minor_units, expires_at| CommandKind::PlaceHold {
        account: one,
        destination: Some(two),
        amount: amount(minor_units),
        currency: usd(),
        memo: memo(),
        expires_at,
    };
    let Outcome::Hold(captured) = submit(hold(50, None)).await else { panic!("no hold") };
    let Outcome::Hold(voided) = submit(hold(60, None)).await else { panic!("no hold") };
    submit(hold(70, Some(now() + Duration::DAY))).await;
    let limits = Limits { minimum_balance: -500, per_transaction: Some(90_000), daily: Some(1_000_000), monthly: None };
    let described =
        AccountChange::Describe { name: Some(format!("Sparkonto {round}")), metadata: Some(Metadata::new()) };
    for change in [AccountChange::Limit(limits), described] {
        submit(CommandKind::ChangeAccount { account: one, change }).await;
    }
    submit(CommandKind::CaptureHold { hold: captured.id, amount: Some(amount(20)), keep_rest: true, memo: memo() })
        .await;
    submit(CommandKind::VoidHold { hold: voided.id }).await;
    let transfer = NewTransfer { from: one, to: two, amount: amount(7), currency: usd(), memo: memo() };
    submit(CommandKind::Withdraw { account: two, amount: amount(11), currency: usd(), memo: memo() }).await;
    let bulk = CommandKind::Bulk { transfers: vec![transfer.clone(), transfer], atomic: false };
    submit(bulk).await;
    let opening = CommandKind::OpenAccount {
        owner: owner(),
        account_type: AccountType::Savings,
        currency: "EUR".parse().unwrap(),
        name: format!("Neu {round}"),
        metadata: [("a".to_owned(), "b".to_owned())].into(),
    };
    let Outcome::AccountOpened(account) = submit(opening).await else { panic!("not opened") };
    let deposit =
        CommandKind::Deposit { account: account.id, amount: amount(5), currency: "EUR".parse().unwrap(), memo: memo() };
    submit(deposit).await;
    for change in [AccountChange::Freeze { reason: None }, AccountChange::Unfreeze { reason: None }] {
        submit(CommandKind::ChangeAccount { account: account.id, change }).await;
    }
    let legs = vec![(one, -9), (two, 9)];
    let Outcome::Journal(journal) = submit(CommandKind::Journal { legs, currency: usd(), memo: memo() }).await else {
        panic!("no journal")
    };
    submit(CommandKind::Reverse { journal: journal.id, memo: memo() }).await;
}

fn sequence(number: i64) -> Sequence {
    number.try_into().unwrap()
}

async fn try_to(
    target: &TenantDb,
    vault: &Vault,
    artefacts: &[SignedManifest],
    to: Target,
    used: Use,
) -> Result<restore::Restored, restore::Error> {
    let chains = chains(artefacts);
    let plan = Plan::of(&chains, to).unwrap();
    let mut admin = emptied(target).await;
    restore(&mut admin, &target.names, vault, &plan, &Identities::parse(IDENTITY).unwrap(), used).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_journal_between_two_artefacts_is_met_exactly() {
    let bank = Bank::founded().await;
    let directory = Directory::new("journals");
    let vault = vault(&directory, &bank);
    let mut artefacts = vec![backed_up(&bank, &vault).await];
    let mut known = BTreeMap::new();
    for (round, kind) in (0..).zip([Kind::Segment, Kind::Full]) {
        work(&bank, round, async |bank| {
            let (sequence, books) = books(&bank.db.backup_url, None).await;
            known.insert(sequence, books);
        })
        .await;
        let parent = artefacts.last().filter(|_| kind != Kind::Full);
        artefacts.push(taken(&bank, &vault, kind, parent).await.unwrap());
    }
    let target = TenantDb::create().await;
    for (at, expected) in &known {
        let restored = try_to(&target, &vault, &artefacts, Target::Sequence(sequence(*at)), Use::Look).await.unwrap();
        let (found, books) = books(&target.admin_url, Some(&target.names)).await;
        assert_eq!((found, i64::from(restored.head.sequence)), (*at, *at));
        let differing: Vec<_> = expected.iter().filter(|(table, tally)| books[*table] != **tally).collect();
        assert!(differing.is_empty(), "after journal {at}: {differing:?}");
    }
    // Within a batch, too, the books are what its journals up to there make of them.
    let first = i64::from(artefacts[0].manifest().ledger.sequence);
    let last = i64::from(artefacts[2].manifest().ledger.sequence);
    let mut within: Vec<_> = (first..last).filter(|at| !known.contains_key(at)).collect();
    assert!(within.len() > 3, "{within:?}");
    within.truncate(5);
    for at in within {
        try_to(&target, &vault, &artefacts, Target::Sequence(sequence(at)), Use::Look).await.unwrap();
        let mut superuser = target.superuser().await;
        sqlx::query("SELECT set_config('search_path', $1, false)")
            .bind(target.names.schema.as_str())
            .execute(&mut superuser)
            .await
            .unwrap();
        let report = finaiflow_ledger::verify::run(&mut superuser).await.unwrap();
        assert_eq!((i64::from(report.sequence), report.findings), (at, vec![]));
    }
    bank.close().await;
    target.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_bank_goes_on_in_an_epoch_of_its_own() {
    let bank = Bank::founded().await;
    let directory = Directory::new("fork");
    let vault = vault(&directory, &bank);
    let insert = "INSERT INTO outbox (id, kind, payload, created_at, delivered_at)
        VALUES (gen_random_uuid(), 'mail', '{}', now(), NULL), (gen_random_uuid(), 'mail', '{}', now(), now())";
    sqlx::query(insert).execute(&bank.pool).await.unwrap();
    let mut artefacts = vec![backed_up(&bank, &vault).await];
    let before = bank.transfer("before".to_owned(), 0, 1).await;
    let point: i64 = sqlx::query_scalar("SELECT sequence FROM ledger_head").fetch_one(&bank.pool).await.unwrap();
    let after = bank.transfer("after".to_owned(), 1, 2).await;
    artefacts.push(taken(&bank, &vault, Kind::Segment, artefacts.last()).await.unwrap());
    bank.transfer("lost".to_owned(), 2, 3).await;
    let (epoch, at, hash): (i32, i64, [u8; 32]) =
        sqlx::query_as("SELECT epoch, sequence, hash FROM ledger_head").fetch_one(&bank.pool).await.unwrap();
    let epoch = epoch.unsigned_abs();
    let abandoned = Anchor { epoch, sequence: sequence(at), hash: Hash(hash) };

    let target = TenantDb::create().await;
    for (abandoned, goes_on) in [
        (None, point + 1),
        (Some(abandoned), at + 1),
        (Some(Anchor { epoch: epoch + 7, sequence: sequence(1), ..abandoned }), point + 1),
    ] {
        let used = Use::Work { abandoned };
        let restored = try_to(&target, &vault, &artefacts, Target::Sequence(sequence(point)), used).await.unwrap();
        assert_eq!((restored.head.epoch, i64::from(restored.head.sequence)), (epoch, point));
        let newest = abandoned.map_or(epoch, |abandoned| abandoned.epoch);
        assert_eq!((restored.goes_on.epoch, i64::from(restored.goes_on.sequence)), (newest + 1, goes_on));
    }
    target.drop().await;

    let target = TenantDb::create().await;
    let chains = chains(&artefacts);
    let plan = Plan::of(&chains, Target::Sequence(sequence(point))).unwrap();
    let used = Use::Work { abandoned: Some(abandoned) };
    let identities = Identities::parse(IDENTITY).unwrap();
    // With no more rights than a restore is given.
    let password = random_password();
    open_restore(&mut target.admin().await, &target.names, &password).await.unwrap();
    let login: PgConnectOptions = target.app_url.parse().unwrap();
    let login = login.username(target.names.restore.as_str()).password(password.expose());
    let mut login = login.connect().await.unwrap();
    restore(&mut login, &target.names, &vault, &plan, &identities, used).await.unwrap();
    close_restore(&mut target.admin().await, &target.names).await.unwrap();
    let restored = Bank::on(target, bank.accounts.clone());
    restored.is_sound().await;
    // What is booked up to there is not booked again; what is not is booked anew, under an id that was never given out.
    assert_eq!(restored.transfer("before".to_owned(), 0, 1).await, before);
    let (Outcome::Transfer(again), Outcome::Transfer(after)) =
        (restored.transfer("after".to_owned(), 1, 2).await, after)
    else {
        panic!("no transfers")
    };
    assert_ne!(again.id, after.id);
    restored.is_sound().await;
    let waiting: Vec<String> = sqlx::query_scalar(
        "SELECT CASE WHEN delivered_at IS NULL THEN 'waits' WHEN isfinite(delivered_at) THEN 'sent' ELSE 'held' END
         FROM outbox ORDER BY 1",
    )
    .fetch_all(&restored.pool)
    .await
    .unwrap();
    assert_eq!(waiting, ["held", "sent"]);
    // Its own backups begin anew: the old ones are of another ledger.
    let own = backed_up(&restored, &crate::bank::vault(&directory, &restored)).await;
    assert_eq!(own.manifest().ledger.epoch, epoch + 1);
    let refused = Plan::of(&chains, Target::Sequence(sequence(at + 1)));
    assert!(matches!(refused, Err(PlanError::AfterLast { .. })), "{refused:?}");
    bank.close().await;
    restored.close().await;
}

#[tokio::test]
async fn an_empty_ledger_gets_another_epoch() {
    let bank = Bank::on(TenantDb::create().await, Vec::new());
    let directory = Directory::new("empty");
    let vault = vault(&directory, &bank);
    let artefacts = vec![backed_up(&bank, &vault).await];
    let target = TenantDb::create().await;
    let used = Use::Work { abandoned: None };
    let restored = try_to(&target, &vault, &artefacts, Target::Latest, used).await.unwrap();
    assert_eq!(restored.goes_on, Anchor { epoch: restored.head.epoch + 1, ..restored.head });
    bank.close().await;
    target.drop().await;
}
