//! Whatever it is asked, the API answers as its OpenAPI document says. schemathesis asks, with its examples, coverage,
//! fuzzing and stateful phases; `contract/` holds its configuration and what is checked beyond the document.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use finaiflow_e2e::{Api, BANKS, Tenant, eventually, kubectl, unique};
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

/// What operations settle for good: some of each, so that each is met by one that it fits.
struct Stock {
    spares: Vec<String>,
    frozen: Vec<String>,
    transfers: Vec<String>,
    pending: Vec<String>,
    holds: Vec<String>,
    journals: Vec<String>,
}

impl Stock {
    fn lay_in(user: &Api, accounts: &[String; 3]) -> Self {
        let [from, to, _] = accounts;
        let make = |path: &str, body: &Value| {
            let made = user.write(path, &unique(), body).expect(201);
            made["id"].as_str().unwrap().to_owned()
        };
        let transfer = json!({"from_account_id": from, "to_account_id": to, "amount": 1000, "currency": "USD"});
        let mut pending = transfer.clone();
        pending["pending"] = json!(true);
        let hold = json!({"account_id": from, "amount": 1000, "currency": "USD"});
        let legs = json!([{"account_id": from, "amount": -1000}, {"account_id": to, "amount": 1000}]);
        let journal = json!({"currency": "USD", "legs": legs});
        let frozen: Vec<_> = (0..20).map(|_| user.open_account("USD")).collect();
        for account in &frozen {
            let path = format!("/api/v1/accounts/{account}/freeze");
            let _ = user.write(&path, &unique(), &json!({})).expect(200);
        }
        Self {
            spares: (0..40).map(|_| user.open_account("USD")).collect(),
            frozen,
            transfers: (0..20).map(|_| make("/api/v1/transfers", &transfer)).collect(),
            pending: (0..40).map(|_| make("/api/v1/transfers", &pending)).collect(),
            holds: (0..40).map(|_| make("/api/v1/holds", &hold)).collect(),
            journals: (0..20).map(|_| make("/api/v1/journals", &journal)).collect(),
        }
    }
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
    let id = user.get("/api/v1/auth/profile").expect(200)["id"].as_str().unwrap().to_owned();
    let staff = json!({"spec": {"staff": [{"user": id, "roles": ["Teller"]}]}}).to_string();
    let _ = kubectl(&["-n", BANKS, "patch", "tenant", &tenant.name, "--type=merge", "-p", &staff]);
    eventually(60, "the user is a teller", || {
        let answer = user.get("/api/v1/trial-balance");
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    });
    let stock = Stock::lay_in(&user, &accounts);

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
        ("SPARES", &stock.spares.join(" ")),
        ("FROZEN", &stock.frozen.join(" ")),
        ("TRANSFERS", &stock.transfers.join(" ")),
        ("PENDING", &stock.pending.join(" ")),
        ("HOLDS", &stock.holds.join(" ")),
        ("JOURNALS", &stock.journals.join(" ")),
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
