//! A real S3 server: versitygw, on loopback, with a directory of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use finaiflow_backup::vault::{Bucket, Folder, Patience, Settings, Vault};
use finaiflow_schema::names::ClaimId;

use crate::harness::{Directory, claim, patience};

pub const BUCKET: &str = "backups";

pub struct Server {
    program: Child,
    pub port: u16,
    directory: Directory,
}

impl Server {
    pub async fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        for subdirectory in ["data", "data/backups", "meta"] {
            std::fs::create_dir(directory.path().join(subdirectory)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { program: Self::run(&directory, port), port, directory };
        server.ready().await;
        server
    }

    fn run(directory: &Directory, port: u16) -> Child {
        let program = std::env::var("FINAIFLOW_TEST_S3_SERVER").expect("e2e/cluster/light.sh names an S3 server");
        Command::new(program)
            .args(["--quiet", "--access", "root", "--secret", "secret", "--region", "eu-test-1"])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix", "--sidecar"])
            .args([directory.path().join("meta"), directory.path().join("data")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Starts it again, with what it holds.
    pub async fn restart(&mut self) {
        self.program = Self::run(&self.directory, self.port);
        self.ready().await;
    }

    async fn ready(&self) {
        let until = Instant::now() + Duration::from_mins(1);
        while let Err(error) = self.vault().list(Folder::Objects).await {
            assert!(Instant::now() < until, "{error}");
        }
    }

    pub fn kill(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }

    pub fn bucket(&self) -> Bucket {
        Bucket {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: "eu-test-1".into(),
            bucket: BUCKET.into(),
            prefix: "pre/fix".into(),
            access_key_id: "root".into(),
            secret_access_key: "secret".into(),
            allow_http: true,
        }
    }

    pub fn vault(&self) -> Vault {
        self.vault_of(claim())
    }

    pub fn vault_of(&self, claim: ClaimId) -> Vault {
        Vault::open(&Settings::Bucket(self.bucket()), patience(), claim).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

pub fn open(bucket: Bucket, patience: Patience) -> Vault {
    Vault::open(&Settings::Bucket(bucket), patience, claim()).unwrap()
}
