//! Charts and overlays are accepted by the real API server.

use finaiflow_e2e::{SYSTEM, kubectl, run};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn helm(args: &[&str]) -> String {
    let output = run("helm", args, "");
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn charts_lint_and_render_for_the_api_server() {
    let chart = format!("{ROOT}/charts/finaiflow");
    let _ = helm(&["lint", "--strict", &format!("{ROOT}/charts/finaiflow-crds")]);
    for values in ["charts/finaiflow/values-dev.yaml", "config/base/values.yaml"] {
        let values = format!("{ROOT}/{values}");
        let _ = helm(&["lint", "--strict", &chart, "-n", SYSTEM, "-f", &values]);
        let rendered = helm(&["template", "finaiflow", &chart, "-n", SYSTEM, "-f", &values]);
        let dry_run = ["apply", "--dry-run=server", "--server-side", "--force-conflicts", "-f", "-"];
        let output = run("kubectl", &dry_run, &rendered);
        assert!(output.status.success(), "{values}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_wrong_value_is_refused_and_named() {
    let chart = format!("{ROOT}/charts/finaiflow");
    for (value, named) in [
        ("apiServer.replica=3", "replica"),
        ("apiServer.replicas=0", "/apiServer/replicas"),
        ("apiServer.spread.zones=Sometimes", "/apiServer/spread/zones"),
        ("operator.maxUnavailable=0", "/operator/maxUnavailable"),
        ("apiServer.autoscaling.minReplicas=many", "/apiServer/autoscaling/minReplicas"),
        (
            "apiServer.autoscaling.enabled=true,apiServer.autoscaling.minReplicas=9",
            "minReplicas 9 is more than maxReplicas 6",
        ),
        ("redis.maxMemory=64", "/redis/maxMemory"),
        ("postgresql.enabled=false", "databaseClasses is empty"),
    ] {
        let values = format!("{chart}/values-dev.yaml");
        let output = run("helm", &["template", "finaiflow", &chart, "-f", &values, "--set", value], "");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(named), "{value}: {message}");
    }
}

#[test]
fn where_an_autoscaler_decides_the_deployment_names_no_replicas() {
    let (chart, values) = (format!("{ROOT}/charts/finaiflow"), format!("{ROOT}/config/base/values.yaml"));
    let template = ["template", "finaiflow", &chart, "-f", &values, "--set", "apiServer.autoscaling.enabled=true"];
    for rendered in [helm(&template), kubectl(&["kustomize", &format!("{ROOT}/config/overlays/production")])] {
        let is = |object: &&str, kind: &str| {
            object.contains(&format!("\nkind: {kind}\n")) && object.contains("\n  name: finaiflow-api\n")
        };
        let objects: Vec<_> = rendered.split("\n---").collect();
        let deployment = objects.iter().find(|o| is(o, "Deployment")).unwrap();
        assert!(!deployment.contains("\n  replicas:"), "{deployment}");
        assert!(objects.iter().any(|o| is(o, "HorizontalPodAutoscaler")));
    }
}

#[test]
fn overlays_are_accepted() {
    for overlay in ["dev", "staging", "production"] {
        let path = format!("{ROOT}/config/overlays/{overlay}");
        let _ = kubectl(&["apply", "-k", &path, "--dry-run=server", "--server-side", "--force-conflicts"]);
    }
}
