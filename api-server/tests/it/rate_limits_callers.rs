//! Whom a request is counted for, and what callers, operators and strangers are told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fleet::{Answer, Client, Fleet, Process, Request, get, log_in, post};
use crate::harness::PASSWORD;
use crate::policies::{limit, limits};
use crate::tenants_bank::Bank;

const CANARY: &str = "planted-canary";

/// A bank with one replica, and more to come if there are other settings.
struct Scene {
    bank: Bank,
    fleet: Fleet,
    replica: Process,
}

impl Scene {
    async fn with(settings: &[(&'static str, &str)]) -> Self {
        let bank = Bank::ready().await;
        let mut fleet = Fleet::limited(&bank);
        fleet.settings.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let replica = fleet.add().await;
        Self { bank, fleet, replica }
    }

    async fn declare(&self, spec: &Value) {
        self.bank.declare("policy", spec).await;
        self.bank.enforced_by(&[&self.replica]).await;
    }

    fn info(&self) -> Request {
        get("/api/v1/info").to(&self.bank.name)
    }

    /// How often a request passes before it is refused, and the refusal.
    async fn until_refused(&self, request: &Request) -> (u32, Answer) {
        for passed in 0.. {
            let answer = self.replica.ask(request).await;
            if answer.status == 429 {
                return (passed, answer);
            }
            answer.expect(200);
        }
        panic!("never refused");
    }

    async fn end(self) {
        drop((self.replica, self.fleet));
        self.bank.drop().await;
    }
}

fn violated(answer: &Answer) -> Vec<&str> {
    answer.expect(429)["violated-policies"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_counted_apart_and_their_address_together() {
    let scene = Scene::with(&[]).await;
    let mut client = Client::new(&scene.fleet.service);
    let ada = client.sign_up(&scene.bank.name, "ada").await;
    let bob = client.sign_up(&scene.bank.name, "bob").await;
    let elsewhere = client.log_in(&scene.bank.name, "ada").await;
    let limits_of = json!([limit("user", 4, 86_400, &["User"]), limit("address", 10, 86_400, &["ClientIP"])]);
    scene.declare(&json!({"limits": limits_of})).await;

    let (passed, refusal) = scene.until_refused(&ada.profile()).await;
    assert_eq!((passed, violated(&refusal)), (4, vec!["user"]));
    let (passed, refusal) = scene.until_refused(&elsewhere.profile()).await;
    assert_eq!((passed, violated(&refusal)), (0, vec!["user"]), "another session of hers");
    let (passed, _) = scene.until_refused(&bob.profile()).await;
    assert_eq!(passed, 4, "his own");
    let (passed, refusal) = scene.until_refused(&scene.info()).await;
    assert_eq!((passed, violated(&refusal)), (2, vec!["address"]), "what the two of them left");
    let (_, refusal) = scene.until_refused(&bob.profile()).await;
    assert_eq!(violated(&refusal), ["address"], "told before it is found out who asks");

    // By session.
    let mut session = limit("session", 2, 86_400, &[]);
    session["keys"] = json!([{"type": "Claim", "name": "sid"}]);
    scene.declare(&json!({"limits": [session]})).await;
    for user in [&ada, &elsewhere, &bob] {
        let (passed, refusal) = scene.until_refused(&user.profile()).await;
        assert_eq!((passed, violated(&refusal)), (2, vec!["session"]));
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_good_is_counted_as_its_address() {
    let scene = Scene::with(&[]).await;
    let mut client = Client::new(&scene.fleet.service);
    let ada = client.sign_up(&scene.bank.name, "ada").await;
    let left = client.log_in(&scene.bank.name, "ada").await;
    let mut forged = ada.clone();
    forged.access.truncate(forged.access.rfind('.').unwrap() + 1);
    forged.access.push_str(&"A".repeat(86));
    scene.replica.ask(&left.post("/api/v1/auth/logout", &Value::Null)).await.expect(204);

    let of = async |request: &Request| limits(&scene.replica.ask(request).await);
    assert_eq!(of(&ada.profile()).await, ["per-user"]);
    for request in [left.profile(), forged.profile(), ada.sign(get("/api/v1/info")), scene.info()] {
        assert_eq!(of(&request).await, ["per-address"]);
    }
    scene
        .declare(&json!({"limits": [limit("user", 3, 86_400, &["User"]), limit("address", 10, 86_400, &["ClientIP"])]}))
        .await;
    for request in [left.profile(), forged.profile()] {
        for _ in 0..3 {
            let answer = scene.replica.ask(&request).await;
            answer.expect(401);
            assert_eq!(limits(&answer), ["address"]);
        }
    }
    let (passed, refusal) = scene.until_refused(&ada.profile()).await;
    assert_eq!((passed, violated(&refusal)), (3, vec!["user"]), "nobody spent hers");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_methods_and_headers_are_counted_apart() {
    let scene = Scene::with(&[]).await;
    let mut device = limit("device", 2, 86_400, &[]);
    device["keys"] = json!([{"type": "Header", "name": "X-Device"}]);
    device["match"] = json!({"paths": [{"type": "Exact", "value": "/api/v1/info"}]});
    let mut each = limit("each", 3, 86_400, &["Route", "Method"]);
    each["match"] = json!({"paths": [{"value": "/api/v1/accounts"}]});
    scene.declare(&json!({"limits": [device, each]})).await;
    for device in ["a", "b"] {
        let (passed, refusal) = scene.until_refused(&scene.info().header("x-device", device)).await;
        assert_eq!((passed, violated(&refusal)), (2, vec!["device"]));
    }
    let passed = async |request: Request| {
        let request = request.to(&scene.bank.name);
        let mut passed = 0;
        while scene.replica.ask(&request).await.status != 429 {
            passed += 1;
        }
        passed
    };
    assert_eq!(passed(get("/api/v1/accounts/acc_1/balance")).await, 3);
    assert_eq!(passed(get("/api/v1/accounts/acc_2/balance")).await, 0, "the same endpoint");
    assert_eq!(passed(get("/api/v1/accounts")).await, 3);
    assert_eq!(passed(post("/api/v1/accounts", &json!({}))).await, 3);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_as_long_as_told_is_admitted() {
    let scene = Scene::with(&[]).await;
    scene.declare(&json!({"limits": [limit("slow", 1, 3, &[])]})).await;
    let mut admitted: Option<Instant> = None;
    for _ in 0..4 {
        let asked = Instant::now();
        let answer = scene.replica.ask(&scene.info()).await;
        let now = Instant::now();
        answer.expect(200);
        assert_eq!(answer.header("ratelimit-policy"), r#""slow";q=1;w=3"#);
        assert_eq!(answer.header("ratelimit"), r#""slow";r=0;t=3"#);
        let since = admitted.replace(asked).map(|before| now - before);
        assert!(since.is_none_or(|since| since >= Duration::from_secs(3)), "one in 3 s: {since:?}");

        let refusal = scene.replica.ask(&scene.info()).await;
        assert_eq!(violated(&refusal), ["slow"]);
        assert_eq!(refusal.body["type"], "https://finaiflow.io/problems/quota-exceeded");
        assert_eq!(refusal.header("content-type"), "application/problem+json");
        let seconds: u64 = refusal.header("retry-after").parse().unwrap();
        assert_eq!(refusal.header("ratelimit"), format!("\"slow\";r=0;t={seconds}"));
        let left = Duration::from_secs(3).saturating_sub(asked.elapsed());
        assert!(seconds <= 3 && Duration::from_secs(seconds) >= left, "{seconds} s, {left:?} left");
        sleep(Duration::from_secs(seconds)).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_network_gets_no_password_checked() {
    let scene = Scene::with(&[]).await;
    let mut client = Client::new(&scene.fleet.service);
    client.sign_up(&scene.bank.name, "ada").await;
    let wrong = json!({"email": "ada@example.com", "password": format!("not {PASSWORD}")});
    let wrong = post("/api/v1/auth/login", &wrong).to(&scene.bank.name);
    let median = async |status: u16| {
        let mut times = Vec::new();
        for _ in 0..9 {
            let asked = Instant::now();
            scene.replica.ask(&wrong).await.expect(status);
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        times[4]
    };
    let checked = median(401).await;
    let logins = scene.replica.metric("finaiflow_logins_total", &[]).await;
    assert!(logins >= 9.0);
    let events: i64 = scene.bank.read("SELECT count(*) FROM tenant.audit_events").await;

    scene.declare(&json!({"denyCIDRs": ["127.0.0.0/8"]})).await;
    let denied = median(403).await;
    println!("a wrong password is told after {checked:?}, a denied network after {denied:?}");
    assert!(denied * 10 <= checked, "{denied:?} and {checked:?}");
    let answer = scene.replica.ask(&log_in("ada").to(&scene.bank.name)).await;
    assert_eq!(answer.expect(403)["type"], "https://finaiflow.io/problems/ip-denied");
    assert_eq!(scene.replica.metric("finaiflow_logins_total", &[]).await.to_bits(), logins.to_bits());
    assert_eq!(scene.bank.read::<i64>("SELECT count(*) FROM tenant.audit_events").await, events);
    let forged = scene.info().header("x-forwarded-for", "198.51.100.1");
    scene.replica.ask(&forged).await.expect(403);
    for probe in ["/livez", "/readyz", "/metrics"] {
        scene.replica.ask(&get(probe)).await.expect(200);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_claims_to_have_come_through_makes_no_new_bucket() {
    let scene = Scene::with(&[]).await;
    scene.declare(&json!({"limits": [limit("address", 2, 86_400, &["ClientIP"])]})).await;
    let from = |client: &str| scene.info().header("x-forwarded-for", client);
    let (passed, _) = scene.until_refused(&from("198.51.100.1")).await;
    assert_eq!(passed, 2);
    let keys = scene.replica.metric("finaiflow_ratelimit_keys", &[]).await;
    for host in 2..100 {
        scene.replica.ask(&from(&format!("198.51.100.{host}"))).await.expect(429);
    }
    assert!(scene.replica.metric("finaiflow_ratelimit_keys", &[]).await <= keys, "no new bucket");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_trusted_proxy_says_who_the_client_is() {
    let scene = Scene::with(&[("FINAIFLOW_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    scene.declare(&json!({"limits": [limit("address", 2, 86_400, &["ClientIP"])]})).await;
    let from = |client: &str| scene.info().header("x-forwarded-for", client);
    assert_eq!(scene.until_refused(&from("198.51.100.1")).await.0, 2);
    assert_eq!(scene.until_refused(&from("203.0.113.9, 198.51.100.1")).await.0, 0, "what the client itself wrote");
    assert_eq!(scene.until_refused(&from("198.51.100.1, 203.0.113.9")).await.0, 2);
    assert_eq!(scene.until_refused(&from("2001:db8:1:2::1")).await.0, 2);
    assert_eq!(scene.until_refused(&from("2001:db8:1:2:ffff::9")).await.0, 0, "one customer has a whole /64");

    let nobody = json!({"email": "nobody@example.com", "password": PASSWORD});
    let login = post("/api/v1/auth/login", &nobody).to(&scene.bank.name).header("x-request-id", "from-afar");
    scene.replica.ask(&login.header("x-forwarded-for", "192.0.2.77")).await.expect(401);
    let sql = "SELECT host(ip) FROM tenant.audit_events WHERE request_id = 'from-afar'";
    assert_eq!(scene.bank.read::<String>(sql).await, "192.0.2.77");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_told_which_policy_decided_and_nobody_is_told_a_secret() {
    let scene = Scene::with(&[("RUST_LOG", "trace")]).await;
    let mut keyed = limit("keyed", 1, 86_400, &[]);
    keyed["keys"] = json!([{"type": "Header", "name": "X-Api-Secret"}]);
    scene.declare(&json!({"limits": [keyed], "denyCIDRs": ["198.51.100.0/24"]})).await;
    let request = scene.info().header("x-api-secret", CANARY).header("authorization", &format!("Bearer {CANARY}"));
    scene.replica.ask(&request).await.expect(200);
    scene.replica.ask(&request.header("x-request-id", "the-refused")).await.expect(429);

    let policy = format!("{}/policy", scene.bank.namespace);
    let refused = scene.replica.operator("/rate-limits/refused?request_id=the-refused").await;
    let refused = &refused["data"][0];
    assert_eq!(
        [&refused["policy"], &refused["limit"], &refused["tenant"], &refused["route"], &refused["client_ip"]],
        [policy.as_str(), "keyed", &scene.bank.name, "/api/v1/info", "127.0.0.1"].map(Value::from).each_ref()
    );
    let question = format!("path=/api/v1/info&tenant={}", scene.bank.name);
    let with_key = format!("{question}&header=x-api-secret:{CANARY}");
    let (limited, other) = (scene.replica.explain(&with_key).await, scene.replica.explain(&question).await);
    assert_eq!((&limited["verdict"], &limited["decided_by"]), (&json!("limited"), &json!(format!("{policy}/keyed"))));
    assert_eq!(other["verdict"], "admitted", "nothing was counted for the question, nor for another key");
    let denied = scene.replica.explain(&format!("{question}&ip=198.51.100.9")).await;
    assert_eq!((&denied["verdict"], &denied["decided_by"]), (&json!("denied"), &json!(policy)));

    let metrics = scene.replica.ask(&get("/metrics")).await.text;
    assert!(metrics.contains(&format!(r#"decision="limited",limit="keyed",policy="{policy}"#)), "{metrics}");
    let logged = scene.replica.logged();
    assert!(logged.lines().any(|line| line.contains("request turned away") && line.contains("the-refused")));
    for (place, text) in [("log", &logged), ("metrics", &metrics), ("refusals", &refused.to_string())] {
        assert!(!text.contains(CANARY), "the value of a header is in the {place}");
    }
    assert!(!limited.to_string().contains(CANARY));
    scene.end().await;
}
