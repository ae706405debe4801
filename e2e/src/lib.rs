//! What the cluster tests share: kubectl, psql and HTTP as a person would use them, and waiting.
//!
//! The cluster is named by the environment that `make env` prints: `KUBECONFIG`, `FINAIFLOW_URL` and a `PATH` with
//! kubectl and helm. `make test` sets all of it.
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a test harness reports by panicking"
)]

pub mod browser;

use std::{
    env,
    error::Error,
    io::{Read, Write},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use reqwest::blocking::{Client, RequestBuilder};
use serde_json::{Value, json};

/// Namespace of the sample tenants, in which the operator may keep Secrets.
pub const BANKS: &str = "banks";
/// Namespace of the operator, the API server and the development PostgreSQL.
pub const SYSTEM: &str = "finaiflow-system";

/// Eight random lower-case hexadecimal digits, for names that do not clash between runs.
#[must_use]
pub fn unique() -> String {
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).expect("read /dev/urandom");
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Runs a program with standard input; returns what it printed.
#[must_use]
pub fn run(program: &str, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}: is the PATH of `make env` set?"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("write standard input");
    child.wait_with_output().expect("wait for the program")
}

/// `kubectl ARGS`; panics with its standard error if it fails.
#[must_use]
pub fn kubectl(args: &[&str]) -> String {
    succeed("kubectl", args, run("kubectl", args, ""))
}

/// `kubectl ARGS` that may fail: standard output, or standard error.
pub fn try_kubectl(args: &[&str]) -> Result<String, String> {
    either(&run("kubectl", args, ""))
}

/// `kubectl apply -f -` of a manifest: what the API server says, or its refusal.
pub fn apply(manifest: &Value) -> Result<String, String> {
    either(&run("kubectl", &["apply", "-f", "-"], &manifest.to_string()))
}

/// An object as JSON, or `None` if it does not exist.
#[must_use]
pub fn get(namespace: &str, kind: &str, name: &str) -> Option<Value> {
    let text = kubectl(&["-n", namespace, "get", kind, name, "-o", "json", "--ignore-not-found"]);
    (!text.trim().is_empty()).then(|| serde_json::from_str(&text).expect("kubectl prints JSON"))
}

/// The decoded entry of a Secret.
#[must_use]
pub fn secret(namespace: &str, name: &str, key: &str) -> String {
    let object = get(namespace, "secret", name).unwrap_or_else(|| panic!("secret {name} does not exist"));
    let encoded = object["data"][key].as_str().unwrap_or_else(|| panic!("secret {name} has no {key}"));
    String::from_utf8(BASE64.decode(encoded.as_bytes()).expect("base64")).expect("UTF-8")
}

