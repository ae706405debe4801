//! The OpenAPI document and the pages that show it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::World;

#[tokio::test]
async fn the_document_is_complete() {
    let world = World::create().await;
    let document = world.client("acme").get("/openapi.json").send_unchecked().await.body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(format!("{document:#}\n"), finaiflow_api::openapi_json());
    let (mut ids, mut linked) = (BTreeSet::new(), BTreeSet::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
            assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{place}");
            let responses = operation["responses"].as_object().unwrap();
            for response in responses.values() {
                assert!(response["headers"]["X-Request-ID"].is_object(), "{place}");
                let links = response["links"].as_object().into_iter().flat_map(|links| links.values());
                linked.extend(links.map(|link| link["operationId"].as_str().unwrap().to_owned()));
            }
            let documents_401 = responses.contains_key("401") && !path.ends_with("login") && !path.ends_with("refresh");
            assert_eq!(operation.get("security").is_some(), documents_401, "{place}");
            if path.starts_with("/api") {
                assert!(responses.contains_key("500") && responses.contains_key("503"), "{place}");
            }
            let takes = |name: &str| {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                parameters.filter(|parameter| parameter["name"] == name).any(|parameter| parameter["required"] == true)
            };
            let money = method != "get" && !path.contains("/auth/");
            assert_eq!(takes("Idempotency-Key"), money, "{place}");
            if let Some(body) = operation.get("requestBody") {
                let schema = &body["content"]["application/json"]["schema"];
                assert!(schema.is_object(), "{place}");
                // A body that may be left out may be `null` too.
                assert_eq!(body["required"] != true, schema["oneOf"][1]["type"] == "null", "{place}");
            }
        }
    }
    assert!(!linked.is_empty() && linked.is_subset(&ids), "{linked:?}");
    assert_refs_resolve(&document, &document);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in [
        "Register",
        "Login",
        "Refresh",
        "NewAccount",
        "AccountUpdate",
        "NewLimits",
        "Reason",
        "NewTransaction",
        "NewTransfer",
        "Completion",
        "NewBulk",
        "BulkTransfer",
        "NewHold",
        "Capture",
        "NewJournal",
        "NewLeg",
        "Reversal",
        "NewLedgerAccount",
    ] {
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
    }
    world.close().await;
}

fn assert_refs_resolve(document: &Value, part: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            }
            members.values().for_each(|member| assert_refs_resolve(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_refs_resolve(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn the_pages_load_everything_from_here() {
    let world = World::create().await;
    let anybody = world.client("acme");
    let redirect = anybody.get("/docs").send_unchecked().await;
    assert_eq!((redirect.status.as_u16(), redirect.headers["location"].to_str().unwrap()), (303, "/docs/"));
    for (path, media_type, contains) in [
        ("/docs/", "text/html", "swagger-ui"),
        ("/docs/swagger-initializer.js", "text/javascript", "/openapi.json"),
        ("/docs/swagger-ui-bundle.js", "text/javascript", "SwaggerUI"),
        ("/docs/swagger-ui.css", "text/css", ".swagger-ui"),
        ("/redoc", "text/html", "/redoc/redoc.standalone.js"),
        ("/redoc/redoc.standalone.js", "text/javascript", "Redoc"),
    ] {
        let page = anybody.get(path).send_unchecked().await;
        page.expect(200);
        assert!(page.headers["content-type"].to_str().unwrap().starts_with(media_type), "{path}");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("script-src 'self';") && !policy.contains("http"), "{policy}");
        let text = String::from_utf8_lossy(&page.bytes).into_owned();
        assert!(text.contains(contains), "{path}");
        if media_type == "text/html" {
            assert!(!text.contains("//cdn") && !text.contains("https://"), "{path}");
        }
    }
    world.close().await;
}
