//! A RateLimitPolicy is in force when its status says so, and its status says which of two counts.

use finaiflow_e2e::{Api, BANKS, Tenant, apply, eventually, get, kubectl, unique};
use serde_json::{Value, json};

/// The word that `kubectl` knows policies by.
const KIND: &str = "ratelimitpolicy";
const DAY: u32 = 86_400;

fn declare(name: &str, tenant: &Tenant, limits: &Value) {
    let targets = json!([{"kind": "Tenant", "name": tenant.name}]);
    let policy = json!({
        "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": BANKS}, "spec": {"targetRefs": targets, "limits": limits},
    });
    apply(&policy).unwrap();
}

fn info(requests: u32, period: u32) -> Value {
    let matches = json!({"paths": [{"type": "Exact", "value": "/api/v1/info"}]});
    json!([{"name": "info", "rates": [{"requests": requests, "periodSeconds": period}], "match": matches}])
}

/// The status once it is that of the policy as it is and the condition is as wanted.
fn wait(name: &str, kind: &str, status: &str) -> Value {
    eventually(30, &format!("{name} {kind}={status}"), || {
        let policy = get(BANKS, KIND, name).unwrap();
        let now = &policy["status"];
        let current = now["observedGeneration"] == policy["metadata"]["generation"];
        let condition = condition(now, kind);
        if current && condition["status"] == status { Ok(now.clone()) } else { Err(now.to_string()) }
    })
}

fn condition(status: &Value, kind: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

/// How many of so many requests are admitted; the others are refused for want of quota.
fn admitted(api: &Api, of: usize) -> usize {
    let admitted = |_: &usize| {
        let answer = api.get("/api/v1/info");
        if answer.status != 200 {
            answer.expect_problem(429, "quota-exceeded");
            assert_eq!(answer.body["violated-policies"], json!(["info"]));
        }
        answer.status == 200
    };
    (0..of).filter(admitted).count()
}

fn all_admitted(api: &Api, what: &str) {
    eventually(10, what, || match admitted(api, 20) {
        20 => Ok(()),
        passed => Err(format!("{passed} of 20")),
    });
}

#[test]
fn what_the_status_of_a_policy_says_is_so() {
    let tenant = Tenant::ready("limits", &json!({}));
    let api = tenant.api();
    let suffix = unique();
    let [first, second] = ["a", "b"].map(|prefix| format!("{prefix}-{suffix}"));
    declare(&first, &tenant, &info(12, DAY));
    let status = wait(&first, "Ready", "True");
    for kind in ["Accepted", "Programmed"] {
        assert_eq!(condition(&status, kind)["status"], "True", "{status}");
    }
    assert_eq!(status["targets"], 1, "{status}");
    let replicas = &status["replicas"];
    assert!(replicas["total"].as_i64().unwrap() > 0 && replicas["total"] == replicas["updated"], "{status}");
    let passed = admitted(&api, 20);
    assert!((1..=12).contains(&passed), "{passed} of 12, by which replica answers");

    // What was used up stays so, and comes back at the new rate.
    declare(&first, &tenant, &info(1_000_000, 1));
    let _ = wait(&first, "Programmed", "True");
    all_admitted(&api, "the quota is back");

    declare(&second, &tenant, &info(1, DAY));
    let status = wait(&second, "Accepted", "False");
    let refusal = condition(&status, "Accepted");
    assert_eq!(refusal["reason"], "Conflicted", "{status}");
    assert!(refusal["message"].as_str().unwrap().contains(&format!("{BANKS}/{first}")), "{status}");
    let table = kubectl(&["-n", BANKS, "get", "ratelimitpolicies"]);
    for (name, accepted) in [(&first, "True"), (&second, "False")] {
        let row = table.lines().find(|row| row.starts_with(name)).unwrap();
        assert_eq!(row.split_whitespace().nth(1), Some(accepted), "{table}");
    }
    assert_eq!(admitted(&api, 20), 20, "the older one counts");

    let _ = kubectl(&["-n", BANKS, "delete", KIND, &first]);
    let _ = wait(&second, "Ready", "True");
    assert!(admitted(&api, 20) < 20);
    let _ = kubectl(&["-n", BANKS, "delete", KIND, &second]);
    all_admitted(&api, "nothing is counted any more");
    tenant.delete();
}
