//! The program where destinations fail: another takes the place of the one that does, its status says so, and nothing that
//! is not there is called good.

use finaiflow_backup::vault::Folder;

use crate::gateway::{Kind, Server as Region};
use crate::program::{Job, Ran};
use crate::server::{Reply, Server};

/// Takes a backup where the first destination is bad, and looks at what is said.
fn falls_back(job: &Job, bad: &str, good: &str, fault: &str) -> Ran {
    let ran = job.run(&["take", "segment"]).passed();
    let told = ran.destination(bad).fault.clone().unwrap_or_default();
    assert!(told.contains(fault), "{told}");
    let good = ran.destination(good);
    let newest = [&good.last_full, &good.last_segment].into_iter().flatten().map(|artifact| artifact.id.clone());
    assert!(newest.into_iter().any(|id| Some(id) == ran.report().artifact), "{ran:?}");
    assert_eq!(good.fault, None);
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_gone_is_replaced_and_caught_up_with() {
    let (mut primary, mut second) = (Region::start("s3-primary").await, Region::start("s3-second").await);
    let mut job = Job::new("program-regions", &[]).await;
    job.bucket("primary", primary.port, "secret");
    job.bucket("second", second.port, "secret");
    for kind in ["full", "segment"] {
        let ran = job.run(&["take", kind]).passed();
        assert!(ran.report().destinations.iter().all(|it| it.fault.is_none()), "{ran:?}");
    }
    primary.kill();
    for _ in 0..2 {
        job.bank.transfer(format!("{}", crate::bank::now().unix_timestamp_nanos()), 0, 1).await;
        let ran = falls_back(&job, "primary", "second", "no answer");
        assert_eq!((ran.destination("primary").restorable_to.as_ref(), &ran.report().full_because), (None, &None));
    }
    let second_only = second.vault_of(job.bank.db.claim_id);
    assert_eq!(job.all_restore(&second_only).await, 4);

    primary.restart().await;
    assert_eq!(job.list("primary").len(), 2);
    let ran = job.run(&["copy"]).passed();
    assert_eq!(ran.destination("primary").restorable_to, ran.destination("second").restorable_to);
    assert_eq!(job.list("primary"), job.list("second"));
    let first_only = primary.vault_of(job.bank.db.claim_id);
    assert_eq!(job.all_restore(&first_only).await, 4);

    // Both gone: nothing is good.
    primary.kill();
    second.kill();
    let ran = job.run(&["take", "segment"]);
    assert!(!ran.passed && ran.report().artifact.is_none(), "{ran:?}");
    assert!(ran.report().destinations.iter().all(|it| it.fault.is_some() && it.restorable_to.is_none()), "{ran:?}");
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forbids_is_overloaded_or_silent_is_told_of() {
    let region = Region::start("s3-good").await;
    let answers = [
        ("403 AccessDenied", Some((403, "AccessDenied"))),
        ("503 SlowDown", Some((503, "SlowDown"))),
        ("507 InsufficientStorage", Some((507, "InsufficientStorage"))),
        ("no answer", None),
    ];
    let mut job = Job::new("program-servers", &[]).await;
    for (fault, answer) in answers {
        let answer = move || answer.map_or(Reply::Silence, |(status, code)| Reply::error(status, code));
        let server = Server::start(move |_, _| answer()).await;
        job.destinations.clear();
        job.bucket("bad", server.port(), "secret");
        job.bucket("good", region.port, "secret");
        falls_back(&job, "bad", "good", fault);
        let ran = job.run(&["prune"]);
        assert!(!ran.passed && ran.destination("bad").fault.is_some(), "{ran:?}");
        assert!(server.asked().iter().all(|asked| !asked.starts_with("DELETE")), "{:?}", server.asked());
    }
    // One that lists, and takes nothing.
    let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let server = Server::start(move |request, _| match request.method.as_str() {
        "GET" => Reply::body(empty),
        _ => Reply::error(507, "InsufficientStorage"),
    })
    .await;
    job.destinations.clear();
    job.bucket("bad", server.port(), "secret");
    job.bucket("good", region.port, "secret");
    let ran = falls_back(&job, "bad", "good", "507 InsufficientStorage");
    assert_eq!(ran.destination("bad").restorable_to, None);
    // And only that one: it fails, and says so.
    job.destinations.pop();
    let ran = job.run(&["take", "full"]);
    assert!(!ran.passed && ran.report().artifact.is_none(), "{ran:?}");
    assert!(ran.report().error.as_ref().unwrap().contains("507"), "{ran:?}");
    job.bucket("wrong", region.port, "not the secret");
    job.destinations.remove(0);
    let ran = job.run(&["take", "full"]);
    assert!(!ran.passed && ran.destination("wrong").fault.as_ref().unwrap().contains("403"), "{ran:?}");
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_of() {
    let region = Region::start("s3-roomy").await;
    let mut job = Job::new("program-full-disk", &["small"]).await;
    job.bucket("roomy", region.port, "secret");
    let insert = "INSERT INTO outbox (id, kind, payload, created_at)
        SELECT gen_random_uuid(), 'mail', to_jsonb(string_agg(md5(random()::text), '')), now() FROM generate_series(1, 4000)";
    sqlx::query(insert).execute(&job.bank.pool).await.unwrap();
    // No file may get longer than 8 or 16 KiB, which the object's is.
    let program = env!("CARGO_BIN_EXE_finaiflow-backup");
    let script = format!("trap '' XFSZ; ulimit -f 16; exec {program} take full");
    let mut command = job.command("/bin/sh", &["-c", &script]);
    let ran = job.ended(command.spawn().unwrap()).passed();
    let (small, roomy) = (ran.destination("small"), ran.destination("roomy"));
    assert_eq!((small.restorable_to.as_ref(), roomy.fault.as_ref()), (None, None));
    assert!(small.fault.as_ref().unwrap().contains("file too large"), "{small:?}");
    assert_eq!(roomy.last_full.as_ref().map(|it| &it.id), ran.report().artifact.as_ref());
    assert_eq!(job.list("small"), []);
    // With room again it gets what it lacks.
    let ran = job.run(&["copy"]).passed();
    assert_eq!(ran.destination("small").restorable_to, ran.destination("roomy").restorable_to);
    assert_eq!(job.all_restore(&job.vault("small")).await, 1);
    job.close().await;
}

/// Gives the bank so many MB more that do not compress well.
async fn grow(job: &Job, megabytes: i32) {
    let insert = "INSERT INTO outbox (id, kind, payload, created_at)
        SELECT gen_random_uuid(), 'mail', to_jsonb(string_agg(md5(random()::text), '')), now()
        FROM generate_series(1, $1) megabyte, generate_series(1, 1 << 15) GROUP BY megabyte";
    sqlx::query(insert).bind(megabytes).execute(&job.bank.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_has_nothing_by_halves() {
    let small = Region::of("s3-small", Kind::Small(64)).await;
    let mut job = Job::new("program-full-server", &[]).await;
    job.bucket("small", small.port, "secret");
    let vault = small.vault_of(job.bank.db.claim_id);
    let whole = async |stored: usize| {
        let listed = job.list("small");
        assert!(listed.len() == stored && listed.iter().all(|(_, word)| word == "ok"), "{stored}: {listed:?}");
        assert_eq!(vault.list(Folder::Manifests).await.unwrap().found.len(), stored);
    };
    // Objects of several parts, until no more go in.
    small.leave(24 << 20);
    let (mut last, mut stored) = (None, 0);
    let full = loop {
        grow(&job, 20).await;
        let ran = job.run(&["take", "segment"]);
        if !ran.passed {
            break ran;
        }
        (last, stored) = (ran.report().artifact.clone(), stored + 1);
    };
    let told = full.destination("small");
    assert!(told.fault.as_ref().unwrap().contains("507 InsufficientStorage"), "{told:?}");
    assert!(full.report().error.as_ref().unwrap().contains("small: "), "{full:?}");
    assert_eq!((full.report().artifact.as_ref(), stored > 0), (None, true));
    let newest = [&told.last_full, &told.last_segment].into_iter().flatten().map(|it| it.id.clone()).max();
    assert_eq!(newest, last, "what was there before stays, and is told");
    whole(stored).await;
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found.len(), stored, "nor are there parts");

    // With room again, what could not be stored is.
    small.make_room();
    job.run(&["take", "segment"]).passed();
    stored += 1;
    whole(stored).await;

    // Whatever does not fit of the next one: the object, what the server notes of it, or the manifest.
    let mut refused = 0;
    for pages in (0..).step_by(3) {
        job.bank.transfer(format!("{pages}"), 0, 1).await;
        small.leave(pages * 4096);
        let ran = job.run(&["take", "segment"]);
        if ran.passed {
            break;
        }
        refused += 1;
        assert!(ran.destination("small").fault.as_ref().unwrap().contains("the server answered 50"), "{ran:?}");
        assert_eq!(ran.report().artifact, None);
        whole(stored).await;
    }
    stored += 1;
    assert!(refused > 2, "{refused}");
    whole(stored).await;

    // Another destination takes its place, and it catches up.
    let roomy = Region::start("s3-roomier").await;
    job.bucket("roomy", roomy.port, "secret");
    small.leave(0);
    let ran = falls_back(&job, "small", "roomy", "507 InsufficientStorage");
    assert!(ran.destination("small").restorable_to < ran.destination("roomy").restorable_to, "{ran:?}");
    assert_eq!(ran.report().full_because, None);
    small.make_room();
    let ran = job.run(&["copy"]).passed();
    assert_eq!(ran.destination("small").restorable_to, ran.destination("roomy").restorable_to);
    assert_eq!(job.all_restore(&vault).await, stored + 1);
    job.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_locked_stays_and_is_reported() {
    let mut job = Job::new("program-locked", &["near"]).await;
    job.run(&["take", "full"]).passed();
    let id = "20201122t184412z-full-0a1b2c3d";
    let found = |folder: &str, name: &str| {
        format!(
            "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>pre/fix/{}/{folder}/{name}</Key>\
             <LastModified>2020-11-22T18:44:12Z</LastModified><ETag>\"e\"</ETag><Size>5</Size></Contents></ListBucketResult>",
            job.bank.db.claim_id
        )
    };
    let (objects, tombstones) = (found("objects", id), found("tombstones", &format!("{id}.json")));
    let server = Server::start(move |request, _| match request.method.as_str() {
        "GET" if request.target.contains("objects") => Reply::body(objects.clone()),
        "GET" if request.target.contains("tombstones") => Reply::body(tombstones.clone()),
        "GET" => Reply::body("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"),
        "DELETE" => Reply::error(403, "AccessDenied"),
        _ => Reply::status(200),
    })
    .await;
    job.bucket("locked", server.port(), "secret");
    let ran = job.run(&["prune"]).passed();
    assert_eq!(ran.report().findings.len(), 1, "{ran:?}");
    assert_eq!(ran.report().findings[0].check, "locked");
    assert!(server.asked().iter().any(|asked| asked.starts_with("DELETE")));
    job.close().await;
}
