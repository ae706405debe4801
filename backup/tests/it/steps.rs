//! The program killed at every step: before each request that it makes of a bucket, and after the request was done.

use std::io;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use finaiflow_backup::manifest::SignedManifest;
use finaiflow_backup::vault::{Folder, Vault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::Server as Region;
use crate::program::Job;
use crate::pruning::days_as;

/// Stands before a bucket, and keeps one of the requests, or the answer to it.
struct Gate {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    seen: usize,
    kept: Option<Kept>,
    stands: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Request(usize),
    Answer(usize),
}

impl Gate {
    async fn before(region: &Region) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, beyond) = (listener.local_addr().unwrap().port(), region.port);
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { pass(client, beyond, &state).await });
            }
        });
        Self { port, state }
    }

    /// Runs something until it is kept waiting, and kills it then. False: it ended before.
    async fn kills(&self, kept: Kept, mut run: Child) -> bool {
        *self.state.lock().unwrap() = State { seen: 0, kept: Some(kept), stands: false };
        loop {
            if self.state.lock().unwrap().stands {
                run.kill().unwrap();
                run.wait().unwrap();
                self.state.lock().unwrap().kept = None;
                return true;
            }
            if run.try_wait().unwrap().is_some() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn pass(mut client: TcpStream, beyond: u16, state: &Mutex<State>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let head = String::from_utf8(request.clone()).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    client.read_exact(&mut body).await?;
    let number = {
        let mut state = state.lock().unwrap();
        state.seen += 1;
        state.seen - 1
    };
    waits(state, Kept::Request(number)).await;
    let mut server = TcpStream::connect(("127.0.0.1", beyond)).await?;
    request.truncate(request.len() - 2);
    server.write_all(&[&request, b"Connection: close\r\n\r\n".as_slice(), &body].concat()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    waits(state, Kept::Answer(number)).await;
    client.write_all(&answer).await?;
    client.shutdown().await
}

async fn waits(state: &Mutex<State>, here: Kept) {
    let stands = {
        let mut state = state.lock().unwrap();
        state.stands |= state.kept == Some(here);
        state.kept == Some(here)
    };
    if stands {
        std::future::pending::<()>().await;
    }
}

/// Every step, the request and then its answer.
fn steps() -> impl Iterator<Item = Kept> {
    (0..).flat_map(|number| [Kept::Request(number), Kept::Answer(number)])
}

async fn clear(vault: &Vault) {
    for folder in [Folder::Tombstones, Folder::Manifests, Folder::Objects] {
        for found in vault.list(folder).await.unwrap().found {
            vault.delete(folder, found.id).await.unwrap();
        }
    }
}

fn good(job: &Job, name: &str) -> Vec<String> {
    let listed = job.list(name);
    assert!(listed.iter().all(|(_, word)| word == "ok"), "{name}: {listed:?}");
    listed.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_whole_or_not_there_at_every_step() {
    let region = Region::start("s3-steps-take").await;
    let gate = Gate::before(&region).await;
    let mut job = Job::new("steps-take", &[]).await;
    job.bucket("bucket", gate.port, "secret");
    std::fs::create_dir(job.directory("near")).unwrap();
    let near = serde_json::json!({"name": "near", "retentionDays": 30, "place": {"directory": job.directory("near")}});
    job.destinations.push(near);
    let vaults = [region.vault_of(job.bank.db.claim_id), job.vault("near")];
    let mut killed = 0;
    for step in steps() {
        for vault in &vaults {
            clear(vault).await;
        }
        job.run(&["take", "full"]).passed();
        job.bank.transfer(format!("{step:?}"), 0, 1).await;
        if !gate.kills(step, job.start(&["take", "segment"])).await {
            break;
        }
        killed += 1;
        let (bucket, near) = (good(&job, "bucket"), good(&job, "near"));
        assert!(near.iter().all(|id| bucket.contains(id)), "what was copied is there: {bucket:?}, {near:?}");
        job.run(&["take", "segment"]).passed();
        assert_eq!(good(&job, "bucket"), good(&job, "near"));
        assert!(good(&job, "near").len() - bucket.len() == 1);
    }
    assert!(killed > 12, "{killed}");
    job.all_restore(&vaults[1]).await;
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_goes_on_after_every_step() {
    let region = Region::start("s3-steps-copy").await;
    let gate = Gate::before(&region).await;
    let mut job = Job::new("steps-copy", &["near"]).await;
    for kind in ["full", "segment"] {
        job.run(&["take", kind]).passed();
    }
    job.bucket("bucket", gate.port, "secret");
    let vault = region.vault_of(job.bank.db.claim_id);
    let mut killed = 0;
    for step in steps() {
        clear(&vault).await;
        if !gate.kills(step, job.start(&["copy"])).await {
            break;
        }
        killed += 1;
        let partial = good(&job, "bucket");
        assert!(good(&job, "near").starts_with(&partial), "{step:?}: {partial:?}");
        job.run(&["copy"]).passed();
        assert_eq!(good(&job, "bucket"), good(&job, "near"));
    }
    assert!(killed > 12, "{killed}");
    job.all_restore(&vault).await;
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pruner_goes_on_after_every_step() {
    let region = Region::start("s3-steps-prune").await;
    let gate = Gate::before(&region).await;
    let mut job = Job::new("steps-prune", &[]).await;
    job.bucket("bucket", gate.port, "secret");
    job.destinations[0]["retentionDays"] = 0.into();
    let vault = region.vault_of(job.bank.db.claim_id);
    let ids = |all: &[SignedManifest]| -> Vec<_> { all.iter().map(|it| it.manifest().id.to_string()).collect() };
    let mut killed = 0;
    for step in steps() {
        clear(&vault).await;
        let all = days_as(&vault, job.bank.db.claim_id, &job.key(), 4).await;
        let kept = ids(&all[4..]);
        if !gate.kills(step, job.start(&["prune"])).await {
            break;
        }
        killed += 1;
        let listed = job.list("bucket");
        let good: Vec<_> = listed.iter().filter(|(_, word)| word == "ok").map(|(id, _)| id).collect();
        assert!(kept.iter().all(|id| good.contains(&id)), "{step:?}: {listed:?}");
        let hidden = listed.iter().filter(|(_, word)| word == "it is being pruned").count();
        assert!(hidden <= 1 && good.len() + hidden == listed.len(), "{step:?}: {listed:?}");
        while job.list("bucket").len() > kept.len() {
            job.run(&["prune"]).passed();
        }
        job.run(&["prune"]).passed();
        assert_eq!(job.list("bucket").into_iter().map(|(id, _)| id).collect::<Vec<_>>(), kept);
        assert_eq!(vault.list(Folder::Tombstones).await.unwrap().found, []);
        assert_eq!(vault.list(Folder::Objects).await.unwrap().found.len(), kept.len());
    }
    assert!(killed > 12, "{killed}");
    job.close().await;
}
