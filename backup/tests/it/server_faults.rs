//! A server that is slow, gone, full, forbidding, or says one thing and does another.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use finaiflow_backup::vault::{Error, Folder, Patience, Trouble};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{PART, id, noise, patience};
use crate::server::{ID, Reply, Request, SECRET, Server};

/// What comes of a manifest where every request is answered so.
async fn put_where(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> (Server, Result<(), Error>) {
    let server = Server::start(answer).await;
    let outcome = server.vault(patience()).put_once(Folder::Manifests, id(1), b"{}").await;
    (server, outcome)
}

#[tokio::test]
async fn a_manifest_is_put_only_where_none_is() {
    let (server, outcome) = put_where(|_, _| Reply::status(200)).await;
    outcome.unwrap();
    let [request] = server.requests().try_into().unwrap();
    assert!(request.header("x-amz-checksum-sha256").is_some(), "a bucket with a default retention asks for it");
    assert_eq!((request.method.as_str(), request.target), ("PUT", Folder::Manifests.key(id(1))));
    assert_eq!(request.headers.iter().find(|(name, _)| name == "if-none-match").unwrap().1, "*");
    assert_eq!(request.body, b"{}");
}

#[tokio::test]
async fn a_server_that_recovers_is_asked_again() {
    let (server, outcome) = put_where(|_, before| match before {
        0 => Reply::error(503, "SlowDown"),
        1 => Reply::error(500, "InternalError"),
        _ => Reply::status(200),
    })
    .await;
    outcome.unwrap();
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_server_that_does_not_recover_is_given_up_in_time() {
    let began = Instant::now();
    let (server, outcome) = put_where(|_, _| Reply::error(503, "ServiceUnavailable")).await;
    let error = outcome.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("503 ServiceUnavailable"), "{error}");
    assert!(server.asked().len() > 10, "{}", server.asked().len());
    // The bound is 4 s; a machine that is ten times slower has its time.
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_is_silent_or_gone_is_given_up_in_time() {
    let (_server, outcome) = put_where(|_, _| Reply::Silence).await;
    assert!(outcome.unwrap_err().is_transient());
    let server = Server::start(|_, _| Reply::Cut(200, Vec::new(), 1)).await;
    let error = server.vault(patience()).get(Folder::Manifests, id(1)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn what_is_refused_is_not_tried_again_and_tells_no_secret() {
    for (status, code, trouble) in [
        (403, "AccessDenied", Trouble::Denied),
        (403, "InvalidAccessKeyId", Trouble::Denied),
        (403, "SignatureDoesNotMatch", Trouble::Denied),
        (401, "Unauthorized", Trouble::Denied),
        (403, "QuotaExceeded", Trouble::Full),
        (400, "XMinioStorageFull", Trouble::Full),
        (404, "NoSuchBucket", Trouble::Unusable),
        (400, "AuthorizationHeaderMalformed", Trouble::Unusable),
        (301, "PermanentRedirect", Trouble::Unusable),
    ] {
        let (server, outcome) = put_where(move |_, _| Reply::error(status, code)).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.trouble, trouble, "{error:?}");
        assert_eq!(server.asked().len(), 1, "{status} {code}");
        let told = format!("{error} {error:?}");
        for secret in [ID, SECRET, "127.0.0.1"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
    let (_server, outcome) = put_where(|_, _| Reply::error(507, "InsufficientStorage")).await;
    assert_eq!(outcome.unwrap_err().trouble, Trouble::Full);
}

#[tokio::test]
async fn a_manifest_that_is_there_is_compared() {
    let there = |found: &'static str| {
        move |request: &Request, _: usize| match request.method.as_str() {
            "PUT" => Reply::error(412, "PreconditionFailed"),
            _ => Reply::body(found),
        }
    };
    put_where(there("{}")).await.1.unwrap();
    assert_eq!(put_where(there("{ }")).await.1.unwrap_err().trouble, Trouble::Exists);
    // The first try was done, and its answer lost.
    let (_server, outcome) = put_where(|request, before| match (request.method.as_str(), before) {
        ("PUT", 0) => Reply::Silence,
        ("PUT", _) => Reply::error(412, "PreconditionFailed"),
        _ => Reply::body("{}"),
    })
    .await;
    outcome.unwrap();
    // Another was at it, and failed: then there is room.
    let (_server, outcome) = put_where(|request, before| match (request.method.as_str(), before) {
        ("PUT", 0) => Reply::error(409, "ConditionalRequestConflict"),
        ("PUT", _) => Reply::status(200),
        _ => Reply::error(404, "NoSuchKey"),
    })
    .await;
    outcome.unwrap();
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_empty_one() {
    let server = Server::start(|_, _| Reply::error(404, "NoSuchBucket")).await;
    let vault = server.vault(patience());
    assert_eq!(vault.list(Folder::Manifests).await.unwrap_err().trouble, Trouble::Unusable);
    assert_eq!(vault.get(Folder::Manifests, id(1)).await.unwrap_err().trouble, Trouble::Unusable);
    assert_eq!(vault.delete(Folder::Manifests, id(1)).await.unwrap_err().trouble, Trouble::Unusable);
}

#[tokio::test]
async fn what_a_proxy_does_not_find_may_be_there() {
    let server = Server::start(|_, _| Reply::Answer(404, Vec::new(), b"<html>not found</html>".to_vec())).await;
    let vault = server.vault(patience());
    assert_eq!(vault.get(Folder::Manifests, id(1)).await.unwrap_err().trouble, Trouble::Unusable);
    assert_eq!(vault.read(id(1)).await.map(drop).unwrap_err().trouble, Trouble::Unusable);
    assert_eq!(vault.delete(Folder::Manifests, id(1)).await.unwrap_err().trouble, Trouble::Unusable);
}

#[tokio::test]
async fn half_a_list_is_none() {
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>next</NextContinuationToken></ListBucketResult>";
    let server = Server::start(move |request, _| {
        if request.target.contains("continuation-token") {
            Reply::error(403, "AccessDenied")
        } else {
            Reply::body(page)
        }
    })
    .await;
    assert_eq!(server.vault(patience()).list(Folder::Manifests).await.unwrap_err().trouble, Trouble::Denied);
}

const STARTED: &str = "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>";

/// A server that takes parts, but for the second one.
fn second_part(refused: impl Fn() -> Reply + Send + Sync + 'static) -> impl Fn(&Request, usize) -> Reply + Send + Sync {
    move |request, _| match request.method.as_str() {
        "POST" => Reply::body(STARTED),
        "PUT" if request.target.contains("partNumber=2") => refused(),
        "DELETE" => Reply::status(204),
        _ => Reply::status(200),
    }
}

async fn eventually_asked(server: &Server, what: &str) {
    let until = Instant::now() + Duration::from_mins(1);
    while !server.asked().iter().any(|asked| asked.starts_with(what)) {
        assert!(Instant::now() < until, "{:?}", server.asked());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_aborted() {
    let server = Server::start(second_part(|| Reply::error(403, "AccessDenied"))).await;
    let key = Folder::Objects.key(id(1));
    // The second part is the last one, and fails within the completion.
    let mut upload = server.vault(Patience::default()).upload(id(1));
    upload.write_all(&noise(2 * PART)).await.unwrap();
    assert_eq!(upload.complete().await.unwrap_err().trouble, Trouble::Denied);
    assert_eq!(server.asked().last().unwrap(), &format!("DELETE {key}?uploadId=u1"));
    assert!(!server.asked().contains(&format!("POST {key}?uploadId=u1")));
    // The second part is one of many, and fails while more is written.
    let mut upload = server.vault(Patience::default()).upload(id(2));
    let content = noise(PART);
    let error = loop {
        if let Err(error) = upload.write_all(&content).await {
            break error;
        }
    };
    assert_eq!(Error::of(error, "put").trouble, Trouble::Denied);
    assert!(upload.write_all(b"more").await.is_err());
    assert_eq!(upload.complete().await.unwrap_err().trouble, Trouble::Unavailable);
    assert_eq!(server.asked().last().unwrap(), &format!("DELETE {}?uploadId=u1", Folder::Objects.key(id(2))));
}

#[tokio::test]
async fn an_upload_that_is_dropped_is_aborted() {
    let server = Server::start(second_part(|| Reply::status(200))).await;
    let mut upload = server.vault(Patience::default()).upload(id(1));
    upload.write_all(&noise(PART + 1)).await.unwrap();
    drop(upload);
    eventually_asked(&server, "DELETE").await;
}

#[tokio::test]
async fn a_part_is_sent_again() {
    let failed = Arc::new(Mutex::new(false));
    let server = Server::start(second_part(move || {
        let mut failed = failed.lock().unwrap();
        if std::mem::replace(&mut failed, true) { Reply::status(200) } else { Reply::error(503, "SlowDown") }
    }))
    .await;
    let mut upload = server.vault(Patience::default()).upload(id(1));
    let content = noise(2 * PART + 5);
    upload.write_all(&content).await.unwrap();
    let _ = upload.complete().await;
    let mut parts: Vec<_> = server.requests().into_iter().filter(|it| it.method == "PUT").collect();
    parts.sort_by(|one, two| one.target.cmp(&two.target));
    parts.dedup_by(|one, two| one.target == two.target);
    assert!(parts.into_iter().flat_map(|part| part.body).eq(content));
}

#[tokio::test]
async fn a_connection_that_breaks_costs_a_part_and_no_byte() {
    let content = Arc::new(noise(2 * PART + 5));
    let stored = Arc::clone(&content);
    let server = Server::start(move |request, before| {
        let Some(range) = request.range() else {
            return Reply::Answer(
                200,
                vec![("ETag", "\"e\"".into()), ("Last-Modified", "Sun, 22 Nov 2026 18:44:12 GMT".into())],
                stored.to_vec(),
            );
        };
        let (from, to) = (*range.start(), *range.end());
        let headers = vec![
            ("ETag", "\"e\"".into()),
            ("Last-Modified", "Sun, 22 Nov 2026 18:44:12 GMT".into()),
            ("Content-Range", format!("bytes {from}-{to}/{}", stored.len())),
        ];
        match before {
            0 => Reply::Answer(503, Vec::new(), Vec::new()),
            _ => Reply::Answer(206, headers, stored[range].to_vec()),
        }
    })
    .await;
    let (bytes, mut stream) = server.vault(Patience::default()).read(id(1)).await.unwrap();
    assert_eq!(bytes, content.len() as u64);
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    assert!(read == *content);
}
