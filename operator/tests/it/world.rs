//! A database, two namespaces and an operator of their own, on a real PostgreSQL and a real API server.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use finaiflow_crds::{Backup, RateLimitPolicy, Restore, Tenant, names};
use futures::future::join_all;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::sync::RwLock;

use crate::between::Between;

/// One operator at a time, as each looks at every Tenant of the cluster; or several that are kept apart by proxies.
static CLUSTER: RwLock<()> = RwLock::const_new(());

const SHIPPED: &str = include_str!("../../../config/base/finaiflow.yaml");
const SHIPPED_FOR_BACKUPS: &str = include_str!("../../../config/backups/backups.yaml");
const CRDS: [&str; 4] = [
    include_str!("../../../config/crd/backups.finaiflow.io.yaml"),
    include_str!("../../../config/crd/tenants.finaiflow.io.yaml"),
    include_str!("../../../config/crd/ratelimitpolicies.finaiflow.io.yaml"),
    include_str!("../../../config/crd/restores.finaiflow.io.yaml"),
];

/// A guard of [`CLUSTER`].
type Share = Arc<dyn Send + Sync>;

pub struct World {
    pub client: Client,
    pub system: String,
    pub banks: String,
    pub admin: String,
    pub database: String,
    server: PgConnectOptions,
    /// Where the operator finds PostgreSQL; its tenants find it at `server`.
    admin_endpoint: (String, u16),
    log_filter: &'static str,
    /// Of the operator's configuration.
    backups: Option<Value>,
    directory: PathBuf,
    operator: Option<Child>,
    _share: Share,
}

fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test-integration`"))
}

/// Eight characters that no other test has.
pub fn unique() -> String {
    let mut bytes = [0; 4];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Asks again until there is an answer or a minute has passed.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(why) => assert!(started.elapsed() < Duration::from_mins(1), "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl World {
    /// Everything but a running operator.
    pub async fn new() -> Self {
        Self::make(Arc::new(CLUSTER.write().await)).await
    }

    /// Several, each with proxies between the operator and its neighbours. Of our kinds each sees only those of its own
    /// banks, so that all can be at a time.
    pub async fn apart(count: usize) -> Vec<(Self, Arc<Between>)> {
        let share: Share = Arc::new(CLUSTER.read().await);
        join_all((0..count).map(|_| Self::make_apart(Arc::clone(&share)))).await
    }

    async fn make_apart(share: Share) -> (Self, Arc<Between>) {
        let mut world = Self::make(share).await;
        // Only what `visits` looks for: many processes start here.
        world.log_filter = "info,finaiflow_operator=debug";
        world.bind_tenant_namespace(&world.banks).await;
        let path = world.directory.join("kubeconfig");
        let kubeconfig = Kubeconfig::read_from(&path).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let between = Between::start(client, &world.banks, world.admin_endpoint.clone()).await;
        world.admin_endpoint = (between.postgres.ip().to_string(), between.postgres.port());
        let mut kubeconfig: Value = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for named in kubeconfig["clusters"].as_array_mut().unwrap() {
            named["cluster"] = json!({"server": format!("http://{}", between.api)});
        }
        std::fs::write(path, serde_yaml::to_string(&kubeconfig).unwrap()).unwrap();
        (world, between)
    }

    async fn make(share: Share) -> Self {
        let kubeconfig = Kubeconfig::read_from(environment("FINAIFLOW_TEST_KUBECONFIG")).unwrap();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let server = PgConnectOptions::from_str(&environment("FINAIFLOW_TEST_DATABASE_URL")).unwrap();
        let id = unique();
        let world = Self {
            client,
            system: format!("it-{id}-system"),
            banks: format!("it-{id}-banks"),
            admin: format!("it_{id}_admin"),
            database: format!("it_{id}"),
            admin_endpoint: (server.get_host().to_owned(), server.get_port()),
            server,
            log_filter: "debug,hyper_util=info,h2=info,rustls=info,tower=info,sqlx=info",
            backups: None,
            directory: std::env::temp_dir().join(format!("finaiflow-it-{id}")),
            operator: None,
            _share: share,
        };
        world.make_cluster_parts().await;
        world.make_database().await;
        world.make_account(kubeconfig).await;
        world
    }

    /// A running operator that may work in the namespace of the banks.
    pub async fn running() -> Self {
        let mut world = Self::new().await;
        world.bind_tenant_namespace(&world.banks).await;
        world.start(&[&world.banks.clone()]);
        world
    }

    /// A client that counts the requests that are not reads.
    pub async fn counting_client(&self) -> (Client, Arc<AtomicUsize>) {
        let kubeconfig = Kubeconfig::read_from(self.directory.join("kubeconfig")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let writes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&writes);
        let layer = tower::util::MapRequestLayer::new(move |request: http::Request<_>| {
            if request.method() != http::Method::GET {
                count.fetch_add(1, Ordering::Relaxed);
            }
            request
        });
        (ClientBuilder::try_from(config).unwrap().with_layer(&layer).build(), writes)
    }

    async fn make_cluster_parts(&self) {
        for crd in CRDS {
            let crd: CustomResourceDefinition = serde_yaml::from_str(crd).unwrap();
            self.put(&Api::all(self.client.clone()), &crd).await;
        }
        for name in [&self.system, &self.banks] {
            self.put::<Namespace>(&Api::all(self.client.clone()), &object(&json!({"metadata": {"name": name}}))).await;
        }
        self.is_served::<Tenant>().await;
        self.is_served::<RateLimitPolicy>().await;
        self.is_served::<Backup>().await;
        self.is_served::<Restore>().await;
        self.write_admin_secret(&self.admin).await;
    }

    async fn is_served<K>(&self)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let served = async || api.list(&ListParams::default().limit(1)).await.map_err(|error| error.to_string());
        eventually(&format!("the API server knows {}s", K::kind(&())), served).await;
    }

    pub async fn write_admin_secret(&self, username: &str) {
        let secret =
            json!({"metadata": {"name": "admin"}, "stringData": {"username": username, "password": "password"}});
        self.put::<Secret>(&self.api(&self.system), &object(&secret)).await;
    }

    async fn make_database(&self) {
        let (admin, database) = (&self.admin, &self.database);
        let role = format!("CREATE ROLE {admin} LOGIN NOSUPERUSER CREATEROLE PASSWORD 'password'");
        let mut conn = self.server.connect().await.unwrap();
        execute(&mut conn, &role).await;
        execute(&mut conn, &format!("CREATE DATABASE {database} OWNER {admin}")).await;
    }

    /// The operator's account with the rules that are shipped, and a kubeconfig for it.
    async fn make_account(&self, mut kubeconfig: Kubeconfig) {
        std::fs::create_dir_all(&self.directory).unwrap();
        let accounts: Api<ServiceAccount> = self.api(&self.system);
        self.put(&accounts, &object(&json!({"metadata": {"name": "finaiflow-operator"}}))).await;
        for (shipped, name) in [("finaiflow-operator", &self.system), ("finaiflow-tenant-namespace", &self.banks)] {
            let mut role: ClusterRole = shipped_object("ClusterRole", shipped);
            role.metadata.name = Some(name.clone());
            self.put(&Api::all(self.client.clone()), &role).await;
        }
        let binding = self.binding("ClusterRoleBinding", "ClusterRole", &self.system);
        self.put::<ClusterRoleBinding>(&Api::all(self.client.clone()), &object(&binding)).await;
        let mut role: Role = shipped_object("Role", "finaiflow-operator");
        role.metadata.namespace = None;
        for rule in role.rules.iter_mut().flatten().filter(|rule| rule.resources == Some(vec!["secrets".to_owned()])) {
            rule.resource_names = Some(vec!["admin".to_owned()]);
        }
        self.put(&self.api(&self.system), &role).await;
        let binding = self.binding("RoleBinding", "Role", "finaiflow-operator");
        self.put::<RoleBinding>(&self.api(&self.system), &object(&binding)).await;
        let mut role: Role = shipped_in(SHIPPED_FOR_BACKUPS, "Role", "finaiflow-operator-backups");
        role.metadata.namespace = None;
        self.put(&self.api(&self.system), &role).await;
        let mut binding = self.binding("RoleBinding", "Role", "finaiflow-operator-backups");
        binding["metadata"]["name"] = "finaiflow-operator-backups".into();
        self.put::<RoleBinding>(&self.api(&self.system), &object(&binding)).await;
        self.put(&accounts, &object(&json!({"metadata": {"name": names::BACKUP}}))).await;

        let request: TokenRequest =
            serde_json::from_value(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}}))
                .unwrap();
        let issued = accounts.create_token_request("finaiflow-operator", &PostParams::default(), &request).await;
        let token = issued.unwrap().status.unwrap().token;
        let user = json!({"token": token});
        for named in &mut kubeconfig.auth_infos {
            named.auth_info = serde_json::from_value(user.clone()).unwrap();
        }
        let mut value = serde_yaml::to_value(&kubeconfig).unwrap();
        for named in value["users"].as_sequence_mut().unwrap() {
            named["user"]["token"] = token.as_str().into();
        }
        std::fs::write(self.directory.join("kubeconfig"), serde_yaml::to_string(&value).unwrap()).unwrap();
    }

    /// Lets the operator work in a namespace, as the chart does for `tenantNamespaces`.
    pub async fn bind_tenant_namespace(&self, namespace: &str) {
        let binding = self.binding("RoleBinding", "ClusterRole", &self.banks);
        self.put::<RoleBinding>(&self.api(namespace), &object(&binding)).await;
    }

    fn binding(&self, kind: &str, role_kind: &str, role: &str) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": {"name": if kind == "ClusterRoleBinding" { role } else { "finaiflow-operator" }},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "finaiflow-operator", "namespace": self.system}]})
    }

    /// The operator's configuration.
    pub fn config(&self, tenant_namespaces: &[&str]) -> String {
        let endpoint = |host: &str, port: u16| json!({"host": host, "port": port, "database": self.database, "sslMode": "disable"});
        let admin = endpoint(&self.admin_endpoint.0, self.admin_endpoint.1);
        let tenant = endpoint(self.server.get_host(), self.server.get_port());
        let server = json!({"name": "primary", "capacity": 1000, "adminEndpoint": admin, "tenantEndpoint": tenant,
            "adminSecretName": "admin"});
        let mut config = json!({
            "databaseClasses": [{"name": "default", "servers": [server]}],
            "apiServer": {"namespace": self.system, "serviceAccountName": "finaiflow-api",
                "url": "http://finaiflow-api:8000", "baseDomain": "bank.local"},
            "ledgerVerification": {"image": "localhost/finaiflow-api:dev"},
            "tenantNamespaces": tenant_namespaces,
        });
        if let Some(backups) = &self.backups {
            config["backups"] = backups.clone();
        }
        serde_yaml::to_string(&config).unwrap()
    }

    /// Operators to come offer backups.
    pub fn offer_backups(&mut self, settings: &Value) {
        self.backups = Some(settings.clone());
    }

    /// Starts the operator, which logs to a file.
    pub fn start(&mut self, tenant_namespaces: &[&str]) {
        self.configure(tenant_namespaces);
        self.operator = Some(self.spawn());
    }

    /// Writes the configuration of operators to come.
    pub fn configure(&self, tenant_namespaces: &[&str]) {
        std::fs::write(self.directory.join("config.yaml"), self.config(tenant_namespaces)).unwrap();
    }

    /// Another operator process with the same configuration. It takes the place of the one before it, as a container
    /// does that was restarted in its pod.
    pub fn spawn(&self) -> Child {
        self.spawn_as("finaiflow-operator-0")
    }

    /// An operator process in a pod of that name.
    pub fn spawn_as(&self, pod: &str) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log")).unwrap();
        Command::new(env!("CARGO_BIN_EXE_finaiflow-operator"))
            .arg("--config")
            .arg(self.directory.join("config.yaml"))
            .args(["--pod-name", pod, "--namespace", &self.system])
            .args(["--metrics-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0"])
            .env("KUBECONFIG", self.directory.join("kubeconfig"))
            .env("RUST_LOG", self.log_filter)
            .stdout(Stdio::from(log.try_clone().unwrap()))
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap()
    }

    /// What every operator of this world has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut operator = self.operator.take().unwrap();
        operator.kill().unwrap();
        operator.wait().unwrap();
    }

    /// The next process in the operator's pod.
    pub fn start_again(&mut self) {
        self.operator = Some(self.spawn());
    }

    /// Forgets what was logged.
    pub fn clear_log(&self) {
        std::fs::write(self.directory.join("log"), "").unwrap();
    }

    /// How often the log says that a visit of a Tenant ended well.
    pub fn visits(&self, name: &str) -> usize {
        let name = format!("\"name\":\"{name}\"");
        self.log().lines().filter(|line| line.contains("\"visited\"") && line.contains(&name)).count()
    }

    /// The id of the operator's process, if it has not ended.
    pub fn process(&mut self) -> Option<u32> {
        let operator = self.operator.as_mut()?;
        operator.try_wait().unwrap().is_none().then(|| operator.id())
    }

    /// The running operator, no longer stopped with this world.
    pub fn take_operator(&mut self) -> Child {
        self.operator.take().unwrap()
    }

    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Asks for a visit.
    pub async fn touch(&self, name: &str) {
        let annotation = json!({"metadata": {"annotations": {"it": unique()}}});
        let api: Api<Tenant> = self.api(&self.banks);
        api.patch(name, &PatchParams::default(), &Patch::Merge(annotation)).await.unwrap();
    }

    /// Asks for a visit, and waits until one has ended well.
    pub async fn visit(&self, name: &str) {
        let before = self.visits(name);
        self.touch(name).await;
        let visited = async || if self.visits(name) > before { Ok(()) } else { Err(self.log()) };
        eventually(&format!("a visit of {name}"), visited).await;
    }

    async fn put<K>(&self, api: &Api<K>, object: &K)
    where
        K: Resource<DynamicType = ()> + serde::Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    {
        api.patch(&object.name_any(), &PatchParams::apply("it").force(), &Patch::Apply(object)).await.unwrap();
    }

    pub async fn create(&self, namespace: &str, name: &str, spec: Value) {
        let tenant = json!({"apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name}, "spec": spec});
        let tenant: Tenant = serde_json::from_value(tenant).unwrap();
        self.api::<Tenant>(namespace).create(&PostParams::default(), &tenant).await.unwrap();
    }

    pub async fn tenant(&self, name: &str) -> Tenant {
        self.api(&self.banks).get(name).await.unwrap()
    }

    pub async fn secret(&self, name: &str, key: &str) -> String {
        let secret: Secret = self.api(&self.banks).get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// Plays an API server replica that has applied everything.
    pub async fn replica(&self) {
        self.replica_applied(u64::MAX).await;
    }

    /// Plays an API server replica that has applied everything up to a version.
    pub async fn replica_applied(&self, version: u64) {
        let lease = json!({
            "metadata": {"name": "finaiflow-api-0",
                "labels": {names::LABEL_COMPONENT: names::API_SERVER},
                "annotations": {names::ANNOTATION_APPLIED: version.to_string(), names::ANNOTATION_FAILURES: "{}"}},
            "spec": {"holderIdentity": "it", "renewTime": "2100-01-01T00:00:00.000000Z", "leaseDurationSeconds": 15},
        });
        self.put::<Lease>(&self.api(&self.system), &object(&lease)).await;
    }

    /// Waits until a condition is `status` and, if given, of that reason; returns its message.
    pub async fn condition(&self, namespace: &str, name: &str, kind: &str, status: &str, reason: &str) -> String {
        let api: Api<Tenant> = self.api(namespace);
        eventually(&format!("{name} is {kind}={status} {reason}"), async || {
            let tenant = api.get(name).await.map_err(|error| error.to_string())?;
            let conditions = tenant.status.unwrap_or_default().conditions;
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            found
                .filter(|condition| condition.status == status && (reason.is_empty() || condition.reason == reason))
                .map(|condition| condition.message.clone())
                .ok_or_else(|| format!("{conditions:?}"))
        })
        .await
    }

    pub async fn ready(&self, name: &str) {
        self.condition(&self.banks, name, "Ready", "True", "").await;
    }

    pub async fn delete(&self, namespace: &str, name: &str) {
        let api: Api<Tenant> = self.api(namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
        eventually(&format!("{name} is gone"), async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// Reasons of the events on an object, oldest first.
    pub async fn events(&self, name: &str) -> Vec<(String, String)> {
        let api: Api<k8s_openapi::api::events::v1::Event> = self.api(&self.banks);
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(name)));
        events.sort_by(|a, b| a.event_time.cmp(&b.event_time));
        events.into_iter().map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
    }

    /// The superuser, in the database of this world.
    pub async fn psql(&self) -> PgConnection {
        self.server.clone().database(&self.database).connect().await.unwrap()
    }

    /// One column of text, as the superuser.
    pub async fn query(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut self.psql().await).await.unwrap()
    }

    pub async fn execute(&self, sql: &str) {
        execute(&mut self.psql().await, sql).await;
    }

    /// Roles of claims in this database, in order.
    pub async fn roles(&self) -> Vec<String> {
        self.query(
            "SELECT rolname::text FROM pg_roles r JOIN finaiflow_system.claims c
             ON starts_with(r.rolname, 'ff_' || c.claim_id) ORDER BY 1",
        )
        .await
    }

    /// Takes everything away again.
    pub async fn end(mut self) {
        if self.operator.is_some() {
            self.kill();
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for namespace in namespaces.list(&ListParams::default()).await.unwrap() {
            let name = namespace.name_any();
            if !name.starts_with(self.system.trim_end_matches("system")) {
                continue;
            }
            let policies: Api<RateLimitPolicy> = self.api(&name);
            policies.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
            self.let_go::<Restore>(&name).await;
            self.let_go::<Backup>(&name).await;
            self.let_go::<Tenant>(&name).await;
            let _ = namespaces.delete(&name, &DeleteParams::background()).await;
        }
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        let _ = roles.delete(&self.system, &DeleteParams::default()).await;
        let _ = roles.delete(&self.banks, &DeleteParams::default()).await;
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        let _ = bindings.delete(&self.system, &DeleteParams::default()).await;
        let claims = self.query("SELECT relname::text FROM pg_class WHERE relname = 'claims'").await;
        let roles = if claims.is_empty() { Vec::new() } else { self.roles().await };
        let mut conn = self.server.connect().await.unwrap();
        execute(&mut conn, &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await;
        for role in roles.iter().chain([&self.admin]) {
            execute(&mut conn, &format!("DROP ROLE {role}")).await;
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }

    /// Nothing of the kind stays, whatever it waits for.
    async fn let_go<K>(&self, namespace: &str)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: DeserializeOwned + Clone + std::fmt::Debug,
    {
        let (api, all): (Api<K>, _) = (self.api(namespace), ListParams::default());
        api.delete_collection(&DeleteParams::default(), &all).await.unwrap();
        for object in api.list(&all).await.unwrap() {
            let free = json!({"metadata": {"finalizers": null}});
            let _ = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(free)).await;
        }
    }
}

impl Drop for World {
    /// A test that fails must not leave an operator that visits the Tenants of the next one.
    fn drop(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            let _ = operator.kill();
            let _ = operator.wait();
        }
    }
}

fn object<K: DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

/// An object of the shipped manifests.
fn shipped_object<K: DeserializeOwned>(kind: &str, name: &str) -> K {
    shipped_in(SHIPPED, kind, name)
}

fn shipped_in<K: DeserializeOwned>(manifests: &str, kind: &str, name: &str) -> K {
    let documents = serde_yaml::Deserializer::from_str(manifests).map(|document| Value::deserialize(document).unwrap());
    let mut matching = documents.filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    serde_json::from_value(matching.next().unwrap()).unwrap()
}

async fn execute(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}
