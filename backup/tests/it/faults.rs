//! Everything that can be wrong with what lies at a destination is found by a verification, and named.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use finaiflow_backup::manifest::{ArtefactId, Kind, Manifest, SignedManifest, SigningKey, TrustedKeys};
use finaiflow_backup::seal::Identities;
use finaiflow_backup::vault::{Folder, Vault};
use finaiflow_backup::verify::{Check, Finding, Order, Scratch, Verified, verify};
use finaiflow_ledger::chain::{Anchor, Hash};
use finaiflow_ledger::verify::page;
use finaiflow_schema::testing::{TenantDb, random_claim};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::bank::{Bank, IDENTITY, signing_key, taken, vault};
use crate::harness::{Directory, identities};

/// A bank's backups, and a database to restore them into.
struct Stored {
    bank: Bank,
    directory: Directory,
    vault: Vault,
    artefacts: Vec<SignedManifest>,
    /// Their files as they were put.
    genuine: BTreeMap<PathBuf, Vec<u8>>,
    scratch: TenantDb,
}

impl Stored {
    async fn new(name: &str, bank: Bank) -> Self {
        let directory = Directory::new(name);
        let vault = vault(&directory, &bank);
        Self {
            bank,
            directory,
            vault,
            artefacts: Vec::new(),
            genuine: BTreeMap::new(),
            scratch: TenantDb::create().await,
        }
    }

    async fn take(&mut self, kind: Kind) {
        let parent = self.artefacts.last().filter(|_| kind != Kind::Full);
        self.artefacts.push(taken(&self.bank, &self.vault, kind, parent).await.unwrap());
        for folder in [OBJECT, MANIFEST] {
            let path = self.path(folder, self.artefacts.len() - 1);
            self.genuine.insert(path.clone(), fs::read(path).unwrap());
        }
    }

    fn id(&self, number: usize) -> ArtefactId {
        self.artefacts[number].manifest().id
    }

    fn path(&self, folder: Folder, number: usize) -> PathBuf {
        self.directory.path().join(self.bank.db.claim_id.to_string()).join(folder.key(self.id(number)))
    }

    /// A full artefact, an incremental one and two segments.
    async fn chain(name: &str) -> Self {
        let mut stored = Self::new(name, Bank::founded().await).await;
        for (number, kind) in [Kind::Full, Kind::Incremental, Kind::Segment, Kind::Segment].into_iter().enumerate() {
            stored.bank.transfer(format!("transfer {number}"), number, (number + 1) % 4).await;
            stored.take(kind).await;
        }
        stored
    }

    fn remove(&self, folder: Folder, number: usize) {
        fs::remove_file(self.path(folder, number)).unwrap();
    }

