//! The pages that show the API, as a developer sees them: in a browser, on a network with nothing but the API server.

use finaiflow_e2e::{Tenant, browser::Browser, unique};
use serde_json::json;

#[test]
fn swagger_ui_tries_calls_out() {
    let tenant = Tenant::ready("browser", &json!({"displayName": "Browser Bank"}));
    let email = format!("{}@example.com", unique());
    let credentials = json!({"email": email, "password": "correct horse battery staple"});
    let mut register = credentials.clone();
    register["name"] = json!("Ada");
    let _ = tenant.api().post("/api/v1/auth/register", &register).expect(201);
    let tokens = tenant.api().post("/api/v1/auth/login", &credentials).expect(200);

    let browser = browser();
    browser.open("/docs/");
    let info = try_out(&browser, "operations-system-info", &tenant, "200");
    assert!(info.contains("\"display_name\": \"Browser Bank\""), "{info}");

    browser.click(".auth-wrapper > .authorize");
    browser.type_into(".auth-container input", tokens["access_token"].as_str().unwrap());
    browser.click(".auth-container .authorize");
    browser.click(".auth-container .btn-done");
    let profile = try_out(&browser, "operations-auth-profile", &tenant, "200");
    assert!(profile.contains(&email), "{profile}");
    // A write, with the example that the page offers as it is.
    let account = try_out(&browser, "operations-accounts-open_account", &tenant, "201");
    assert!(account.contains("\"name\": \"Everyday\""), "{account}");

    assert_undisturbed(&browser);
    tenant.delete();
}

#[test]
fn redoc_shows_every_operation() {
    let browser = browser();
    browser.open("/redoc");
    let document = Tenant { name: "none".to_owned() }.api().get("/openapi.json").expect(200);
    for operation in document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        let summary = operation["summary"].as_str().unwrap();
        let _ = browser.text("body", |page| page.contains(summary));
    }
    assert_undisturbed(&browser);
}

fn browser() -> Browser {
    Browser::confined_to(&std::env::var("FINAIFLOW_URL").unwrap())
}

/// Opens an operation, fills in the tenant, executes the call, and returns the body of its answer.
fn try_out(browser: &Browser, operation: &str, tenant: &Tenant, status: &str) -> String {
    let within = |selector: &str| format!("#{operation} {selector}");
    browser.click(&within(".opblock-summary-control"));
    browser.click(&within(".try-out__btn"));
    browser.type_into(&within("tr[data-param-name='X-Tenant-ID'] input"), &tenant.name);
    browser.click(&within(".execute"));
    let shown =
        browser.text(&within(".live-responses-table tr.response .response-col_status"), |text| !text.is_empty());
    let body =
        browser.text(&within(".live-responses-table tr.response .response-col_description"), |text| text.contains('}'));
    assert!(shown.starts_with(status), "{shown}: {body}");
    body
}

/// Nothing was asked of anybody else, and nothing was missing.
fn assert_undisturbed(browser: &Browser) {
    let server = format!("{}/", std::env::var("FINAIFLOW_URL").unwrap());
    let requested = browser.requested();
    assert!(requested.iter().any(|url| url.ends_with("/openapi.json")), "{requested:?}");
    let elsewhere: Vec<_> =
        requested.iter().filter(|url| !url.starts_with(&server) && !url.starts_with("data:")).collect();
    assert_eq!(elsewhere, [""; 0], "asked of somebody else");
    assert_eq!(browser.complaints(), [""; 0]);
}
