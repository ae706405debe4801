//! Charts and overlays are accepted by the real API server.

use finaiflow_e2e::{kubectl, run};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn helm(args: &[&str]) -> String {
    let output = run("helm", args, "");
    assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn charts_lint_and_render_for_the_api_server() {
    let chart = format!("{ROOT}/charts/finaiflow");
    let dev = format!("{chart}/values-dev.yaml");
    let _ = helm(&["lint", &format!("{ROOT}/charts/finaiflow-crds")]);
    for values in [&["-n", "finaiflow-system"][..], &["-n", "finaiflow-system", "-f", &dev]] {
        let _ = helm(&[&["lint", &chart], values].concat());
        let rendered = helm(&[&["template", "finaiflow", &chart], values].concat());
        let output =
            run("kubectl", &["apply", "--dry-run=server", "--server-side", "--force-conflicts", "-f", "-"], &rendered);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
