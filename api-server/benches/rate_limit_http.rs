//! What four limits cost an answer over HTTP: one of the API server, and one of NGINX with four zones of `limit_req`.
//! The same client, machine and body, in turns. Then a million addresses against one replica, and what becomes of its
//! memory. Prints the tables of docs/PERFORMANCE.md; needs the Kubernetes API of e2e/cluster/light.sh, and `nginx`.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reports, and fails loudly"
)]

#[expect(dead_code, reason = "the other benchmark uses more of it")]
mod kit;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use finaiflow_crds::RateLimitPolicy;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Config, ResourceExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use kit::figures::{median, per_mille};
use kit::process::{Program, free_port, setting};
use kit::wire::{Connection, get};

const NAMESPACE: &str = "rate-limit-bench";
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_secs(1);
const PATH: &str = "/api/v1/info";
const MIB: f64 = 1024.0 * 1024.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let kubeconfig = env::var("FINAIFLOW_TEST_KUBECONFIG").expect("run `make bench`");
    let policies = cluster(&kubeconfig).await;
    declare(&policies, &four_limits()).await;
    let plain = Program::api(&kubeconfig, NAMESPACE, &[("RATE_LIMIT_ENABLED", "false")]).await;
    let limited = Program::api(&kubeconfig, NAMESPACE, &[]).await;
    let body = Connection::open(plain.port).await.ask(&get(PATH, "")).await.1;
    let nginx = nginx(&body).await;
    let mut servers = [
        Server::of("API server, limits off", &plain, PATH),
        Server::of("API server, four limits", &limited, PATH),
        Server::of("NGINX, no limits", &nginx, "/off"),
        Server::of("NGINX, four zones of limit_req", &nginx, "/on"),
    ];
    for round in 0..=ROUNDS {
        for server in &mut servers {
            let measured = server.round().await;
            // The first one warms up.
            if round > 0 {
                server.rounds.push(measured);
            }
        }
    }
    report(&servers);
    drop((plain, limited, nginx));
    million(&kubeconfig, &policies).await;
}

/// The definitions, a namespace, and a client of its policies.
async fn cluster(kubeconfig: &str) -> Api<RateLimitPolicy> {
    let config = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let params = PatchParams::apply("bench").force();
    let definitions: Api<DynamicObject> = Api::all_with(
        client.clone(),
        &ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition")),
    );
    for definition in [
        include_str!("../../config/crd/tenants.finaiflow.io.yaml"),
        include_str!("../../config/crd/ratelimitpolicies.finaiflow.io.yaml"),
    ] {
        let definition: DynamicObject = serde_yaml::from_str(definition).unwrap();
        definitions.patch(&definition.name_any(), &params, &Patch::Apply(&definition)).await.unwrap();
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Api::<Namespace>::all(client.clone()).patch(NAMESPACE, &params, &Patch::Apply(&namespace)).await.unwrap();
    Api::namespaced(client, NAMESPACE)
}

/// Puts the limits in force for the whole API server, once it knows of policies.
async fn declare(policies: &Api<RateLimitPolicy>, limits: &Value) {
    let policy = json!({
        "apiVersion": "finaiflow.io/v1alpha1", "kind": "RateLimitPolicy", "metadata": {"name": "bench"},
        "spec": {"targetRefs": [{"kind": "ApiServer", "name": "default"}], "limits": limits},
    });
    let params = PatchParams::apply("bench").force();
    while policies.patch("bench", &params, &Patch::Apply(&policy)).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
}

/// None of them ever refuses here.
fn four_limits() -> Value {
    let limit = |name: &str, keys: Value| {
        let mut limit = json!({"name": name, "rates": [{"requests": 1_000_000_000, "periodSeconds": 1}]});
        if keys != json!([]) {
            limit["keys"] = keys;
        }
        limit
    };
    json!([
        limit("all", json!([])),
        limit("address", json!([{"type": "ClientIP"}])),
        limit("endpoint", json!([{"type": "Method"}, {"type": "Route"}])),
        limit("device", json!([{"type": "Header", "name": "X-Device"}])),
    ])
}

/// `return 200` would be answered before limits are looked at, so it sends a small file.
async fn nginx(body: &str) -> Program {
    let (port, files) = (free_port().await, env::temp_dir().join(format!("finaiflow-nginx-{}", std::process::id())));
    fs::create_dir_all(files.join("www")).unwrap();
    for name in ["on", "off"] {
        fs::write(files.join("www").join(name), body).unwrap();
    }
    let at = files.display();
    let (mut zones, mut limits) = (String::new(), String::new());
    for (name, key) in [
        ("all", "$server_name"),
        ("address", "$binary_remote_addr"),
        ("endpoint", "$request_method$uri"),
        ("device", "$http_x_device"),
    ] {
        writeln!(zones, "limit_req_zone {key} zone={name}:10m rate=1000000r/s;").unwrap();
        writeln!(limits, "limit_req zone={name} burst=1000000 nodelay;").unwrap();
    }
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(temporary, "{kind}_temp_path {at}/{kind};").unwrap();
    }
    let configuration = format!(
        "daemon off; worker_processes 2; pid {at}/pid; error_log {at}/error.log;
         events {{ worker_connections 512; }}
         http {{
           access_log off; keepalive_requests 1000000000; default_type application/json;
           open_file_cache max=16 inactive=1h; {temporary} {zones}
           server {{
             listen 127.0.0.1:{port}; root {at}/www;
             location = /off {{}}
             location = /on {{ {limits} }}
           }}
         }}"
    );
    fs::write(files.join("nginx.conf"), configuration).unwrap();
    let path = format!("{}:/usr/sbin", env::var("PATH").unwrap());
    let mut command = Command::new("nginx");
    command.env("PATH", path).args(["-e", &format!("{at}/error.log"), "-c", &format!("{at}/nginx.conf")]);
    Program::start(&mut command, port, files.clone(), "/on").await
}

