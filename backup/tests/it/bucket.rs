//! A bucket of a real S3 server: versitygw, on loopback, with a directory of its own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use finaiflow_backup::vault::{Bucket, Folder, Patience, Settings, Trouble, Vault};
use futures::{StreamExt as _, stream};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Directory, PART, claim, comes_back_as_it_was_sealed, id, noise, patience};

const BUCKET: &str = "backups";

struct Server {
    program: Child,
    port: u16,
    directory: Directory,
}

impl Server {
    async fn start(name: &str) -> Self {
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
        let program = std::env::var("FINAIFLOW_TEST_S3_SERVER").unwrap();
        Command::new(program)
            .args(["--quiet", "--access", "root", "--secret", "secret", "--region", "eu-test-1"])
            .args(["--port", &format!("127.0.0.1:{port}"), "posix", "--sidecar"])
            .args([directory.path().join("meta"), directory.path().join("data")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    async fn ready(&self) {
        let until = Instant::now() + Duration::from_mins(1);
        while let Err(error) = self.vault().list(Folder::Objects).await {
            assert!(Instant::now() < until, "{error}");
        }
    }

    fn kill(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }

    fn bucket(&self) -> Bucket {
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

    fn vault(&self) -> Vault {
        open(self.bucket(), patience())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn open(bucket: Bucket, patience: Patience) -> Vault {
    Vault::open(&Settings::Bucket(bucket), patience, claim()).unwrap()
}

#[tokio::test]
#[ignore = "needs versitygw: FINAIFLOW_TEST_S3_SERVER names its program"]
async fn an_object_comes_back_as_it_was_sealed() {
    let server = Server::start("s3-sealed").await;
    let vault = open(server.bucket(), Patience::default());
    comes_back_as_it_was_sealed(&vault).await;
    for _ in 0..2 {
        vault.delete(Folder::Objects, id(1)).await.unwrap();
    }
    assert_eq!(vault.read(id(1)).await.map(drop).unwrap_err().trouble, Trouble::NotFound);
}

#[tokio::test]
#[ignore = "needs versitygw: FINAIFLOW_TEST_S3_SERVER names its program"]
async fn a_manifest_is_put_once() {
    let server = Server::start("s3-once").await;
    let vault = open(server.bucket(), Patience::default());
    for _ in 0..2 {
        vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap();
    }
    let error = vault.put_once(Folder::Manifests, id(1), b"{ }").await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Exists);
    assert_eq!(vault.get(Folder::Manifests, id(1)).await.unwrap(), b"{}");

    // Of many at once one comes first, and the rest hear of it.
    let attempts = (0..16_u8).map(|n| {
        let vault = vault.clone();
        async move { vault.put_once(Folder::Manifests, id(2), &[n]).await.map(|()| n) }
    });
    let mut winners = Vec::new();
    for outcome in futures::future::join_all(attempts).await {
        match outcome {
            Ok(winner) => winners.push(winner),
            Err(error) => assert_eq!(error.trouble, Trouble::Exists, "{error}"),
        }
    }
    assert_eq!(vault.get(Folder::Manifests, id(2)).await.unwrap(), winners);
}

#[tokio::test]
#[ignore = "needs versitygw: FINAIFLOW_TEST_S3_SERVER names its program"]
async fn a_list_has_many_pages() {
    let server = Server::start("s3-pages").await;
    let vault = open(server.bucket(), Patience::default());
    let put = |number| {
        let vault = vault.clone();
        async move { vault.put_once(Folder::Tombstones, id(number), b"{}").await.unwrap() }
    };
    stream::iter((0..1_050).map(put)).buffer_unordered(8).collect::<Vec<_>>().await;
    let mut found: Vec<_> = vault.list(Folder::Tombstones).await.unwrap().found.into_iter().map(|it| it.id).collect();
    found.sort();
    assert_eq!(found, (0..1_050).map(id).collect::<Vec<_>>());
    assert_eq!(vault.list(Folder::Manifests).await.unwrap().found, []);
}

#[tokio::test]
#[ignore = "needs versitygw: FINAIFLOW_TEST_S3_SERVER names its program"]
async fn wrong_settings_are_named() {
    let server = Server::start("s3-wrong").await;
    let trouble = async |bucket: Bucket| {
        let vault = open(bucket, patience());
        let troubles = [
            vault.list(Folder::Manifests).await.unwrap_err().trouble,
            vault.get(Folder::Manifests, id(1)).await.unwrap_err().trouble,
            vault.read(id(1)).await.map(drop).unwrap_err().trouble,
            vault.delete(Folder::Manifests, id(1)).await.unwrap_err().trouble,
            vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap_err().trouble,
            vault.upload(id(1)).complete().await.unwrap_err().trouble,
        ];
        assert_eq!(troubles, [troubles[0]; 6]);
        troubles[0]
    };
    assert_eq!(trouble(Bucket { secret_access_key: "other".into(), ..server.bucket() }).await, Trouble::Denied);
    assert_eq!(trouble(Bucket { access_key_id: "nobody".into(), ..server.bucket() }).await, Trouble::Denied);
    assert_eq!(trouble(Bucket { bucket: "nowhere".into(), ..server.bucket() }).await, Trouble::Unusable);
    assert_eq!(trouble(Bucket { region: "us-other-2".into(), ..server.bucket() }).await, Trouble::Unusable);
}

#[tokio::test]
#[ignore = "needs versitygw: FINAIFLOW_TEST_S3_SERVER names its program"]
async fn a_server_that_is_killed_leaves_no_half_object() {
    let mut server = Server::start("s3-killed").await;
    let vault = server.vault();
    let mut upload = vault.upload(id(1));
    upload.write_all(&noise(PART + 1)).await.unwrap();
    upload.flush().await.unwrap();
    server.kill();
    assert!(upload.complete().await.unwrap_err().is_transient());
    assert!(vault.list(Folder::Objects).await.unwrap_err().is_transient());
    assert!(vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap_err().is_transient());

    server.program = Server::run(&server.directory, server.port);
    server.ready().await;
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found, []);
    let mut upload = vault.upload(id(1));
    upload.write_all(&noise(PART + 1)).await.unwrap();
    upload.complete().await.unwrap();
    vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap();
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found[0].bytes, PART as u64 + 1);
}
