//! Upgrade and rollback, and even uninstalling FinaiFlow, leave the banks as they are. This is a program of its own, as
//! for a moment it takes the API server away from everyone.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use finaiflow_e2e::{Api, BANKS, SYSTEM, Tenant, eventually, get, kubectl, run, secret, unique};
use serde_json::{Value, json};

const CHARTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts");
const CRD: &str = "tenants.finaiflow.io";

fn helm(args: &[&str], input: &str) -> String {
    let output = run("helm", &[args, &["-n", SYSTEM]].concat(), input);
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A bank with money in it, and what must not change.
struct Bank {
    tenant: Tenant,
    user: Api,
    account: String,
    deposit: (String, Value),
    identity: Vec<String>,
}

impl Bank {
    fn open() -> Self {
        let tenant = Tenant::ready("upgrade", &json!({"limits": {"connections": 5}}));
        let user = tenant.api().new_user();
        let account = user.open_account("EUR");
        let deposit = (unique(), json!({"amount": 12_345, "currency": "EUR"}));
        let _ = user.write(&format!("/api/v1/accounts/{account}/deposit"), &deposit.0, &deposit.1).expect(201);
        let identity = identity(&tenant);
        Self { tenant, user, account, deposit, identity }
    }

    /// The same bank: same object, claim, schema, logins and keys.
    fn assert_same(&self) {
        assert_eq!(identity(&self.tenant), self.identity);
        assert_eq!(self.tenant.object()["metadata"].get("deletionTimestamp"), None);
        assert!(get("default", "crd", CRD).is_some(), "the definition is gone");
    }

    /// The same bank, and its customer finds it open: the session of before is good, no money is lost or doubled.
    fn assert_served(&self) {
        let _ = self.tenant.wait("Ready", "True");
        // Ready pods come before the node's rules for the port that leads to them.
        let url = format!("{}/readyz", std::env::var("FINAIFLOW_URL").unwrap());
        let retry = ["--retry", "60", "--retry-delay", "1", "--retry-all-errors", "--max-time", "5"];
        assert!(run("curl", &[&["-sf", "-o", "/dev/null", &url], &retry[..]].concat(), "").status.success(), "{url}");
        let path = format!("/api/v1/accounts/{}", self.account);
        let balance = eventually(60, "the balance is told", || {
            let answer = self.user.get(&format!("{path}/balance"));
            if answer.status == 200 { Ok(answer.body) } else { Err(answer.body.to_string()) }
        });
        assert_eq!(balance["balance"], 12_345);
        let _ = self.user.write(&format!("{path}/deposit"), &self.deposit.0, &self.deposit.1).expect(201);
        assert_eq!(self.user.balance(&self.account), 12_345, "a repeated deposit is the same deposit");
        self.assert_same();
    }
}

fn identity(tenant: &Tenant) -> Vec<String> {
    let object = tenant.object();
    let mut all = vec![object["metadata"]["uid"].to_string(), object["status"]["claimID"].to_string(), tenant.schema()];
    all.push(secret(BANKS, &format!("{}.database", tenant.name), "DATABASE_URL"));
    all.push(secret(BANKS, &format!("{}.signing-keys", tenant.name), "keys.json"));
    all.push(kubectl(&["-n", BANKS, "get", "secret", &format!("{}.data-key", tenant.name), "-o", "jsonpath={.data}"]));
    all.push(secret(SYSTEM, "finaiflow-postgres-admin", "password"));
    all
}

/// The operator is at work: what is declared now becomes true.
fn assert_reconciled(tenant: &Tenant, connections: u32) {
    let spec = format!(r#"{{"spec":{{"limits":{{"connections":{connections}}}}}}}"#);
    let _ = kubectl(&["-n", BANKS, "patch", "tenant", &tenant.name, "--type=merge", "-p", &spec]);
    eventually(60, "the new limit is reconciled", || {
        let object = tenant.object();
        let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        if seen { Ok(()) } else { Err(object["status"].to_string()) }
    });
    let _ = tenant.wait("Ready", "True");
}

fn replicas() -> String {
    kubectl(&["-n", SYSTEM, "get", "deployment", "finaiflow-api", "-o", "jsonpath={.spec.replicas}"])
}

#[test]
fn upgrade_rollback_and_reinstallation_keep_the_banks() {
    let (chart, definitions) = (format!("{CHARTS}/finaiflow"), format!("{CHARTS}/finaiflow-crds"));
    let status: Value = serde_json::from_str(&helm(&["status", "finaiflow", "-o", "json"], "")).unwrap();
    let (revision, values) = (status["version"].to_string(), helm(&["get", "values", "finaiflow", "-o", "json"], ""));
    let wait = ["--wait", "--timeout", "300s"];
    let before = replicas();
    let bank = Bank::open();

    let changed = "apiServer.replicas=3,apiServer.connectionBudget=30,operator.log=debug,redis.enabled=false";
    let _ = helm(&["upgrade", "finaiflow-crds", &definitions, "--wait"], "");
    let upgrade = ["upgrade", "finaiflow", &chart, "--values", "-", "--set", changed];
    let _ = helm(&[&upgrade[..], &wait].concat(), &values);
    assert_eq!(replicas(), "3");
    bank.assert_served();
    assert_reconciled(&bank.tenant, 6);

    let _ = helm(&[&["rollback", "finaiflow", &revision], &wait[..]].concat(), "");
    assert_eq!(replicas(), before);
    bank.assert_served();
    assert_reconciled(&bank.tenant, 7);

    let _ = helm(&[&["uninstall", "finaiflow"], &wait[..]].concat(), "");
    let _ = helm(&[&["uninstall", "finaiflow-crds"], &wait[..]].concat(), "");
    bank.assert_same();

    let _ = helm(&["install", "finaiflow-crds", &definitions, "--wait"], "");
    let _ = helm(&[&["install", "finaiflow", &chart, "--values", "-"], &wait[..]].concat(), &values);
    bank.assert_served();
    assert_reconciled(&bank.tenant, 8);
    bank.tenant.delete();
}
