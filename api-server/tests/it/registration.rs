//! Who may register, and what is stored of it.

use finaiflow_api::tenant::EmailVerification;
use serde_json::json;

use crate::harness::{PASSWORD, World};

const REGISTER: &str = "/api/v1/auth/register";

#[tokio::test]
async fn an_address_registers_once_however_it_is_spelled() {
    let world = World::create().await;
    world.user("acme", "ada").await;
    for email in ["ada@example.com", "ADA@Example.COM", "  ada@example.com "] {
        let body = json!({"email": email, "password": "another password", "name": "Eve"});
        world.client("acme").post(REGISTER, &body).send().await.expect_problem(409, "email-taken");
    }
    world.user("globex", "ada").await;
    assert_eq!(world.read::<i64>("SELECT count(*) FROM acme.users").await, 1);
    let hash: String = world.read("SELECT password_hash FROM acme.users").await;
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    world.close().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_named() {
    let world = World::create().await;
    let register = async |email: &str, password: &str, name: &str| {
        let body = json!({"email": email, "password": password, "name": name});
        world.client("acme").post(REGISTER, &body).send().await
    };
    register("ada", PASSWORD, "Ada").await.expect_invalid("/email");
    register("a\u{0}da@example.com", PASSWORD, "Ada").await.expect_invalid("/email");
    register("ada@example.com", "1234567", "Ada").await.expect_invalid("/password");
    register("ada@example.com", &"x".repeat(129), "Ada").await.expect_invalid("/password");
    register("ada@example.com", PASSWORD, "").await.expect_invalid("/name");
    let all = register("ada", "short", "").await;
    assert_eq!(all.expect(422)["errors"].as_array().unwrap().len(), 3);
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada", "role": "admin"});
    world.client("acme").post(REGISTER, &body).send().await.expect_invalid("/role");
    assert_eq!(world.read::<i64>("SELECT count(*) FROM acme.users").await, 0);
    register("ada@example.com", &"é".repeat(128), "Ada").await.expect(201);
    world.close().await;
}

#[tokio::test]
async fn a_tenant_that_verifies_addresses_registers_nobody_yet() {
    let world = World::create().await;
    world.reconfigure(|settings| settings.email_verification = EmailVerification::Required);
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
    let refused = world.client("acme").post(REGISTER, &body).send().await;
    let detail = refused.expect_problem(403, "forbidden")["detail"].as_str().unwrap();
    assert!(detail.contains("mail"), "{detail}");
    assert_eq!(world.read::<i64>("SELECT count(*) FROM acme.users").await, 0);
    world.close().await;
}

#[tokio::test]
async fn a_registration_leaves_an_audit_row() {
    let world = World::create().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "name": "Ada"});
    let call = world.client("acme").post(REGISTER, &body).header("x-request-id", "req-7");
    let user = call.send().await.expect(201)["id"].as_str().unwrap().to_owned();
    let row: String =
        world.read("SELECT concat_ws(' ', event, outcome, subject, request_id) FROM acme.audit_events").await;
    assert_eq!(row, format!("user.registered success {user} req-7"));
    world.close().await;
}
