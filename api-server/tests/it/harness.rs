//! Two served tenants, `acme` and `globex`, and clients that check what every answer must have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use data_encoding::BASE64;
use finaiflow_api::app::{self, AppState};
use finaiflow_api::clock::{self, Clock};
use finaiflow_api::domain::id;
use finaiflow_api::domain::signing_keys::SigningKeys;
use finaiflow_api::openapi;
use finaiflow_api::rate_limit::Guard;
use finaiflow_api::tenant::{DataKey, Directory, EmailVerification, Entry, Role, State, Tenant, TenantSettings};
use finaiflow_ledger::engine::Engine;
use finaiflow_ledger::store::Postgres;
use finaiflow_schema::names::ClaimId;
use finaiflow_schema::testing::TenantDb;
use finaiflow_telemetry::metrics::Metrics;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;
use tower::ServiceExt;

pub const BASE_DOMAIN: &str = "bank.test";
pub const ISSUER: &str = "https://issuer.test";
pub const PASSWORD: &str = "correct horse battery";

/// A server with two tenants, and the clock it goes by.
pub struct World {
    pub db: TenantDb,
    pub app: Router,
    pub state: AppState,
    pub directory: Arc<Directory>,
    pub acme: Arc<Tenant>,
    pub globex: Arc<Tenant>,
    now: Arc<Mutex<OffsetDateTime>>,
    documented: Value,
}

pub fn settings() -> TenantSettings {
    TenantSettings {
        display_name: "Test Bank".to_owned(),
        currencies: ["USD", "EUR"].map(|code| code.parse().unwrap()).to_vec(),
        self_deposit: true,
        staff: Arc::default(),
        access_token_minutes: 30,
        refresh_token_days: 7,
        email_verification: EmailVerification::Optional,
        allowed_origins: vec!["https://app.acme.test".to_owned()],
    }
}

pub fn signing_keys() -> SigningKeys {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let kid = BASE64.encode(&clock::random::<8>().unwrap());
    let key = json!({"kid": kid, "alg": "EdDSA", "state": "active", "pkcs8": BASE64.encode(der.as_ref()),
        "created_at": "2026-01-01T00:00:00Z"});
    SigningKeys::from_json(json!({"keys": [key]}).to_string().as_bytes()).unwrap()
}

fn tenant(name: &str, claim_id: ClaimId, pool: PgPool, clock: &Clock) -> Arc<Tenant> {
    Arc::new(Tenant {
        name: name.to_owned(),
        target: Arc::default(),
        claim_id,
        settings: settings(),
        engine: Engine::new(Postgres::new(pool.clone()), Arc::clone(clock)),
        pool,
        keys: signing_keys(),
        data_key: DataKey::from_bytes(&clock::random::<32>().unwrap()).unwrap(),
    })
}

pub fn pool(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(5)).connect_lazy(url).unwrap()
}

impl World {
    pub async fn create() -> Self {
        let db = TenantDb::create().await;
        let neighbour = db.create_second_tenant().await;
        let now = Arc::new(Mutex::new(clock::system()()));
        let shared = Arc::clone(&now);
        let clock: Clock = Arc::new(move || *shared.lock().unwrap());
        // The ledger's database refuses times too far ahead, so the books keep real time.
        let acme = tenant("acme", db.claim_id, pool(&db.app_url), &clock::system());
        let globex = tenant("globex", neighbour.claim_id, pool(&neighbour.app_url), &clock::system());
        let directory = Arc::new(Directory::new(Some(BASE_DOMAIN)));
        directory.mark_synced();
        let metrics = Metrics::new();
        let guard = Arc::new(Guard::off(metrics.registry()).unwrap());
        guard.replace([]);
        let state = AppState::new(Arc::clone(&directory), ISSUER, clock, guard, metrics).unwrap();
        let documented = serde_json::to_value(openapi::document()).unwrap();
        let app = app::router(state.clone());
        let world = Self { db, app, state, directory, acme, globex, now, documented };
        world.serve(&world.acme);
        world.serve(&world.globex);
        world
    }

    /// Puts a snapshot into the directory.
    pub fn serve(&self, tenant: &Arc<Tenant>) {
        let hosts = vec![format!("pay.{}.test", tenant.name)];
        self.directory.replace(&tenant.name, Entry { hosts, state: State::Serving(Arc::clone(tenant)) });
    }

    /// Serves acme with other settings.
    pub fn reconfigure(&self, change: impl FnOnce(&mut TenantSettings)) {
        let acme = &*self.acme;
        let mut settings = acme.settings.clone();
        change(&mut settings);
        let (name, claim_id, pool) = (acme.name.clone(), acme.claim_id, acme.pool.clone());
        let target = Arc::clone(&acme.target);
        let (engine, keys, data_key) = (acme.engine.clone(), acme.keys.clone(), acme.data_key.clone());
        self.serve(&Arc::new(Tenant { name, target, claim_id, settings, pool, engine, keys, data_key }));
    }

