//! Several replicas of the program itself, each a process, and clients that reach them as through a Service.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::harness::{PASSWORD, unique};
use crate::tenants_bank::{Bank, account, eventually, kubeconfig, random_name};

/// Tenants are reached as `<name>.bank.test` too.
pub const BASE_DOMAIN: &str = "bank.test";
/// Longest wait for one answer; the server gives up before.
const ANSWER: Duration = Duration::from_mins(1);
/// How often the Service asks whether a replica is ready.
const PROBE: Duration = Duration::from_millis(20);

/// Replicas of one installation. They have the rights of the API server in the bank's namespace, and no others.
pub struct Fleet {
    namespace: String,
    kubeconfig: PathBuf,
    /// Environment of the replicas to come.
    pub settings: Vec<(&'static str, String)>,
    pub service: Service,
    probes: JoinHandle<()>,
}

impl Fleet {
    /// An installation without replicas.
    pub fn of(bank: &Bank) -> Self {
        let mut config = Kubeconfig::read_from(kubeconfig()).unwrap();
        for user in &mut config.auth_infos {
            user.auth_info.as_mut().unwrap().impersonate = Some(account(&bank.namespace));
        }
        let path = std::env::temp_dir().join(random_name("finaiflow-kubeconfig"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(serde_yaml::to_string(&config).unwrap().as_bytes()).unwrap();
        let service = Service::default();
        let probes = tokio::spawn(service.clone().probe());
        Self { namespace: bank.namespace.clone(), kubeconfig: path, settings: Vec::new(), service, probes }
    }

    /// Another replica, once the Service sends requests to it.
    pub async fn add(&self) -> Process {
        let (port, admin) = (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
        let (port, admin) = (port.await.unwrap(), admin.await.unwrap());
        let [port, admin] = [port, admin].map(|listener| listener.local_addr().unwrap().port());
        let (pod, log) = (random_name("api"), std::env::temp_dir().join(random_name("finaiflow-log")));
        let child = Command::new(env!("CARGO_BIN_EXE_finaiflow-api"))
            .env("KUBECONFIG", &self.kubeconfig)
            .env("FINAIFLOW_LISTEN", format!("127.0.0.1:{port}"))
            .env("FINAIFLOW_BASE_DOMAIN", BASE_DOMAIN)
            .env("FINAIFLOW_SHUTDOWN_DELAY_SECONDS", "5")
            .env("POD_NAMESPACE", &self.namespace)
            .env("POD_NAME", &pod)
            .env("RUST_LOG", "error")
            .env("RATE_LIMIT_ENABLED", "false")
            .env("FINAIFLOW_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdout(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let process = Process { child, port, admin, pod, log };
        self.service.0.lock().unwrap().insert(port, false);
        eventually("the replica is ready", || async { self.service.sends_to(port).then_some(()) }).await;
        process
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.probes.abort();
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

/// One replica. It is killed when dropped.
pub struct Process {
    child: Child,
    pub port: u16,
    /// Where operators ask.
    pub admin: u16,
    pub pod: String,
    log: PathBuf,
}

impl Process {
    /// What it has logged so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Tells it to stop, as Kubernetes does.
    pub fn terminate(&self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
    }

    /// Waits for its end after [`Self::terminate`].
    pub async fn ended(mut self) {
        let ended = || {
            let status = self.child.try_wait().unwrap();
            async move { status }
        };
        assert!(eventually("the replica ends", ended).await.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Replicas by port, and whether they are ready: new connections go to those that are, open ones stay where they are.
#[derive(Clone, Default)]
pub struct Service(Arc<Mutex<BTreeMap<u16, bool>>>);

impl Service {
    async fn probe(self) {
        loop {
            let ports: Vec<u16> = self.0.lock().unwrap().keys().copied().collect();
            for port in ports {
                let answer = async { Connection::open(port).await?.send(&get("/readyz")).await };
                let ready = answer.await.is_ok_and(|answer| answer.status == 200);
                self.0.lock().unwrap().insert(port, ready);
            }
            sleep(PROBE).await;
        }
    }

    fn sends_to(&self, port: u16) -> bool {
        self.0.lock().unwrap().get(&port).copied().unwrap_or_default()
    }

    fn ready(&self) -> Vec<u16> {
        self.0.lock().unwrap().iter().filter(|(_, ready)| **ready).map(|(port, _)| *port).collect()
    }
}

/// A request, to be sent as often as one likes.
#[derive(Clone)]
pub struct Request {
    line: String,
    host: String,
    headers: String,
    body: String,
}

pub fn get(path: &str) -> Request {
    request("GET", path)
}

pub fn post(path: &str, body: &Value) -> Request {
    let request = request("POST", path).header("content-type", "application/json");
    Request { body: body.to_string(), ..request }
}

pub fn log_in(name: &str) -> Request {
    post("/api/v1/auth/login", &json!({"email": format!("{name}@example.com"), "password": PASSWORD}))
}

fn request(method: &str, path: &str) -> Request {
    let line = format!("{method} {path} HTTP/1.1");
    Request { line, host: "localhost".to_owned(), headers: String::new(), body: String::new() }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers = format!("{}{name}: {value}\r\n", self.headers);
        self
    }

    pub fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// For the tenant of that name, by header.
    pub fn to(self, tenant: &str) -> Self {
        self.header("x-tenant-id", tenant)
    }

    /// For the tenant of that name, by host.
    pub fn at(self, tenant: &str) -> Self {
        Self { host: format!("{tenant}.{BASE_DOMAIN}"), ..self }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    /// The body as it came.
    pub text: String,
    /// Whether the connection ends with it.
    pub closes: bool,
}

impl Answer {
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Value {
        assert_eq!(self.status, status, "{}", self.text);
        &self.body
    }

    /// A header, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn text(&self, pointer: &str) -> String {
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {}", self.text)).into()
    }
}

/// A connection to one replica, kept open.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    pub async fn send(&mut self, request: &Request) -> io::Result<Answer> {
        timeout(ANSWER, self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: &Request) -> io::Result<Answer> {
        let Request { line, host, headers, body } = request;
        let length = body.len();
        let message = format!("{line}\r\nhost: {host}\r\n{headers}content-length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(message.as_bytes()).await?;
        let line = self.line().await?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_owned(), value.to_owned());
        }
        let closes = headers.get("connection").is_some_and(|value| value == "close");
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        let text = String::from_utf8(body).unwrap();
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null), text, closes })
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// Somebody who takes the replicas in turn and keeps connections open.
pub struct Client {
    service: Service,
    open: HashMap<u16, Connection>,
    turn: usize,
    /// Requests that had to be sent again.
    pub retries: usize,
}

impl Client {
    pub fn new(service: &Service) -> Self {
        Self { service: service.clone(), open: HashMap::new(), turn: 0, retries: 0 }
    }

    /// Sends it to the next replica, once. A replica that no connection can be made to is left out: nothing was sent.
    pub async fn send(&mut self, request: &Request) -> io::Result<Answer> {
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            let Some((port, mut connection)) = self.next().await else {
                sleep(PROBE).await;
                continue;
            };
            let answer = connection.send(request).await?;
            if !answer.closes {
                self.open.insert(port, connection);
            }
            return Ok(answer);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    async fn next(&mut self) -> Option<(u16, Connection)> {
        let mut ports = self.service.ready();
        ports.extend(self.open.keys());
        ports.sort_unstable();
        ports.dedup();
        self.turn += 1;
        let port = *ports.get(self.turn.checked_rem(ports.len())?)?;
        match self.open.remove(&port) {
            Some(connection) => Some((port, connection)),
            None => Some((port, Connection::open(port).await.ok()?)),
        }
    }

    /// Sends it until there is an answer that tells what became of it.
    pub async fn insist(&mut self, request: &Request) -> Answer {
        let deadline = Instant::now() + ANSWER;
        while Instant::now() < deadline {
            match self.send(request).await {
                Ok(answer) if answer.status != 503 => return answer,
                _ => self.retries += 1,
            }
            sleep(PROBE).await;
        }
        panic!("no answer in time: {}", request.line);
    }

    /// Registers a user and logs in.
    pub async fn sign_up(&mut self, tenant: &str, name: &str) -> User {
        let email = format!("{name}@example.com");
        let body = json!({"email": email, "password": PASSWORD, "name": format!("{name} of {tenant}")});
        self.insist(&post("/api/v1/auth/register", &body).to(tenant).key("sign-up")).await.expect(201);
        self.log_in(tenant, name).await
    }

    pub async fn log_in(&mut self, tenant: &str, name: &str) -> User {
        let tokens = self.insist(&log_in(name).to(tenant)).await;
        tokens.expect(200);
        User::new(tenant, &tokens)
    }

    /// Opens an account and returns its id.
    pub async fn open_account(&mut self, user: &User) -> String {
        let body = json!({"type": "checking", "currency": "USD", "name": format!("of {}", user.tenant)});
        let opened = self.insist(&user.post("/api/v1/accounts", &body).key(&unique())).await;
        opened.expect(201);
        opened.text("/id")
    }
}

/// A session of a user.
#[derive(Clone)]
pub struct User {
    pub tenant: String,
    pub access: String,
    pub refresh: String,
}

impl User {
    pub fn new(tenant: &str, tokens: &Answer) -> Self {
        let (access, refresh) = (tokens.text("/access_token"), tokens.text("/refresh_token"));
        Self { tenant: tenant.to_owned(), access, refresh }
    }

    pub fn get(&self, path: &str) -> Request {
        self.sign(get(path)).to(&self.tenant)
    }

    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.sign(post(path, body)).to(&self.tenant)
    }

    /// With the access token, for no tenant yet.
    pub fn sign(&self, request: Request) -> Request {
        request.header("authorization", &format!("Bearer {}", self.access))
    }

    pub fn profile(&self) -> Request {
        self.get("/api/v1/auth/profile")
    }

    pub fn exchange(&self) -> Request {
        post("/api/v1/auth/refresh", &json!({"refresh_token": self.refresh})).to(&self.tenant)
    }
}

/// What became of the movements of one or more users.
#[derive(Debug, Default)]
pub struct Book {
    /// Their references, one for each that was acknowledged.
    pub acknowledged: Vec<String>,
    /// What they add up to, by account.
    pub balances: BTreeMap<String, i64>,
    pub retries: usize,
}

impl Book {
    pub fn acknowledge(&mut self, reference: &str, account: &str, amount: i64) {
        self.acknowledged.push(reference.to_owned());
        self.post(account, amount);
    }

    /// The other side of a movement.
    pub fn post(&mut self, account: &str, amount: i64) {
        *self.balances.entry(account.to_owned()).or_default() += amount;
    }

    pub fn balance(&self, account: &str) -> i64 {
        self.balances.get(account).copied().unwrap_or_default()
    }

    pub fn merge(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        other.balances.iter().for_each(|(account, amount)| self.post(account, *amount));
        self.retries += other.retries;
    }
}

/// Users who move money without a pause, each on an account of their own and to one that they share.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    users: Vec<JoinHandle<Book>>,
}

impl Load {
    /// Users who `insist` repeat what was not answered; the others never do, and fail.
    pub async fn start(fleet: &Fleet, bank: &Bank, users: usize, insist: bool) -> Self {
        let mut client = Client::new(&fleet.service);
        let owner = client.sign_up(&bank.name, "owner").await;
        let shared = client.open_account(&owner).await;
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = Vec::new();
        for number in 0..users {
            let user = client.sign_up(&bank.name, &format!("user{number}")).await;
            let account = client.open_account(&user).await;
            let client = Client::new(&fleet.service);
            let mover = Mover { user, account, shared: shared.clone(), insist, client, book: Book::default() };
            tasks.push(tokio::spawn(mover.run(number, Arc::clone(&stop), Arc::clone(&done))));
        }
        Self { stop, done, users: tasks }
    }

    /// Waits for that many more movements.
    pub async fn go_on(&self, movements: usize) {
        let target = self.done.load(Ordering::Relaxed) + movements;
        let reached = || async {
            let failed = self.users.iter().any(JoinHandle::is_finished);
            (failed || self.done.load(Ordering::Relaxed) >= target).then_some(())
        };
        eventually("more movements", reached).await;
    }

    /// Ends it and compares what was acknowledged with what is booked. Returns how often a request was sent again.
    pub async fn settle(self, bank: &Bank) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let mut book = Book::default();
        for user in self.users {
            book.merge(user.await.expect("no request fails"));
        }
        bank.assert_booked(&book).await;
        book.retries
    }
}

struct Mover {
    user: User,
    account: String,
    shared: String,
    insist: bool,
    client: Client,
    book: Book,
}

impl Mover {
    async fn run(mut self, user: usize, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Book {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            self.movement(&format!("{user}-{number}"), number % 3).await;
            let balance = self.send(&self.user.get(&format!("/api/v1/accounts/{}/balance", self.account))).await;
            assert_eq!(balance.expect(200)["balance"], self.book.balance(&self.account));
            done.fetch_add(1, Ordering::Relaxed);
        }
        Book { retries: self.client.retries, ..self.book }
    }

    async fn movement(&mut self, reference: &str, kind: usize) {
        let (account, shared) = (self.account.clone(), self.shared.clone());
        let (path, amount) = match kind {
            0 => (format!("/api/v1/accounts/{account}/deposit"), 10),
            1 => (format!("/api/v1/accounts/{account}/withdraw"), -3),
            _ => ("/api/v1/transfers".to_owned(), -2),
        };
        let mut body = json!({"amount": i64::abs(amount), "currency": "USD", "reference": reference});
        if kind == 2 {
            body["from_account_id"] = json!(account);
            body["to_account_id"] = json!(shared);
            self.book.post(&shared, -amount);
        }
        let answer = self.send(&self.user.post(&path, &body).key(reference)).await;
        assert_eq!(answer.expect(201)["reference"], reference);
        self.book.acknowledge(reference, &account, amount);
    }

    async fn send(&mut self, request: &Request) -> Answer {
        if self.insist {
            self.client.insist(request).await
        } else {
            self.client.send(request).await.expect("an answer")
        }
    }
}
