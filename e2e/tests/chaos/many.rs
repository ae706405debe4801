//! Many Tenants applied at once become banks, by an operator that stays within its memory.

use finaiflow_e2e::{BANKS, Tenant, apply, eventually, kubectl, operator_metric, psql, unique};
use serde_json::{Value, json};

use crate::alone;
use crate::disturb::{OPERATOR, containers, pods};

const TENANTS: usize = 40;

#[test]
fn many_tenants_at_once_become_ready_and_go() {
    let _alone = alone();
    let prefix = format!("many-{}", unique());
    let mut items: Vec<_> =
        (0..TENANTS).map(|number| Tenant::manifest(&format!("{prefix}-{number}"), &json!({}))).collect();
    for item in &mut items {
        item["metadata"]["labels"] = json!({"many": prefix});
    }
    let operators = containers(OPERATOR);
    let _ = apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).unwrap();
    let label = format!("many={prefix}");
    let _ = kubectl(&["-n", BANKS, "wait", "--for=condition=Ready", "tenant", "-l", &label, "--timeout=300s"]);

    let claims = format!(
        "select count(distinct schema_name) from finaiflow_system.claims where name like '{prefix}-%' and state = 'active'"
    );
    assert_eq!(psql(&claims), TENANTS.to_string());
    let last = Tenant { name: format!("{prefix}-{}", TENANTS - 1) };
    let user = last.api().new_user();
    let account = user.open_account("USD");
    user.deposit(&account, 1, "USD");
    assert_eq!(user.balance(&account), 1);
    assert_eq!(containers(OPERATOR), operators, "the operator was started again");
    let (peak, limit) = (operator_metric("process_resident_memory_peak_bytes").unwrap(), memory_limit());
    assert!(peak < limit / 2.0, "the operator took {peak} bytes of the {limit} it may have");

    let _ = kubectl(&["-n", BANKS, "delete", "tenant", "-l", &label, "--timeout=300s"]);
    let left = format!(
        "select count(*) from finaiflow_system.claims c where name like '{prefix}-%' and (state <> 'dropped'
         or exists (select from pg_roles where rolname like 'ff_' || claim_id || '_%')
         or exists (select from pg_namespace where nspname = schema_name))"
    );
    eventually(10, "nothing is left in PostgreSQL", || {
        let left = psql(&left);
        if left == "0" { Ok(()) } else { Err(left) }
    });
    assert_eq!(containers(OPERATOR), operators, "the operator was started again");
}

fn memory_limit() -> f64 {
    let pods = pods(OPERATOR);
    let limit: &Value = &pods[0]["spec"]["containers"][0]["resources"]["limits"]["memory"];
    limit.as_str().unwrap().strip_suffix("Mi").unwrap().parse::<f64>().unwrap() * 1024.0 * 1024.0
}
