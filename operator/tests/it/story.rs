//! A Tenant becomes a bank: from YAML to Ready.

use std::fmt::Debug;
use std::sync::atomic::Ordering;

use finaiflow_crds::names::MANAGED_BY;
use finaiflow_crds::{Backup, Restore, Tenant};
use finaiflow_operator::catalog::live::Live;
use finaiflow_operator::clock;
use finaiflow_operator::config::Config;
use finaiflow_operator::context::Context;
use finaiflow_operator::random::Random;
use finaiflow_operator::story::Story;
use finaiflow_operator::tenant::{Visit, visit};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store, store::Writer};
use kube::runtime::watcher::Event;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::{World, eventually};

#[tokio::test]
async fn a_tenant_becomes_ready_and_its_status_is_true() {
    let world = World::running().await;
    world.create(&world.banks, "acme", json!({"hosts": ["acme.bank.local"]})).await;
    world.condition(&world.banks, "acme", "SchemaReady", "True", "Provisioned").await;
    world.condition(&world.banks, "acme", "CredentialsReady", "True", "Provisioned").await;
    world.condition(&world.banks, "acme", "Ready", "False", "NotYetServed").await;
    world.replica().await;
    world.ready("acme").await;

    let tenant = world.tenant("acme").await;
    let status = tenant.status.unwrap();
    let (claim, schema) = (status.claim_id.unwrap(), status.schema.unwrap());
    assert_eq!(status.hosts, ["acme.bank.local"]);
    let owner = format!("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = '{}'", schema.name);
    assert_eq!(world.query(&owner).await, [format!("ff_{claim}_owner")]);
    let version = world.query(&format!("SELECT max(version)::text FROM {}.schema_migrations", schema.name)).await;
    assert_eq!(version, [schema.version.to_string()]);
    assert_eq!(world.roles().await.len(), 6);

    // The app's login and the jobs' get in with what the Secrets say.
    for (purpose, table) in [("database", "users"), ("maintenance-database", "entries"), ("backup-database", "users")] {
        let secret = &format!("acme.{purpose}");
        let mut conn = PgConnection::connect(&world.secret(secret, "DATABASE_URL").await).await.unwrap();
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut conn)
            .await
            .unwrap();
        assert_eq!(count, 0, "{table} through {secret}");
    }
    let managed = ListParams::default().labels(&format!("app.kubernetes.io/managed-by={MANAGED_BY}"));
    let banks = &world.banks;
    assert_eq!(world.api::<Role>(banks).list(&managed).await.unwrap().items.len(), 1);
    assert_eq!(world.api::<RoleBinding>(banks).list(&managed).await.unwrap().items.len(), 1);
    assert_eq!(world.api::<NetworkPolicy>(banks).list(&managed).await.unwrap().items.len(), 1);
    assert_eq!(world.api::<CronJob>(banks).list(&managed).await.unwrap().items[0].name_any(), "acme-verify");
    world.end().await;
}

#[tokio::test]
async fn the_api_server_may_read_exactly_three_secrets() {
    let world = World::running().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.create(&world.banks, "globex", json!({})).await;
    for tenant in ["acme", "globex"] {
        world.condition(&world.banks, tenant, "CredentialsReady", "True", "").await;
    }
    let account = format!("system:serviceaccount:{}:finaiflow-api", world.system);
    let may = async |verb: &str, name: &str| {
        let review = json!({"metadata": {}, "spec": {"user": account, "resourceAttributes":
            {"namespace": world.banks, "verb": verb, "resource": "secrets", "name": name}}});
        let reviews: Api<SubjectAccessReview> = Api::all(world.client.clone());
        let review = serde_json::from_value(review).unwrap();
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    };
    for purpose in ["database", "signing-keys", "data-key"] {
        assert!(may("get", &format!("acme.{purpose}")).await && may("get", &format!("globex.{purpose}")).await);
        assert!(!may("patch", &format!("acme.{purpose}")).await);
    }
    for (verb, name) in [("get", "acme.maintenance-database"), ("get", "other"), ("list", ""), ("watch", "")] {
        assert!(!may(verb, name).await, "{verb} {name}");
    }
    world.end().await;
}

