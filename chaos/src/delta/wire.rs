//! A proxy on loopback in front of a gateway that counts every byte of HTTP that passes, heads and bodies, each way.
//!
//! Invariant: a byte is counted before it goes on, so that all of an answer is counted when its reader has it.
//! Not here: what TCP and IP add.

use crate::carrier::{Carrier, Ends};
use std::io;
use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

const PART_BYTES: usize = 64 << 10;

/// Bytes that have passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// From clients.
    pub sent: u64,
    /// To clients.
    pub received: u64,
}

impl Passed {
    /// Both ways.
    #[must_use]
    pub fn total(self) -> u64 {
        self.sent + self.received
    }
}

impl Sub for Passed {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            received: self.received - before.received,
        }
    }
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
}

/// The proxy. It and its connections end when the value is dropped.
pub struct Wire {
    carrier: Carrier,
    counters: Arc<Counters>,
}

impl Wire {
    /// Begins to pass on what comes in to the server at `url`.
    ///
    /// Errors: no port is free, or the address is none.
    pub async fn to(url: &str) -> anyhow::Result<Self> {
        let counters = Arc::new(Counters::default());
        let counting = Arc::clone(&counters);
        let carrier = Carrier::to(url, move |client, host| carry(client, host, Arc::clone(&counting))).await?;
        Ok(Self { carrier, counters })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        self.carrier.url()
    }

    /// What has passed since the start.
    #[must_use]
    pub fn passed(&self) -> Passed {
        Passed {
            sent: self.counters.sent.load(Ordering::SeqCst),
            received: self.counters.received.load(Ordering::SeqCst),
        }
    }
}

async fn carry(client: TcpStream, host: String, counters: Arc<Counters>) -> io::Result<()> {
    let ends = Ends::of(client, &host).await?;
    tokio::try_join!(
        pass(ends.from_client, ends.to_server, &counters.sent),
        pass(ends.from_server, ends.to_client, &counters.received)
    )?;
    Ok(())
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: &AtomicU64,
) -> io::Result<()> {
    let mut part = vec![0; PART_BYTES];
    loop {
        let length = from.read(&mut part).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        counter.fetch_add(length as u64, Ordering::SeqCst);
        to.write_all(&part[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::{Passed, Wire};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[tokio::test]
    async fn every_byte_is_counted_each_way_and_comes_through() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let answering = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut asked = [0; 5];
                stream.read_exact(&mut asked).await.unwrap();
                stream.write_all(&asked.repeat(100_000)).await.unwrap();
            }
        });
        let wire = Wire::to(&url).await.unwrap();
        for round in 1..=2 {
            let address = wire.url().replace("http://", "");
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"hello".repeat(100_000));
            let expected = Passed {
                sent: 5 * round,
                received: 500_000 * round,
            };
            assert_eq!(wire.passed(), expected);
        }
        answering.await.unwrap();
        let before = Passed {
            sent: 4,
            received: 100_000,
        };
        assert_eq!((wire.passed() - before).total(), 6 + 900_000);
    }
}
