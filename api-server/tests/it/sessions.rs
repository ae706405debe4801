//! Login, refresh, logout: rotation, reuse, grace, expiry, and what stays when a request is refused.

use serde_json::{Value, json};
use time::Duration;

use crate::harness::{Answer, Client, PASSWORD, World};

const LOGIN: &str = "/api/v1/auth/login";
const REFRESH: &str = "/api/v1/auth/refresh";

async fn login(client: &Client<'_>, email: &str, password: &str) -> Answer {
    client.post(LOGIN, &json!({"email": email, "password": password})).send().await
}

async fn refresh(client: &Client<'_>, token: &Value) -> Answer {
    client.post(REFRESH, &json!({"refresh_token": token})).send().await
}

/// The user's client with the tokens of an answer.
fn with<'w>(client: &Client<'w>, tokens: &Value) -> Client<'w> {
    Client { token: Some(tokens["access_token"].as_str().unwrap().to_owned()), ..client.clone() }
}

#[tokio::test]
async fn unknown_address_and_wrong_password_cannot_be_told_apart() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    world.execute("UPDATE acme.users SET status = 'disabled' WHERE email_normalized = 'bob@example.com'").await;
    let mut answers = Vec::new();
    for (email, password) in [
        ("ada@example.com", "wrong password"),
        ("nobody@example.com", PASSWORD),
        ("not an address", PASSWORD),
        ("a\u{0}@b.de", "x"),
        ("ada@example.com", ""),
    ] {
        let answer = login(&ada, email, password).await;
        answer.expect_problem(401, "unauthenticated");
        let mut body = answer.body.clone();
        body.as_object_mut().unwrap().remove("trace_id");
        let mut headers = answer.headers.clone();
        headers.remove("x-request-id");
        answers.push((body, format!("{headers:?}")));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let denied = "SELECT count(*) FROM acme.audit_events WHERE event = 'session.login' AND outcome = 'denied'";
    assert_eq!(world.read::<i64>(denied).await, 5, "refused logins are recorded although the answer is 401");
    world.close().await;
}

#[tokio::test]
async fn a_disabled_user_is_out_at_once() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let tokens = login(&ada, "ada@example.com", PASSWORD).await;
    world.execute("UPDATE acme.users SET status = 'disabled'").await;
    login(&ada, "ada@example.com", PASSWORD).await.expect_problem(401, "unauthenticated");
    refresh(&ada, &tokens.body["refresh_token"]).await.expect_problem(401, "unauthenticated");
    with(&ada, &tokens.body).get("/api/v1/auth/profile").send().await.expect_problem(401, "unauthenticated");
    world.close().await;
}

#[tokio::test]
async fn tokens_rotate_and_a_retry_gets_the_same_successor() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let first = login(&ada, "ada@example.com", PASSWORD).await;
    let second = refresh(&ada, &first.expect(200)["refresh_token"]).await;
    let successor = second.expect(200)["refresh_token"].clone();
    assert_ne!(successor, first.body["refresh_token"]);
    assert_eq!(second.headers["cache-control"], "no-store");
    with(&ada, &second.body).get("/api/v1/auth/profile").send().await.expect(200);

    world.pass(Duration::seconds(10));
    let retry = refresh(&ada, &first.body["refresh_token"]).await;
    assert_eq!(retry.expect(200)["refresh_token"], successor);
    let third = refresh(&ada, &successor).await;
    assert_ne!(third.expect(200)["refresh_token"], successor);
    assert_eq!(world.read::<i64>("SELECT count(*) FROM acme.refresh_tokens WHERE seq > 1").await, 2, "no branches");
    world.close().await;
}

#[tokio::test]
async fn exchanges_at_once_agree() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let tokens = login(&ada, "ada@example.com", PASSWORD).await;
    let token = &tokens.body["refresh_token"];
    let answers = futures::future::join_all((0..8).map(|_| refresh(&ada, token))).await;
    let successor = &answers[0].expect(200)["refresh_token"];
    assert!(answers.iter().all(|answer| answer.expect(200)["refresh_token"] == *successor));
    world.close().await;
}

#[tokio::test]
async fn reuse_after_the_grace_period_ends_the_session_for_good() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let first = login(&ada, "ada@example.com", PASSWORD).await;
    let other = login(&ada, "ada@example.com", PASSWORD).await;
    let second = refresh(&ada, &first.body["refresh_token"]).await;
    with(&ada, &second.body).get("/api/v1/auth/profile").send().await.expect(200);

    world.pass(Duration::seconds(11));
    refresh(&ada, &first.body["refresh_token"]).await.expect_problem(401, "unauthenticated");
    refresh(&ada, &second.body["refresh_token"]).await.expect_problem(401, "unauthenticated");
    with(&ada, &second.body).get("/api/v1/auth/profile").send().await.expect_problem(401, "unauthenticated");
    with(&ada, &other.body).get("/api/v1/auth/profile").send().await.expect(200);
    let reason: String = world.read("SELECT revoke_reason FROM acme.sessions WHERE revoked_at IS NOT NULL").await;
    assert_eq!(reason, "refresh_reuse");
    let recorded = "SELECT count(*) FROM acme.audit_events WHERE event = 'session.refresh_reuse'";
    assert_eq!(world.read::<i64>(recorded).await, 1, "committed although the answer is 401");
    world.close().await;
}

