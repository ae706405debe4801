//! A bank as the operator leaves it: a Tenant with status, its Secrets, its PostgreSQL logins, and the rights that let
//! the API server read them. Also the API server's registry itself, running as its own service account.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::{BASE64, HEXLOWER};
use finaiflow_api::tenant::{Directory, Tenant, TenantError};
use finaiflow_api::tenants::Budget;
use finaiflow_api::{clock, tenants};
use finaiflow_crds::{RateLimitPolicy, Tenant as TenantObject};
use finaiflow_ledger::id::AccountId;
use finaiflow_ledger::verify;
use finaiflow_schema::names::{ClaimId, Login, TenantNames};
use finaiflow_schema::provision::set_login_password;
use finaiflow_schema::testing::{TenantDb, TestTenant, connect, random_password};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::fleet::Book;

/// The API server's service account; each test has one in a namespace of its own.
const ACCOUNT: &str = "finaiflow-api";
/// The pod the registry believes to be.
pub const POD: &str = "api-0";

pub fn kubeconfig() -> String {
    std::env::var("FINAIFLOW_TEST_KUBECONFIG")
        .expect("FINAIFLOW_TEST_KUBECONFIG names no API server: run `make test-integration`")
}

async fn client(impersonate: Option<String>) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = impersonate;
    Client::try_from(config).unwrap()
}

/// What the API server is to Kubernetes.
pub fn account(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{ACCOUNT}")
}

/// Asks again until there is an answer, for at most 30 s.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..1500 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}

pub fn random_name(prefix: &str) -> String {
    format!("{prefix}-{}", HEXLOWER.encode(&clock::random::<4>().unwrap()))
}

/// One bank in a namespace and a database of its own, or beside another.
pub struct Bank {
    pub namespace: String,
    pub name: String,
    pub tenant: TestTenant,
    pub db: Arc<TenantDb>,
    /// Where its Secret says that PostgreSQL is, on this host.
    pub port: u16,
    /// Its first signing key, `k1`.
    pub signing_key: Value,
    pub admin: Client,
}

impl Bank {
    /// The Tenant exists, and so does everything in PostgreSQL; the operator has not said so yet.
    pub async fn create() -> Self {
        let admin = client(None).await;
        install_crd(&admin).await;
        let db = TenantDb::create().await;
        let (namespace, name, port) = (random_name("banks"), random_name("bank"), server(&db.app_url).get_port());
        let tenant = db.tenant();
        let bank = Self { namespace, name, tenant, db: Arc::new(db), port, signing_key: signing_key("k1"), admin };
        bank.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": bank.namespace}})).await;
        bank.grant_what_the_chart_grants().await;
        bank.create_tenant().await;
        bank
    }

    /// Another bank in the same namespace and database, with nothing but what [`Self::create`] makes.
    pub async fn create_neighbour(&self) -> Self {
        let (namespace, name, db) = (self.namespace.clone(), random_name("bank"), Arc::clone(&self.db));
        let tenant = self.db.create_tenant(&name).await;
        let (port, signing_key, admin) = (self.port, signing_key("k1"), self.admin.clone());
        let bank = Self { namespace, name, tenant, db, port, signing_key, admin };
        bank.create_tenant().await;
        bank
    }

