//! HTTP/1.1 with as little work as possible: the client shares the processors with the server it measures.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A request without a body.
pub fn get(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nx-device: 4711\r\n{header}\r\n")
}

/// A connection that is kept open.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Where an answer lies in the buffer.
struct Answer {
    /// Length of the head, without the empty line.
    head: usize,
    end: usize,
}

impl Connection {
    /// To a server on this machine.
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 1 << 14] }
    }

    /// The status and the body of the answer.
    pub async fn exchange(&mut self, request: &[u8]) -> (u16, &[u8]) {
        let answer = self.answer(request).await;
        let status = self.buffer[9..12].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        (status, &self.buffer[answer.head + 4..answer.end])
    }

    /// Head and body of the answer.
    pub async fn ask(&mut self, request: &str) -> (String, String) {
        let Answer { head, end } = self.answer(request.as_bytes()).await;
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        (text(&self.buffer[..head]), text(&self.buffer[head + 4..end]))
    }

    async fn answer(&mut self, request: &[u8]) -> Answer {
        self.stream.write_all(request).await.unwrap();
        let (mut filled, mut answer) = (0, None);
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the connection was closed");
            filled += read;
            if answer.is_none() {
                let head = self.buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n");
                answer = head.map(|head| Answer { head, end: head + 4 + length(&self.buffer[..head]) });
            }
            match answer {
                Some(answer) if filled == answer.end => return answer,
                Some(Answer { end, .. }) => assert!(filled < end, "more than one answer"),
                None => {}
            }
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
        }
    }
}

/// The value of `content-length`, which the servers write in small letters or capitals.
fn length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME)).unwrap() + NAME.len();
    head[at..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}