#[tokio::test]
async fn logging_out_ends_the_session() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let tokens = login(&ada, "ada@example.com", PASSWORD).await;
    let other = login(&ada, "ada@example.com", PASSWORD).await;
    let session = with(&ada, &tokens.body);
    session.get("/api/v1/accounts").send().await.expect(200);
    let out = session.call(axum::http::Method::POST, "/api/v1/auth/logout").send().await;
    out.expect(204);
    assert!(out.bytes.is_empty());
    session.get("/api/v1/accounts").send().await.expect_problem(401, "unauthenticated");
    session.call(axum::http::Method::POST, "/api/v1/auth/logout").send().await.expect_problem(401, "unauthenticated");
    refresh(&ada, &tokens.body["refresh_token"]).await.expect_problem(401, "unauthenticated");
    with(&ada, &other.body).get("/api/v1/accounts").send().await.expect(200);
    world.close().await;
}

#[tokio::test]
async fn a_session_revoked_elsewhere_is_noticed_within_a_second() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    ada.get("/api/v1/accounts").send().await.expect(200);
    world.execute("UPDATE acme.sessions SET revoked_at = now(), revoke_reason = 'admin'").await;
    tokio::time::sleep(std::time::Duration::from_millis(1_050)).await;
    ada.get("/api/v1/accounts").send().await.expect_problem(401, "unauthenticated");
    world.close().await;
}

#[tokio::test]
async fn tokens_and_sessions_expire() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let tokens = login(&ada, "ada@example.com", PASSWORD).await;
    let session = with(&ada, &tokens.body);
    session.get("/api/v1/accounts").send().await.expect(200);
    world.pass(Duration::minutes(31));
    session.get("/api/v1/accounts").send().await.expect_problem(401, "unauthenticated");
    let fresh = refresh(&ada, &tokens.body["refresh_token"]).await;
    with(&ada, fresh.expect(200)).get("/api/v1/accounts").send().await.expect(200);

    world.pass(Duration::days(7));
    refresh(&ada, &fresh.body["refresh_token"]).await.expect_problem(401, "unauthenticated");
    let recorded = "SELECT count(*) FROM acme.audit_events WHERE event = 'session.refresh_reuse'";
    assert_eq!(world.read::<i64>(recorded).await, 0, "an expired session is not theft");
    world.close().await;
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let world = World::create().await;
    let mut ada = world.user("acme", "ada").await;
    for token in ["", "frt_x", "frt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "x"] {
        refresh(&ada, &json!(token)).await.expect_problem(401, "unauthenticated");
    }
    refresh(&ada, &json!(5)).await.expect_invalid("/refresh_token");
    let good = ada.token.clone().unwrap();
    let (message, _) = good.rsplit_once('.').unwrap();
    for token in ["x", "a.b.c", message, &format!("{message}."), &format!("{good}x")] {
        ada.token = Some(token.to_owned());
        ada.get("/api/v1/auth/profile").send().await.expect_problem(401, "unauthenticated");
    }
    ada.token = None;
    ada.get("/api/v1/auth/profile").send().await.expect_problem(401, "unauthenticated");
    let call = ada.get("/api/v1/auth/profile").header("authorization", "Basic YWRhOng=");
    call.send().await.expect_problem(401, "unauthenticated");
    world.close().await;
}

#[tokio::test]
async fn only_digests_of_tokens_are_stored() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let tokens = login(&ada, "ada@example.com", PASSWORD).await;
    let secret = tokens.body["refresh_token"].as_str().unwrap().strip_prefix("frt_").unwrap().to_owned();
    let bytes = data_encoding::HEXLOWER.encode(&data_encoding::BASE64URL_NOPAD.decode(secret.as_bytes()).unwrap());
    let stored: String = world
        .read(
            "SELECT concat((SELECT json_agg(t) FROM acme.refresh_tokens t),
        (SELECT json_agg(s) FROM acme.sessions s), (SELECT json_agg(a) FROM acme.audit_events a))",
        )
        .await;
    assert!(!stored.contains(&secret) && !stored.contains(&bytes), "{stored}");
    world.close().await;
}

#[tokio::test]
async fn the_public_key_verifies_what_the_tenant_signs() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let answer = ada.get("/.well-known/jwks.json").send().await;
    assert_eq!(answer.headers["cache-control"], "public, max-age=300");
    let key = &answer.expect(200)["keys"][0];
    assert!(key.get("d").is_none());
    let token = ada.token.clone().unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!((header.kid.as_deref(), header.typ.as_deref()), (key["kid"].as_str(), Some("at+jwt")));
    let decoding = jsonwebtoken::DecodingKey::from_ed_components(key["x"].as_str().unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_audience(&["finaiflow-api"]);
    validation.set_issuer(&["https://issuer.test/tenants/acme"]);
    let claims = jsonwebtoken::decode::<Value>(&token, &decoding, &validation).unwrap().claims;
    assert_eq!(claims["tid"], world.acme.claim_id.to_string());
    assert!(claims["sub"].as_str().unwrap().starts_with("usr_") && claims["sid"].as_str().unwrap().starts_with("ses_"));
    world.close().await;
}
