//! The program itself: from start to SIGTERM.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{ApiResource, DeleteParams, PostParams};
use kube::core::{DynamicObject, GroupVersionKind};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::tenants_bank::{Bank, POD, eventually, kubeconfig};

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_finaiflow-api"));
    program.env("FINAIFLOW_ADMIN_LISTEN", "127.0.0.1:0");
    program
}

/// The status of `GET path`, if the server answers.
async fn status(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

async fn exit_code(child: &mut Child) -> i32 {
    let code = || {
        let exited = child.try_wait().unwrap();
        async move { exited.map(|status| status.code().expect("an exit code")) }
    };
    eventually("the program ends", code).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_drains_and_leaves_nothing_when_told_to_stop() {
    let bank = Bank::ready().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut child = program()
        .env("KUBECONFIG", kubeconfig())
        .env("FINAIFLOW_LISTEN", format!("127.0.0.1:{port}"))
        .env("FINAIFLOW_SHUTDOWN_DELAY_SECONDS", "2")
        .env("POD_NAMESPACE", &bank.namespace)
        .env("POD_NAME", POD)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ready = || async { (status(port, "/readyz").await == Some(200)).then_some(()) };
    eventually("ready", ready).await;
    bank.lease_after_apply().await;
    assert_eq!(status(port, "/livez").await, Some(200));

    let told = Instant::now();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let unready = || async { (status(port, "/readyz").await == Some(503)).then_some(()) };
    eventually("unready but answering", unready).await;
    assert_eq!(status(port, "/livez").await, Some(200));
    assert_eq!(exit_code(&mut child).await, 0);
    assert!(told.elapsed() >= Duration::from_secs(2), "load balancers were given time");
    assert!(bank.lease().await.is_none());
    bank.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_belongs_to_its_pod() {
    let bank = Bank::create().await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    // No node runs it; it is there for as long as it is not deleted.
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::namespaced_with(bank.admin.clone(), &bank.namespace, &kind);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "spec": {"containers": [{"name": "api", "image": "none"}], "automountServiceAccountToken": false},
    });
    let pod: DynamicObject = serde_json::from_value(pod).unwrap();
    // Refused until the namespace has its ServiceAccount.
    let created = || async { pods.create(&PostParams::default(), &pod).await.ok() };
    let uid = eventually("the pod is created", created).await.metadata.uid.unwrap();
    let mut child = program()
        .args(["serve", "--namespace", &bank.namespace, "--pod-name", POD, "--pod-uid", &uid])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .env("KUBECONFIG", kubeconfig())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease"));
    let leases: Api<DynamicObject> = Api::namespaced_with(bank.admin.clone(), &bank.namespace, &kind);
    let owned = || async {
        let owners = leases.get_opt(&format!("finaiflow-api-{POD}")).await.unwrap()?.metadata.owner_references?;
        owners.iter().any(|owner| owner.kind == "Pod" && owner.uid == uid).then_some(())
    };
    eventually("the lease has its pod as owner", owned).await;
    // Killed, it leaves the Lease behind, which the garbage collector takes with the pod.
    child.kill().unwrap();
    child.wait().unwrap();
    pods.delete(POD, &DeleteParams::default().grace_period(0)).await.unwrap();
    let gone = || async { bank.lease().await.is_none().then_some(()) };
    eventually("the lease is collected", gone).await;
    bank.drop().await;
}

#[test]
fn a_server_without_a_pod_does_not_start() {
    let output = program().env_remove("POD_NAME").env_remove("POD_NAMESPACE").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--pod-name"));
}

#[test]
fn the_description_is_printed() {
    let output = program().arg("openapi").output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), finaiflow_api::openapi_json());
}
