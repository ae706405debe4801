//! A real Redis for a test, on a port of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long things may take that do take some time.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A server of the test's own.
pub struct Redis {
    child: Child,
    pub port: u16,
}

impl Redis {
    pub fn start() -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Self { child: Self::launch(port), port }
    }

    /// Debian's redis-tools has the server's program under another name; redis-server would start a service, too.
    fn launch(port: u16) -> Child {
        let port = port.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"];
        let run = |mut command: Command| command.args(arguments).stdout(Stdio::null()).spawn();
        let child = run(Command::new("redis-server")).or_else(|_| {
            let mut command = Command::new("redis-check-rdb");
            command.arg0("redis-server");
            run(command)
        });
        let child = child.expect("a Redis server: install it with make prereqs");
        let client = ::redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while client.get_connection().and_then(|mut connection| ::redis::cmd("PING").exec(&mut connection)).is_err() {
            assert!(Instant::now() < deadline, "Redis does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn connection(&self) -> ::redis::Connection {
        ::redis::Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    pub fn command<T: ::redis::FromRedisValue>(&self, command: &[&str]) -> T {
        ::redis::cmd(command[0]).arg(&command[1..]).query(&mut self.connection()).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = Self::launch(self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
