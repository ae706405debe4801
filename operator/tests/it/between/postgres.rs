//! The proxy before PostgreSQL: it understands where a message ends, and which belong to one round trip.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Between, Call, Fault, Kind, Side, Wire};

const WHAT_MAX: usize = 160;
/// First words of statements that change nothing by themselves.
const READS: [&str; 12] =
    ["SELECT", "WITH", "SHOW", "BEGIN", "START", "SAVEPOINT", "RELEASE", "ROLLBACK", "SET", "RESET", "LOCK", "COMMIT"];
/// How PostgreSQL names what it did when that changed nothing.
const NOTHING_DONE: [&str; 14] = [
    "SELECT",
    "SHOW",
    "BEGIN",
    "START",
    "SAVEPOINT",
    "RELEASE",
    "ROLLBACK",
    "SET",
    "RESET",
    "LOCK",
    "COMMIT",
    "INSERT 0 0",
    "UPDATE 0",
    "DELETE 0",
];

pub async fn listen() -> TcpListener {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

pub async fn serve(listener: TcpListener, database: (String, u16), between: Arc<Between>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let (database, between) = (database.clone(), Arc::clone(&between));
        tokio::spawn(async move {
            // A server that is not there is what the operator sees as a connection that ends.
            if let Ok(server) = TcpStream::connect(database).await {
                let _ = Session::new(client, server, between).run().await;
            }
        });
    }
}

/// One side of a connection. Messages are `tag, length, body`; the length does not count the tag.
struct End {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let (from, to) = stream.into_split();
        Self { from, to, buffer: Vec::new() }
    }

    /// The next message, which begins with its tag if it has one. Can be cancelled.
    async fn next(&mut self, has_tag: bool) -> io::Result<Vec<u8>> {
        let tag = usize::from(has_tag);
        loop {
            if let Some(length) = self.buffer.get(tag..tag + 4) {
                let end = tag + u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.buffer.len() >= end {
                    return Ok(self.buffer.drain(..end).collect());
                }
            }
            let mut more = [0; 4096];
            match self.from.read(&mut more).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&more[..count]),
            }
        }
    }

    async fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.to.write_all(message).await
    }
}

struct Session {
    client: End,
    server: End,
    between: Arc<Between>,
    /// SQL of prepared statements by name.
    statements: HashMap<String, String>,
    /// The transaction has changed something, so that its COMMIT is a write.
    has_written: bool,
    /// Messages up to the one that asks for an answer.
    asked: Vec<Vec<u8>>,
}

impl Session {
    fn new(client: TcpStream, server: TcpStream, between: Arc<Between>) -> Self {
        let (client, server) = (End::new(client), End::new(server));
        Self { client, server, between, statements: HashMap::new(), has_written: false, asked: Vec::new() }
    }

    async fn run(&mut self) -> io::Result<()> {
        let startup = self.client.next(false).await?;
        self.server.say(&startup).await?;
        loop {
            tokio::select! {
                message = self.client.next(true) => {
                    let message = message?;
                    let tag = message[0];
                    self.asked.push(message);
                    match tag {
                        b'Q' | b'S' => self.round_trip().await?,
                        // Only a group of an extended query waits for its Sync.
                        b'P' | b'B' | b'D' | b'E' | b'C' => {}
                        _ => self.pass_on().await?,
                    }
                }
                message = self.server.next(true) => self.client.say(&message?).await?,
            }
        }
    }

    async fn pass_on(&mut self) -> io::Result<()> {
        let asked = std::mem::take(&mut self.asked).concat();
        self.server.say(&asked).await
    }

    async fn round_trip(&mut self) -> io::Result<()> {
        let Some(sql) = self.executed() else {
            self.pass_on().await?;
            let answer = self.answer(None).await?;
            return self.client.say(&answer).await;
        };
        let what = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let what = what.chars().take(WHAT_MAX).collect();
        let commits = sql == "COMMIT" && self.has_written;
        let kind = if commits || writes(&sql) { Kind::Write } else { Kind::Read };
        let call = Call { wire: Wire::Postgres, kind, what, wrote: commits };
        let between = Arc::clone(&self.between);
        let (call, fault) = tokio::select! {
            // What the client asks next, it may have asked already.
            biased;
            entered = between.enter(call) => entered,
            _ = self.client.next(true) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let answer = if let Some((Side::Before, _)) = fault {
            None
        } else {
            self.pass_on().await?;
            Some(self.answer(Some(call)).await?)
        };
        match (fault, answer) {
            (None, Some(answer)) => self.client.say(&answer).await,
            (Some((_, Fault::Cut)), _) => Err(io::ErrorKind::ConnectionAborted.into()),
            (Some((_, Fault::Hold)), _) => tokio::select! {
                () = between.hold() => Ok(()),
                _ = self.client.next(true) => Err(io::ErrorKind::ConnectionAborted.into()),
            },
            (fault, _) => Err(io::Error::other(format!("{fault:?} is nothing PostgreSQL can be made to do"))),
        }
    }

    /// What the messages of a round trip execute, if they execute anything.
    fn executed(&mut self) -> Option<String> {
        let mut sql = Vec::new();
        for message in &self.asked {
            let texts: Vec<_> = message[5..].split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            match message[0] {
                b'Q' => sql.push(texts[0].to_string()),
                b'P' => {
                    self.statements.insert(texts[0].to_string(), texts[1].to_string());
                }
                b'B' => sql.extend(self.statements.get(&*texts[1]).cloned()),
                _ => {}
            }
        }
        (!sql.is_empty()).then(|| sql.join("; "))
    }

    /// Everything up to where the server is ready for the next question.
    async fn answer(&mut self, call: Option<usize>) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        loop {
            let message = self.server.next(true).await?;
            if message[0] == b'C' && has_written(&String::from_utf8_lossy(&message[5..message.len() - 1])) {
                self.has_written = true;
                if let Some(call) = call {
                    self.between.wrote(call);
                }
            }
            answer.extend_from_slice(&message);
            if message[0] == b'Z' {
                // Followed by I outside of transactions.
                self.has_written &= message[5] != b'I';
                return Ok(answer);
            }
        }
    }
}

fn has_written(done: &str) -> bool {
    !NOTHING_DONE.iter().any(|nothing| done == *nothing || done.starts_with(&format!("{nothing} ")))
}

/// By the words its statements begin with. What follows a semicolon inside of a function's body does not matter, since
/// the statement around it writes.
fn writes(sql: &str) -> bool {
    let first_word = |statement: &str| statement.split_whitespace().next().map(str::to_uppercase);
    let is_read = |statement: &str| first_word(statement).is_none_or(|word| READS.contains(&word.as_str()));
    !sql.split(';').all(is_read) || sql.contains("pg_terminate_backend")
}