    /// Has the Tenant say what somebody is at acme, as of the next request.
    pub async fn appoint(&self, clients: &[(&Client<'_>, Role)]) {
        let mut staff = HashMap::new();
        for (client, role) in clients {
            staff.insert(id::decode(id::USER, &client.user_id().await).unwrap(), *role);
        }
        self.reconfigure(|settings| settings.staff = Arc::new(staff));
    }

    /// Serves acme with a ledger writer that knows nothing yet, as after a restart or on another replica.
    pub fn restart(&self) {
        let State::Serving(acme) = self.directory.get("acme").unwrap().state else { panic!("acme is not served") };
        self.serve(&Arc::new(Tenant {
            name: acme.name.clone(),
            target: Arc::clone(&acme.target),
            claim_id: acme.claim_id,
            settings: acme.settings.clone(),
            engine: Engine::new(Postgres::new(acme.pool.clone()), clock::system()),
            pool: acme.pool.clone(),
            keys: acme.keys.clone(),
            data_key: acme.data_key.clone(),
        }));
    }

    /// Moves the clock of tokens and sessions on.
    pub fn pass(&self, time: time::Duration) {
        *self.now.lock().unwrap() += time;
    }

    /// A client of a tenant, signed in as nobody.
    pub fn client(&self, tenant: &str) -> Client<'_> {
        Client { world: self, tenant: Some(tenant.to_owned()), token: None }
    }

    /// Registers a user and logs in.
    pub async fn user(&self, tenant: &str, name: &str) -> Client<'_> {
        let mut client = self.client(tenant);
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "password": PASSWORD, "name": name});
        client.post("/api/v1/auth/register", &body).send().await.expect(201);
        let tokens = client.post("/api/v1/auth/login", &json!({"email": email, "password": PASSWORD})).send().await;
        client.token = Some(tokens.expect(200)["access_token"].as_str().unwrap().to_owned());
        client
    }

    /// One value read by the superuser; `acme` in the SQL stands for acme's schema.
    pub async fn read<T>(&self, sql: &str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let sql = sql.replace("acme.", &format!("{}.", self.db.names.schema.as_str()));
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut self.db.superuser().await).await.unwrap()
    }

    /// A statement of the superuser; `acme` as in [`Self::read`].
    pub async fn execute(&self, sql: &str) {
        let sql = sql.replace("acme.", &format!("{}.", self.db.names.schema.as_str()));
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut self.db.superuser().await).await.unwrap();
    }

    /// Everything that money commands write, as one text: equal before and after what must change nothing.
    pub async fn books(&self) -> String {
        self.read(
            "SELECT concat((SELECT sequence FROM acme.ledger_head), (SELECT json_agg(b ORDER BY account_id)
             FROM acme.account_balances b), (SELECT count(*) FROM acme.entries), (SELECT count(*) FROM acme.accounts))",
        )
        .await
    }

    pub async fn close(self) {
        self.acme.pool.close().await;
        self.globex.pool.close().await;
        self.db.drop().await;
    }

    /// Fails unless the OpenAPI document tells of an answer with this status and problem for this request.
    fn check_documented(&self, method: &Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let Some((template, item)) = self.template(path) else {
            assert!(answer.status == 404 || answer.status == 405, "{method} {path} is not documented");
            return;
        };
        let Some(operation) = item.get(method.as_str().to_lowercase()) else {
            assert!(answer.status == 405 || method == Method::HEAD, "{method} {template} is not documented");
            return;
        };
        let response = &operation["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{method} {template}: {} is not documented", answer.status);
        if let Some(problem) = answer.problem() {
            let examples = &response["content"]["application/problem+json"]["examples"];
            assert!(examples[problem].is_object(), "{method} {template}: {problem} is not documented");
        }
    }

    fn template(&self, path: &str) -> Option<(&String, &Value)> {
        let fits = |template: &str| {
            let (parts, actual): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
            parts.len() == actual.len() && parts.iter().zip(actual).all(|(p, a)| p.starts_with('{') || *p == a)
        };
        self.documented["paths"].as_object().unwrap().iter().find(|(template, _)| fits(template))
    }
}

/// Somebody who sends requests to a tenant.
#[derive(Clone)]
pub struct Client<'w> {
    pub world: &'w World,
    pub tenant: Option<String>,
    pub token: Option<String>,
}

impl<'w> Client<'w> {
    pub fn get(&self, path: &str) -> Call<'w> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Call<'w> {
        self.call(Method::POST, path).header("content-type", "application/json").body(body.to_string())
    }

    /// A write that is no POST.
    pub async fn send(&self, method: Method, path: &str, key: &str, body: &Value) -> Answer {
        self.call(method, path).header("content-type", "application/json").key(key).body(body.to_string()).send().await
    }

