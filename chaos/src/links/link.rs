//! A link of so many bits a second and so much delay: a proxy of TCP on loopback that passes each part on when such a link would have.
//!
//! Both ways have the rate of the link each, shared by all connections. What waits to be sent is bounded, so that a sender is held back
//! as a slow link holds it back. Bytes are HTTP's: what TCP and IP add is not counted.
//! Not here: losses and cuts, and windows of TCP, which on loopback are the kernel's.

use crate::carrier::{Carrier, Ends};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

const PART_BYTES: usize = 64 << 10;
/// How much may wait to be sent, as the buffer of a router; more than a timer's millisecond, so that a late one loses nothing.
const AHEAD: Duration = Duration::from_millis(5);
/// Room for what a reader has not taken yet, as a socket has.
const RECEIVED_BYTES: usize = 1 << 20;

/// What a link can do.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Each way.
    pub bits_per_s: u64,
    /// One way.
    pub delay: Duration,
}

impl Shape {
    /// How long the link is busy with so many bytes.
    #[must_use]
    pub fn busy(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8.0 / self.bits_per_s as f64)
    }

    /// What may be on its way at once, in bytes.
    fn in_flight(&self) -> usize {
        let seconds = (self.delay + AHEAD).as_secs_f64();
        (seconds * self.bits_per_s as f64 / 8.0) as usize + RECEIVED_BYTES
    }
}

/// One way of a link.
struct Way {
    shape: Shape,
    /// When all that was sent so far has gone out.
    free_at: Mutex<Instant>,
}

impl Way {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Sends so many bytes: when they have gone out.
    fn send(&self, bytes: usize) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = (*free_at).max(Instant::now()) + self.shape.busy(bytes as u64);
        *free_at
    }
}

/// What is on its way.
struct Part {
    arrives: Instant,
    bytes: Vec<u8>,
    /// Given back once it has been delivered.
    _room: OwnedSemaphorePermit,
}

/// The link. It and its connections end when the value is dropped.
pub struct Link {
    carrier: Carrier,
}

impl Link {
    /// Begins to pass on what comes in to the server at `url`, which speaks plain HTTP.
    ///
    /// Errors: another scheme, no free port.
    pub async fn to(url: &str, shape: Shape) -> anyhow::Result<Self> {
        let (there, back) = (Arc::new(Way::new(shape)), Arc::new(Way::new(shape)));
        let carrier = Carrier::to(url, move |client, host| {
            carry(client, host, Arc::clone(&there), Arc::clone(&back))
        });
        let carrier = carrier.await?;
        Ok(Self { carrier })
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        self.carrier.url()
    }
}

async fn carry(client: TcpStream, host: String, there: Arc<Way>, back: Arc<Way>) -> io::Result<()> {
    // A handshake goes there and back before the first byte.
    tokio::time::sleep(2 * there.shape.delay).await;
    let ends = Ends::of(client, &host).await?;
    tokio::try_join!(
        pass(ends.from_client, ends.to_server, &there),
        pass(ends.from_server, ends.to_client, &back)
    )?;
    Ok(())
}

async fn pass(from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin, way: &Way) -> io::Result<()> {
    // Bounded by the room that each part takes.
    let (parts, on_their_way) = mpsc::unbounded_channel();
    tokio::try_join!(send(from, way, parts), deliver(on_their_way, to))?;
    Ok(())
}

async fn send(mut from: impl AsyncRead + Unpin, way: &Way, parts: mpsc::UnboundedSender<Part>) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(way.shape.in_flight().max(PART_BYTES)));
    let mut part = vec![0; PART_BYTES];
    loop {
        let length = from.read(&mut part).await?;
        if length == 0 {
            return Ok(());
        }
        let taken = Arc::clone(&room).acquire_many_owned(length as u32).await;
        let gone_at = way.send(length);
        let sent = parts.send(Part {
            arrives: gone_at + way.shape.delay,
            bytes: part[..length].to_vec(),
            _room: taken.map_err(io::Error::other)?,
        });
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        if gone_at > Instant::now() + AHEAD {
            tokio::time::sleep_until(gone_at - AHEAD / 2).await;
        }
    }
}

async fn deliver(mut parts: mpsc::UnboundedReceiver<Part>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(part) = parts.recv().await {
        tokio::time::sleep_until(part.arrives).await;
        to.write_all(&part.bytes).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::{Link, Shape};
    use std::time::{Duration, Instant};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    fn address_of(link: &Link) -> String {
        link.url().replace("http://", "")
    }

    #[tokio::test]
    async fn every_byte_comes_through_each_way_and_none_sooner_than_the_link_allows() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        let asked = vec![7_u8; 50_000];
        let answered: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let (wanted, answer) = (asked.clone(), answered.clone());
        let answering = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut found = vec![0; wanted.len()];
            stream.read_exact(&mut found).await.unwrap();
            assert!(found == wanted);
            stream.write_all(&answer).await.unwrap();
        });
        let shape = Shape {
            bits_per_s: 8_000_000,
            delay: Duration::from_millis(20),
        };
        let link = Link::to(&url, shape).await.unwrap();
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address_of(&link)).await.unwrap();
        stream.write_all(&asked).await.unwrap();
        let mut found = Vec::new();
        stream.read_to_end(&mut found).await.unwrap();
        // Both contents one behind the other, a handshake, and each way once.
        let least = shape.busy(250_000) + 4 * shape.delay;
        assert!(begun.elapsed() >= least, "{:?} of {least:?}", begun.elapsed());
        assert!(found == answered);
        answering.await.unwrap();
    }

    #[test]
    fn a_link_is_busy_as_long_as_its_bits_take() {
        let shape = Shape {
            bits_per_s: 100_000_000,
            delay: Duration::from_millis(50),
        };
        assert_eq!(shape.busy(12_500_000), Duration::from_secs(1));
        assert!(shape.in_flight() > 625_000);
    }

    #[tokio::test]
    async fn connections_share_the_rate() {
        let server = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", server.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    stream.write_all(&[9; 100_000]).await.unwrap();
                });
            }
        });
        let shape = Shape {
            bits_per_s: 8_000_000,
            delay: Duration::ZERO,
        };
        let link = Link::to(&url, shape).await.unwrap();
        let begun = Instant::now();
        let read = || async {
            let mut stream = TcpStream::connect(address_of(&link)).await.unwrap();
            let mut found = Vec::new();
            stream.read_to_end(&mut found).await.unwrap();
            assert_eq!(found.len(), 100_000);
        };
        tokio::join!(read(), read());
        assert!(begun.elapsed() >= shape.busy(200_000));
    }
}
