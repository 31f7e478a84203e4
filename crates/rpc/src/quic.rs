//! The transport over QUIC: one endpoint both listens and dials, one stream for each call.
//!
//! Invariants: the other end of a connection is the process that was called before anything is sent to it; dropping a call resets
//! its stream; a deadline is kept on both sides.
//! Not here: who may connect (trust.rs), serving (listener.rs), keeping connections (pool.rs).

use crate::breaker::PeerBreakers;
use crate::frame_stream::{FrameError, read_head, read_payload, write_frame};
use crate::identity::{Identity, IdentityError, Revocations};
use crate::limits::{DEADLINE_MAX, IDLE_MAX, KEEP_ALIVE, PACKET_BYTES_MAX, RpcLimits, SOCKET_BUFFER_BYTES};
use crate::listener::{CLOSE_DONE, CLOSE_UNTRUSTED, Listener, RESET_CANCELLED};
use crate::pool::{ConnectionPool, Kept, Lent};
use crate::transport::{Handler, Peer, RpcError, Transport};
use crate::trust::{TLS_NAME, Trust};
use crate::wire::{Frame, decode_answer_head, encode_request};
use async_trait::async_trait;
use daemon::clock::Clock;
use model::id::ClusterId;
use model::process::ProcessId;
use protocol::frame::{ANSWER_MAGIC, Answer, AnswerHead, Call, RequestHead};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt, WriteError,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::time::timeout;

/// Window of one stream: the largest payload flows without a pause.
const STREAM_WINDOW: u32 = 16 << 20;
/// Window of one connection: four of the largest payloads.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// How soon the packet length of a path is searched for again after losses spoke against it, where it is known to be no shorter.
const SEARCH_AGAIN: Duration = Duration::from_millis(100);
/// A call that was given up so long after it had its connection, and over whose connection nothing at all came meanwhile, found
/// nobody there: a peer that lives acknowledges within a round trip, of 0.3 s over the longest link, and 25 ms.
pub(crate) const DEAD_AFTER: Duration = Duration::from_millis(500);
/// Unacknowledged bytes a connection may have on their way; bounds the sender's memory.
const SEND_WINDOW: u64 = 32 << 20;

/// What an endpoint needs.
pub struct QuicOptions {
    /// Who we are; decides the cluster and what we may call.
    pub identity: Identity,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The clock that certificates and breakers go by.
    pub clock: Arc<dyn Clock>,
    /// Bounds for what peers may use.
    pub limits: RpcLimits,
    /// Certificates that are refused.
    pub revocations: Revocations,
    /// Whether every path to the other processes carries packets of `PACKET_BYTES_MAX` for certain, as loopback always does. The
    /// length is found out by probes on every path; where losses look like a shorter one, it is searched for again at once where
    /// we are certain, and after a minute elsewhere.
    pub has_jumbo_frames: bool,
}

/// Why an endpoint cannot be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address cannot be listened on: in use, not ours, or not permitted.
    #[error("listen on {address}: {error}; choose a free address of this machine")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        error: io::Error,
    },
    /// The identity cannot be used.
    #[error("use identity: {0}")]
    Identity(#[from] IdentityError),
}

/// Calls over QUIC. Closes its endpoint when dropped.
pub struct QuicTransport {
    process: ProcessId,
    cluster: ClusterId,
    clock: Arc<dyn Clock>,
    endpoint: Endpoint,
    client_configs: ByPath<ClientConfig>,
    trust: Arc<Trust>,
    pub(crate) pool: ConnectionPool,
    breakers: PeerBreakers,
    listener: Arc<Listener>,
}

impl std::fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuicTransport({})", self.process)
    }
}

