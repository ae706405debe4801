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

use crate::bank::{Bank, IDENTITY, backed_up, signing_key, taken, vault};
use crate::harness::{Directory, identities};

/// A bank's backups, and a database to restore them into.
struct Stored {
    bank: Bank,
    directory: Directory,
    vault: Vault,
    artefacts: Vec<SignedManifest>,
    scratch: TenantDb,
}

impl Stored {
    async fn new(name: &str, bank: Bank) -> Self {
        let directory = Directory::new(name);
        let vault = vault(&directory, &bank);
        Self { bank, directory, vault, artefacts: Vec::new(), scratch: TenantDb::create().await }
    }

    async fn take(&mut self, kind: Kind) {
        let parent = self.artefacts.last().filter(|_| kind != Kind::Full);
        self.artefacts.push(taken(&self.bank, &self.vault, kind, parent).await.unwrap());
    }

    fn id(&self, number: usize) -> ArtefactId {
        self.artefacts[number].manifest().id
    }

    fn path(&self, folder: Folder, number: usize) -> PathBuf {
        self.directory.path().join(self.bank.db.claim_id.to_string()).join(folder.key(self.id(number)))
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let numbers = 0..self.artefacts.len();
        let paths =
            numbers.flat_map(|number| [Folder::Objects, Folder::Manifests].map(|folder| self.path(folder, number)));
        paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_to_files_is_found() {
    let mut stored = Stored::new("faults", Bank::founded().await).await;
    for (number, kind) in [Kind::Full, Kind::Incremental, Kind::Segment, Kind::Segment].into_iter().enumerate() {
        stored.bank.transfer(format!("transfer {number}"), number, (number + 1) % 4).await;
        stored.take(kind).await;
    }
    let sound = stored.verify(None).await;
    assert_eq!((sound.findings, sound.artefact), (vec![], Some(stored.id(3))));
    assert!(sound.restored_in.is_some());
    let roles = "SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 't_scratch')";
    let left: i64 = sqlx::query_scalar(roles).fetch_one(&mut stored.scratch.superuser().await).await.unwrap();
    assert_eq!(left, 0);

    let genuine = stored.files();
    let (object, manifest) = (Folder::Objects, Folder::Manifests);
    let remove = |path: PathBuf| fs::remove_file(path).unwrap();
    let spoil = |path: PathBuf, spoil: fn(&mut Vec<u8>)| {
        let mut bytes = genuine[&path].clone();
        spoil(&mut bytes);
        fs::write(path, bytes).unwrap();
    };
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let chopped = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    type Fault<'f> = (&'f str, Box<dyn Fn(&Stored) + 'f>, Check, usize);
    let faults: Vec<Fault<'_>> = vec![
        ("a flipped byte", Box::new(|it| spoil(it.path(object, 1), flip)), Check::Object, 1),
        ("a truncated object", Box::new(|it| spoil(it.path(object, 3), chopped)), Check::Object, 3),
        ("a missing object", Box::new(|it| remove(it.path(object, 2))), Check::Object, 2),
        (
            "another's object",
            Box::new(|it| fs::write(it.path(object, 2), &genuine[&it.path(object, 3)]).unwrap()),
            Check::Object,
            2,
        ),
        ("a flipped byte of a manifest", Box::new(|it| spoil(it.path(manifest, 1), flip)), Check::Manifest, 1),
        (
            "a missing segment",
            Box::new(|it| [object, manifest].into_iter().for_each(|folder| remove(it.path(folder, 2)))),
            Check::Chain,
            3,
        ),
        ("a swapped parent", Box::new(|it| it.resign(0, |manifest| manifest.program.push('x'))), Check::Chain, 1),
        (
            "a replayed manifest",
            Box::new(|it| fs::write(it.path(manifest, 3), &genuine[&it.path(manifest, 2)]).unwrap()),
            Check::Manifest,
            3,
        ),
        (
            "another bank's manifest",
            Box::new(|it| it.resign(3, |manifest| manifest.claim_id = random_claim())),
            Check::Manifest,
            3,
        ),
        (
            "a migration in between",
            Box::new(|it| {
                it.resign(3, |manifest| {
                    manifest.schema_version += 1;
                    manifest.schema_fingerprint.0[0] ^= 1;
                });
            }),
            Check::Chain,
            3,
        ),
        ("another timeline", Box::new(|it| it.resign(3, |manifest| manifest.postgres.timeline += 1)), Check::Chain, 3),
        (
            "rows that were not counted",
            Box::new(|it| it.resign(3, |manifest| manifest.tables[0].rows += 1)),
            Check::Rows,
            3,
        ),
        (
            "a head that is not the ledger's",
            Box::new(|it| it.resign(3, |manifest| manifest.ledger.hash.0[0] ^= 1)),
            Check::Rows,
            3,
        ),
    ];
    for (fault, seed, check, number) in faults {
        seed(&stored);
        let verified = stored.verify(None).await;
        assert_eq!(named(&verified.findings), [(check, Some(stored.id(number)))], "{fault}: {:?}", verified.findings);
        for (path, bytes) in &genuine {
            fs::write(path, bytes).unwrap();
        }
    }

    let all = |check: Check| {
        stored.artefacts.iter().map(|artefact| (check, Some(artefact.manifest().id))).collect::<Vec<_>>()
    };
    let other = identities();
    let wrong = stored.verify_with(&signing_key(), &other, None).await;
    assert_eq!(named(&wrong.findings), all(Check::Key), "{:?}", wrong.findings);
    assert_eq!(wrong.restored_in, None);
    let other = SigningKey::from_seed(&[2; 32]).unwrap();
    let wrong = stored.verify_with(&other, &Identities::parse(IDENTITY).unwrap(), None).await;
    let mut expected = all(Check::Manifest);
    expected.sort_by_key(|(_, id)| *id);
    expected.push((Check::Chain, None));
    assert_eq!(named(&wrong.findings), expected, "{:?}", wrong.findings);
    assert_eq!(stored.verify(None).await.findings, []);
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
    // One that the backup has not come to, or that is of after another restore, says nothing; one on a branch that was given up
    // does.
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
    stored.artefacts.push(backed_up(&stored.bank, &stored.vault).await);
    let sound = verify(&stored.vault, &order, None).await.unwrap();
    assert_eq!(sound, Verified { artefact: Some(stored.id(0)), findings: vec![], restored_in: None });
    let path = stored.path(Folder::Objects, 0);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = verify(&stored.vault, &order, None).await.unwrap().findings;
    assert_eq!(named(&found), [(Check::Object, Some(stored.id(0)))]);
    stored.close().await;
}
