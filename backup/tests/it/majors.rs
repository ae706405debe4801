//! A bank that moves to another major version of PostgreSQL, and back.

use finaiflow_backup::manifest::{Kind, SignedManifest};
use finaiflow_backup::restore::{Plan, Target, Use, restore};
use finaiflow_backup::seal::Identities;
use finaiflow_backup::take;
use finaiflow_backup::vault::Vault;
use finaiflow_ledger::command::Outcome;
use finaiflow_schema::provision::{close_restore, open_restore};
use finaiflow_schema::testing::{TenantDb, connect, random_password};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;

use crate::bank::{Bank, IDENTITY, backed_up, chains, taken, vault};
use crate::harness::Directory;
use crate::postgres::{Major, Server};
use crate::round_trip::digests;

/// Everything of a bank, then what changes, and what changes after that.
async fn chain(bank: &Bank, vault: &Vault) -> Vec<SignedManifest> {
    let mut chain = vec![backed_up(bank, vault).await];
    for (number, kind) in [Kind::Incremental, Kind::Segment, Kind::Segment].into_iter().enumerate() {
        bank.transfer(format!("{:?} {number}", bank.db.claim_id), number, number + 1).await;
        sqlx::query("UPDATE users SET name = name || '.'").execute(&bank.pool).await.unwrap();
        chain.push(taken(bank, vault, kind, chain.last()).await.unwrap());
    }
    chain
}

/// Restores what was backed up, as it was and with the rights of a restore, and goes on there.
async fn moved(bank: &Bank, vault: &Vault, chain: &[SignedManifest], to: TenantDb) -> Bank {
    let identities = Identities::parse(IDENTITY).unwrap();
    let chains = chains(chain);
    let plan = Plan::of(&chains, Target::Latest).unwrap();
    assert_eq!(plan.path().len(), chain.len());
    let password = random_password();
    open_restore(&mut to.admin().await, &to.names, &password).await.unwrap();
    let login: PgConnectOptions = to.app_url.parse().unwrap();
    let login = login.username(to.names.restore.as_str()).password(password.expose()).to_url_lossy();
    restore(&mut connect(login.as_str()).await, &to.names, vault, &plan, &identities, Use::Look).await.unwrap();
    close_restore(&mut to.admin().await, &to.names).await.unwrap();
    assert_eq!(digests(&to.admin_url, Some(&to.names)).await, digests(&bank.db.backup_url, None).await);

    let there = Bank::on(to, bank.accounts.clone());
    there.is_sound().await;
    let first = format!("{:?} 0", bank.db.claim_id);
    assert_eq!(there.transfer(first.clone(), 0, 1).await, bank.transfer(first, 0, 1).await, "answered again");
    let new = there.transfer(format!("new {:?}", there.db.claim_id), 0, 1).await;
    assert!(matches!(new, Outcome::Transfer(_)), "{new:?}");
    there.is_sound().await;
    there
}

fn major(signed: &SignedManifest) -> u32 {
    signed.manifest().postgres.server_version / 10_000
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_moves_to_postgresql_18_and_back() {
    let server = Server::new(Major::Eighteen);
    let (bank, directory) = (Bank::founded().await, Directory::new("majors"));
    let store = vault(&directory, &bank);
    let taken_15 = chain(&bank, &store).await;
    let there = moved(&bank, &store, &taken_15, TenantDb::create_on(&server.url()).await).await;
    bank.close().await;

    let store = vault(&directory, &there);
    let refused = taken(&there, &store, Kind::Incremental, taken_15.first()).await;
    assert!(matches!(refused, Err(take::Error::NoParent { .. })), "{refused:?}");
    let taken_18 = chain(&there, &store).await;
    assert_eq!((major(&taken_15[0]), major(&taken_18[0])), (15, 18));
    let returned = moved(&there, &store, &taken_18, TenantDb::create().await).await;
    there.close().await;
    returned.close().await;
}
