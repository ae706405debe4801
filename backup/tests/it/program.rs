//! The program as jobs run it: settings from the environment, keys from files, a report at the end.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE64;
use finaiflow_backup::manifest::{SignedManifest, SigningKey, TrustedKeys};
use finaiflow_backup::restore::{Plan, Target, Use, restore};
use finaiflow_backup::seal::{self, Identities, Label};
use finaiflow_backup::sha256::sha256;
use finaiflow_backup::survey::Survey;
use finaiflow_backup::vault::{Folder, Patience, Settings, Vault};
use finaiflow_crds::backup::{DestinationStatus, REPORT_MAX, Report};
use finaiflow_schema::testing::{TenantDb, connect};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::bank::{Bank, IDENTITY};
use crate::harness::{Directory, identities};
use crate::pruning::days_as;

pub const KEK: &[u8; 32] = b"the key that the bank's data key";

/// What a job of a bank is told.
pub struct Job {
    pub home: Directory,
    pub destinations: Vec<Value>,
    pub bank: Bank,
    signing_key: String,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    pub passed: bool,
    pub output: String,
    pub report: Option<Report>,
}

impl Ran {
    pub fn report(&self) -> &Report {
        self.report.as_ref().unwrap_or_else(|| panic!("it reported nothing: {}", self.output))
    }

    pub fn destination(&self, name: &str) -> &DestinationStatus {
        self.report().destinations.iter().find(|destination| destination.name == name).unwrap()
    }

    /// It did what it is for.
    pub fn passed(self) -> Self {
        assert!(self.passed && self.report.as_ref().is_none_or(|report| report.error.is_none()), "{self:?}");
        self
    }
}

impl Job {
    /// With directories as destinations.
    pub async fn new(name: &str, directories: &[&str]) -> Self {
        let home = Directory::new(name);
        std::fs::create_dir(home.path().join("keys")).unwrap();
        let signing_key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let signing_key = BASE64.encode(signing_key.as_ref());
        std::fs::write(home.path().join("keys/signing-key"), &signing_key).unwrap();
        std::fs::write(home.path().join("keys/kek"), KEK).unwrap();
        let mut job = Self { home, destinations: Vec::new(), bank: Bank::founded().await, signing_key };
        for name in directories {
            std::fs::create_dir(job.directory(name)).unwrap();
            job.destinations
                .push(json!({"name": name, "retentionDays": 30, "place": {"directory": job.directory(name)}}));
        }
        job
    }

    pub fn directory(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Adds a bucket.
    pub fn bucket(&mut self, name: &str, port: u16, secret: &str) {
        let credentials = self.directory(&format!("{name}-credentials"));
        std::fs::create_dir_all(&credentials).unwrap();
        std::fs::write(credentials.join("accessKeyId"), "root\n").unwrap();
        std::fs::write(credentials.join("secretAccessKey"), secret).unwrap();
        let bucket = json!({
            "endpoint": format!("http://127.0.0.1:{port}"), "region": "eu-test-1", "bucket": "backups",
            "prefix": "pre/fix", "allowHttp": true, "credentials": credentials,
        });
        self.destinations.push(json!({"name": name, "retentionDays": 90, "place": {"bucket": bucket}}));
    }

    pub fn key(&self) -> SigningKey {
        SigningKey::parse(&self.signing_key).unwrap()
    }

    pub fn settings(&self) -> Value {
        let recipients = Identities::parse(IDENTITY).unwrap().recipients().names();
        json!({
            "claimID": self.bank.db.claim_id.to_string(), "namespace": "banks", "tenant": "acme",
            "recipients": recipients, "trustedKeys": [self.key().public_key()],
            "destinations": self.destinations,
        })
    }

    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("FINAIFLOW_JOB", self.settings().to_string())
            .env("FINAIFLOW_KEYS", self.directory("keys"))
            .env("FINAIFLOW_REPORT", self.directory("report"))
            .env("FINAIFLOW_PATIENCE_SECONDS", "6")
            .env("DATABASE_URL", &self.bank.db.backup_url)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        // One that was killed may have begun to report.
        let _ = std::fs::remove_file(self.directory("report"));
        self.command(env!("CARGO_BIN_EXE_finaiflow-backup"), arguments).spawn().unwrap()
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.ended(self.start(arguments))
    }

    pub fn ended(&self, run: Child) -> Ran {
        let ended = run.wait_with_output().unwrap();
        let output = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        let report = std::fs::read(self.directory("report")).ok();
        let _ = std::fs::remove_file(self.directory("report"));
        let report = report.map(|text| {
            assert!(text.len() <= REPORT_MAX);
            serde_json::from_slice(&text).unwrap()
        });
        let password = self.bank.db.backup_url.split([':', '@']).nth(2).unwrap();
        let told = format!("{output}{report:?}");
        for secret in [password, self.signing_key.as_str(), std::str::from_utf8(KEK).unwrap()] {
            assert!(!told.contains(secret), "{told}");
        }
        Ran { passed: ended.status.success(), output, report }
    }