impl QuicTransport {
    /// Opens an endpoint that listens for `handler` and dials; returns it with the address it listens on.
    /// Must be called inside a tokio runtime.
    ///
    /// Errors: the address cannot be listened on, or the identity cannot be used.
    pub fn bind(options: QuicOptions, handler: Arc<dyn Handler>) -> Result<(Arc<Self>, SocketAddr), BindError> {
        let QuicOptions {
            identity,
            listen,
            clock,
            limits,
            revocations,
            has_jumbo_frames,
        } = options;
        let trust = Arc::new(Trust::new(&identity, revocations));
        let mut server_config =
            ServerConfig::with_crypto(Arc::new(trust.server_config(&identity, Arc::clone(&clock))?));
        server_config.migration(false);
        let client_config = ClientConfig::new(Arc::new(trust.client_config(&identity, Arc::clone(&clock))?));
        let server_configs = ByPath::new(has_jumbo_frames, |is_sure| {
            let mut config = server_config.clone();
            config.transport_config(Arc::new(transport_config(limits, is_sure)));
            Arc::new(config)
        });
        let client_configs = ByPath::new(has_jumbo_frames, |is_sure| {
            let mut transport = transport_config(limits, is_sure);
            // Whoever dialed asks whether the other is still there; were both to ask, an idle connection would cost twice.
            transport.keep_alive_interval(Some(KEEP_ALIVE));
            let mut config = client_config.clone();
            config.transport_config(Arc::new(transport));
            config
        });
        let open = || -> io::Result<(Endpoint, SocketAddr)> {
            let socket = open_socket(listen)?;
            let runtime = Arc::new(TokioRuntime);
            let server_config = server_configs.of(&listen).as_ref().clone();
            let endpoint = Endpoint::new(endpoint_config(), Some(server_config), socket, runtime)?;
            let address = endpoint.local_addr()?;
            Ok((endpoint, address))
        };
        let (endpoint, address) = open().map_err(|error| BindError::Address { address: listen, error })?;
        let listener = Listener::new(&identity, Arc::clone(&trust), handler, limits, server_configs);
        let listener = Arc::new(listener);
        tokio::spawn(Arc::clone(&listener).run(endpoint.clone()));
        let transport = Self {
            process: identity.process,
            cluster: identity.cluster,
            clock,
            endpoint,
            client_configs,
            trust,
            pool: ConnectionPool::default(),
            breakers: PeerBreakers::default(),
            listener,
        };
        Ok((Arc::new(transport), address))
    }

    /// Who this transport is.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        self.process
    }

    /// Ends all connections, tells their peers, and waits at most `patience` until they know.
    pub async fn close(&self, patience: Duration) {
        self.endpoint.close(CLOSE_DONE, b"stopping");
        // Peers that are gone already cannot be told; they are not waited for longer.
        let _ = timeout(patience, self.endpoint.wait_idle()).await;
    }

    /// The peers whose breaker is open, ordered: for status and metrics.
    #[must_use]
    pub fn open_breakers(&self) -> Vec<ProcessId> {
        self.breakers.open()
    }

    /// Connections open at the moment, ours and those of others: for status and metrics.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.endpoint.open_connections()
    }

    /// Bytes of request payloads in memory: for status and metrics.
    #[must_use]
    pub fn inbound_bytes(&self) -> usize {
        self.listener.inbound_bytes()
    }

    pub(crate) async fn dial(&self, peer: &Peer) -> Result<Connection, RpcError> {
        let unreachable = |detail: String| RpcError::Unreachable {
            peer: peer.process,
            detail,
        };
        let connecting = self
            .endpoint
            .connect_with(self.client_configs.of(&peer.address).clone(), peer.address, TLS_NAME)
            .map_err(|error| unreachable(error.to_string()))?;
        let connection = connecting.await.map_err(|error| unsent(peer, &error))?;
        match self.trust.peer_of(&connection) {
            Ok((found, _)) if found == peer.process => Ok(connection),
            Ok((found, _)) => {
                connection.close(CLOSE_DONE, b"another process was meant");
                Err(RpcError::WrongPeer {
                    expected: peer.process,
                    found,
                })
            }
            Err(error) => {
                connection.close(CLOSE_UNTRUSTED, b"no identity");
                Err(RpcError::Untrusted {
                    peer: peer.process,
                    detail: error.to_string(),
                })
            }
        }
    }

    /// Opens a stream to the peer. A pooled connection may turn out to be dead: then one more is dialed, nothing being sent yet.
    async fn open_stream(&self, peer: &Peer, progress: &Progress) -> Result<CallStream, RpcError> {
        let mut attempts_left = 2;
        loop {
            attempts_left -= 1;
            let now = self.clock.monotonic();
            let connection = self.pool.connection(peer, now, || self.dial(peer)).await?;
            progress.connected(connection.kept(), self.clock.monotonic());
            match connection.open_bi().await {
                Ok((send, recv)) => {
                    return Ok(CallStream {
                        _connection: connection,
                        send,
                        recv,
                        is_done: false,
                    });
                }
                Err(error) if attempts_left == 0 => return Err(unsent(peer, &error)),
                Err(_) => {}
            }
        }
    }

    async fn exchange(&self, peer: &Peer, frame: Frame, progress: &Progress) -> Result<Answer, RpcError> {
        let mut stream = self.open_stream(peer, progress).await?;
        progress.sending();
        match write_frame(&mut stream.send, frame).await {
            // Stopped: the peer has read enough to answer with a refusal, which is read below.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return Err(lost(peer, &error)),
            Err(error) => {
                return Err(RpcError::Lost {
                    peer: peer.process,
                    detail: error.to_string(),
                });
            }
        }
        let failed = |error: FrameError| match error {
            FrameError::Reset => RpcError::Lost {
                peer: peer.process,
                detail: "the peer gave the call up".to_owned(),
            },
            FrameError::Lost(error) => lost(peer, &error),
            FrameError::Malformed(failure) => RpcError::Malformed {
                peer: peer.process,
                detail: failure.detail,
            },
        };
        let (head, lengths) = read_head(&mut stream.recv, ANSWER_MAGIC).await.map_err(failed)?;
        let payload = read_payload(&mut stream.recv, lengths.payload).await.map_err(failed)?;
        stream.is_done = true;
        match decode_answer_head(&head) {
            Ok(AnswerHead::Done(message)) => Ok(Answer { message, payload }),
            Ok(AnswerHead::Failed(failure)) => Err(RpcError::Refused(failure)),
            Err(failure) => Err(RpcError::Malformed {
                peer: peer.process,
                detail: failure.detail,
            }),
        }
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.endpoint.close(CLOSE_DONE, b"stopping");
    }
}

