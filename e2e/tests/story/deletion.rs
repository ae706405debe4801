//! Deleting keeps what shall be kept, drops what was created, and never what was not.

use finaiflow_e2e::{BANKS, Tenant, apply, get, kubectl, psql, try_kubectl, unique};
use serde_json::json;

#[test]
fn retain_keeps_schema_data_and_keys() {
    let tenant = Tenant::ready("kept", &json!({"deletionPolicy": "Retain"}));
    let user = tenant.api().new_user();
    let account = user.open_account("USD");
    user.deposit(&account, 777, "USD");
    let (schema, claim) = (tenant.schema(), tenant.object()["status"]["claimID"].as_str().unwrap().to_owned());
    let key = finaiflow_e2e::secret(BANKS, &format!("{}.signing-keys", tenant.name), "keys.json");

    tenant.delete();
    assert_eq!(psql(&format!("select sum(posted) from {schema}.account_balances where posted > 0")), "777");
    assert_eq!(key, finaiflow_e2e::secret(BANKS, &format!("{}.signing-keys", tenant.name), "keys.json"));
    assert!(get(BANKS, "secret", &format!("{}.data-key", tenant.name)).is_some());
    assert_eq!(psql(&format!("select state from finaiflow_system.claims where claim_id = '{claim}'")), "released");
    assert_eq!(psql(&format!("select count(*) from pg_roles where rolname like 'ff_{claim}_%' and rolcanlogin")), "0");
    finaiflow_e2e::eventually(30, "children of the Tenant are collected", || {
        let name = format!("{}.database", tenant.name);
        get(BANKS, "secret", &name).map_or(Ok(()), |_| Err(format!("{name} still exists")))
    });
    tenant.api().get("/api/v1/auth/profile").expect_problem(404, "tenant-not-found");
}

#[test]
fn a_retained_bank_is_back_when_its_tenant_is() {
    let spec = json!({"deletionPolicy": "Retain"});
    let tenant = Tenant::ready("phoenix", &spec);
    let user = tenant.api().new_user();
    let account = user.open_account("EUR");
    user.deposit(&account, 4_200, "EUR");
    let (schema, claim) = (tenant.schema(), tenant.object()["status"]["claimID"].clone());

    tenant.delete();
    let _ = apply(&Tenant::manifest(&tenant.name, &spec)).unwrap();
    let _ = tenant.wait("Ready", "True");
    assert_eq!((tenant.schema(), &tenant.object()["status"]["claimID"]), (schema, &claim));
    // The same user, by the token that the same keys signed before, on the same account.
    assert_eq!(user.balance(&account), 4_200);
    user.deposit(&account, 1, "EUR");
    assert_eq!(user.balance(&account), 4_201);

    // The bank is gone for good only when somebody says so, and is not protected.
    let patch = |spec: serde_json::Value| {
        let patch = json!({"spec": spec}).to_string();
        let _ = kubectl(&["-n", BANKS, "patch", "tenant", &tenant.name, "--type=merge", "-p", &patch]);
    };
    patch(json!({"deletionPolicy": "Delete", "deletionProtection": true}));
    let refused = try_kubectl(&["-n", BANKS, "delete", "tenant", &tenant.name]).unwrap_err();
    assert!(refused.contains("is protected from deletion; to lift that: kubectl -n banks patch tenant"), "{refused}");
    patch(json!({"deletionProtection": false}));
    tenant.delete();
    let claim = claim.as_str().unwrap();
    assert_eq!(psql(&format!("select state from finaiflow_system.claims where claim_id = '{claim}'")), "dropped");
}

#[test]
fn delete_drops_exactly_what_was_created() {
    let everything = "select 'schema', nspname from pg_namespace where nspname like 't\\_%' or nspname like 'mine\\_%'
        union all select 'role', rolname from pg_roles where rolname like 'ff\\_%' order by 1, 2";
    let bystander = format!("mine_{}", unique());
    let _ = psql(&format!("create schema {bystander}; create table {bystander}.t (id int)"));
    let tenant = Tenant::ready("dropped", &json!({"deletionPolicy": "Delete"}));
    let (schema, claim) = (tenant.schema(), tenant.object()["status"]["claimID"].as_str().unwrap().to_owned());
    let ours = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|l| l.contains(&schema) || l.contains(&claim) || l.contains(&bystander))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(ours(&psql(everything)).len(), 8, "schema, six roles and the bystander");
    // An open session must not hold up the deletion.
    let user = tenant.api().new_user();
    let _ = user.open_account("USD");

    tenant.delete();
    assert_eq!(ours(&psql(everything)), [format!("schema|{bystander}")]);
    assert_eq!(psql(&format!("select count(*) from {bystander}.t")), "0");
    let left = kubectl(&["-n", BANKS, "get", "secret,cronjob,role,rolebinding,networkpolicy", "-o", "name"]);
    let left: Vec<_> = left.lines().filter(|l| l.contains(&format!("/{}", tenant.name))).collect();
    // What is owned by the Tenant is collected in the background; the keys have no owner and must be gone already.
    assert!(!left.iter().any(|l| l.ends_with(".data-key") || l.ends_with(".signing-keys")), "{left:?}");
    let _ = psql(&format!("drop schema {bystander} cascade"));
}

#[test]
fn a_foreign_schema_is_never_taken() {
    let schema = format!("foreign_{}", unique());
    let _ = psql(&format!("create schema {schema}; create table {schema}.precious as select 42 as answer"));
    let tenant = Tenant { name: format!("greedy-{}", unique()) };
    let _ = apply(&Tenant::manifest(&tenant.name, &json!({"schemaName": schema}))).unwrap();
    let stalled = tenant.wait("Stalled", "True");
    assert_eq!(stalled["reason"], "SchemaConflict");
    assert!(stalled["message"].as_str().unwrap().contains("postgres"), "the owner is named: {stalled}");
    let _ = tenant.wait("Ready", "False");
    tenant.delete();
    assert_eq!(psql(&format!("select answer from {schema}.precious")), "42");
    let _ = psql(&format!("drop schema {schema} cascade"));
}

#[test]
fn a_schema_of_another_tenant_is_never_taken() {
    let schema = format!("shared_{}", unique());
    let first = Tenant::ready("first", &json!({"schemaName": schema}));
    let second = Tenant { name: format!("second-{}", unique()) };
    let _ = apply(&Tenant::manifest(&second.name, &json!({"schemaName": schema}))).unwrap();
    let stalled = second.wait("Stalled", "True");
    assert_eq!(stalled["reason"], "SchemaConflict");
    assert!(stalled["message"].as_str().unwrap().contains(&format!("{BANKS}/{}", first.name)), "{stalled}");
    second.delete();
    assert_eq!(first.condition("Ready")["status"], "True");
    assert_eq!(psql(&format!("select count(*) from pg_namespace where nspname = '{schema}'")), "1");
    first.delete();
}
