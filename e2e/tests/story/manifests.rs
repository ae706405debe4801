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
fn a_typo_in_the_values_is_refused() {
    let chart = format!("{ROOT}/charts/finaiflow");
    let output = run("helm", &["template", "finaiflow", &chart, "--set", "apiServer.replica=3"], "");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("replica"));
}

#[test]
fn overlays_are_accepted() {
    for overlay in ["dev", "staging", "production"] {
        let path = format!("{ROOT}/config/overlays/{overlay}");
        let _ = kubectl(&["apply", "-k", &path, "--dry-run=server", "--server-side", "--force-conflicts"]);
    }
}
