//! The operator killed at random during a first reconcile converges.

use std::{thread, time::Duration};

use finaiflow_e2e::{BANKS, SYSTEM, Tenant, apply, eventually, kubectl, psql, try_kubectl, unique};
use serde_json::json;

#[test]
fn an_operator_killed_during_first_reconciles_converges() {
    let tenants: Vec<_> = (0..6).map(|_| Tenant { name: format!("crash-{}", unique()) }).collect();
    for (i, tenant) in tenants.iter().enumerate() {
        let _ = apply(&Tenant::manifest(&tenant.name, &json!({}))).unwrap();
        let pause = u64::from_str_radix(&unique()[..4], 16).unwrap() % 400;
        thread::sleep(Duration::from_millis(pause));
        if i % 2 == 0 {
            let selector = "app.kubernetes.io/name=finaiflow-operator";
            let _ = try_kubectl(&["-n", SYSTEM, "delete", "pod", "-l", selector, "--grace-period=0", "--force"]);
        }
    }
    for tenant in &tenants {
        eventually(120, "Ready after the kills", || {
            let ready = tenant.condition("Ready");
            if ready["status"] == "True" { Ok(()) } else { Err(ready.to_string()) }
        });
        let claims = format!(
            "select count(*) from finaiflow_system.claims where name = '{}' and state <> 'dropped'",
            tenant.name
        );
        assert_eq!(psql(&claims), "1", "one claim");
        let _ = tenant.api().new_user().open_account("USD");
    }
    let orphans = psql(
        "select rolname from pg_roles r where rolname ~ '^ff_[0-9a-f]{16}_' and not exists
         (select from finaiflow_system.claims c where c.state <> 'dropped' and r.rolname like 'ff_' || c.claim_id || '_%')",
    );
    assert_eq!(orphans, "", "no orphan role");
    for tenant in &tenants {
        let versions: Vec<String> = (0..2).map(|_| version(tenant)).collect();
        assert_eq!(versions[0], versions[1], "a settled Tenant is not written again");
        tenant.delete();
    }
}

fn version(tenant: &Tenant) -> String {
    thread::sleep(Duration::from_millis(500));
    kubectl(&["-n", BANKS, "get", "tenant", &tenant.name, "-o", "jsonpath={.metadata.resourceVersion}"])
}
