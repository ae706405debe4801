//! Backups of a bank at work, and the banks that are made of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use finaiflow_backup::manifest::{Kind, Manifest, SignedManifest};
use finaiflow_backup::restore::{self, Plan, Restored, Target, Use, restore};
use finaiflow_backup::rows::{Moment, Tally};
use finaiflow_backup::seal::Identities;
use finaiflow_backup::vault::{Folder, Vault};
use finaiflow_backup::{rows, seal};
use finaiflow_ledger::command::Outcome;
use finaiflow_schema::names::TenantNames;
use finaiflow_schema::testing::{TenantDb, connect};
use sqlx::{AssertSqlSafe, Postgres as Database, Transaction};
use uuid::Uuid;

use crate::bank::{Bank, IDENTITY, backed_up, chains, emptied, random, signing_key, taken, vault};
use crate::harness::Directory;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_at_work_comes_back_as_it_was_at_one_moment() {
    let bank = Arc::new(Bank::founded().await);
    let directory = Directory::new("at-work");
    let vault = vault(&directory, &bank);
    let early = bank.transfer("early".to_owned(), 0, 1).await;
    let busy = Arc::new(AtomicBool::new(true));
    let work: Vec<_> = (0..4)
        .map(|worker: usize| {
            let (bank, busy) = (Arc::clone(&bank), Arc::clone(&busy));
            tokio::spawn(async move {
                let mut number = 0;
                while busy.load(Ordering::Relaxed) {
                    bank.transfer(format!("{worker} {number}"), worker, (worker + 1) % 4).await;
                    number += 1;
                }
            })
        })
        .collect();
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(backed_up(&bank, &vault).await);
    }
    busy.store(false, Ordering::Relaxed);
    for worker in work {
        worker.await.unwrap();
    }
    let identities = Identities::parse(IDENTITY).unwrap();
    for artefact in &taken {
        let restored = TenantDb::create().await;
        let mut admin = restored.admin().await;
        let chains = chains([artefact]);
        let plan = Plan::of(&chains, Target::Latest).unwrap();
        restore(&mut admin, &restored.names, &vault, &plan, &identities, Use::Look).await.unwrap();
        let head: i64 = sqlx::query_scalar("SELECT sequence FROM ledger_head")
            .fetch_one(&mut connect(&restored.app_url).await)
            .await
            .unwrap();
        assert_eq!(head, i64::from(artefact.manifest().ledger.sequence));
        let again = restore(&mut admin, &restored.names, &vault, &plan, &identities, Use::Look).await;
        assert!(matches!(again, Err(restore::Error::Rows(rows::Error::NotEmpty(_)))), "{again:?}");
        // What was answered is answered again, and the bank goes on.
        let restored = Bank::on(restored, bank.accounts.clone());
        restored.is_sound().await;
        assert_eq!(restored.transfer("early".to_owned(), 0, 1).await, early);
        let new = restored.transfer("new".to_owned(), 0, 1).await;
        assert!(matches!(new, Outcome::Transfer(_)), "{new:?}");
        restored.is_sound().await;
        restored.close().await;
    }
    let heads: Vec<_> = taken.iter().map(|artefact| artefact.manifest().ledger.sequence).collect();
    assert!(heads.is_sorted() && heads[0] < heads[4], "nothing was booked meanwhile: {heads:?}");
    Arc::into_inner(bank).unwrap().close().await;
}

/// Digests of all that is backed up, as it is now. What derives from time alone is left out: nothing is written.
pub async fn digests(url: &str, names: Option<&TenantNames>) -> Vec<(String, Tally)> {
    let mut conn = connect(url).await;
    let mut moment = Moment::open(&mut conn, names).await.unwrap();
    let mut digests = Vec::new();
    for section in moment.sections(None) {
        let tally = moment.copy(&section, None, async |_| Ok::<_, rows::Error>(())).await.unwrap();
        digests.push((section.table.to_string(), tally));
    }
    digests
}

