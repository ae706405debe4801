//! A directory, such as a volume's.

use std::fs;
use std::time::{Duration, Instant};

use finaiflow_backup::seal::{self, Secrets};
use finaiflow_backup::vault::{Folder, Patience, Settings, Trouble, Vault};
use finaiflow_schema::names::ClaimId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Directory, PART, claim, comes_back_as_it_was_sealed, id, identities, label, noise};

#[tokio::test]
async fn an_object_comes_back_as_it_was_sealed() {
    comes_back_as_it_was_sealed(&Directory::new("sealed").vault()).await;
}

#[tokio::test]
async fn a_file_that_was_cut_is_found_cut() {
    let (directory, identities) = (Directory::new("cut"), identities());
    let vault = directory.vault();
    let secrets = Secrets { key: [1; 32], nonce_prefix: [2; 7] };
    let mut writer =
        seal::Writer::new(vault.upload(id(1)), &identities.recipients(), &label(1), &secrets).await.unwrap();
    writer.write(&noise(200_000)).await.unwrap();
    let (upload, sealed) = writer.finish().await.unwrap();
    upload.complete().await.unwrap();
    let file = fs::File::options().write(true).open(directory.folder(&Folder::Objects.key(id(1)))).unwrap();
    file.set_len(sealed.bytes - 1).unwrap();

    let (bytes, stream) = vault.read(id(1)).await.unwrap();
    assert_eq!(bytes, sealed.bytes - 1);
    let mut reader = seal::Reader::open(stream, &identities, &label(1)).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let error = loop {
        match reader.read(&mut buffer).await {
            Ok(0) => panic!("read to its end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, seal::Error::Damaged { frame: 3 }), "{error:?}");
}

#[tokio::test]
async fn nothing_is_left_of_an_upload_that_was_given_up() {
    let directory = Directory::new("given-up");
    let vault = directory.vault();
    let mut aborted = vault.upload(id(1));
    aborted.write_all(&noise(PART + 1)).await.unwrap();
    aborted.flush().await.unwrap();
    assert_eq!(directory.files("objects"), [format!("{}#1", id(1))]);
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found, []);
    // Whoever shuts the stream down has not completed it.
    aborted.shutdown().await.unwrap();
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found, []);
    aborted.abort().await.unwrap();
    assert_eq!(directory.files("objects"), [""; 0]);

    let mut dropped = vault.upload(id(2));
    dropped.write_all(&noise(PART + 1)).await.unwrap();
    drop(dropped);
    let until = Instant::now() + Duration::from_mins(1);
    while !directory.files("objects").is_empty() {
        assert!(Instant::now() < until, "{:?}", directory.files("objects"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_killed_program_left_is_swept() {
    let directory = Directory::new("killed");
    let vault = directory.vault();
    vault.upload(id(1)).complete().await.unwrap();
    let staged = directory.folder("objects").join(format!("{}#1", id(2)));
    fs::write(&staged, "half").unwrap();
    let listing = vault.list(Folder::Objects).await.unwrap();
    let (hour, now) = (Duration::from_hours(1), listing.found[0].put_at);
    assert_eq!(vault.sweep_unfinished(now - hour).await.unwrap(), 0);
    assert_eq!((listing.found.len(), listing.strangers.len()), (1, 0));
    assert_eq!(vault.sweep_unfinished(now + hour).await.unwrap(), 1);
    assert_eq!(directory.files("objects"), [id(1).to_string()]);
}

#[tokio::test]
async fn a_manifest_is_put_once() {
    let directory = Directory::new("once");
    let vault = directory.vault();
    for _ in 0..2 {
        vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap();
    }
    let error = vault.put_once(Folder::Manifests, id(1), b"{ }").await.unwrap_err();
    assert_eq!(error.trouble, Trouble::Exists);
    assert_eq!(vault.get(Folder::Manifests, id(1)).await.unwrap(), b"{}");
    assert_eq!(directory.files("manifests"), [format!("{}.json", id(1))]);

    // Of many at once one comes first, and the rest hear of it.
    let attempts = (0..16_u8).map(|n| {
        let vault = vault.clone();
        tokio::spawn(async move { vault.put_once(Folder::Manifests, id(2), &[n]).await.map(|()| n) })
    });
    let mut winners = Vec::new();
    for attempt in attempts.collect::<Vec<_>>() {
        match attempt.await.unwrap() {
            Ok(winner) => winners.push(winner),
            Err(error) => assert_eq!(error.trouble, Trouble::Exists),
        }
    }
    assert_eq!(vault.get(Folder::Manifests, id(2)).await.unwrap(), winners);
}

#[tokio::test]
async fn folders_and_banks_are_apart() {
    let directory = Directory::new("apart");
    let vault = directory.vault();
    vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap();
    vault.put_once(Folder::Tombstones, id(1), b"{}").await.unwrap();
    fs::write(directory.folder("manifests").join("notes.txt"), "").unwrap();
    fs::create_dir(directory.folder("manifests").join("old")).unwrap();
    fs::write(directory.folder("manifests").join("old").join(format!("{}.json", id(3))), "").unwrap();
    let mut listing = vault.list(Folder::Manifests).await.unwrap();
    listing.strangers.sort();
    assert_eq!(listing.found.iter().map(|found| found.id).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(listing.strangers, ["notes.txt".to_owned(), format!("old/{}.json", id(3))]);
    let other = Vault::open(&directory.settings(), Patience::default(), ClaimId::from_random(1)).unwrap();
    assert_eq!(other.list(Folder::Manifests).await.unwrap().found, []);

    vault.delete(Folder::Manifests, id(1)).await.unwrap();
    vault.delete(Folder::Manifests, id(1)).await.unwrap();
    assert_eq!(vault.get(Folder::Manifests, id(1)).await.unwrap_err().trouble, Trouble::NotFound);
    assert_eq!(vault.get(Folder::Tombstones, id(1)).await.unwrap(), b"{}");
    assert_eq!(vault.read(id(1)).await.map(drop).unwrap_err().trouble, Trouble::NotFound);
}

#[tokio::test]
async fn a_volume_that_is_not_there_is_no_empty_one() {
    let directory = Directory::new("not-there");
    let vault = directory.vault();
    let settings = directory.settings();
    let Settings::Directory(path) = &settings else { panic!("{settings:?}") };
    fs::remove_dir_all(path).unwrap();
    let error = Vault::open(&settings, Patience::default(), claim()).unwrap_err();
    assert_eq!(error.trouble, Trouble::Unusable);
    assert_eq!(vault.list(Folder::Manifests).await.unwrap_err().trouble, Trouble::Unusable);
}

#[tokio::test]
async fn an_empty_object_is_no_sealed_one() {
    let directory = Directory::new("empty");
    let vault = directory.vault();
    vault.upload(id(1)).complete().await.unwrap();
    let (bytes, mut stream) = vault.read(id(1)).await.unwrap();
    let mut content = Vec::new();
    stream.read_to_end(&mut content).await.unwrap();
    assert_eq!((bytes, content.len()), (0, 0));
}
