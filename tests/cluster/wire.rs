//! HTTP/1.1 by hand over bare connections: requests that stop, break off or are wrongly formed, and reading what is answered.
//!
//! Not here: expectations; what an HTTP client can send (`world`).

use crate::world::{Answer, World};
use client_sdk::client::Client;
use reqwest::Method;
use std::fs;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No answer may take longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// The access token of a client.
pub(crate) fn token_of(client: &Client) -> String {
    let request = client.request(Method::GET, "/").build().unwrap();
    let header = request.headers()["authorization"].to_str().unwrap();
    header.trim_start_matches("Bearer ").to_owned()
}

/// The head of a request with the client's token; each of `headers` ends with a line break.
pub(crate) fn head(client: &Client, line: &str, headers: &str) -> Vec<u8> {
    let token = token_of(client);
    format!("{line} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {token}\r\n{headers}\r\n").into_bytes()
}

/// One chunk of a chunked body; the last one is empty.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Reads the first final answer of what came back.
#[track_caller]
pub(crate) fn read(bytes: &[u8]) -> Answer {
    first_answer(bytes).unwrap_or_else(|| panic!("no answer in {:?}", String::from_utf8_lossy(bytes)))
}

/// The first final answer; `None` while it is not whole.
fn first_answer(bytes: &[u8]) -> Option<Answer> {
    let mut rest = bytes;
    loop {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap();
        let status: u16 = status.parse().unwrap();
        if status == 100 {
            continue;
        }
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(rest.len(), |(_, value)| value.parse().unwrap());
        return Some(Answer {
            status: status.try_into().unwrap(),
            body: rest.get(..length)?.to_vec(),
            headers,
        });
    }
}

/// Bytes on their way to whoever listens at `port` of loopback: those that the kernel keeps of what was sent, on either side of a
/// connection, because the other process has not taken them yet.
fn on_the_way(port: u16) -> u64 {
    const ESTABLISHED: &str = "01";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let is_there = |address: &str| hex(address.rsplit_once(':').unwrap().1) == u64::from(port);
    let mut found = None;
    for line in table.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().take(5).collect();
        let [_, local, remote, ESTABLISHED, queues] = words[..] else {
            continue;
        };
        let (unsent, untaken) = queues.split_once(':').unwrap();
        if is_there(local) {
            *found.get_or_insert(0) += hex(untaken);
        } else if is_there(remote) {
            *found.get_or_insert(0) += hex(unsent);
        }
    }
    found.unwrap_or_else(|| panic!("nobody is connected to {port}"))
}

/// Waits until the process that listens at `port` of loopback has taken all that was sent to it, whatever it has made of that. Seen
/// twice, since a sender may be about to send more.
pub(crate) async fn taken_at(port: u16) {
    let (begun, mut empty) = (Instant::now(), 0);
    while empty < 2 {
        let left = on_the_way(port);
        empty = if left == 0 { empty + 1 } else { 0 };
        assert!(begun.elapsed() < DEADLINE, "{left} bytes are not taken");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A connection that says what it is told to.
pub(crate) struct Sender(TcpStream);

impl Sender {
    pub(crate) async fn open(world: &World) -> Self {
        Self(world.connect().await)
    }

    /// A connection to any gateway, or to what stands before one.
    pub(crate) async fn to(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        Self(TcpStream::connect(address).await.unwrap())
    }

    /// Sends all, or as much as the other side takes before it closes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        drop(self.0.write_all(bytes).await);
    }

    /// Reads the answer to a whole request. The writing half stays open: who closes it is taken for gone.
    pub(crate) async fn finish(mut self) -> Answer {
        self.answer().await
    }

    /// Ends the writing half in the middle of a body and reads the answer.
    pub(crate) async fn cut(mut self) -> Answer {
        // The other side may have closed already.
        drop(self.0.shutdown().await);
        read(&self.rest().await)
    }

    /// Ends the writing half in the middle of a body; what is answered counts for nothing.
    pub(crate) async fn cut_silently(mut self) -> Vec<u8> {
        drop(self.0.shutdown().await);
        self.rest().await
    }

    /// Everything until the other side closes; nothing when it resets before it answered.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await;
        drop(end.expect("neither an answer nor an end"));
        bytes
    }

    /// One answer, while the connection stays open.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut bytes = Vec::new();
        let whole = async {
            while first_answer(&bytes).is_none() {
                if self.0.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        };
        let end = tokio::time::timeout(DEADLINE, whole).await;
        end.expect("neither an answer nor an end");
        read(&bytes)
    }

    /// Resets the connection instead of ending it.
    pub(crate) fn reset(self) {
        self.0.set_zero_linger().unwrap();
    }
}