/// Everything that can happen to a row: made, changed, deleted, rolled back, and open while a backup is taken.
async fn disturb(bank: &Bank, round: usize, open: &mut Vec<Transaction<'static, Database>>) {
    let dice = u32::from_be_bytes(random());
    for number in 0..dice % 5 {
        let (from, to) = ((dice / 5) as usize % 4, (dice / 20) as usize % 3);
        bank.transfer(format!("{round} {number}"), from, (from + 1 + to) % 4).await;
    }
    let insert = "INSERT INTO outbox (id, kind, payload, created_at) VALUES ($1, 'mail', '{}', now())";
    for end in 0..3 {
        let mut tx = bank.pool.begin().await.unwrap();
        // As long as the dice say, in rounds that take as long as they do.
        sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(&mut *tx).await.unwrap();
        sqlx::query(insert).bind(Uuid::from_u128(u128::from_be_bytes(random()))).execute(&mut *tx).await.unwrap();
        let audit = "INSERT INTO audit_events (at, event, outcome) VALUES (now(), 'test', 'success')";
        sqlx::query(audit).execute(&mut *tx).await.unwrap();
        match (dice as usize + end) % 3 {
            0 => tx.commit().await.unwrap(),
            1 => tx.rollback().await.unwrap(),
            _ => open.push(tx),
        }
    }
    while open.len() > 4 {
        let tx = open.remove(dice as usize % open.len());
        if dice.is_multiple_of(2) { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }
    let some = "(SELECT id FROM outbox ORDER BY random() LIMIT 1)";
    for change in [
        format!("DELETE FROM outbox WHERE id = {some}"),
        format!("UPDATE outbox SET delivered_at = now() WHERE id = {some}"),
    ] {
        sqlx::query(AssertSqlSafe(change)).execute(&bank.pool).await.unwrap();
    }
    sqlx::query("UPDATE users SET name = name || '.'").execute(&bank.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_mix_of_increments_comes_back_as_it_was_at_each_moment() {
    let rounds = std::env::var("FINAIFLOW_BACKUP_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let bank = Bank::founded().await;
    let directory = Directory::new("mixed");
    let vault = vault(&directory, &bank);
    let identities = Identities::parse(IDENTITY).unwrap();
    let target = TenantDb::create().await;
    let mut open = Vec::new();
    // The artefacts from a full one to the last, and those that an increment may follow.
    let mut chain: Vec<SignedManifest> = vec![backed_up(&bank, &vault).await];
    for round in 0..rounds {
        disturb(&bank, round, &mut open).await;
        let dice = u32::from_be_bytes(random());
        let kind = match dice % 8 {
            0 => Kind::Full,
            1..=3 => Kind::Incremental,
            _ => Kind::Segment,
        };
        if kind == Kind::Incremental {
            while chain.last().is_some_and(|last| last.manifest().kind == Kind::Segment) {
                chain.pop();
            }
        }
        let artefact = taken(&bank, &vault, kind, chain.last().filter(|_| kind != Kind::Full)).await.unwrap();
        let expected = digests(&bank.db.backup_url, None).await;
        if kind == Kind::Full {
            chain.clear();
        }
        chain.push(artefact);
        let mut admin = emptied(&target).await;
        let chains = chains(&chain);
        let plan = Plan::of(&chains, Target::Latest).unwrap();
        assert_eq!(plan.path().len(), chain.len());
        restore(&mut admin, &target.names, &vault, &plan, &identities, Use::Look).await.unwrap();
        let kinds: Vec<_> = chain.iter().map(|artefact| artefact.manifest().kind).collect();
        assert_eq!(digests(&target.admin_url, Some(&target.names)).await, expected, "{round}: {kinds:?}");
    }
    drop(open);
    bank.close().await;
    target.drop().await;
}

/// What is done to a manifest before it is signed.
type Change = fn(&mut Manifest);

async fn restored(
    target: &TenantDb,
    vault: &Vault,
    artefact: &SignedManifest,
    identities: &Identities,
) -> Result<Restored, restore::Error> {
    let chains = chains([artefact]);
    let plan = Plan::of(&chains, Target::Latest).unwrap();
    restore(&mut target.admin().await, &target.names, vault, &plan, identities, Use::Look).await
}

#[tokio::test]
async fn what_cannot_be_trusted_leaves_no_trace() {
    let bank = Bank::founded().await;
    let directory = Directory::new("untrusted");
    let vault = vault(&directory, &bank);
    let artefact = backed_up(&bank, &vault).await;
    let object = directory.path().join(bank.db.claim_id.to_string()).join(Folder::Objects.key(artefact.manifest().id));
    let genuine = std::fs::read(&object).unwrap();
    let target = TenantDb::create().await;
    let identities = Identities::parse(IDENTITY).unwrap();

    for place in [0, 20, genuine.len() / 2, genuine.len() - 1] {
        let mut damaged = genuine.clone();
        damaged[place] ^= 1;
        std::fs::write(&object, damaged).unwrap();
        let refused = restored(&target, &vault, &artefact, &identities).await;
        assert!(matches!(refused, Err(restore::Error::Seal(_))), "{place}: {refused:?}");
    }
    std::fs::write(&object, &genuine[..genuine.len() - 1]).unwrap();
    let refused = restored(&target, &vault, &artefact, &identities).await;
    assert!(matches!(refused, Err(restore::Error::OtherObject(_))), "{refused:?}");
    std::fs::remove_file(&object).unwrap();
    let refused = restored(&target, &vault, &artefact, &identities).await;
    assert!(matches!(refused, Err(restore::Error::Vault(_))), "{refused:?}");
    std::fs::write(&object, &genuine).unwrap();

    // Sealed and signed properly, and yet not the rows that were counted.
    let mut lying = artefact.manifest().clone();
    lying.tables[1].rows += 1;
    let lying = SignedManifest::sign(lying, &signing_key()).unwrap();
    let refused = restored(&target, &vault, &lying, &identities).await;
    assert!(matches!(refused, Err(restore::Error::Rows(rows::Error::Differs(_)))), "{refused:?}");
    let mut other = artefact.manifest().clone();
    other.claim_id = target.claim_id;
    let other = SignedManifest::sign(other, &signing_key()).unwrap();
    let refused = restored(&target, &vault, &other, &identities).await;
    assert!(matches!(refused, Err(restore::Error::Seal(seal::Error::OtherLabel))), "{refused:?}");
    // What each artefact holds is as its manifest says, but what they make is not.
    let lies: [(&str, Change); 4] = [
        ("users", |it| it.tables[0].total_rows = Some(9)),
        ("ledger_head", |it| it.ledger.hash.0[0] ^= 1),
        ("ledger_head", |it| it.ledger.epoch += 1),
        ("account_balances", |it| it.balances[0].debits.0 += 1),
    ];
    for (what, lie) in lies {
        let mut lying = artefact.manifest().clone();
        lie(&mut lying);
        let lying = SignedManifest::sign(lying, &signing_key()).unwrap();
        let refused = restored(&target, &vault, &lying, &identities).await;
        assert!(
            matches!(&refused, Err(restore::Error::Rows(rows::Error::Differs(found))) if found == what),
            "{refused:?}"
        );
    }

    restored(&target, &vault, &artefact, &identities).await.unwrap();
    bank.close().await;
    target.drop().await;
}