    pub fn vault(&self, name: &str) -> Vault {
        let settings = Settings::Directory(self.directory(name));
        Vault::open(&settings, Patience::default(), self.bank.db.claim_id).unwrap()
    }

    /// What `list` says of the backups at a destination: an id and `ok`, or what is wrong.
    pub fn list(&self, name: &str) -> Vec<(String, String)> {
        let ran = self.run(&["list", "--destination", name]);
        assert!(ran.passed, "{ran:?}");
        let lines = ran.output.lines().map(|line| line.split("  ").collect::<Vec<_>>());
        lines.map(|words| (words[1].to_owned(), words[5].to_owned())).collect()
    }

    /// Restores each backup that a destination has, and tells how many that are.
    pub async fn all_restore(&self, vault: &Vault) -> usize {
        let trusted = self.key().public_key();
        let trusted = TrustedKeys::parse([trusted.as_str()]).unwrap();
        let mut survey = Survey::of(vault).await.unwrap();
        survey.read_all(&trusted, self.bank.db.claim_id).await.unwrap();
        let chains = survey.chains();
        assert!(chains.flaws().is_empty(), "{:?}", chains.flaws());
        let identities = Identities::parse(IDENTITY).unwrap();
        for signed in chains.sound() {
            let restored = TenantDb::create().await;
            let mut admin = restored.admin().await;
            let plan = Plan::of(&chains, Target::Artefact(signed.manifest().id)).unwrap();
            restore(&mut admin, &restored.names, vault, &plan, &identities, Use::Look).await.unwrap();
            restored.drop().await;
        }
        chains.sound().count()
    }

