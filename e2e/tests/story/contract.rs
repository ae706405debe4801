//! Whatever it is asked, the API answers as its OpenAPI document says. schemathesis asks, with its examples, coverage,
//! fuzzing and stateful phases; `contract/` holds its configuration and what is checked beyond the document.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use finaiflow_e2e::{Tenant, unique};
use serde_json::{Value, json};

/// Requests per operation in the fuzzing and stateful phases each; the others follow from the document.
const EXAMPLES: &str = "20";
const SEED: &str = "20260301";
/// On a quiet machine a run takes half a minute; this is for a busy one.
const DEADLINE: &str = "900";
const PASSWORD: &str = "correct horse battery staple";

type Answers = BTreeMap<String, BTreeMap<u16, u64>>;

#[test]
fn anonymous_requests_are_answered_as_documented() {
    let tenant = Tenant::ready("contract", &json!({}));
    let (document, answers) = run(&tenant, "anonymous");
    for (operation, description) in operations(&document) {
        let statuses: Vec<_> = answers[&operation].keys().copied().collect();
        if description.get("security").is_some() {
            assert_eq!(statuses, [401], "{operation} is for signed-in users");
        } else {
            assert_succeeded(&operation, description, &statuses);
        }
    }
    tenant.delete();
}

#[test]
fn a_users_requests_are_answered_as_documented() {
    let tenant = Tenant::ready("contract", &json!({}));
    let (document, answers) = run(&tenant, "user");
    for (operation, description) in operations(&document) {
        let statuses: Vec<_> = answers[&operation].keys().copied().collect();
        assert_succeeded(&operation, description, &statuses);
    }
    tenant.delete();
}

/// A run that only ever got errors would have checked little.
fn assert_succeeded(operation: &str, description: &Value, statuses: &[u16]) {
    let responses = description["responses"].as_object().unwrap();
    for success in responses.keys().filter(|status| status.starts_with('2')) {
        assert!(statuses.contains(&success.parse().unwrap()), "{operation} was never answered {success}: {statuses:?}");
    }
}

fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap();
        methods.iter().map(move |(method, operation)| (format!("{} {path}", method.to_uppercase()), operation))
    })
}

/// Has schemathesis try every operation as `caller`; returns the document and how often each operation got which status.
fn run(tenant: &Tenant, caller: &str) -> (Value, Answers) {
    let api = tenant.api();
    let email = format!("{}@example.com", unique());
    let _ =
        api.post("/api/v1/auth/register", &json!({"email": email, "password": PASSWORD, "name": "Ada"})).expect(201);
    let tokens = api.post("/api/v1/auth/login", &json!({"email": email, "password": PASSWORD})).expect(200);
    let user = api.with_token(tokens["access_token"].as_str().unwrap());
    let accounts = [(); 3].map(|()| user.open_account("USD"));
    for account in &accounts {
        user.deposit(account, 1_000_000_000, "USD");
    }

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("contract-{caller}"));
    fs::create_dir_all(&directory).unwrap();
    for file in ["hooks.py", "schemathesis.toml"] {
        let _ = fs::copy(source.join(file), directory.join(file)).unwrap();
    }
    let url = std::env::var("FINAIFLOW_URL").unwrap();
    let environment = [
        ("CALLER", caller),
        ("TENANT", &tenant.name),
        ("EMAIL", &email),
        ("PASSWORD", PASSWORD),
        ("ACCOUNTS", &accounts.join(" ")),
    ];
    let output = Command::new("timeout")
        .arg(DEADLINE)
        .arg(source.join("schemathesis.sh"))
        .args(["--no-color", "run", &format!("{url}/openapi.json"), "--request-timeout", "60"])
        .args(["--seed", SEED, "--max-examples", EXAMPLES])
        .current_dir(&directory)
        .envs(environment)
        .output()
        .unwrap();
    let Output { status, stdout, stderr } = output;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "schemathesis as {caller}: {status}\n{stdout}{stderr}");
    let answers = fs::read_to_string(directory.join("answers.json")).unwrap();
    (api.get("/openapi.json").expect(200), serde_json::from_str(&answers).unwrap())
}
