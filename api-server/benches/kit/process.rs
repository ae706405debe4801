//! The programs that are measured, and what `/proc` tells of them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::wire::{Connection, get};

/// Clock ticks per second in `/proc/<pid>/stat`.
const TICKS: f64 = 100.0;

/// A program that is told to end when dropped, and its files with it.
pub struct Program {
    child: Child,
    /// Where it listens.
    pub port: u16,
    files: Option<PathBuf>,
}

impl Program {
    /// A replica of the API server with an administrator's rights, which logs errors only: the one that was built with
    /// the benchmark, or another for comparison.
    pub async fn api(kubeconfig: &str, namespace: &str, settings: &[(&str, &str)]) -> Self {
        let port = free_port().await;
        let program = env::var("FINAIFLOW_BENCH_API").unwrap_or(env!("CARGO_BIN_EXE_finaiflow-api").to_owned());
        let child = Command::new(program)
            .env("KUBECONFIG", kubeconfig)
            .env("FINAIFLOW_LISTEN", format!("127.0.0.1:{port}"))
            .env("FINAIFLOW_ADMIN_LISTEN", "127.0.0.1:0")
            .env("FINAIFLOW_SHUTDOWN_DELAY_SECONDS", "0")
            .env("POD_NAMESPACE", namespace)
            .env("POD_NAME", format!("api-{port}"))
            .env("RUST_LOG", "error")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, files: None }.ready("/readyz").await
    }

    /// Any other, which listens on `port` and needs `files`.
    pub async fn start(command: &mut Command, port: u16, files: PathBuf, ready: &str) -> Self {
        let child = command.spawn().expect("it is installed: run `make bench`");
        Self { child, port, files: Some(files) }.ready(ready).await
    }

    async fn ready(self, path: &str) -> Self {
        loop {
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                let (head, _) = Connection::open(self.port).await.ask(&get(path, "")).await;
                if head.starts_with("HTTP/1.1 200 ") {
                    return self;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// CPU seconds of the program and its workers so far.
    pub fn cpu(&self) -> f64 {
        tree_cpu(self.child.id())
    }

    /// One of its metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = Connection::open(self.port).await.ask(&get("/metrics", "")).await;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Some have workers, which end with them only if they are told.
        let told = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = told.map(|_| self.child.wait());
        if let Some(files) = &self.files {
            let _ = fs::remove_dir_all(files);
        }
    }
}

/// CPU seconds of a process and its children so far, of those that have ended too.
pub fn tree_cpu(id: u32) -> f64 {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| times(child.parse().unwrap(), 2));
    times(id, 4) + children.sum::<f64>()
}

/// The first `fields` of: in user mode, in the kernel, of ended children in user mode, and in the kernel.
fn times(id: u32, fields: usize) -> f64 {
    // A child may end between being listed and being looked at; it is then its parent's the next time.
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let times = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(fields);
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// A port that nobody listens on.
pub async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A setting of the benchmark, which is a number.
pub fn setting<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}
