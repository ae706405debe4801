//! The live registry against a real cluster and a real database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use finaiflow_api::tenant::{Role, Tenant, TenantError};
use finaiflow_ledger::command::{AccountType, AuditContext, Authority, Command, CommandKind, Memo, Metadata, Outcome};
use finaiflow_ledger::id::AccountId;
use finaiflow_schema::names::{ClaimId, Login};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use uuid::Uuid;

use crate::tenants_bank::{Bank, Replica, applied, conditions, eventually, version};

const BUDGET: u32 = 50;
const USER: Uuid = Uuid::from_u128(1);

/// Who the tenant's connection is in PostgreSQL, and which backend serves it.
async fn session(tenant: &Tenant) -> (String, i32, String) {
    let sql = "SELECT current_user::text, pg_backend_pid(), current_setting('application_name')";
    sqlx::query_as(sql).fetch_one(&tenant.pool).await.unwrap()
}

fn command(key: String, kind: CommandKind) -> Command {
    Command {
        principal: USER,
        authority: Authority::Owner,
        key,
        fingerprint: [0; 32],
        salt: [0; 16],
        kind,
        audit: AuditContext::default(),
    }
}

async fn open_account(tenant: &Tenant) -> AccountId {
    let (account_type, currency) = (AccountType::Checking, "USD".parse().unwrap());
    let kind = CommandKind::OpenAccount {
        owner: USER,
        account_type,
        currency,
        name: "Main".to_owned(),
        metadata: Metadata::new(),
    };
    match tenant.engine.submit(command("open".to_owned(), kind)).await.unwrap() {
        Outcome::AccountOpened(account) => account.id,
        other => panic!("{other:?}"),
    }
}