    async fn create_tenant(&self) {
        let tenant = json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {"displayName": "First", "auth": {"emailVerification": "Optional"}, "payments": {"selfDeposit": true}},
        });
        self.tenants().create(&PostParams::default(), &serde_json::from_value(tenant).unwrap()).await.unwrap();
    }

    /// A bank whose Secrets exist and whose status says that it is ready.
    pub async fn ready() -> Self {
        let bank = Self::create().await;
        bank.complete().await;
        bank
    }

    /// Does what the operator does for it.
    pub async fn complete(&self) {
        self.grant_secrets().await;
        self.write_secrets().await;
        self.write_status(1).await;
    }

    /// Takes it away, and what it shares with a neighbour once that is gone.
    pub async fn drop(self) {
        let _ = self.tenants().delete(&self.name, &DeleteParams::default()).await;
        let Some(db) = Arc::into_inner(self.db) else { return };
        let namespace = GroupVersionKind::gvk("", "v1", "Namespace");
        let namespaces: Api<DynamicObject> = Api::all_with(self.admin.clone(), &ApiResource::from_gvk(&namespace));
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.unwrap();
        db.drop().await;
    }

    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    pub fn names(&self) -> &TenantNames {
        &self.tenant.names
    }

    pub fn tenants(&self) -> Api<TenantObject> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub async fn patch_spec(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.tenants().patch(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn patch_status(&self, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.tenants().patch_status(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// What the operator says of a finished tenant, with `generation` of the database login.
    pub async fn write_status(&self, generation: i64) {
        self.write_generations(generation, 1).await;
    }

    async fn write_generations(&self, database: i64, keys: i64) {
        let secret = |purpose: &str, generation: i64| json!({"name": format!("{}.{purpose}", self.name), "purpose": purpose, "generation": generation});
        let secrets = [secret("database", database), secret("signing-keys", keys), secret("data-key", 1)];
        let claim = self.tenant.claim_id.to_string();
        self.patch_status(json!({"claimID": claim, "conditions": conditions("True"), "secrets": secrets})).await;
    }

    pub async fn write_secrets(&self) {
        self.write_key_document(1, &[(&self.signing_key, "active")]).await;
        self.write_secret("data-key", 1, self.tenant.claim_id, &[("kek", &[7; 32])]).await;
        self.rotate_login(1).await;
    }

    /// Other signing keys, each with its state, and a status that tells.
    pub async fn write_keys(&self, generation: i64, keys: &[(&Value, &str)]) {
        self.write_key_document(generation, keys).await;
        self.write_generations(1, generation).await;
    }

    async fn write_key_document(&self, generation: i64, keys: &[(&Value, &str)]) {
        let mut document = json!({"keys": keys.iter().map(|(key, _)| key).collect::<Vec<_>>()});
        for (number, (_, state)) in keys.iter().enumerate() {
            document["keys"][number]["state"] = json!(state);
        }
        let data = [("keys.json", document.to_string())];
        let data = data.each_ref().map(|(key, document)| (*key, document.as_bytes()));
        self.write_secret("signing-keys", generation, self.tenant.claim_id, &data).await;
    }

    pub async fn delete_secret(&self, purpose: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.admin.clone(), &self.namespace);
        secrets.delete(&format!("{}.{purpose}", self.name), &DeleteParams::default()).await.unwrap();
    }

    pub async fn write_secret(&self, purpose: &str, generation: i64, claim: ClaimId, data: &[(&str, &[u8])]) {
        let data: BTreeMap<_, _> = data.iter().map(|(key, value)| (*key, BASE64.encode(value))).collect();
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": format!("finaiflow.io/{purpose}"), "data": data,
            "metadata": {
                "name": format!("{}.{purpose}", self.name), "namespace": self.namespace,
                "annotations": {"finaiflow.io/claim-id": claim, "finaiflow.io/generation": generation.to_string()},
            },
        }))
        .await;
    }

    /// Gives the slot of `generation` a new password and writes the Secret. The status does not tell yet.
    pub async fn rotate_login(&self, generation: i32) {
        self.set_password(Login::app(generation), generation).await;
    }

    /// Gives a login a new password as the operator does: the Secret first. The status does not tell yet.
    pub async fn set_password(&self, login: Login, generation: i32) {
        let password = random_password();
        self.write_login(login, generation, password.expose()).await;
        let mut admin = self.db.admin().await;
        set_login_password(&mut admin, self.names(), login, &password, generation).await.unwrap();
    }

    pub async fn write_login(&self, login: Login, generation: i32, password: &str) {
        let server = server(&self.tenant.app_url);
        let (port, username) = (self.port.to_string(), self.names().login(login).to_string());
        let data = [
            ("host", server.get_host()),
            ("port", &port),
            ("dbname", server.get_database().unwrap()),
            ("username", &username),
            ("password", password),
            ("schema", self.names().schema.as_str()),
            ("sslmode", "disable"),
        ];
        let data = data.map(|(key, value)| (key, value.as_bytes()));
        self.write_secret("database", generation.into(), self.tenant.claim_id, &data).await;
    }

    /// Ends every connection of the API server's logins, as a restart of PostgreSQL does.
    pub async fn end_connections(&self) {
        let logins = [Login::AppA, Login::AppB].map(|login| self.names().login(login).as_str());
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY($1)")
            .bind(logins)
            .execute(&mut self.db.superuser().await)
            .await
            .unwrap();
    }

    /// Open connections of a slot of the API server's login.
    pub async fn connections(&self, login: Login) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = $1")
            .bind(self.names().login(login).as_str())
            .fetch_one(&mut self.db.superuser().await)
            .await
            .unwrap()
    }

    /// One value read by the superuser; `tenant.` in the SQL stands for the bank's schema.
    pub async fn read<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let sql = AssertSqlSafe(self.qualified(sql));
        sqlx::query_scalar(sql).fetch_one(&mut self.db.superuser().await).await.unwrap()
    }

    /// A statement of the superuser; `tenant.` as in [`Self::read`].
    pub async fn execute(&self, sql: &str) {
        let sql = AssertSqlSafe(self.qualified(sql));
        sqlx::query(sql).execute(&mut self.db.superuser().await).await.unwrap();
    }

    fn qualified(&self, sql: &str) -> String {
        sql.replace("tenant.", &format!("{}.", self.names().schema.as_str()))
    }

    /// Fails unless exactly what the book tells is booked, once each, and the ledger is sound.
    pub async fn assert_booked(&self, book: &Book) {
        let mut superuser = self.db.superuser().await;
        let sql = self.qualified("SELECT reference FROM tenant.journals WHERE reference IS NOT NULL ORDER BY 1");
        let booked: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut superuser).await.unwrap();
        let mut acknowledged = book.acknowledged.clone();
        acknowledged.sort_unstable();
        let surprises: Vec<_> = booked.iter().filter(|reference| !acknowledged.contains(reference)).collect();
        let lost: Vec<_> = acknowledged.iter().filter(|reference| !booked.contains(reference)).collect();
        assert!(lost.is_empty() && surprises.is_empty(), "lost: {lost:?}, not acknowledged: {surprises:?}");
        assert_eq!(booked.len(), acknowledged.len(), "each once");

        let balances =
            "SELECT epoch, account_id, posted FROM tenant.account_balances JOIN tenant.accounts ON id = account_id";
        let balances: Vec<(i32, i64, i64)> =
            sqlx::query_as(AssertSqlSafe(self.qualified(balances))).fetch_all(&mut superuser).await.unwrap();
        let id = |epoch: i32, sequence: i64| AccountId {
            epoch: epoch.try_into().unwrap(),
            sequence: sequence.try_into().unwrap(),
        };
        let balances: BTreeMap<_, _> =
            balances.into_iter().map(|(epoch, sequence, posted)| (id(epoch, sequence).to_string(), posted)).collect();
        assert_eq!(balances.values().sum::<i64>(), 0, "the trial balance");
        for (account, expected) in &book.balances {
            assert_eq!(balances[account], *expected, "{account}");
        }
        let report = verify::run(&mut connect(&self.tenant.maintenance_url).await).await.unwrap();
        assert!(report.balanced(), "{report:?}");
    }

    /// The replica's Lease, if it is there.
    pub async fn lease(&self) -> Option<Lease> {
        let leases: Api<Lease> = Api::namespaced(self.admin.clone(), &self.namespace);
        leases.get_opt(&format!("finaiflow-api-{POD}")).await.unwrap()
    }

    /// The replica's Lease once it has applied the Tenant as it is now.
    pub async fn lease_after_apply(&self) -> Lease {
        let wanted = version(&self.tenants().get(&self.name).await.unwrap().resource_version().unwrap());
        let applied = || async { self.lease().await.filter(|lease| applied(lease) >= wanted) };
        eventually("the lease tells that the tenant is applied", applied).await
    }

    /// Why the replica cannot serve this bank, as its Lease tells.
    pub fn failure(&self, lease: &Lease) -> Option<String> {
        let failures: BTreeMap<String, String> =
            serde_json::from_str(&lease.annotations()["finaiflow.io/failures"]).unwrap();
        failures.get(&self.key()).cloned()
    }

    async fn apply(&self, object: &Value) {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let types = object.types.clone().unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types).unwrap());
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.admin.clone(), &namespace, &resource),
            None => Api::all_with(self.admin.clone(), &resource),
        };
        let params = PatchParams::apply("api-test").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await.unwrap();
    }

    /// Tenants and policies everywhere, and Leases of its own namespace.
    async fn grant_what_the_chart_grants(&self) {
        let tenants = json!([{"apiGroups": ["finaiflow.io"], "resources": ["tenants", "ratelimitpolicies"], "verbs": ["get", "list", "watch"]}]);
        let leases = json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "patch", "delete", "list", "watch"]}]);
        self.grant("ClusterRole", &format!("{}-{}", ACCOUNT, self.namespace), None, &tenants).await;
        self.grant("Role", ACCOUNT, Some(&self.namespace), &leases).await;
    }

    /// The Role that the operator makes for a tenant.
    pub async fn grant_secrets(&self) {
        let names = ["database", "signing-keys", "data-key"].map(|purpose| format!("{}.{purpose}", self.name));
        let rule = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get"]}]);
        self.grant("Role", &format!("{}.finaiflow-api", self.name), Some(&self.namespace), &rule).await;
    }

    async fn grant(&self, kind: &str, name: &str, namespace: Option<&str>, rules: &Value) {
        let (version, metadata) = ("rbac.authorization.k8s.io/v1", json!({"name": name, "namespace": namespace}));
        self.apply(&json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules})).await;
        self.apply(&json!({
            "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": self.namespace}],
        }))
        .await;
    }
}

