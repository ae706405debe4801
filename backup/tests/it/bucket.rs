//! A bucket of a real S3 server.

use finaiflow_backup::vault::{Bucket, Folder, Patience, Trouble};
use futures::{StreamExt as _, stream};
use tokio::io::AsyncWriteExt as _;

use crate::gateway::{Server, open};
use crate::harness::{PART, comes_back_as_it_was_sealed, id, noise, patience};

#[tokio::test]
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

    server.restart().await;
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found, []);
    let mut upload = vault.upload(id(1));
    upload.write_all(&noise(PART + 1)).await.unwrap();
    upload.complete().await.unwrap();
    vault.put_once(Folder::Manifests, id(1), b"{}").await.unwrap();
    assert_eq!(vault.list(Folder::Objects).await.unwrap().found[0].bytes, PART as u64 + 1);
}
