//! Rolling and scaling the API server costs its clients nothing, not even a retry.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use finaiflow_e2e::{Api, SYSTEM, Tenant, kubectl, unique};
use serde_json::json;

use crate::alone;
use crate::disturb::{self, API};

/// Keep-alive clients, and how long each rests between two requests: from never to so long that its connection may
/// be given up in between.
const RESTS_MS: [u64; 8] = [0, 0, 0, 10, 100, 500, 1_500, 3_000];

#[test]
fn rolling_and_scaling_fail_no_request() {
    let _alone = alone();
    disturb::recover();
    let tenant = Tenant::ready("drain", &json!({}));
    let clients: Vec<_> = RESTS_MS.iter().map(|rest| (tenant.api().new_user(), Duration::from_millis(*rest))).collect();
    let stop = AtomicBool::new(false);
    let (requests, failures) = thread::scope(|scope| {
        let load: Vec<_> = clients.iter().map(|(api, rest)| scope.spawn(|| load(api, *rest, &stop))).collect();
        let deployment = format!("deployment/{API}");
        let settle = || kubectl(&["-n", SYSTEM, "rollout", "status", &deployment, "--timeout=180s"]);
        let gone = || {
            finaiflow_e2e::eventually(120, "two pods", || {
                let pods = kubectl(&[
                    "-n",
                    SYSTEM,
                    "get",
                    "pods",
                    "-l",
                    &format!("app.kubernetes.io/name={API}"),
                    "-o",
                    "name",
                ]);
                if pods.lines().count() == 2 { Ok(()) } else { Err(pods) }
            });
        };
        let _ = kubectl(&["-n", SYSTEM, "rollout", "restart", &deployment]);
        let _ = settle();
        gone();
        for replicas in [3, 2] {
            let _ = disturb::scale(replicas).unwrap();
            let _ = settle();
        }
        gone();
        stop.store(true, Ordering::Relaxed);
        let results = load.into_iter().map(|thread| thread.join().unwrap());
        results
            .fold((0, Vec::new()), |(requests, failures), (more, worse)| (requests + more, [failures, worse].concat()))
    });
    eprintln!("drain: {requests} requests, {} failed", failures.len());
    assert_eq!(failures, [""; 0]);
    tenant.assert_books();
    tenant.delete();
}

/// Deposits and reads until told to stop; how many requests, and which were not answered as they should be.
fn load(api: &Api, rest: Duration, stop: &AtomicBool) -> (usize, Vec<String>) {
    let account = api.open_account("USD");
    let (mut deposits, mut failures) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let deposit = json!({"amount": 1, "currency": "USD"});
        let answers = [
            api.try_write(&format!("/api/v1/accounts/{account}/deposit"), &unique(), &deposit),
            api.try_get(&format!("/api/v1/accounts/{account}/balance")),
        ];
        deposits += 1;
        for (answer, status) in answers.into_iter().zip([201, 200]) {
            match answer {
                Ok(answer) if answer.status == status => {}
                other => failures.push(format!("{rest:?} after {deposits} deposits: {other:?}")),
            }
        }
        thread::sleep(rest);
    }
    (2 * deposits, failures)
}
