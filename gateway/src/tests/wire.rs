//! HTTP/1.1 by hand: what no well-behaved client would send, and reading what comes back.

use super::world::DEADLINE;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// Reads the last answer of what came back on a connection: interim ones come before it.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut rest = text.as_ref();
        loop {
            let (head, behind) = rest
                .split_once("\r\n\r\n")
                .unwrap_or_else(|| panic!("no answer in {text:?}"));
            let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
            if status != 100 {
                return Self {
                    status,
                    head: head.to_owned(),
                    body: behind.as_bytes().to_vec(),
                };
            }
            rest = behind;
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        found.next()
    }

    /// The names of all headers, in their order.
    pub(super) fn names(&self) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.map(|(name, _)| name).collect()
    }

    /// The answer as a typed refusal.
    #[track_caller]
    pub(super) fn refused(&self, status: u16, code: &str) -> api::problem::Problem {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{body}");
        let problem: api::problem::Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.code, code, "{body}");
        problem
    }
}

/// A connection.
pub(super) struct Line(TcpStream);

impl Line {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// As `send`, for bytes that the other side need not take.
    pub(super) async fn send_what_goes(&mut self, bytes: &[u8]) {
        // The other side may have closed already: what it answered before is still to be read.
        drop(self.0.write_all(bytes).await);
    }

    /// Reads at least one byte; nothing when the other side has closed.
    pub(super) async fn some(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 << 10];
        let read = tokio::time::timeout(DEADLINE, self.0.read(&mut bytes)).await;
        let count = read.expect("neither an answer nor an end").unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// Reads one answer that tells its length, and nothing of what comes behind it.
    pub(super) async fn answer(&mut self) -> Reply {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            bytes.extend(self.exactly(1).await);
        }
        let head = Reply::read(&bytes);
        let length = head.header("content-length").and_then(|text| text.parse().ok());
        bytes.extend(self.exactly(length.expect("an answer with its length")).await);
        Reply::read(&bytes)
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let read = tokio::time::timeout(DEADLINE, self.0.read_exact(&mut bytes)).await;
        read.expect("neither an answer nor an end").expect("a whole answer");
        bytes
    }

    /// Everything until the other side closes.
    pub(super) async fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset after the answer is the server's right; no end at all is not.
        let read = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await;
        drop(read.expect("neither an answer nor an end"));
        bytes
    }

    /// Closes with a reset instead of an end.
    pub(super) fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }
}

/// Sends all and reads the answer.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Reply {
    let mut line = Line::open(address).await;
    line.send_what_goes(bytes).await;
    Reply::read(&line.rest().await)
}

/// One chunk of a chunked body.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Bytes that do not compress and follow from `seed`.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let random = daemon::random::Random::seeded(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}
