//! What is logged about requests, and what never is.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::http::Method;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::harness::{PASSWORD, World, unique};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// All levels of all libraries, on this test's only thread.
#[tokio::test]
async fn no_secret_is_logged() {
    let lines = Lines::default();
    let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(lines.clone());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(json));
    let world = World::create().await;
    let mut ada = world.user("acme", "ada").await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let login = ada.post("/api/v1/auth/login", &body).send().await;
    let refresh = login.expect(200)["refresh_token"].as_str().unwrap().to_owned();
    let again = ada.post("/api/v1/auth/refresh", &json!({"refresh_token": refresh})).send().await;
    let successor = again.expect(200)["refresh_token"].as_str().unwrap().to_owned();
    world.pass(time::Duration::minutes(1));
    ada.post("/api/v1/auth/refresh", &json!({"refresh_token": refresh})).send().await.expect(401);
    let account = ada.funded(100, "USD").await;
    let wrong = json!({"email": "ada@example.com", "password": "hunter2hunter2"});
    ada.post("/api/v1/auth/login", &wrong).send().await.expect(401);
    let misplaced = format!("/api/v1/accounts?limit=1&access_token={}", "planted-canary");
    ada.get(&misplaced).send().await.expect(422);
    let access = ada.token.clone().unwrap();
    ada.post("/api/v1/auth/login", &json!({"email": "x", "password": 5, "z": "planted-canary"})).send().await;
    ada.call(Method::POST, "/api/v1/auth/logout").header("x-request-id", "the-logout").send().await.expect(204);
    ada.token = Some(format!("{access}x"));
    ada.get("/api/v1/accounts").key(&unique()).send().await.expect(401);
    world.close().await;

    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let signature = access.rsplit_once('.').unwrap().1;
    for secret in [PASSWORD, "hunter2", &refresh, &successor, signature, "planted-canary", "argon2id"] {
        assert!(!logged.contains(secret), "{secret} is logged");
    }
    let line = logged
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["message"] == "request answered" && line["span"]["request_id"] == "the-logout");
    let line = line.unwrap();
    assert_eq!((&line["method"], &line["route"]), (&json!("POST"), &json!("/api/v1/auth/logout")));
    assert_eq!((&line["status"], &line["span"]["tenant"]), (&json!(204), &json!("acme")));
    assert_eq!(line["span"]["trace_id"].as_str().unwrap().len(), 32);
    assert!(line["latency_us"].is_u64());
    assert!(!logged.contains(&format!("\"route\":\"/api/v1/accounts/{account}")), "routes are templates");
}
