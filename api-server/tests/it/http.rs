//! What HTTP itself can get wrong, headers, probes and metrics.

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{World, unique};

#[tokio::test]
async fn every_kind_of_bad_request_is_a_problem() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    let deposit = format!("/api/v1/accounts/{account}/deposit");
    for body in ["", "{", "{\"amount\":1,}", "amount=1", "{\"amount\":1} x"] {
        let call = ada.post(&deposit, &Value::Null).key(&unique()).body(body);
        call.send().await.expect_problem(400, "malformed");
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/merge-patch+json"] {
        let call = ada.call(Method::POST, &deposit).key(&unique()).header("content-type", media_type).body("{}");
        call.send().await.expect_problem(415, "unsupported-media-type");
    }
    let call = ada.call(Method::POST, &deposit).key(&unique()).body("{}");
    call.send().await.expect_problem(415, "unsupported-media-type");
    let huge = json!({"amount": 1, "currency": "USD", "description": "x".repeat(64 * 1024)});
    ada.write(&deposit, &unique(), &huge).await.expect_problem(413, "payload-too-large");
    world.close().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    for path in ["/", "/api", "/api/v1/nothing", "/api/v2/info", "/docs/nothing.js", "/api/v1/accounts/", "/%ff"] {
        ada.get(path).send().await.expect_problem(404, "not-found");
    }
    for id in ["x", "acc_", "acc_aaaaaaiaaaaaaaabx", "ACC_AAAAAAIAAAAAAAAB", "..", "%ff", "trf_aaaaaaiaaaaaaaab"] {
        ada.get(&format!("/api/v1/accounts/{id}")).send().await.expect_problem(404, "not-found");
    }
    for (method, path, allow) in [
        (Method::DELETE, "/api/v1/accounts", "GET,HEAD,POST"),
        (Method::GET, "/api/v1/transfers", "POST"),
        (Method::PUT, "/api/v1/auth/login", "POST"),
        (Method::POST, "/livez", "GET,HEAD"),
        (Method::POST, "/openapi.json", "GET,HEAD"),
    ] {
        let answer = ada.call(method, path).send().await;
        answer.expect_problem(405, "method-not-allowed");
        let mut methods: Vec<_> = answer.headers["allow"].to_str().unwrap().split(',').collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allow, "{path}");
    }
    let head = ada.call(Method::HEAD, "/api/v1/accounts").send().await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    world.close().await;
}

#[tokio::test]
async fn query_parameters_are_checked() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    for list in ["/api/v1/accounts".to_owned(), format!("/api/v1/accounts/{account}/transactions")] {
        for (query, pointer) in [
            ("limit=0", "/limit"),
            ("limit=101", "/limit"),
            ("limit=ten", "/limit"),
            ("limit=1&limit=2", "/limit"),
            ("cursor=x", "/cursor"),
            ("cursor=%00", "/cursor"),
            ("offset=5", "/offset"),
        ] {
            ada.get(&format!("{list}?{query}")).send().await.expect_invalid(pointer);
        }
        ada.get(&format!("{list}?limit=100")).send().await.expect(200);
    }
    world.close().await;
}

#[tokio::test]
async fn requests_are_named() {
    let world = World::create().await;
    let client = world.client("acme");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let call = client.get("/api/v1/accounts").header("x-request-id", "req-1");
    let answer = call.header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")).send().await;
    assert_eq!(answer.headers["x-request-id"], "req-1");
    assert_eq!(answer.expect_problem(401, "unauthenticated")["trace_id"], trace);
    let answer = client.get("/livez").header("x-request-id", "no good").send().await;
    assert_ne!(answer.headers["x-request-id"], "no good");
    world.close().await;
}

#[tokio::test]
async fn only_the_tenants_origins_may_read() {
    let world = World::create().await;
    let client = world.client("acme");
    let origin = "https://app.acme.test";
    let answer = client.get("/api/v1/info").header("origin", origin).send().await;
    assert_eq!(answer.headers["access-control-allow-origin"], origin);
    let refused = client.get("/api/v1/accounts").header("origin", origin).send().await;
    refused.expect_problem(401, "unauthenticated");
    assert_eq!(refused.headers["access-control-allow-origin"], origin, "errors are readable too");
    for other in ["https://evil.test", "https://app.acme.test.evil.test", "null", "http://app.acme.test"] {
        let answer = client.get("/api/v1/info").header("origin", other).send().await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"), "{other}");
    }
    let mut browser = client.clone();
    browser.tenant = None;
    let preflight = |origin: &str| {
        let call = browser.call(Method::OPTIONS, "/api/v1/transfers").header("host", "acme.bank.test");
        call.header("origin", origin).header("access-control-request-method", "POST")
    };
    let allowed = preflight(origin).send_unchecked().await;
    assert_eq!(allowed.headers["access-control-allow-origin"], origin);
    let headers = allowed.headers["access-control-allow-headers"].to_str().unwrap();
    assert!(headers.contains("idempotency-key") && headers.contains("authorization"), "{headers}");
    let refused = preflight("https://evil.test").send_unchecked().await;
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    world.close().await;
}

#[tokio::test]
async fn probes_tell_when_traffic_may_come() {
    let world = World::create().await;
    let anybody = world.client("acme");
    anybody.get("/livez").send().await.expect(200);
    anybody.get("/readyz").send().await.expect(200);
    assert!(!anybody.get("/livez").send().await.headers.contains_key("connection"));
    assert_eq!(anybody.get("/health").send().await.expect(200)["status"], "ok");
    world.state.begin_drain();
    anybody.get("/livez").send().await.expect(200);
    anybody.get("/readyz").send().await.expect_problem(503, "overloaded");
    anybody.get("/health").send().await.expect_problem(503, "overloaded");
    let answer = anybody.get("/api/v1/info").send().await;
    assert_eq!(answer.headers["connection"], "close", "the next request goes elsewhere");
    answer.expect(200);
    world.close().await;
}

#[tokio::test]
async fn info_tells_of_the_tenant_if_there_is_one() {
    let world = World::create().await;
    let mut anybody = world.client("acme");
    let info = anybody.get("/api/v1/info").send().await;
    let tenant = &info.expect(200)["tenant"];
    assert_eq!((&tenant["name"], &tenant["currencies"][1]), (&json!("acme"), &json!({"code": "EUR", "exponent": 2})));
    anybody.tenant = None;
    assert_eq!(anybody.get("/api/v1/info").send().await.expect(200)["tenant"], Value::Null);
    anybody.tenant = Some("nobody".to_owned());
    anybody.get("/api/v1/info").send().await.expect_problem(404, "tenant-not-found");
    world.close().await;
}

#[tokio::test]
async fn requests_and_logins_are_counted_without_names() {
    let world = World::create().await;
    let ada = world.user("acme", "ada").await;
    let account = ada.open("USD").await;
    ada.balance(&account).await;
    ada.get("/made/up/path").send().await.expect(404);
    let body = json!({"email": "ada@example.com", "password": "wrong password"});
    ada.post("/api/v1/auth/login", &body).send().await.expect(401);
    let metrics = String::from_utf8(ada.get("/metrics").send().await.bytes).unwrap();
    for line in [
        r#"finaiflow_http_requests_total{method="GET",route="/api/v1/accounts/{id}/balance",status="200"} 1"#,
        r#"finaiflow_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"finaiflow_logins_total{outcome="success"} 1"#,
        r#"finaiflow_logins_total{outcome="failure"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    for secret in [&*account, "made", "ada"] {
        assert!(!metrics.contains(secret), "{secret}");
    }
    world.close().await;
}