/// SchemaReady and CredentialsReady with the same status.
pub fn conditions(status: &str) -> Value {
    let condition = |kind| {
        json!({"type": kind, "status": status, "reason": "Test", "message": "",
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    json!([condition("SchemaReady"), condition("CredentialsReady")])
}

fn server(url: &str) -> PgConnectOptions {
    url.parse().unwrap()
}

pub fn version(text: &str) -> u64 {
    text.parse().unwrap()
}

/// The version a Lease tells to be applied.
pub fn applied(lease: &Lease) -> u64 {
    version(&lease.annotations()["finaiflow.io/applied-resource-version"])
}

/// An entry of `keys.json`.
pub fn signing_key(kid: &str) -> Value {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    json!({"kid": kid, "alg": "EdDSA", "state": "active", "pkcs8": BASE64.encode(der.as_ref()),
           "created_at": "2026-01-01T00:00:00Z"})
}

async fn install_crd(client: &Client) {
    let definitions = [
        include_str!("../../../config/crd/tenants.finaiflow.io.yaml"),
        include_str!("../../../config/crd/ratelimitpolicies.finaiflow.io.yaml"),
    ];
    let crds = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&crds));
    for definition in definitions {
        let crd: DynamicObject = serde_yaml::from_str(definition).unwrap();
        api.patch(&crd.name_any(), &PatchParams::apply("crds-test").force(), &Patch::Apply(&crd)).await.unwrap();
    }
    let (tenants, policies) = (Api::<TenantObject>::all(client.clone()), Api::<RateLimitPolicy>::all(client.clone()));
    let params = ListParams::default();
    eventually("the API server serves Tenants", || async { tenants.list(&params).await.ok() }).await;
    eventually("the API server serves policies", || async { policies.list(&params).await.ok() }).await;
}

/// The registry of one replica, with only the rights that the chart and the operator give it.
pub struct Replica {
    pub directory: Arc<Directory>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    /// Starts it in the bank's namespace and waits until it has caught up.
    pub async fn start(bank: &Bank, connections: u32) -> Self {
        let client = client(Some(account(&bank.namespace))).await;
        let directory = Arc::new(Directory::new(None));
        let replica = tenants::Replica { namespace: bank.namespace.clone(), pod: POD.to_owned(), pod_uid: None };
        let stop = CancellationToken::new();
        let (given, told) = (Arc::clone(&directory), stop.clone());
        let budget = Budget { connections, replicas: 3 };
        let (_, policies) = watch::channel(Some("0-0".to_owned()));
        let task = tokio::spawn(tenants::run(client, given, clock::system(), replica, budget, policies, told));
        eventually("the replica has caught up", || async { directory.ready().then_some(()) }).await;
        Self { directory, stop, task }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    pub fn resolve(&self, bank: &Bank) -> Result<Arc<Tenant>, TenantError> {
        self.directory.resolve(None, Some(&bank.name))
    }

    /// The bank once it is served in a way that satisfies `like`.
    pub async fn served(&self, bank: &Bank, what: &str, like: impl Fn(&Tenant) -> bool) -> Arc<Tenant> {
        eventually(what, || async { self.resolve(bank).ok().filter(|tenant| like(tenant)) }).await
    }

    /// Waits until requests for the bank are refused with `error`.
    pub async fn refused(&self, bank: &Bank, error: TenantError) {
        let what = format!("requests are refused with: {error}");
        eventually(&what, || async { self.resolve(bank).is_err_and(|found| found == error).then_some(()) }).await;
    }
}
