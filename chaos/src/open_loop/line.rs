//! HTTP/1.1 by hand over kept connections: what makes load on the machine that is measured must cost little of it.
//!
//! Invariants: one exchange at a time on a connection; one whose exchange was cut off is closed, never used again.
//! Not here: when requests are sent (`open_loop`).

use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Heads of our gateways' answers are far below that.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Seconds, where the answer says when to come again.
    pub(super) retry_after: Option<u64>,
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    answer: Answer,
    body_bytes: usize,
    is_kept: bool,
}

/// Connections to one gateway.
pub(super) struct Lines {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

impl Lines {
    /// None open yet.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
        }
    }

    /// Sends the bytes of a request and reads the answer to its end. Dropped midway its connection is closed.
    pub(super) async fn exchange(&self, request: &[u8]) -> anyhow::Result<Answer> {
        // One that was kept may have been closed by the other side meanwhile, which is no failure of the request.
        let kept = self.idle().pop();
        if let Some(mut line) = kept
            && let Ok(head) = exchange(&mut line, request).await
        {
            return Ok(self.keep(line, head));
        }
        let mut line = TcpStream::connect(self.address).await.context("connect")?;
        line.set_nodelay(true)?;
        let head = exchange(&mut line, request).await?;
        Ok(self.keep(line, head))
    }

    fn keep(&self, line: TcpStream, head: Head) -> Answer {
        if head.is_kept {
            self.idle().push(line);
        }
        head.answer
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn exchange(line: &mut TcpStream, request: &[u8]) -> anyhow::Result<Head> {
    line.write_all(request).await?;
    let mut bytes = Vec::with_capacity(2048);
    let (head, head_bytes) = loop {
        if line.read_buf(&mut bytes).await? == 0 {
            bail!("the connection ended before the answer's head");
        }
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break (read_head(&bytes[..end])?, end + 4);
        }
        if bytes.len() > HEAD_BYTES_MAX {
            bail!("the answer's head has no end");
        }
    };
    while bytes.len() < head_bytes + head.body_bytes {
        if line.read_buf(&mut bytes).await? == 0 {
            bail!("the connection ended in the answer's body");
        }
    }
    Ok(head)
}

fn read_head(bytes: &[u8]) -> anyhow::Result<Head> {
    let text = std::str::from_utf8(bytes).context("the answer's head is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|word| word.parse().ok()).context("no status")?;
    let mut head = Head {
        answer: Answer {
            status,
            retry_after: None,
        },
        body_bytes: 0,
        is_kept: true,
    };
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.body_bytes = value.parse().context("a length that is no number")?;
        } else if name.eq_ignore_ascii_case("retry-after") {
            head.answer.retry_after = value.parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            head.is_kept = !value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("an answer in chunks is not read here");
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Head, Lines, read_head};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_head_is_read_in_any_case_of_letters() {
        let head =
            read_head(b"HTTP/1.1 503 Service Unavailable\r\nRETRY-AFTER: 2\r\ncontent-length: 7\r\nConnection: close");
        let answer = Answer {
            status: 503,
            retry_after: Some(2),
        };
        let expected = Head {
            answer,
            body_bytes: 7,
            is_kept: false,
        };
        assert_eq!(head.unwrap(), expected);
        assert!(read_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").is_err());
        assert!(read_head(b"nothing").is_err());
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_one_that_ended_meanwhile_is_replaced() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lines = Lines::new(listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            for exchanges in [2, 1] {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..exchanges {
                    let mut request = [0; 4];
                    stream.read_exact(&mut request).await.unwrap();
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await
                        .unwrap();
                }
            }
        });
        for _ in 0..3 {
            assert_eq!(lines.exchange(b"ping").await.unwrap().status, 200);
        }
        server.await.unwrap();
    }
}