/// What is measured, and what was.
struct Server<'a> {
    name: &'static str,
    program: &'a Program,
    request: String,
    rounds: Vec<Round>,
}

#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

impl<'a> Server<'a> {
    fn of(name: &'static str, program: &'a Program, path: &str) -> Self {
        Self { name, program, request: get(path, ""), rounds: Vec::new() }
    }

    async fn round(&self) -> Round {
        let (began, cpu) = (Instant::now(), self.program.cpu());
        let clients = (0..CONNECTIONS).map(|_| async {
            let mut connection = Connection::open(self.program.port).await;
            let mut times = Vec::with_capacity(1 << 16);
            while began.elapsed() < ROUND {
                let asked = Instant::now();
                let (head, _) = connection.ask(&self.request).await;
                times.push(asked.elapsed());
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            }
            times
        });
        let mut times: Vec<_> = join_all(clients).await.concat();
        let count = f64::from(u32::try_from(times.len()).unwrap());
        times.sort_unstable();
        let at = |part| per_mille(&times, part).as_secs_f64() * 1e6;
        Round {
            per_second: count / began.elapsed().as_secs_f64(),
            p50: at(500),
            p99: at(990),
            cpu: (self.program.cpu() - cpu) / count * 1e6,
        }
    }

    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of))
    }
}

fn report(servers: &[Server<'_>; 4]) {
    println!("{ROUNDS} rounds of {} s for each in turn, {CONNECTIONS} connections; medians\n", ROUND.as_secs());
    println!("| | requests/s | p50 | p99 | CPU per request |\n|---|---|---|---|---|");
    for server in servers {
        println!(
            "| {} | {:.0} | {:.0} µs | {:.0} µs | {:.1} µs |",
            server.name,
            server.median(|round| round.per_second),
            server.median(|round| round.p50),
            server.median(|round| round.p99),
            server.median(|round| round.cpu),
        );
    }
    println!();
    for [off, on] in [[&servers[0], &servers[1]], [&servers[2], &servers[3]]] {
        // Rounds that follow each other are compared: what else the machine does is much the same for both.
        let rounds = || off.rounds.iter().zip(&on.rounds);
        println!(
            "{}: {:+.1} µs of CPU per request, {:+.1} % requests/s",
            on.name,
            median(rounds().map(|(off, on)| on.cpu - off.cpu)),
            median(rounds().map(|(off, on)| (on.per_second / off.per_second - 1.0) * 100.0)),
        );
    }
}

/// As many addresses as `FINAIFLOW_BENCH_ADDRESSES` says, told by a trusted proxy, each with a count of its own that lasts.
async fn million(kubeconfig: &str, policies: &Api<RateLimitPolicy>) {
    let count: u32 = setting("FINAIFLOW_BENCH_ADDRESSES", 1_000_000);
    let keys = json!([{"type": "ClientIP"}]);
    let rates = json!([{"requests": 10, "periodSeconds": 86_400}]);
    declare(policies, &json!([{"name": "address", "keys": keys, "rates": rates}])).await;
    let program = Program::api(kubeconfig, NAMESPACE, &[("FINAIFLOW_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let bystander = get(PATH, "x-forwarded-for: 2001:db8::1\r\n");
    let port = program.port;
    let mut observer = Connection::open(port).await;
    assert_eq!(left(&observer.ask(&bystander).await.0), 9);

    println!("\n| addresses | answered 200 | keys in memory | resident memory |\n|---|---|---|---|");
    let (mut sent, mut admitted, mut memory) = (0, 0, BTreeMap::new());
    let began = Instant::now();
    for part in [0, 20, 40, 60, 80, 100] {
        let until = count / 100 * part;
        let clients = (0..CONNECTIONS).map(|client| async move {
            let mut connection = Connection::open(port).await;
            let mut admitted = 0_u32;
            for number in (sent..until).skip(client).step_by(CONNECTIONS) {
                // Every number once, far from its neighbours.
                let address = Ipv4Addr::from(number.wrapping_mul(2_654_435_761));
                let (head, _) = connection.ask(&get(PATH, &format!("x-forwarded-for: {address}\r\n"))).await;
                admitted += u32::from(head.starts_with("HTTP/1.1 200 "));
            }
            admitted
        });
        admitted += join_all(clients).await.into_iter().sum::<u32>();
        sent = until;
        let resident = program.metric("process_resident_memory_bytes").await;
        let keys = program.metric("finaiflow_ratelimit_keys").await;
        println!("| {sent} | {admitted} | {keys:.0} | {:.1} MiB |", resident / MIB);
        memory.insert(part, resident);
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    let left = left(&observer.ask(&bystander).await.0);
    println!("\n{rate:.0} requests/s; of a bystander's 10 requests a day, {left} are left after the second");
    assert_eq!(left, 8, "nobody else's requests were counted as the bystander's, or the reverse");
    let growth = (memory[&100] - memory[&20]) / MIB;
    assert!(growth < 8.0, "{growth:.1} MiB more from a fifth of the addresses to all");
}

/// What the answer says is left of the quota.
fn left(head: &str) -> u32 {
    let header = head.lines().find_map(|line| line.strip_prefix("ratelimit: \"address\";r=")).unwrap();
    header.split(';').next().unwrap().parse().unwrap()
}