/// Runs SQL as PostgreSQL's superuser, over its socket; rows as `a|b` lines.
#[must_use]
pub fn psql(sql: &str) -> String {
    let superuser = env::var("FINAIFLOW_CONNINFO").unwrap_or_else(|_| "user=postgres dbname=finaiflow".to_owned());
    psql_as(&superuser, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Runs SQL as the login of a `DATABASE_URL`, over the network; rows, or PostgreSQL's refusal. The client is in
/// PostgreSQL's pod, or here where there are no pods: `make env` then says where the server is.
pub fn psql_as(url: &str, sql: &str) -> Result<String, String> {
    let client = ["psql", url, "-v", "ON_ERROR_STOP=1", "-qAt"];
    if env::var_os("FINAIFLOW_CONNINFO").is_some() {
        return either(&run(client[0], &client[1..], sql));
    }
    let pod = ["-n", SYSTEM, "exec", "-i", "finaiflow-postgres-0", "--"];
    either(&run("kubectl", &[&pod[..], &client[..]].concat(), sql))
}

/// The value of one of the leading operator's metrics, named with its labels as the text format has them.
#[must_use]
pub fn operator_metric(name: &str) -> Option<f64> {
    let holder = "jsonpath={.spec.holderIdentity}";
    let leader = kubectl(&["-n", SYSTEM, "get", "lease", "finaiflow-operator", "-o", holder]);
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{leader}:9090/proxy/metrics");
    let text = kubectl(&["get", "--raw", &path]);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn either(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn succeed(program: &str, args: &[&str], output: Output) -> String {
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Tries `check` until it yields a value; panics with `what` and the last obstacle after `seconds`.
pub fn eventually<T>(seconds: u64, what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match check() {
            Ok(value) => return value,
            Err(obstacle) if Instant::now() > end => panic!("{what}: not within {seconds} s: {obstacle}"),
            Err(_) => thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// A Tenant made by a test.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name, in namespace [`BANKS`].
    pub name: String,
}

impl Tenant {
    /// A Tenant manifest like the samples, with `spec` merged over it.
    #[must_use]
    pub fn manifest(name: &str, spec: &Value) -> Value {
        let mut full = json!({
            "deletionPolicy": "Delete",
            "payments": {"selfDeposit": true},
            "auth": {"emailVerification": "Optional"},
        });
        for (key, value) in spec.as_object().expect("spec is an object") {
            full[key] = value.clone();
        }
        json!({
            "apiVersion": "finaiflow.io/v1alpha1", "kind": "Tenant",
            "metadata": {"name": name, "namespace": BANKS}, "spec": full,
        })
    }

    /// Applies a Tenant with a fresh name and waits until it is Ready.
    #[must_use]
    pub fn ready(prefix: &str, spec: &Value) -> Self {
        let tenant = Self { name: format!("{prefix}-{}", unique()) };
        apply(&Self::manifest(&tenant.name, spec)).expect("the manifest is accepted");
        let _ = tenant.wait("Ready", "True");
        tenant
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> Value {
        get(BANKS, "tenant", &self.name).unwrap_or_else(|| panic!("tenant {} does not exist", self.name))
    }

    /// One condition, or `null`.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Value {
        let object = self.object();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == kind).unwrap_or(Value::Null)
    }

    /// Waits until a condition has that status; returns it.
    #[must_use]
    pub fn wait(&self, kind: &str, status: &str) -> Value {
        eventually(60, &format!("{} {kind}={status}", self.name), || {
            let condition = self.condition(kind);
            if condition["status"] == status { Ok(condition) } else { Err(self.object()["status"].to_string()) }
        })
    }

    /// The schema's name in PostgreSQL.
    #[must_use]
    pub fn schema(&self) -> String {
        self.object()["status"]["schema"]["name"].as_str().expect("status.schema.name").to_owned()
    }

    /// Has the ledger verified now, by a job as the CronJob starts it.
    pub fn verify_ledger(&self) {
        let (job, from) = (format!("{}-{}", self.name, unique()), format!("cronjob/{}-verify", self.name));
        let _ = kubectl(&["-n", BANKS, "create", "job", &job, "--from", &from]);
        let _ = kubectl(&["-n", BANKS, "wait", "--for=condition=Complete", &format!("job/{job}"), "--timeout=60s"]);
    }

    /// Trial balance and the recomputation of every balance from its entries, by plain SQL.
    pub fn assert_books(&self) {
        let schema = self.schema();
        let off = psql(&format!(
            "select a.currency, sum(b.posted) from {schema}.account_balances b join {schema}.accounts a on a.id = b.account_id
             group by 1 having sum(b.posted) <> 0"
        ));
        assert_eq!(off, "", "the trial balance is not zero");
        let off = psql(&format!(
            "select b.account_id from {schema}.account_balances b
             where b.posted <> coalesce((select sum(posted_delta) from {schema}.entries e where e.account_id = b.account_id), 0)"
        ));
        assert_eq!(off, "", "a balance is not the sum of its entries");
    }

    /// Deletes the object and waits until it is gone.
    pub fn delete(&self) {
        let _ = kubectl(&["-n", BANKS, "delete", "tenant", &self.name, "--timeout=60s"]);
    }

    /// A client of this tenant's API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.name)
    }
}

/// A client of one tenant's API, perhaps signed in.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    url: String,
    tenant: String,
    token: Option<String>,
}

/// An answer of the API.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type without parameters.
    pub media_type: String,
    /// The body, `null` if empty.
    pub body: Value,
}

impl Answer {
    /// The body of an answer with that status; panics otherwise.
    #[must_use]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Panics unless this is the problem `https://finaiflow.io/problems/<code>` with that status (RFC 9457).
    pub fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.media_type.as_str()), (status, "application/problem+json"), "{}", self.body);
        assert_eq!(self.body["type"], format!("https://finaiflow.io/problems/{code}"), "{}", self.body);
        assert_eq!(self.body["status"], status, "{}", self.body);
    }
}