    pub async fn close(self) {
        self.bank.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_of_every_kind_lie_at_every_destination() {
    let job = Job::new("program-take", &["near", "far"]).await;
    let mut artifacts = Vec::new();
    for (number, kind) in ["full", "segment", "incremental", "segment", "full", "segment"].into_iter().enumerate() {
        job.bank.transfer(format!("{number}"), 0, 1).await;
        let ran = job.run(&["take", kind]).passed();
        let artifact = ran.report().artifact.clone().unwrap();
        assert_eq!((artifact.contains(kind), ran.report().full_because.as_deref()), (true, None));
        artifacts.push(artifact.clone());
        for name in ["near", "far"] {
            let status = ran.destination(name);
            let last = match kind {
                "full" => &status.last_full,
                "incremental" => &status.last_incremental,
                _ => &status.last_segment,
            };
            let last = last.as_ref().unwrap();
            assert_eq!((&last.id, Some(&last.recovery_point_time)), (&artifact, status.restorable_to.as_ref()));
            assert_eq!((status.fault.as_deref(), status.rpo_seconds.is_some()), (None, number > 0));
        }
    }
    for name in ["near", "far"] {
        let listed = job.list(name);
        assert!(listed.iter().all(|(id, word)| artifacts.contains(id) && word == "ok"), "{listed:?}");
        assert_eq!(listed.len(), 6);
        assert_eq!(job.all_restore(&job.vault(name)).await, 6);
    }
    let shown = job.run(&["show", &artifacts[2]]);
    let shown: Value = serde_json::from_str(&shown.output).unwrap();
    assert_eq!((&shown["id"], &shown["parent"]["id"]), (&json!(artifacts[2]), &json!(artifacts[0])));
    assert!(!job.run(&["show", "20261122t184412z-full-0a1b2c3d"]).passed);
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_can_be_followed_everything_is_taken() {
    let job = Job::new("program-full", &["near"]).await;
    for kind in ["segment", "incremental"] {
        let ran = job.run(&["take", kind]).passed();
        let full = ran.report().full_because.as_deref();
        assert_eq!(full, if kind == "segment" { Some("there is no backup that it could follow") } else { None });
    }
    let migrated = format!(
        "UPDATE {}.schema_migrations SET checksum = repeat('0', 64) WHERE version = 1",
        job.bank.db.names.schema
    );
    connect(&job.bank.db.superuser_url).await.execute(AssertSqlSafe(migrated)).await.unwrap();
    let ran = job.run(&["take", "segment"]).passed();
    assert!(ran.report().artifact.as_ref().unwrap().contains("-full-"));
    assert!(ran.report().full_because.as_ref().unwrap().ends_with("the schema has been migrated"), "{ran:?}");
    // A backup whose object is gone is none to follow.
    for file in std::fs::read_dir(job.directory("near").join(job.bank.db.claim_id.to_string()).join("objects")).unwrap()
    {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let ran = job.run(&["take", "segment"]).passed();
    assert!(ran.report().artifact.as_ref().unwrap().contains("-full-"), "{ran:?}");
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_says_why() {
    let mut job = Job::new("program-fails", &["near"]).await;
    let run = |job: &Job, change: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = job.command(env!("CARGO_BIN_EXE_finaiflow-backup"), &["take", "full"]);
        change(&mut command);
        let ran = job.ended(command.spawn().unwrap());
        assert!(!ran.passed, "{ran:?}");
        assert_eq!(ran.report().artifact, None);
        ran.report().error.clone().unwrap()
    };
    let error = run(&job, &|command| command.env("FINAIFLOW_JOB", "{}"));
    assert!(error.contains("missing field"), "{error}");
    let error = run(&job, &|command| command.env_remove("DATABASE_URL"));
    assert!(error.contains("DATABASE_URL"), "{error}");
    let error = run(&job, &|command| command.env("FINAIFLOW_KEYS", "/nowhere"));
    assert!(error.contains("signing-key"), "{error}");
    let wrong = job.bank.db.backup_url.replace('@', "x@");
    let error = run(&job, &|command| command.env("DATABASE_URL", &wrong));
    assert!(error.contains("28P01"), "{error}");
    std::fs::remove_dir(job.directory("near")).unwrap();
    let error = run(&job, &|command| command);
    assert!(error.contains("near: open the directory: it is not there"), "{error}");
    job.destinations.clear();
    let error = run(&job, &|command| command);
    assert!(error.contains("nothing could be stored"), "{error}");
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_at_a_destination_is_copied() {
    let job = Job::new("program-copy", &["one", "two", "three"]).await;
    let gone = job.directory("one-gone");
    for kind in ["full", "segment"] {
        job.run(&["take", kind]).passed();
    }
    // The first destination is away: the second takes its place, and what it lacks comes later.
    std::fs::rename(job.directory("one"), &gone).unwrap();
    for kind in ["segment", "incremental"] {
        let ran = job.run(&["take", kind]).passed();
        assert_eq!(ran.report().full_because, None);
        assert_eq!(ran.destination("one").fault.as_deref(), Some("open the directory: it is not there"));
        assert_eq!(ran.destination("one").restorable_to, None);
        assert!(ran.destination("two").fault.is_none() && ran.destination("two").restorable_to.is_some());
    }
    assert!(!job.run(&["copy"]).passed);
    std::fs::rename(&gone, job.directory("one")).unwrap();
    // Half of an object, an object without a manifest, and nothing of another.
    let bank = |name: &str| job.directory(name).join(job.bank.db.claim_id.to_string());
    let ids: Vec<_> = job.list("two").into_iter().map(|(id, _)| id).collect();
    let object = |id: &str| bank("three").join("objects").join(id);
    let half = std::fs::read(object(&ids[0])).unwrap();
    std::fs::write(object(&ids[0]), &half[..half.len() / 2]).unwrap();
    std::fs::remove_file(bank("three").join("manifests").join(format!("{}.json", ids[1]))).unwrap();
    for path in [object(&ids[2]), bank("three").join("manifests").join(format!("{}.json", ids[2]))] {
        std::fs::remove_file(path).unwrap();
    }
    assert!(job.list("three").iter().all(|(_, word)| word != "ok"));
    // What is from the future hides nothing of today.
    std::fs::write(bank("one").join("manifests/20991122t184412z-segment-0a1b2c3d.json"), "{}").unwrap();
    let ran = job.run(&["copy"]).passed();
    for name in ["one", "two", "three"] {
        assert_eq!(job.list(name).iter().filter(|(_, word)| word == "ok").count(), 4, "{name}");
        assert_eq!(ran.destination(name).restorable_to, ran.destination("two").restorable_to);
    }
    assert_eq!(job.all_restore(&job.vault("three")).await, 4);

    // What is damaged is not passed on.
    let mut damaged = half.clone();
    damaged[half.len() / 2] ^= 1;
    std::fs::write(bank("one").join("objects").join(&ids[0]), &damaged).unwrap();
    for name in ["two", "three"] {
        std::fs::remove_file(bank(name).join("objects").join(&ids[0])).unwrap();
    }
    let ran = job.run(&["copy"]);
    assert!(!ran.passed);
    let fault = ran.destination("one").fault.clone().unwrap();
    assert!(fault.contains("it is not what its manifest says"), "{fault}");
    assert!(!object(&ids[0]).exists() && ran.destination("three").restorable_to.is_none(), "{ran:?}");
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_past_its_retention_is_pruned_and_not_copied_back() {
    let mut job = Job::new("program-prune", &["short", "long"]).await;
    job.destinations[0]["retentionDays"] = json!(0);
    for kind in ["full", "segment"] {
        job.run(&["take", kind]).passed();
    }
    // All of today stays: an artefact in the making may follow it.
    let ran = job.run(&["prune"]).passed();
    assert!(ran.destination("short").restorable_to.is_some());
    assert_eq!(job.run(&["prune", "--dry-run"]).output, "");
    assert_eq!((job.list("short").len(), job.list("long").len()), (2, 2));

    job.destinations[0]["retentionDays"] = json!(3);
    days_as(&job.vault("long"), job.bank.db.claim_id, &job.key(), 12).await;
    job.run(&["copy"]).passed();
    let short = job.list("short");
    assert!(short.len() < 14 && short.iter().all(|(_, word)| word == "ok"), "{short:?}");
    job.run(&["prune"]).passed();
    assert_eq!((&job.list("short"), job.list("long").len()), (&short, 26));
    job.destinations[1]["retentionDays"] = json!(3);
    while job.list("long").len() > 12 {
        job.run(&["prune"]).passed();
    }
    job.run(&["copy"]).passed();
    assert_eq!(job.run(&["prune", "--dry-run"]).output, "");
    assert!(job.list("long").len() >= short.len());
    let tombstones = job.directory("short").join(job.bank.db.claim_id.to_string()).join("tombstones");
    std::fs::create_dir_all(&tombstones).unwrap();
    std::fs::write(tombstones.join("20261122t184412z-full-0a1b2c3d.json"), "{}").unwrap();
    let dry = job.run(&["prune", "--dry-run"]);
    assert_eq!(dry.output, "short  20261122t184412z-full-0a1b2c3d  somebody began to prune it\n");
    assert!(dry.report.is_none());
    job.run(&["prune"]).passed();
    assert_eq!(std::fs::read_dir(&tombstones).unwrap().count(), 0);
    job.close().await;
}

#[tokio::test]
async fn a_new_identity_is_one() {
    let job = Job::new("program-keygen", &[]).await;
    let printed = job.run(&["keygen"]).output;
    let public = printed.lines().next().unwrap().strip_prefix("# public key: ").unwrap();
    assert_eq!(Identities::parse(&printed).unwrap().recipients().names(), [public]);
    job.close().await;
}

/// Whoever has all that a job which takes backups has, has nothing that opens one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_secret_opens_nothing() {
    let job = Job::new("program-stolen", &["near"]).await;
    let ran = job.run(&["take", "full"]).passed();
    let vault = job.vault("near");
    let id = ran.report().artifact.as_ref().unwrap().parse().unwrap();
    let (object, label) = (
        std::fs::read(job.directory("near").join(job.bank.db.claim_id.to_string()).join(Folder::Objects.key(id)))
            .unwrap(),
        Label { claim: job.bank.db.claim_id, artefact: id },
    );
    let opens =
        async |identities: &Identities| seal::Reader::open(object.as_slice(), identities, &label).await.map(drop);
    opens(&Identities::parse(IDENTITY).unwrap()).await.unwrap();

    let kek = String::from_utf8_lossy(KEK);
    let settings = job.settings().to_string();
    let stolen = [job.bank.db.backup_url.as_str(), &job.signing_key, &kek, &settings];
    let words = stolen.iter().flat_map(|secret| secret.split(['"', ',', ' ', '@', ':', '/']).chain([*secret]));
    for word in words.filter(|word| !word.is_empty()) {
        assert!(Identities::parse(word).is_err(), "`{word}` is an identity");
    }
    assert!(matches!(opens(&identities()).await, Err(seal::Error::WrongIdentity)));
    // Nor does what lies there tell anything by itself, but for what a manifest is for.
    let manifest = vault.get(Folder::Manifests, id).await.unwrap();
    for secret in [KEK.as_slice(), b"Girokonto", "für".as_bytes(), b"Ada@x"] {
        for stored in [&object, &manifest] {
            assert!(!stored.windows(secret.len()).any(|window| window == secret));
        }
    }
    // The key in the manifest is sealed, too.
    let trusted = job.key().public_key();
    let trusted = TrustedKeys::parse([trusted.as_str()]).unwrap();
    let signed = SignedManifest::open(manifest, &trusted, job.bank.db.claim_id, id).unwrap();
    let sealed = BASE64.decode(signed.manifest().kek.as_ref().unwrap().as_bytes()).unwrap();
    assert!(matches!(seal::open_bytes(&identities(), &sealed), Err(seal::Error::WrongIdentity)));
    assert_eq!(seal::open_bytes(&Identities::parse(IDENTITY).unwrap(), &sealed).unwrap(), KEK);
    assert_eq!(sha256(&object), signed.manifest().object.sha256);
    job.close().await;
}
