//! Writes the CustomResourceDefinitions and what guards them into `config/crd` and `charts/finaiflow-crds/templates`.
//! Run from the repository root: `make generate`.

use std::{error::Error, fs, path::Path};

use finaiflow_crds::manifest;

fn main() -> Result<(), Box<dyn Error>> {
    let plain = Path::new("config/crd");
    let chart = Path::new("charts/finaiflow-crds/templates");
    fs::create_dir_all(plain)?;
    fs::create_dir_all(chart)?;
    let mut resources = Vec::new();
    for (name, definition) in manifest::definitions()? {
        fs::write(plain.join(format!("{name}.yaml")), manifest::yaml(&definition)?)?;
        fs::write(chart.join(format!("{name}.yaml")), manifest::yaml(&manifest::kept_by_helm(definition))?)?;
        resources.push(format!("{name}.yaml"));
    }
    for directory in [plain, chart] {
        fs::write(directory.join("admission.yaml"), manifest::ADMISSION)?;
    }
    resources.push("admission.yaml".to_owned());
    let kustomization = serde_json::json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    fs::write(plain.join("kustomization.yaml"), manifest::yaml(&kustomization)?)?;
    Ok(())
}
