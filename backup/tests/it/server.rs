//! A server on loopback that answers as a test says, and remembers what it was asked.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use finaiflow_backup::vault::{Bucket, Patience, Settings, Vault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::claim;

/// What the server was asked.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query, below the bank's directory where it is there.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The range that is asked for, as S3 clients write it.
    pub fn range(&self) -> Option<std::ops::RangeInclusive<usize>> {
        let (from, to) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some(from.parse().ok()?..=to.parse().ok()?)
    }
}

/// What it answers.
pub enum Reply {
    /// A status, headers and a body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The head says so many bytes more than follow before the connection ends.
    Cut(u16, Vec<u8>, usize),
    /// Nothing, ever.
    Silence,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, vec![("ETag", "\"e\"".into())], Vec::new())
    }

    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(200, stored(), body.into())
    }

    pub fn error(status: u16, code: &str) -> Self {
        // As servers do, it repeats what is nobody's business.
        let xml = format!(
            "<Error><Code>{code}</Code><AWSAccessKeyId>{ID}</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign></Error>"
        );
        Self::Answer(status, Vec::new(), xml.into_bytes())
    }
}

fn stored() -> Vec<(&'static str, String)> {
    vec![("ETag", "\"e\"".into()), ("Last-Modified", "Sun, 22 Nov 2026 18:44:12 GMT".into())]
}

pub const ID: &str = "ACCESSKEYID";
pub const SECRET: &str = "the-secret-access-key";

type Asked = Arc<Mutex<Vec<Request>>>;

pub struct Server {
    port: u16,
    asked: Asked,
}

impl Server {
    /// `answer` is given what is asked, and how often that method and target were asked before.
    pub async fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, answer) = (Asked::default(), Arc::new(answer));
        let remembered = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&remembered));
                tokio::spawn(async move { serve(stream, &asked, answer.as_ref()).await });
            }
        });
        Self { port, asked }
    }

    pub fn vault(&self, patience: Patience) -> Vault {
        let bucket = Bucket {
            endpoint: Some(format!("http://127.0.0.1:{}/", self.port)),
            region: "eu-test-1".into(),
            bucket: "bucket".into(),
            prefix: "pre/fix".into(),
            access_key_id: ID.into(),
            secret_access_key: SECRET.into(),
            allow_http: true,
        };
        Vault::open(&Settings::Bucket(bucket), patience, claim()).unwrap()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Method and target of what was asked, in order.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|request| format!("{} {}", request.method, request.target)).collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, asked: &Asked, answer: &(impl Fn(&Request, usize) -> Reply + Sync)) {
    while let Some(request) = read(&mut stream).await {
        let before = {
            let mut asked = asked.lock().unwrap();
            let same = |known: &&Request| (&known.method, &known.target) == (&request.method, &request.target);
            let before = asked.iter().filter(same).count();
            asked.push(request.clone());
            before
        };
        let (status, headers, body, missing) = match answer(&request, before) {
            Reply::Answer(status, headers, body) => (status, headers, body, 0),
            Reply::Cut(status, body, missing) => (status, stored(), body, missing),
            Reply::Silence => std::future::pending().await,
        };
        let mut head = format!("HTTP/1.1 {status} As-Said\r\nContent-Length: {}\r\n", body.len() + missing);
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head += "\r\n";
        let body = if request.method == "HEAD" { Vec::new() } else { body };
        if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() || missing > 0 {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut start = lines.next()?.split(' ');
    let (method, target) = (start.next()?.to_owned(), start.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let target = target.replace(&format!("/bucket/pre/fix/{}/", claim()), "");
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}
