//! A Tenant becomes a schema, roles, Secrets and a CronJob, and its status says what psql says.

use finaiflow_e2e::{BANKS, Tenant, apply, eventually, kubectl, psql};
use serde_json::json;

#[test]
fn the_sample_becomes_ready_within_a_minute() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples/tenant.yaml");
    let _ = kubectl(&["apply", "-f", sample]);
    let _ = kubectl(&["-n", BANKS, "wait", "--for=condition=Ready", "tenant/acme", "--timeout=60s"]);

    let table = kubectl(&["get", "tenants", "-A"]);
    let header = table.lines().next().unwrap();
    for column in ["NAMESPACE", "NAME", "READY", "REASON", "SCHEMA", "VERSION", "LEDGER", "TIER", "AGE"] {
        assert!(header.contains(column), "{column} missing in {header}");
    }
    assert!(table.lines().any(|l| l.contains("acme") && l.contains("True") && l.contains("t_acme_")), "{table}");
    assert!(kubectl(&["get", "tnt", "-n", BANKS]).contains("acme"), "the short name works");
    assert!(kubectl(&["get", "finaiflow", "-n", BANKS]).contains("acme"), "the category works");
}

#[test]
fn status_matches_what_psql_shows() {
    let tenant = Tenant::ready("status", &json!({"displayName": "Status Bank"}));
    let object = tenant.object();
    let status = &object["status"];
    let (claim, schema) = (status["claimID"].as_str().unwrap(), tenant.schema());
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);

    assert_eq!(
        psql(&format!("select nspname, nspowner::regrole from pg_namespace where nspname = '{schema}'")),
        format!("{schema}|ff_{claim}_owner")
    );
    assert_eq!(
        psql(&format!("select max(version) from {schema}.schema_migrations")),
        status["schema"]["version"].as_i64().unwrap().to_string()
    );
    let roles =
        psql(&format!("select rolname, rolcanlogin from pg_roles where rolname like 'ff_{claim}_%' order by 1"));
    assert_eq!(
        roles.lines().collect::<Vec<_>>(),
        [
            format!("ff_{claim}_app|f"),
            format!("ff_{claim}_app_a|t"),
            format!("ff_{claim}_app_b|f"),
            format!("ff_{claim}_backup|t"),
            format!("ff_{claim}_maintenance|t"),
            format!("ff_{claim}_owner|f"),
        ]
    );
    for secret in status["secrets"].as_array().unwrap() {
        let name = secret["name"].as_str().unwrap();
        let kind = kubectl(&["-n", BANKS, "get", "secret", name, "-o", "jsonpath={.type}"]);
        assert_eq!(kind, format!("finaiflow.io/{}", secret["purpose"].as_str().unwrap()));
    }
    assert_eq!(status["secrets"].as_array().unwrap().len(), 5);
    let _ = kubectl(&["-n", BANKS, "get", "cronjob", &format!("{}-verify", tenant.name)]);
    tenant.delete();
}

#[test]
fn events_tell_the_story_and_carry_no_secret() {
    let tenant = Tenant::ready("events", &json!({}));
    let field = format!("--field-selector=involvedObject.name={}", tenant.name);
    let reasons = eventually(20, "events", || {
        let text = kubectl(&[
            "-n",
            BANKS,
            "get",
            "events",
            &field,
            "-o",
            "jsonpath={range .items[*]}{.reason}: {.message}{\"\\n\"}{end}",
        ]);
        let all = ["Claimed", "Provisioned", "Migrated", "CredentialsCreated", "Ready"];
        let missing: Vec<_> = all.iter().filter(|r| !text.contains(&format!("{r}: "))).collect();
        if missing.is_empty() { Ok(text) } else { Err(format!("no {missing:?} in {text}")) }
    });
    let password = finaiflow_e2e::secret(BANKS, &format!("{}.database", tenant.name), "password");
    let log = kubectl(&["-n", finaiflow_e2e::SYSTEM, "logs", "deployment/finaiflow-operator", "--tail=-1"]);
    for (place, text) in [("events", &reasons), ("status", &tenant.object()["status"].to_string()), ("log", &log)] {
        assert!(!text.contains(&password), "the password is in the {place}");
    }
    tenant.delete();
}

#[test]
fn invalid_yaml_is_refused_with_the_field_named() {
    for (spec, field) in [
        (json!({"schemaName": "Robert'); DROP"}), "spec.schemaName"),
        (json!({"limits": {"connections": 0}}), "spec.limits.connections"),
        (json!({"deletionPolicy": "Maybe"}), "spec.deletionPolicy"),
        (json!({"shcemaName": "typo"}), "shcemaName"),
    ] {
        let refusal = apply(&Tenant::manifest("refused", &spec)).unwrap_err();
        assert!(refusal.contains(field), "{refusal}");
    }
}

#[test]
fn drift_is_repaired() {
    let tenant = Tenant::ready("drift", &json!({}));
    let cron_job = format!("{}-verify", tenant.name);
    let _ = kubectl(&["-n", BANKS, "delete", "cronjob", &cron_job]);
    eventually(30, "the CronJob is made again", || {
        finaiflow_e2e::get(BANKS, "cronjob", &cron_job).ok_or_else(|| "absent".to_owned())
    });
    let secret = format!("{}.database", tenant.name);
    let before = finaiflow_e2e::secret(BANKS, &secret, "password");
    let user = tenant.api().new_user();
    let _ = kubectl(&["-n", BANKS, "delete", "secret", &secret]);
    eventually(30, "the Secret is made again", || {
        finaiflow_e2e::get(BANKS, "secret", &secret).map(|_| ()).ok_or_else(|| "absent".to_owned())
    });
    assert_ne!(before, finaiflow_e2e::secret(BANKS, &secret, "password"));
    eventually(30, "the API server serves with the new login", || {
        let answer = user.get("/api/v1/accounts");
        if answer.status == 200 { Ok(()) } else { Err(answer.body.to_string()) }
    });
    tenant.delete();
}