    /// A write under a new key that has no body.
    pub async fn act(&self, path: &str) -> Answer {
        self.call(Method::POST, path).key(&unique()).send().await
    }

    /// Who the client is signed in as.
    pub async fn user_id(&self) -> String {
        self.get("/api/v1/auth/profile").send().await.expect(200)["id"].as_str().unwrap().to_owned()
    }

    /// A write under a key.
    pub async fn write(&self, path: &str, key: &str, body: &Value) -> Answer {
        self.post(path, body).key(key).send().await
    }

    pub fn call(&self, method: Method, path: &str) -> Call<'w> {
        let mut headers = Vec::new();
        headers.extend(self.tenant.iter().map(|tenant| ("x-tenant-id".to_owned(), tenant.clone())));
        headers.extend(self.token.iter().map(|token| ("authorization".to_owned(), format!("Bearer {token}"))));
        Call { world: self.world, method, path: path.to_owned(), headers, body: Vec::new() }
    }

    /// Opens an account and returns its id.
    pub async fn open(&self, currency: &str) -> String {
        let body = json!({"type": "checking", "currency": currency, "name": "Everyday"});
        self.write("/api/v1/accounts", &unique(), &body).await.expect(201)["id"].as_str().unwrap().to_owned()
    }

    pub async fn deposit(&self, account: &str, amount: i64, currency: &str) -> Answer {
        let body = json!({"amount": amount, "currency": currency});
        self.write(&format!("/api/v1/accounts/{account}/deposit"), &unique(), &body).await
    }

    /// Opens an account with money in it.
    pub async fn funded(&self, amount: i64, currency: &str) -> String {
        let account = self.open(currency).await;
        self.deposit(&account, amount, currency).await.expect(201);
        account
    }

    /// Moves money under a new key.
    pub async fn transfer(&self, from: &str, to: &str, amount: i64) -> Answer {
        let body = json!({"from_account_id": from, "to_account_id": to, "amount": amount, "currency": "USD"});
        self.write("/api/v1/transfers", &unique(), &body).await
    }

    /// Balance, available and held.
    pub async fn funds(&self, account: &str) -> [i64; 3] {
        let answer = self.get(&format!("/api/v1/accounts/{account}/balance")).send().await;
        ["balance", "available", "held"].map(|name| answer.expect(200)[name].as_i64().unwrap())
    }

    pub async fn balance(&self, account: &str) -> i64 {
        self.get(&format!("/api/v1/accounts/{account}/balance")).send().await.expect(200)["balance"].as_i64().unwrap()
    }
}

/// A request in the making.
pub struct Call<'w> {
    world: &'w World,
    method: Method,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call<'_> {
    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request and checks what every answer must have.
    pub async fn send(self) -> Answer {
        let (world, method, path) = (self.world, self.method.clone(), self.path.clone());
        let answer = self.send_unchecked().await;
        world.check_documented(&method, &path, &answer);
        answer
    }

    /// Sends a request that the OpenAPI document does not tell of.
    pub async fn send_unchecked(self) -> Answer {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(self.body)).unwrap();
        let (parts, body) = self.world.app.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes().to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let answer = Answer { status: parts.status, headers: parts.headers, body, bytes };
        answer.check();
        answer
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The body, if the status is as expected.
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        &self.body
    }

    /// The id of what was made.
    #[track_caller]
    pub fn id(&self) -> String {
        self.expect(201)["id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn expect_problem(&self, status: u16, code: &str) -> &Value {
        assert_eq!((self.status.as_u16(), self.problem()), (status, Some(code)), "{}", self.body);
        &self.body
    }

    /// Expects `validation-failed` of exactly one field.
    #[track_caller]
    pub fn expect_invalid(&self, pointer: &str) {
        let body = self.expect_problem(422, "validation-failed");
        let pointers: Vec<_> = body["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
        assert_eq!(pointers, [pointer], "{body}");
    }

    pub fn problem(&self) -> Option<&str> {
        self.body["type"].as_str()?.strip_prefix("https://finaiflow.io/problems/")
    }

    fn check(&self) {
        assert!(self.headers.contains_key("x-request-id"));
        assert_eq!(self.headers["x-content-type-options"], "nosniff");
        assert!(self.headers.contains_key("content-security-policy"));
        if !self.status.is_client_error() && !self.status.is_server_error() {
            return;
        }
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.status);
        if self.bytes.is_empty() {
            return; // the answer to a HEAD
        }
        assert!(self.problem().is_some(), "{}", self.body);
        assert_eq!(self.body["status"], self.status.as_u16());
        assert!(self.body["title"].is_string());
        assert_eq!(self.body["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(self.headers.contains_key("retry-after"), self.status == 503);
        assert_eq!(self.headers.contains_key("www-authenticate"), self.status == 401);
    }
}

/// A new idempotency key.
pub fn unique() -> String {
    uuid::Uuid::from_bytes(clock::random().unwrap()).to_string()
}