#[async_trait]
impl Transport for QuicTransport {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let method = call.method;
        let deadline = deadline.min(DEADLINE_MAX);
        let head = RequestHead {
            cluster: self.cluster,
            target: peer.process,
            method,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            request_id: call.request_id,
        };
        let frame = encode_request(&head, &call)?;
        self.breakers.ask(peer, method, self.clock.monotonic())?;
        let progress = Progress::default();
        let mut waiting = Waiting {
            clock: self.clock.as_ref(),
            progress: &progress,
            is_over: false,
        };
        let result = timeout(deadline, self.exchange(peer, frame, &progress))
            .await
            .unwrap_or_else(|_| {
                if let Some((silent, _)) = progress.silent() {
                    // Nothing at all came back: the next call proves with a handshake of its own that somebody is there.
                    silent.forget();
                }
                Err(RpcError::DeadlineMissed {
                    peer: peer.process,
                    was_sent: progress.was_sent(),
                })
            });
        waiting.is_over = true;
        self.breakers.tell(peer, method, self.clock.monotonic(), &result);
        result
    }
}

/// A call that its caller may give up: a process that was killed and is back at its address answers nothing that comes over its
/// connections of before, which look alive until `IDLE_MAX` has passed.
struct Waiting<'a> {
    clock: &'a dyn Clock,
    progress: &'a Progress,
    is_over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(dead) = self.progress.dead(self.clock.monotonic())
        {
            // As after a missed deadline.
            dead.forget();
        }
    }
}

/// How far a call has come, to be read when its deadline cuts it off or its caller gives it up.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<ProgressState>,
}

#[derive(Default)]
struct ProgressState {
    used: Option<Used>,
    is_sending: bool,
}

/// The connection that a call uses.
struct Used {
    kept: Kept,
    /// Datagrams that it had received when the call got it.
    received: u64,
    /// When the call got it, by the monotonic clock.
    since: Duration,
}

impl Progress {
    /// The call has this connection since `now` of the monotonic clock. What it waited for before says nothing of the connection.
    pub(crate) fn connected(&self, kept: &Kept, now: Duration) {
        let used = Used {
            kept: kept.clone(),
            received: kept.stats().udp_rx.datagrams,
            since: now,
        };
        self.lock().used = Some(used);
    }

    fn sending(&self) {
        self.lock().is_sending = true;
    }

    fn was_sent(&self) -> bool {
        self.lock().is_sending
    }

    /// The call's connection when nothing at all came over it since the call got it, and when that was.
    fn silent(&self) -> Option<(Kept, Duration)> {
        let state = self.lock();
        let used = state.used.as_ref()?;
        let is_silent = used.kept.stats().udp_rx.datagrams == used.received;
        is_silent.then(|| (used.kept.clone(), used.since))
    }

