//! Many polls that are asked anew as soon as they are answered.
//!
//! Not here: what they cost (`polls`).

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Streams that a connection of HTTP/2 carries: what the gateway allows.
const STREAMS: usize = 200;
/// Connections that one address opens: it has ports for some more.
const CONNECTIONS_OF_ADDRESS: usize = 10_000;
/// New polls in a second: fewer than the gateway takes in, so that none is turned away.
const OPENED_AT_ONCE: usize = 200;
const OPEN_EVERY: Duration = Duration::from_millis(100);
/// Who was told to come later does so.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How polls come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A connection for each.
    Http1,
    /// A stream for each, many on a connection.
    Http2,
}

impl Way {
    /// For tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// What happened to all of them.
#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

/// Polls that wait at one gateway; dropping it leaves.
pub(super) struct Crowd {
    gateway: SocketAddr,
    /// Token and cursor of each account.
    accounts: Vec<(String, String)>,
    way: Way,
    timeout_s: u64,
    polls: usize,
    connections: usize,
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
    shared: Option<http2::SendRequest<Empty<Bytes>>>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

impl Crowd {
    /// Nobody yet. Each poll of an account waits behind its cursor, for `timeout_s` from its second time on.
    pub(super) async fn new(
        url: &str,
        accounts: Vec<(String, String)>,
        way: Way,
        timeout_s: u64,
    ) -> anyhow::Result<Self> {
        ensure!(!accounts.is_empty(), "polls need an account");
        let authority = url.strip_prefix("http://").context("a gateway without TLS")?;
        let gateway = authority
            .parse()
            .with_context(|| format!("{authority} is no address"))?;
        Ok(Self {
            gateway,
            accounts,
            way,
            timeout_s,
            polls: 0,
            connections: 0,
            counts: Arc::default(),
            tasks: JoinSet::new(),
            shared: None,
        })
    }

    /// Opens more until there are `polls`.
    pub(super) async fn grow(&mut self, polls: usize) -> anyhow::Result<()> {
        while self.polls < polls {
            for _ in 0..OPENED_AT_ONCE.min(polls - self.polls) {
                self.open().await?;
            }
            tokio::time::sleep(OPEN_EVERY).await;
        }
        Ok(())
    }

    /// Answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.counts.answers.load(Ordering::Relaxed)
    }

    /// Errors: a poll was refused or its connection broke.
    pub(super) fn is_well(&self) -> anyhow::Result<()> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (refused, broken) = (count(&self.counts.refused), count(&self.counts.broken));
        if refused + broken > 0 {
            bail!("{refused} polls were refused, {broken} broke off");
        }
        Ok(())
    }

    async fn open(&mut self) -> anyhow::Result<()> {
        let sender = match (self.way, &self.shared) {
            (Way::Http2, Some(shared)) if !self.polls.is_multiple_of(STREAMS) => Sender::Http2(shared.clone()),
            (Way::Http2, _) => {
                let (sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(self.connect().await?)).await?;
                tokio::spawn(connection);
                self.shared = Some(sender.clone());
                Sender::Http2(sender)
            }
            (Way::Http1, _) => {
                let (sender, connection) = http1::handshake(TokioIo::new(self.connect().await?)).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
        };
        let (token, cursor) = &self.accounts[self.polls % self.accounts.len()];
        let asked = Asked {
            gateway: self.gateway,
            token: token.clone(),
            cursor: cursor.clone(),
            timeout_s: self.timeout_s,
        };
        // Spread evenly over the time of a poll, as those of people are who came one by one.
        let first_s = 1 + (self.polls as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.timeout_s;
        let counts = Arc::clone(&self.counts);
        self.tasks
            .spawn(async move { asked.keep(sender, first_s, &counts).await });
        self.polls += 1;
        Ok(())
    }

    async fn connect(&mut self) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        let host = u8::try_from(self.connections / CONNECTIONS_OF_ADDRESS + 1)?;
        socket.bind((Ipv4Addr::new(127, 0, 2, host), 0).into())?;
        self.connections += 1;
        Ok(socket.connect(self.gateway).await?)
    }
}

/// What one poll asks.
struct Asked {
    gateway: SocketAddr,
    token: String,
    cursor: String,
    timeout_s: u64,
}

impl Asked {
    async fn keep(self, mut sender: Sender, first_s: u64, counts: &Counts) {
        let mut wait_s = first_s;
        loop {
            match self.once(&mut sender, wait_s).await {
                Ok(true) => {
                    counts.answers.fetch_add(1, Ordering::Relaxed);
                    wait_s = self.timeout_s;
                }
                Ok(false) => {
                    counts.refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(_) => {
                    counts.broken.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    /// Whether it was answered and not refused.
    async fn once(&self, sender: &mut Sender, wait_s: u64) -> anyhow::Result<bool> {
        let address = format!(
            "http://{}/api/v1/notifications/poll?cursor={}&timeout={wait_s}",
            self.gateway, self.cursor
        );
        let path = address
            .split_once("//")
            .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()));
        let uri = match sender {
            Sender::Http1(_) => path.context("an address has a path")?,
            Sender::Http2(_) => address,
        };
        let request = Request::get(uri)
            .header("host", self.gateway.to_string())
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())?;
        let response = sender.send(request).await?;
        let is_answered = response.status().is_success();
        response.into_body().collect().await?;
        Ok(is_answered)
    }
}