    fn spoil(&self, folder: Folder, number: usize, spoil: fn(&mut Vec<u8>)) {
        let path = self.path(folder, number);
        let mut bytes = self.genuine[&path].clone();
        spoil(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    /// Puts one's file in another's place.
    fn replay(&self, folder: Folder, one: usize, another: usize) {
        fs::write(self.path(folder, another), &self.genuine[&self.path(folder, one)]).unwrap();
    }

    /// Signs an artefact's manifest again, changed.
    fn resign(&self, number: usize, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = self.artefacts[number].manifest().clone();
        change(&mut manifest);
        let signed = SignedManifest::sign(manifest, &signing_key()).unwrap();
        fs::write(self.path(Folder::Manifests, number), signed.file()).unwrap();
    }

    async fn verify_with(&self, trusted: &SigningKey, identities: &Identities, anchor: Option<Anchor>) -> Verified {
        let trusted = TrustedKeys::parse([trusted.public_key().as_str()]).unwrap();
        let order = Order { claim: self.bank.db.claim_id, trusted: &trusted, identities, anchor };
        let mut conn = self.scratch.superuser().await;
        let scratch = Scratch { conn: &mut conn, claim: random_claim() };
        verify(&self.vault, &order, Some(scratch)).await.unwrap()
    }

    async fn verify(&self, anchor: Option<Anchor>) -> Verified {
        self.verify_with(&signing_key(), &Identities::parse(IDENTITY).unwrap(), anchor).await
    }

    async fn close(self) {
        self.bank.close().await;
        self.scratch.drop().await;
    }
}

fn named(findings: &[Finding]) -> Vec<(Check, Option<ArtefactId>)> {
    findings.iter().map(|finding| (finding.check, finding.artefact)).collect()
}

/// What is done, how, which check fails, and on which artefact.
type Fault = (&'static str, fn(&Stored), Check, usize);

const OBJECT: Folder = Folder::Objects;
const MANIFEST: Folder = Folder::Manifests;

const FAULTS: [Fault; 13] = [
    ("a flipped byte", |it| it.spoil(OBJECT, 1, flip), Check::Object, 1),
    ("a truncated object", |it| it.spoil(OBJECT, 3, |bytes| bytes.truncate(bytes.len() - 1)), Check::Object, 3),
    ("a missing object", |it| it.remove(OBJECT, 2), Check::Object, 2),
    ("another's object", |it| it.replay(OBJECT, 3, 2), Check::Object, 2),
    ("a flipped byte of a manifest", |it| it.spoil(MANIFEST, 1, flip), Check::Manifest, 1),
    ("a missing segment", |it| [OBJECT, MANIFEST].into_iter().for_each(|folder| it.remove(folder, 2)), Check::Chain, 3),
    ("a swapped parent", |it| it.resign(0, |manifest| manifest.program.push('x')), Check::Chain, 1),
    ("a replayed manifest", |it| it.replay(MANIFEST, 2, 3), Check::Manifest, 3),
    ("another bank's manifest", |it| it.resign(3, |manifest| manifest.claim_id = random_claim()), Check::Manifest, 3),
    ("a migration in between", |it| it.resign(3, |manifest| manifest.schema_version += 1), Check::Chain, 3),
    ("another timeline", |it| it.resign(3, |manifest| manifest.postgres.timeline += 1), Check::Chain, 3),
    ("rows that were not counted", |it| it.resign(3, |manifest| manifest.tables[0].rows += 1), Check::Rows, 3),
    ("a head that is not the ledger's", |it| it.resign(3, |manifest| manifest.ledger.hash.0[0] ^= 1), Check::Rows, 3),
];

/// The head of an object is its wrapped key.
fn flip(bytes: &mut Vec<u8>) {
    let last = bytes.pop().unwrap();
    bytes.push(last ^ 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_to_files_is_found() {
    let stored = Stored::chain("faults").await;
    let sound = stored.verify(None).await;
    assert_eq!((sound.findings, sound.artefact), (vec![], Some(stored.id(3))));
    assert!(sound.restored_in.is_some());
    let schemas = "SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 't_scratch')";
    let left: i64 = sqlx::query_scalar(schemas).fetch_one(&mut stored.scratch.superuser().await).await.unwrap();
    assert_eq!(left, 0);
    for (fault, seed, check, number) in FAULTS {
        seed(&stored);
        let verified = stored.verify(None).await;
        assert_eq!(named(&verified.findings), [(check, Some(stored.id(number)))], "{fault}: {:?}", verified.findings);
        for (path, bytes) in &stored.genuine {
            fs::write(path, bytes).unwrap();
        }
    }
    assert_eq!(stored.verify(None).await.findings, []);
    stored.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_found() {
    let stored = Stored::chain("keys").await;
    let all = |check: Check| stored.artefacts.iter().map(move |artefact| (check, Some(artefact.manifest().id)));
    let wrong = stored.verify_with(&signing_key(), &identities(), None).await;
    assert_eq!(named(&wrong.findings), all(Check::Key).collect::<Vec<_>>(), "{:?}", wrong.findings);
    assert_eq!(wrong.restored_in, None);
    let other = SigningKey::from_seed(&[2; 32]).unwrap();
    let wrong = stored.verify_with(&other, &Identities::parse(IDENTITY).unwrap(), None).await;
    let mut expected: Vec<_> = all(Check::Manifest).collect();
    expected.sort_by_key(|(_, id)| *id);
    expected.push((Check::Chain, None));
    assert_eq!(named(&wrong.findings), expected, "{:?}", wrong.findings);
    stored.close().await;
}

async fn owner_of(bank: &Bank) -> PgConnection {
    let mut conn = bank.db.superuser().await;
    let path = "SELECT set_config('search_path', $1, false), set_config('session_replication_role', 'replica', false)";
    sqlx::query(path).bind(bank.db.names.schema.as_str()).execute(&mut conn).await.unwrap();
    conn
}

async fn run(conn: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(conn).await.unwrap();
}

/// The last journal.
async fn head(bank: &Bank) -> Anchor {
    let (epoch, sequence, hash): (i32, i64, [u8; 32]) =
        sqlx::query_as("SELECT epoch, sequence, hash FROM ledger_head").fetch_one(&bank.pool).await.unwrap();
    Anchor { epoch: epoch.unsigned_abs(), sequence: sequence.try_into().unwrap(), hash: Hash(hash) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_to_the_books_is_found() {
    let mut stored = Stored::new("books", Bank::founded().await).await;
    for number in 0..3 {
        stored.bank.transfer(format!("transfer {number}"), 0, 1).await;
    }
    let anchor = head(&stored.bank).await;
    stored.bank.transfer("later".to_owned(), 0, 1).await;
    stored.take(Kind::Full).await;
    assert_eq!(stored.verify(Some(anchor)).await.findings, []);
    // One that the backup has not come to says nothing; one on a branch that was given up does.
    let next = Anchor { sequence: head(&stored.bank).await.sequence.next().unwrap(), ..anchor };
    assert_eq!(stored.verify(Some(next)).await.findings, []);
    let elsewhere = Anchor { epoch: anchor.epoch - 1, ..next };
    assert_eq!(named(&stored.verify(Some(elsewhere)).await.findings), [(Check::Anchor, Some(stored.id(0)))]);

    // A journal before the anchor says something else, and all hashes after it are right.
    let mut owner = owner_of(&stored.bank).await;
    let forged = i64::from(anchor.sequence) - 1;
    run(&mut owner, format!("UPDATE journals SET actor = gen_random_uuid() WHERE sequence = {forged}")).await;
    let (records, _) = page(&mut owner, 0, 1000).await.unwrap();
    let mut previous = Hash::default();
    for record in records {
        previous = record.hash_after(previous);
        let set = "UPDATE journals SET hash = $2 WHERE sequence = $1";
        sqlx::query(set).bind(i64::from(record.sequence)).bind(previous.0).execute(&mut owner).await.unwrap();
    }
    sqlx::query("UPDATE ledger_head SET hash = $1").bind(previous.0).execute(&mut owner).await.unwrap();
    stored.take(Kind::Full).await;
    assert_eq!(stored.verify(None).await.findings, []);
    let found = stored.verify(Some(anchor)).await.findings;
    assert_eq!(named(&found), [(Check::Anchor, Some(stored.id(1)))], "{found:?}");

    // An entry that nothing balances, and a balance that no entry makes.
    run(
        &mut owner,
        format!("UPDATE entries SET posted_delta = posted_delta + 1 WHERE sequence = {forged} AND leg = 1"),
    )
    .await;
    stored.take(Kind::Full).await;
    let found = stored.verify(None).await.findings;
    assert!(found.iter().all(|finding| (finding.check, finding.artefact) == (Check::Ledger, Some(stored.id(2)))));
    let of_journal = format!("journal-balance, journal {forged}");
    assert!(found.iter().any(|finding| finding.message == of_journal), "{found:?}");
    run(&mut owner, "UPDATE account_balances SET posted = posted + 1 WHERE account_id = 1".to_owned()).await;
    stored.take(Kind::Full).await;
    let found = stored.verify(None).await.findings;
    assert_eq!((found[0].check, found[0].artefact), (Check::Balance, Some(stored.id(3))), "{found:?}");
    stored.close().await;
}

#[tokio::test]
async fn without_a_database_everything_is_read() {
    let mut stored = Stored::new("checksum", Bank::founded().await).await;
    let trusted = TrustedKeys::parse([signing_key().public_key().as_str()]).unwrap();
    let identities = Identities::parse(IDENTITY).unwrap();
    let order = Order { claim: stored.bank.db.claim_id, trusted: &trusted, identities: &identities, anchor: None };
    let nothing = verify(&stored.vault, &order, None).await.unwrap();
    assert_eq!((nothing.artefact, named(&nothing.findings)), (None, vec![(Check::Chain, None)]));
    stored.take(Kind::Full).await;
    let sound = verify(&stored.vault, &order, None).await.unwrap();
    assert_eq!(sound, Verified { artefact: Some(stored.id(0)), findings: vec![], restored_in: None });
    stored.spoil(OBJECT, 0, flip);
    let found = verify(&stored.vault, &order, None).await.unwrap().findings;
    assert_eq!(named(&found), [(Check::Object, Some(stored.id(0)))]);
    stored.close().await;
}