fn deposit(key: String, account: AccountId) -> Command {
    let (amount, currency) = (100.try_into().unwrap(), "USD".parse().unwrap());
    command(key, CommandKind::Deposit { account, amount, currency, memo: Memo::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_served_with_its_own_login_as_soon_as_it_is_ready() {
    let bank = Bank::create().await;
    let replica = Replica::start(&bank, BUDGET).await;
    assert_eq!(replica.resolve(&bank).unwrap_err(), TenantError::NotFound);

    bank.grant_secrets().await;
    bank.write_secrets().await;
    bank.write_status(1).await;
    let tenant = replica.served(&bank, "served", |_| true).await;
    assert_eq!(bank.connections(Login::AppA).await, 0, "nothing is opened before a request");
    let (user, _, application) = session(&tenant).await;
    assert_eq!((user.as_str(), application.as_str()), (bank.names().login(Login::AppA).as_str(), "finaiflow-api"));
    open_account(&tenant).await;
    assert_eq!(tenant.claim_id, bank.tenant.claim_id);
    assert_eq!(tenant.keys.active_kid(), "k1");
    assert_eq!(tenant.data_key.expose(), &[7; 32]);

    drop(tenant);
    replica.stop().await;
    assert_eq!(bank.connections(Login::AppA).await, 0, "a stopped replica leaves no connection");
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spec_is_followed_without_a_new_connection() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, BUDGET).await;
    let before = session(&*replica.served(&bank, "served", |_| true).await).await;

    bank.patch_spec(json!({"displayName": "Second", "payments": {"selfDeposit": false}})).await;
    let tenant = replica.served(&bank, "renamed", |tenant| tenant.settings.display_name == "Second").await;
    assert!(!tenant.settings.self_deposit);
    drop(tenant);

    let clerk = "usr_agiaaaaaabyabaaaaaaaaaaaae";
    bank.patch_spec(json!({"staff": [{"user": clerk, "roles": ["Auditor"]}]})).await;
    replica.served(&bank, "an auditor", |tenant| tenant.settings.staff.values().eq([&Role::Auditor])).await;
    bank.patch_spec(json!({"staff": [{"user": clerk, "roles": ["Teller"]}]})).await;
    replica.served(&bank, "a teller", |tenant| tenant.settings.staff.values().eq([&Role::Teller])).await;
    bank.patch_spec(json!({"staff": []})).await;
    replica.served(&bank, "nobody", |tenant| tenant.settings.staff.is_empty()).await;

    bank.patch_status(json!({"hosts": ["pay.example"]})).await;
    let by_host = || async { replica.directory.resolve(Some("pay.example"), None).ok() };
    assert_eq!(eventually("served by host", by_host).await.name, bank.name);

    bank.patch_spec(json!({"suspend": true})).await;
    replica.refused(&bank, TenantError::Suspended).await;
    bank.patch_spec(json!({"suspend": false})).await;
    replica.served(&bank, "resumed", |_| true).await;

    bank.patch_status(json!({"conditions": conditions("False")})).await;
    bank.lease_after_apply().await;
    let after = session(&replica.resolve(&bank).expect("conditions do not unload")).await;
    assert_eq!(before, after, "the same backend");

    bank.patch_spec(json!({"limits": {"connections": 3}})).await;
    let resized = |tenant: &Tenant| tenant.pool.options().get_max_connections() == 1;
    replica.served(&bank, "resized", resized).await;

    replica.stop().await;
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tenant_is_gone_and_its_connections_closed() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, BUDGET).await;
    let tenant = replica.served(&bank, "served", |_| true).await;
    session(&tenant).await;
    drop(tenant);

    // The finalizer keeps the object, as it does while the operator cleans up.
    let finalizers = |list| Patch::Merge(json!({"metadata": {"finalizers": list}}));
    let held = finalizers(json!(["finaiflow.io/tenant"]));
    bank.tenants().patch(&bank.name, &PatchParams::default(), &held).await.unwrap();
    bank.tenants().delete(&bank.name, &DeleteParams::default()).await.unwrap();
    replica.refused(&bank, TenantError::NotFound).await;
    let closed = || async { (bank.connections(Login::AppA).await == 0).then_some(()) };
    eventually("the pool is closed", closed).await;
    bank.lease_after_apply().await;

    let released = finalizers(json!([]));
    bank.tenants().patch(&bank.name, &PatchParams::default(), &released).await.unwrap();
    replica.stop().await;
    bank.drop().await;
}

/// Users who move money and read without a pause, and what they saw.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    users: Vec<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(replica: &Replica, bank: &Bank, account: AccountId) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let users = (0..16).map(|user| {
            let (directory, name) = (Arc::clone(&replica.directory), bank.name.clone());
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                for number in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let tenant = directory.resolve(None, Some(&name)).map_err(|error| error.to_string())?;
                    let deposit = deposit(format!("{user}-{number}"), account);
                    tenant.engine.submit(deposit).await.map_err(|error| error.to_string())?;
                    let read = sqlx::query("SELECT FROM accounts").fetch_all(&tenant.pool).await;
                    read.map_err(|error| error.to_string())?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        let users = users.collect();
        Self { stop, done, users }
    }

    /// Waits for another hundred requests.
    async fn go_on(&self) {
        let target = self.done.load(Ordering::Relaxed) + 100;
        let reached = || async {
            let failed = self.users.iter().any(tokio::task::JoinHandle::is_finished);
            (failed || self.done.load(Ordering::Relaxed) >= target).then_some(())
        };
        eventually("a hundred more requests", reached).await;
    }

    /// Ends it: the number of requests, none of which failed.
    async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for user in self.users {
            user.await.unwrap().expect("no request fails");
        }
        self.done.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotated_login_fails_no_request() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, BUDGET).await;
    let tenant = replica.served(&bank, "served", |_| true).await;
    let account = open_account(&tenant).await;
    drop(tenant);
    let load = Load::start(&replica, &bank, account);
    load.go_on().await;

    for (generation, new, old) in [(2, Login::AppB, Login::AppA), (3, Login::AppA, Login::AppB)] {
        bank.rotate_login(generation).await;
        bank.write_status(generation.into()).await;
        let swapped = || async { (bank.connections(old).await == 0 && bank.connections(new).await > 0).then_some(()) };
        eventually("only the new login is connected", swapped).await;
        load.go_on().await;
    }

    let done = load.finish().await;
    let deposits: i64 = sqlx::query_scalar("SELECT count(*) FROM journals WHERE kind = 'deposit'")
        .fetch_one(&replica.resolve(&bank).unwrap().pool)
        .await
        .unwrap();
    assert_eq!(u64::try_from(deposits).unwrap(), done, "each deposit once");
    replica.stop().await;
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_does_not_work_is_told_and_not_swapped_in() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, BUDGET).await;
    let before = session(&*replica.served(&bank, "served", |_| true).await).await;

    bank.write_login(Login::AppB, 2, "not the password").await;
    bank.write_status(2).await;
    let lease = bank.lease_after_apply().await;
    let reason = bank.failure(&lease).expect("a failure");
    assert!(reason.contains("the new database login does not work"), "{reason}");
    assert!(!reason.contains("not the password"), "{reason}");
    assert_eq!(session(&replica.resolve(&bank).unwrap()).await, before, "still served with the old login");

    bank.rotate_login(2).await;
    let healed = || async { bank.lease().await.filter(|lease| bank.failure(lease).is_none()) };
    eventually("the failure is taken back", healed).await;
    let (user, ..) = session(&replica.resolve(&bank).unwrap()).await;
    assert_eq!(user, bank.names().login(Login::AppB).as_str());
    replica.stop().await;
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_told_and_waited_for() {
    let bank = Bank::create().await;
    let replica = Replica::start(&bank, BUDGET).await;
    bank.write_status(1).await;
    let reason = bank.failure(&bank.lease_after_apply().await).expect("a failure");
    assert!(reason.contains(&format!("{}.database", bank.name)) && reason.contains("403"), "{reason}");

    bank.grant_secrets().await;
    let reason = || async { bank.failure(&bank.lease().await?).filter(|reason| reason.contains("404")) };
    let reason = eventually("the next reason is told", reason).await;
    assert!(reason.contains(&format!("{}.database", bank.name)), "{reason}");
    assert!(matches!(replica.resolve(&bank), Err(TenantError::Unavailable(_))));

    bank.write_secrets().await;
    replica.served(&bank, "served after a retry", |_| true).await;
    let healed = || async { bank.lease().await.filter(|lease| bank.failure(lease).is_none()) };
    eventually("the failure is taken back", healed).await;
    replica.stop().await;
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_the_tenants_is_not_used() {
    let bank = Bank::create().await;
    bank.grant_secrets().await;
    bank.write_secrets().await;
    bank.write_secret("data-key", 1, ClaimId::from_random(1), &[("kek", &[7; 32])]).await;
    bank.write_status(1).await;
    let replica = Replica::start(&bank, BUDGET).await;
    let reason = bank.failure(&bank.lease_after_apply().await).expect("a failure");
    assert!(reason.contains("not annotated as belonging to claim"), "{reason}");

    bank.write_secret("data-key", 1, bank.tenant.claim_id, &[("kek", &[7; 31])]).await;
    bank.patch_spec(json!({"displayName": "Again"})).await;
    let reason = bank.failure(&bank.lease_after_apply().await).expect("a failure");
    assert!(reason.contains("31 bytes"), "{reason}");
    replica.stop().await;
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namesake_without_the_claim_changes_nothing() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, BUDGET).await;
    replica.served(&bank, "served", |_| true).await;

    let other = Bank::create().await;
    let mut namesake = other.tenants().get(&other.name).await.unwrap();
    namesake.metadata = kube::core::ObjectMeta { name: Some(bank.name.clone()), ..Default::default() };
    other.tenants().create(&PostParams::default(), &namesake).await.unwrap();
    other.tenants().delete(&bank.name, &DeleteParams::default()).await.unwrap();
    bank.patch_spec(json!({"displayName": "After"})).await;
    replica.served(&bank, "still followed", |tenant| tenant.settings.display_name == "After").await;
    assert_eq!(replica.resolve(&other).unwrap_err(), TenantError::NotFound);

    replica.stop().await;
    other.drop().await;
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_advances_and_ends_with_the_replica() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, BUDGET).await;
    let first = bank.lease_after_apply().await;
    assert_eq!(first.labels()["app.kubernetes.io/component"], "finaiflow-api");
    assert_eq!(bank.failure(&first), None);
    let spec = first.spec.clone().unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("api-0"), Some(30)));

    bank.patch_spec(json!({"displayName": "Changed"})).await;
    let changed = version(&bank.tenants().get(&bank.name).await.unwrap().resource_version().unwrap());
    let second = bank.lease_after_apply().await;
    assert!(applied(&first) < changed && changed <= applied(&second));

    let renewed = || async {
        let spec = bank.lease().await?.spec?;
        (spec.renew_time > second.spec.as_ref()?.renew_time).then_some(())
    };
    eventually("the lease is renewed without news", renewed).await;
    replica.stop().await;
    assert!(bank.lease().await.is_none(), "a stopped replica counts no longer");
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_above_the_budget_are_closed() {
    let bank = Bank::ready().await;
    let replica = Replica::start(&bank, 1).await;
    let tenant = replica.served(&bank, "served", |_| true).await;
    let (first, second) = (tenant.pool.acquire().await.unwrap(), tenant.pool.acquire().await.unwrap());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bank.connections(Login::AppA).await, 2, "what is in use stays");
    drop((first, second));
    let closed = || async { (bank.connections(Login::AppA).await == 1).then_some(()) };
    eventually("one of two idle connections is closed", closed).await;
    session(&tenant).await;
    drop(tenant);
    replica.stop().await;
    bank.drop().await;
}