    /// The call's connection when by `now` it was silent for so long that nobody is there.
    pub(crate) fn dead(&self, now: Duration) -> Option<Kept> {
        let (kept, since) = self.silent()?;
        (now.saturating_sub(since) >= DEAD_AFTER).then_some(kept)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ProgressState> {
        // Plain assignments only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream of a call; given up when dropped before its answer was read.
struct CallStream {
    /// Counts the call until it has ended.
    _connection: Lent,
    send: SendStream,
    recv: RecvStream,
    is_done: bool,
}

impl Drop for CallStream {
    fn drop(&mut self) {
        if !self.is_done {
            // Both fail only when that side of the stream has ended by itself.
            let _ = self.send.reset(RESET_CANCELLED);
            let _ = self.recv.stop(RESET_CANCELLED);
        }
    }
}

/// A connection's error before anything was sent over it.
fn unsent(peer: &Peer, error: &ConnectionError) -> RpcError {
    distrusted(peer, error).unwrap_or_else(|| RpcError::Unreachable {
        peer: peer.process,
        detail: error.to_string(),
    })
}

/// A connection's error after a request had begun to leave. When the peer refused our certificate it has executed nothing: it
/// accepts streams only of a peer that it has verified.
fn lost(peer: &Peer, error: &ConnectionError) -> RpcError {
    distrusted(peer, error).unwrap_or_else(|| RpcError::Lost {
        peer: peer.process,
        detail: error.to_string(),
    })
}

fn distrusted(peer: &Peer, error: &ConnectionError) -> Option<RpcError> {
    is_distrust(error).then(|| RpcError::Untrusted {
        peer: peer.process,
        detail: error.to_string(),
    })
}

/// Whether a connection ended by a failed check of certificates, theirs or ours. QUIC has TLS alerts as 0x100 to 0x1ff.
fn is_distrust(error: &ConnectionError) -> bool {
    let is_alert = |code: u64| (0x100..0x200).contains(&code);
    match error {
        ConnectionError::TransportError(error) => is_alert(u64::from(error.code)),
        ConnectionError::ConnectionClosed(close) => is_alert(u64::from(close.error_code)),
        _ => false,
    }
}

/// One value for paths that carry packets of `PACKET_BYTES_MAX` for certain, another for those where nobody knows.
pub(crate) struct ByPath<T> {
    sure: T,
    unknown: T,
    is_always_sure: bool,
}

impl<T> ByPath<T> {
    fn new(is_always_sure: bool, make: impl Fn(bool) -> T) -> Self {
        Self {
            sure: make(true),
            unknown: make(false),
            is_always_sure,
        }
    }

    /// The value for the path to `peer`.
    pub(crate) fn of(&self, peer: &SocketAddr) -> &T {
        if self.is_always_sure || peer.ip().to_canonical().is_loopback() {
            &self.sure
        } else {
            &self.unknown
        }
    }
}

fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(PACKET_BYTES_MAX)
        .expect("QUIC allows packets from 1,200 bytes");
    config
}

fn transport_config(limits: RpcLimits, is_path_sure: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES_MAX);
    if is_path_sure {
        // Losses are losses there and say nothing about length. A length that is taken for certain from the first packet on would
        // spare the search, and left one dialled connection in thirty without an answer (decision 0026).
        discovery.black_hole_cooldown(SEARCH_AGAIN);
    }
    config.mtu_discovery_config(Some(discovery));
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.calls_per_connection_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(
            IDLE_MAX.try_into().expect("six seconds fit QUIC's 62-bit milliseconds"),
        ));
    config
}

fn open_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel cuts these to its maxima without an error; larger buffers spare packets at bursts, nothing depends on them.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::ByPath;

    #[test]
    fn only_loopback_is_known_to_carry_long_packets_unless_the_operator_says_more() {
        let addresses = [
            "127.0.0.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "10.0.0.1:1",
            "[fe80::1]:1",
        ];
        let found = |is_always_sure| {
            let by_path = ByPath::new(is_always_sure, |is_sure| is_sure);
            addresses.map(|address| *by_path.of(&address.parse().unwrap()))
        };
        assert_eq!(found(false), [true, true, true, false, false]);
        assert_eq!(found(true), [true; 5]);
    }
}
