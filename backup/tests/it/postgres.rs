//! A PostgreSQL of a test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whose programs are run.
#[derive(Clone, Copy, PartialEq)]
pub enum Major {
    /// Debian's, which is there.
    Fifteen,
    /// Those that are fetched.
    Eighteen,
}

pub struct Server {
    data: PathBuf,
    port: u16,
    /// Copied to where the user that it runs as can read them.
    programs: Option<PathBuf>,
}

impl Server {
    pub fn new(major: Major) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let place = |what: &str| std::env::temp_dir().join(format!("finaiflow-{what}-{port}"));
        let programs = (major == Major::Eighteen).then(|| place("programs"));
        let server = Self { data: place("postgres"), port, programs };
        if server.programs.is_some() {
            server.bash("programs=$(\"${LIBRARY%/*}/postgres_18.sh\"); cp -r \"$programs\" \"$PROGRAMS\"");
        }
        server.bash(
            "mkdir -m 700 \"$DATA\"; pg_own \"$DATA\"; pg initdb -D \"$DATA\" -U postgres --auth=trust --no-sync \
             --encoding=UTF8 --locale=C",
        );
        server.start();
        server
    }

    /// The superuser's.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub fn start(&self) {
        self.bash("pg_start \"$DATA\" \"$PORT\" '-c fsync=off'");
    }

    pub fn stop(&self) {
        self.bash("pg_stop \"$DATA\" fast");
    }

    /// With `pg` and the others of the cluster's scripts.
    pub fn bash(&self, script: &str) {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../e2e/cluster/postgres.sh");
        let script = format!("set -e; . \"$LIBRARY\"; {script}");
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).env("LIBRARY", library).env("DATA", &self.data).env("PORT", self.port.to_string());
        if let Some(programs) = &self.programs {
            bash.env("PROGRAMS", programs).env("PG_BIN", programs.join("bin"));
        }
        assert!(bash.stdout(Stdio::null()).status().unwrap().success(), "{script}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bash("pg_stop \"$DATA\" immediate; rm -rf \"$DATA\" ${PROGRAMS:+\"$PROGRAMS\"}");
    }
}
