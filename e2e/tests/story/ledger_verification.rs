//! The verification CronJob's pod really runs, and LedgerVerified follows from what it found.

use finaiflow_e2e::{BANKS, SYSTEM, Tenant, eventually, kubectl, psql, run};
use serde_json::{Value, json};

#[test]
fn a_tampered_balance_is_found_and_named() {
    let tenant = Tenant::ready("verify", &json!({}));
    assert_eq!(tenant.condition("LedgerVerified")["status"], "Unknown");
    let user = tenant.api().new_user();
    let account = user.open_account("USD");
    user.deposit(&account, 12_345, "USD");

    tenant.verify_ledger();
    let _ = tenant.wait("LedgerVerified", "True");
    let ledger = tenant.object()["status"]["ledger"].clone();
    assert_eq!(ledger["balanced"], true);
    let head = psql(&format!("select epoch, sequence, encode(hash, 'hex') from {}.ledger_head", tenant.schema()));
    assert_eq!(anchor(&ledger).replace(':', "|"), head);

    let tamper = |by: &str| {
        let sql = "update {s}.account_balances set posted = posted {by} where account_id = (select account_id from {s}.entries where posted_delta = 12345)";
        let _ = psql(&sql.replace("{s}", &tenant.schema()).replace("{by}", by));
    };
    tamper("+ 1");
    tenant.verify_ledger();
    let found = tenant.wait("LedgerVerified", "False");
    assert!(found["message"].as_str().unwrap().contains(&account), "{found}");
    assert_eq!(tenant.condition("Ready")["status"], "True", "verification never gates Ready");

    tamper("- 1");
    tenant.verify_ledger();
    let _ = tenant.wait("LedgerVerified", "True");
    tenant.delete();
}

fn anchor(ledger: &Value) -> String {
    format!("{}:{}:{}", ledger["epoch"], ledger["sequence"], ledger["hash"].as_str().unwrap_or_default())
}

/// Exit code and words of the program an auditor runs.
fn proven(export: &str, anchor: &str) -> (Option<i32>, String) {
    let program = ["-n", SYSTEM, "exec", "-i", "deployment/finaiflow-api", "--", "/usr/local/bin/finaiflow-api"];
    let arguments = ["audit-chain", "verify", "--export", "-", "--anchor", anchor];
    let output = run("kubectl", &[&program[..], &arguments[..]].concat(), export);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn history_written_anew_breaks_the_anchor_and_an_export_proves_it() {
    let tenant = Tenant::ready("chain", &json!({}));
    let user = tenant.api().new_user();
    let account = user.open_account("USD");
    user.deposit(&account, 500, "USD");
    user.deposit(&account, 700, "USD");
    tenant.verify_ledger();
    let _ = tenant.wait("LedgerVerified", "True");
    let anchor = anchor(&tenant.object()["status"]["ledger"]);

    let id = user.get("/api/v1/auth/profile").expect(200)["id"].clone();
    let staff = json!({"spec": {"staff": [{"user": id, "roles": ["Auditor"]}]}}).to_string();
    let _ = kubectl(&["-n", BANKS, "patch", "tenant", &tenant.name, "--type=merge", "-p", &staff]);
    let export = eventually(30, "an export", || {
        let answer = user.try_get("/api/v1/audit-chain/export")?;
        answer.body.as_str().map(str::to_owned).ok_or_else(|| answer.body.to_string())
    });
    assert!(proven(&export, &anchor).1.ends_with("anchors passed: 1\n"));
    let (code, said) = proven(&export.replace("\"amount\":500", "\"amount\":501"), &anchor);
    assert!(code == Some(1) && said.starts_with("journal 3: chain: "), "{code:?} {said}");

    // Another hash for the last journal and for the head, as after a change whose hashes were computed again.
    let write = |hash: &str| {
        let sql = "alter table {s}.journals disable trigger user;
            update {s}.journals set hash = decode('{hash}', 'hex') where sequence = (select sequence from {s}.ledger_head);
            update {s}.ledger_head set hash = decode('{hash}', 'hex'); alter table {s}.journals enable trigger user";
        let _ = psql(&sql.replace("{s}", &tenant.schema()).replace("{hash}", hash));
    };
    write(&"ab".repeat(32));
    tenant.verify_ledger();
    let found = tenant.wait("LedgerVerified", "False");
    assert_eq!(found["reason"], "AnchorBroken", "{found}");
    assert!(found["message"].as_str().unwrap().starts_with("journal 4 had hash "), "{found}");
    write(anchor.rsplit(':').next().unwrap());
    tenant.verify_ledger();
    let _ = tenant.wait("LedgerVerified", "True");
    tenant.delete();
}

#[test]
fn the_schedule_runs_by_itself() {
    let tenant = Tenant::ready("nightly", &json!({"ledgerVerification": {"schedule": "* * * * *"}}));
    eventually(100, "a scheduled verification", || {
        let condition = tenant.condition("LedgerVerified");
        if condition["status"] == "True" { Ok(()) } else { Err(condition.to_string()) }
    });
    tenant.delete();
}
