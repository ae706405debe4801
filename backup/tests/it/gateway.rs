//! A real S3 server: versitygw, on loopback, with a directory of its own.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use finaiflow_backup::vault::{Bucket, Folder, Patience, Settings, Vault};
use finaiflow_schema::names::ClaimId;

use crate::harness::{Directory, claim, patience};

pub const BUCKET: &str = "backups";

/// What is special about a server.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Nothing.
    Plain,
    /// It has a file system of its own, of so many MiB, which is lost when it ends.
    Small(u32),
    /// It can keep what is overwritten or deleted.
    Versioned,
}

pub struct Server {
    program: Child,
    pub port: u16,
    directory: Directory,
    kind: Kind,
}

/// Makes a file system in a namespace of its own, which goes with the last process there, and starts a server in it.
const IN_ITS_OWN: &str =
    "mount -t tmpfs -o size=$0m tmpfs \"$PWD\" && cd \"$PWD\" && mkdir -p data/backups meta && exec \"$@\" 2>/dev/null";

impl Server {
    pub async fn start(name: &str) -> Self {
        Self::of(name, Kind::Plain).await
    }

    pub async fn of(name: &str, kind: Kind) -> Self {
        let directory = Directory::new(name);
        for subdirectory in ["data", "data/backups", "meta", "versions"] {
            std::fs::create_dir(directory.path().join(subdirectory)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { program: Self::run(&directory, port, kind), port, directory, kind };
        server.ready().await;
        server
    }

    fn run(directory: &Directory, port: u16, kind: Kind) -> Child {
        let program = std::env::var("FINAIFLOW_TEST_S3_SERVER").expect("e2e/cluster/light.sh names an S3 server");
        let mut command = if let Kind::Small(megabytes) = kind {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c", IN_ITS_OWN, &megabytes.to_string(), &program]);
            command.current_dir(directory.path());
            command
        } else {
            Command::new(program)
        };
        let port = format!("127.0.0.1:{port}");
        command.args(["--quiet", "--access", "root", "--secret", "secret", "--region", "eu-test-1"]);
        command.args(["--port", &port, "posix"]);
        if matches!(kind, Kind::Versioned) {
            command.arg("--versioning-dir").arg(directory.path().join("versions"));
        }
        command
            .arg("--sidecar")
            .args([directory.path().join("meta"), directory.path().join("data")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Starts it again, with what it holds.
    pub async fn restart(&mut self) {
        self.program = Self::run(&self.directory, self.port, self.kind);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let until = Instant::now() + Duration::from_mins(1);
        while let Err(error) = self.vault().list(Folder::Objects).await {
            assert!(Instant::now() < until, "{error}");
            let ended = self.program.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "no S3 server, {ended:?}: a small one takes the right to make namespaces and mounts"
            );
        }
    }

    /// Takes all the room of a small one but so many bytes.
    pub fn leave(&self, room: u64) {
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
        let taken = ballast.metadata().unwrap().len();
        ballast.set_len(taken.checked_sub(room).expect("so much room was there")).unwrap();
    }

    /// Gives back what [`Self::leave`] took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        // As the server sees it.
        let root = PathBuf::from(format!("/proc/{}/root", self.program.id()));
        root.join(self.directory.path().strip_prefix("/").unwrap()).join("ballast")
    }

    /// What its administrator does, below the bucket, beyond what a client of ours can ask for. Tells what it answers.
    pub fn administer(&self, method: &str, target: &str, body: &str) -> Result<String, String> {
        let script = r#"sha256=$(printf %s "$BODY" | sha256sum | cut -c1-64) md5=$(printf %s "$BODY" | openssl md5 -binary | base64)
            curl -sS --fail-with-body --aws-sigv4 aws:amz:eu-test-1:s3 --user root:secret -X "$METHOD" -H "x-amz-content-sha256: $sha256" \
              -H "content-md5: $md5" -H x-amz-bypass-governance-retention:true -H content-type: ${BODY:+-d "$BODY"} "$URL""#;
        let url = format!("http://127.0.0.1:{}/{BUCKET}{target}", self.port);
        let mut command = Command::new("bash");
        command.args(["-c", script]).env("METHOD", method).env("BODY", body).env("URL", url);
        let answer = command.output().unwrap();
        let said = String::from_utf8([answer.stdout, answer.stderr].concat()).unwrap();
        if answer.status.success() { Ok(said) } else { Err(said) }
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