impl Api {
    /// An anonymous client of `tenant` at `FINAIFLOW_URL`.
    #[must_use]
    pub fn new(tenant: &str) -> Self {
        let url = env::var("FINAIFLOW_URL").expect("FINAIFLOW_URL is not set: run `make test`, or eval `make env`");
        let http = Client::builder().timeout(Duration::from_secs(35)).no_proxy().build().expect("HTTP client");
        Self { http, url, tenant: tenant.to_owned(), token: None }
    }

    /// This client with an access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// This client, token and all, sent to another tenant.
    #[must_use]
    pub fn at(&self, tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), ..self.clone() }
    }

    /// Registers a new user with a fresh address and signs in.
    #[must_use]
    pub fn new_user(&self) -> Self {
        let email = format!("{}@example.com", unique());
        let password = "correct horse battery staple";
        let register = json!({"email": email, "password": password, "name": "Ada"});
        let _ = self.post("/api/v1/auth/register", &register).expect(201);
        let tokens = self.post("/api/v1/auth/login", &json!({"email": email, "password": password})).expect(200);
        self.with_token(tokens["access_token"].as_str().expect("access_token"))
    }

    /// `GET PATH`.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        answered(self.try_get(path))
    }

    /// `GET PATH`, or why there is no answer.
    pub fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.http.get(format!("{}{path}", self.url)))
    }

    /// `POST PATH` without an Idempotency-Key.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        answered(self.send(self.http.post(format!("{}{path}", self.url)).json(body)))
    }

    /// `POST PATH` with an Idempotency-Key.
    #[must_use]
    pub fn write(&self, path: &str, key: &str, body: &Value) -> Answer {
        answered(self.try_write(path, key, body))
    }

    /// `POST PATH` with an Idempotency-Key, or why there is no answer: whether it was carried out is not known then.
    pub fn try_write(&self, path: &str, key: &str, body: &Value) -> Result<Answer, String> {
        self.send(self.http.post(format!("{}{path}", self.url)).header("Idempotency-Key", key).json(body))
    }

    /// Opens an account; returns its id.
    #[must_use]
    pub fn open_account(&self, currency: &str) -> String {
        let body = json!({"type": "checking", "currency": currency, "name": "Main"});
        let account = self.write("/api/v1/accounts", &unique(), &body).expect(201);
        account["id"].as_str().expect("id").to_owned()
    }

    /// Deposits; panics if refused.
    pub fn deposit(&self, account: &str, amount: i64, currency: &str) {
        let body = json!({"amount": amount, "currency": currency});
        let _ = self.write(&format!("/api/v1/accounts/{account}/deposit"), &unique(), &body).expect(201);
    }

    /// The balance of an account in minor units.
    #[must_use]
    pub fn balance(&self, account: &str) -> i64 {
        let body = self.get(&format!("/api/v1/accounts/{account}/balance")).expect(200);
        body["balance"].as_i64().expect("balance")
    }

    fn send(&self, request: RequestBuilder) -> Result<Answer, String> {
        let request = request.header("X-Tenant-ID", &self.tenant);
        let request = if let Some(token) = &self.token { request.bearer_auth(token) } else { request };
        let response = request.send().map_err(|e| why(&e))?;
        let status = response.status().as_u16();
        let media_type = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().to_owned();
        let text = response.text().map_err(|e| why(&e))?;
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap_or(json!(text)) };
        Ok(Answer { status, media_type, body })
    }
}

fn answered(result: Result<Answer, String>) -> Answer {
    result.unwrap_or_else(|e| panic!("{e}: does the API server run?"))
}

/// An error with its causes, of which the last one says what happened.
fn why(error: &dyn Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", why(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}
