//! The verification CronJob's pod really runs, and LedgerVerified follows from what it found.

use finaiflow_e2e::{Tenant, psql};
use serde_json::json;

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
    assert_eq!(ledger["sequence"].to_string(), psql(&format!("select sequence from {}.ledger_head", tenant.schema())));

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

#[test]
fn the_schedule_runs_by_itself() {
    let tenant = Tenant::ready("nightly", &json!({"ledgerVerification": {"schedule": "* * * * *"}}));
    finaiflow_e2e::eventually(100, "a scheduled verification", || {
        let condition = tenant.condition("LedgerVerified");
        if condition["status"] == "True" { Ok(()) } else { Err(condition.to_string()) }
    });
    tenant.delete();
}