#[tokio::test]
async fn events_tell_the_story_and_nothing_leaks() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    let events = eventually("all events", async || {
        let events = world.events("acme").await;
        let reasons: Vec<_> = events.iter().map(|(reason, _)| reason.as_str()).collect();
        let expected = ["Claimed", "Provisioned", "Migrated", "CredentialsCreated", "Ready"];
        if reasons == expected { Ok(events.clone()) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    let told = format!("{events:?} {:?} {}", world.tenant("acme").await.status, world.log());
    let logins = ["database", "maintenance-database", "backup-database"].map(|purpose| (purpose, "password"));
    for (purpose, key) in logins.into_iter().chain([("signing-keys", "keys.json")]) {
        let secret = &format!("acme.{purpose}");
        assert!(!told.contains(&world.secret(secret, key).await), "{secret} is told");
    }
    world.end().await;
}

#[tokio::test]
async fn a_finished_verification_shows_in_the_status() {
    let world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({})).await;
    world.ready("acme").await;
    let verify = async |number: i32, row: &str| {
        let mut conn =
            PgConnection::connect(&world.secret("acme.maintenance-database", "DATABASE_URL").await).await.unwrap();
        let insert =
            "INSERT INTO ledger_verifications (started_at, finished_at, epoch, sequence, balanced, findings) VALUES";
        sqlx::raw_sql(AssertSqlSafe(format!("{insert} {row}"))).execute(&mut conn).await.unwrap();
        // No kubelet here: the job is what `kubectl create job --from` makes, and its end is written by hand.
        let cron_job: CronJob = world.api(&world.banks).get("acme-verify").await.unwrap();
        let template = cron_job.spec.unwrap().job_template;
        let mut spec = template.spec.unwrap();
        spec.suspend = Some(true);
        let mut job = Job { metadata: template.metadata.unwrap(), spec: Some(spec), status: None };
        job.metadata.name = Some(format!("acme-verify-{number}"));
        let jobs = world.api::<Job>(&world.banks);
        jobs.create(&PostParams::default(), &job).await.unwrap();
        let done = json!({"metadata": {"annotations": {"it": "done"}}});
        jobs.patch(&job.name_any(), &PatchParams::default(), &Patch::Merge(done)).await.unwrap();
    };
    verify(1, "(now(), now(), 1, 7, true, '[]')").await;
    world.condition(&world.banks, "acme", "LedgerVerified", "True", "Balanced").await;
    let ledger = world.tenant("acme").await.status.unwrap().ledger.unwrap();
    assert_eq!((ledger.epoch, ledger.sequence, ledger.balanced), (1, 7, true));

    let finding = r#"[{"check": "balance", "account_id": "acc_aaaa", "detail": "posted 2, entries say 1"}]"#;
    verify(2, &format!("(now(), now(), 1, 8, false, '{finding}')")).await;
    let message = world.condition(&world.banks, "acme", "LedgerVerified", "False", "ImbalanceFound").await;
    assert!(message.contains("acc_aaaa"), "{message}");
    world.ready("acme").await;
    world.end().await;
}

/// Every object's name and version.
async fn versions(world: &World) -> Vec<(String, Option<String>)> {
    async fn of<K>(api: Api<K>) -> Vec<(String, Option<String>)>
    where
        K: Resource + Clone + DeserializeOwned + Debug,
    {
        let listed = api.list(&ListParams::default()).await.unwrap();
        listed.iter().map(|object| (object.name_any(), object.resource_version())).collect()
    }
    let banks = &world.banks;
    [
        of(world.api::<Tenant>(banks)).await,
        of(world.api::<Secret>(banks)).await,
        of(world.api::<Role>(banks)).await,
        of(world.api::<RoleBinding>(banks)).await,
        of(world.api::<NetworkPolicy>(banks)).await,
        of(world.api::<CronJob>(banks)).await,
    ]
    .concat()
}

#[tokio::test]
async fn a_settled_tenant_is_not_written_again() {
    let mut world = World::running().await;
    world.replica().await;
    world.create(&world.banks, "acme", json!({"hosts": ["acme.bank.local"]})).await;
    world.ready("acme").await;
    let (before, log) = (versions(&world).await, world.log().len());
    assert_eq!(before.len(), 10 + 1, "the Tenant, its 9 children, and the binding of the operator's own rights");
    // A new process knows nothing and visits everything.
    world.kill();
    world.start(&[&world.banks.clone()]);
    eventually("another visit", async || {
        if world.log()[log..].contains("\"visited\"") { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    assert_eq!(versions(&world).await, before);

    // Not even a write that changes nothing.
    world.kill();
    let (client, writes) = world.counting_client().await;
    let config = Config::parse(&world.config(&[&world.banks])).unwrap();
    let (tenants, _tenants) = store(vec![world.tenant("acme").await]);
    let (leases, _leases) = store(vec![world.api::<Lease>(&world.system).get("finaiflow-api-0").await.unwrap()]);
    let installation = Api::<Namespace>::all(client.clone()).get("kube-system").await.unwrap().uid().unwrap();
    let catalog = Live::new(&config, &client, &world.system);
    let (backups, _backups) = store(Vec::<Backup>::new());
    let (restores, _restores) = store(Vec::<Restore>::new());
    let (home, now, random) = (world.system.clone(), clock::now, Random::system());
    let ctx = Context { client, home, catalog, config, installation, tenants, leases, restores, backups, now, random };
    let visited = Box::pin(visit(&ctx, &world.tenant("acme").await, &Story::default())).await.unwrap();
    assert_eq!((visited, writes.load(Ordering::Relaxed)), (Visit::Done, 0));
    assert_eq!(versions(&world).await, before);
    ctx.catalog.close().await;
    world.end().await;
}

/// A store that is filled.
pub fn store<K>(objects: Vec<K>) -> (Store<K>, Writer<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
    (store, writer)
}
