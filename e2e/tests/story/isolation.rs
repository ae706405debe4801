//! A tenant's login reaches its own schema; the API server has no other way in.

use finaiflow_e2e::{BANKS, SYSTEM, Tenant, psql_as, run, secret, try_kubectl};
use serde_json::json;

#[test]
fn a_login_reaches_only_its_own_schema() {
    let (a, b) = (Tenant::ready("left", &json!({})), Tenant::ready("right", &json!({})));
    let url = secret(BANKS, &format!("{}.database", a.name), "DATABASE_URL");
    let jobs = secret(BANKS, &format!("{}.maintenance-database", a.name), "DATABASE_URL");
    let (own, other) = (a.schema(), b.schema());

    assert_eq!(psql_as(&url, "select count(*) from users").unwrap(), "0");
    for sql in [
        format!("select * from {other}.users"),
        format!("select * from {other}.account_balances"),
        "select * from finaiflow_system.claims".to_owned(),
        format!("update {own}.account_balances set posted = 1"),
        format!("insert into {own}.entries select * from {own}.entries"),
        format!("delete from {own}.journals"),
        format!("create table {own}.mine (id int)"),
        "create table public.mine (id int)".to_owned(),
        "create temp table mine (id int)".to_owned(),
        "create schema mine".to_owned(),
    ] {
        let refusal = psql_as(&url, &sql).unwrap_err();
        assert!(refusal.contains("permission denied"), "{sql}: {refusal}");
    }
    let refusal = psql_as(&jobs, "select * from users").unwrap_err();
    assert!(refusal.contains("permission denied"), "{refusal}");
    assert_eq!(psql_as(&jobs, "select count(*) from entries").unwrap(), "0");
    a.delete();
    b.delete();
}

#[test]
fn the_api_server_may_read_exactly_the_secrets_it_serves_with() {
    let tenant = Tenant::ready("rbac", &json!({}));
    let user = format!("--as=system:serviceaccount:{SYSTEM}:finaiflow-api");
    let can = |verb: &str, what: &str, namespace: &str| {
        let args = ["auth", "can-i", verb, what, "-n", namespace, &user];
        try_kubectl(&args).is_ok_and(|out| out.trim() == "yes")
    };
    for purpose in ["database", "signing-keys", "data-key"] {
        assert!(can("get", &format!("secret/{}.{purpose}", tenant.name), BANKS), "{purpose}");
    }
    assert!(!can("get", &format!("secret/{}.maintenance-database", tenant.name), BANKS));
    assert!(!can("list", "secrets", BANKS));
    assert!(!can("get", "secret/finaiflow-postgres-admin", SYSTEM));
    assert!(!can("patch", "tenants", BANKS));
    assert!(!can("create", "pods", BANKS));
    tenant.delete();
}

#[test]
fn both_programs_have_the_rights_they_need_and_no_others() {
    let output = run(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/rbac-check.sh"), &[], "");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
