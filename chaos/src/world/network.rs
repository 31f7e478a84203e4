//! The transport of the simulated world: each call a datagram of turmoil's each way, delayed, reordered, lost or cut as it says.
//!
//! QUIC mends lost packets until a connection breaks; here a lost datagram is a call that misses its deadline, which is the harder
//! case and the same to callers: sent at most once, perhaps executed.
//! Invariants: heads, role checks and breakers are those of the real transports (`rpc::datagram`); an answer meant for an earlier
//! life of a process finds nobody waiting.
//! Not here: connections, flow control and certificates, which only real QUIC shows (docs/testing.md, level 5).

use crate::world::faults::Faults;
use crate::world::shape::{CLUSTER, address};
use crate::world::trace::{Kind, Trace, short};
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use daemon::clock::Clock;
use daemon::random::Random;
use model::process::{ProcessId, Role};
use protocol::frame::{Answer, Call};
use rpc::datagram::{self, Breakers};
use rpc::transport::{Handler, Peer, RpcError, Transport};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use turmoil::net::UdpSocket;

/// Longest datagram that is taken: a frame's greatest payload and head.
const DATAGRAM_BYTES_MAX: usize = 8 << 20;
/// Kind, role, number and id of a call.
const FRONT_BYTES: usize = 1 + 1 + 8 + 8;

const REQUEST: u8 = 0;
const ANSWER: u8 = 1;

/// Where a process's service is put once it stands; requests before that vanish, as at a port where nobody listens.
pub type Service = Arc<OnceLock<Arc<dyn Handler>>>;

/// A process's end of the network.
pub struct SimTransport {
    wire: Arc<Wire>,
    breakers: Breakers,
}

struct Wire {
    own: ProcessId,
    socket: UdpSocket,
    random: Random,
    faults: Faults,
    trace: Trace,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Bytes>>>,
    calls: AtomicU64,
}

struct Front {
    kind: u8,
    sender: ProcessId,
    call: u64,
}

impl Front {
    fn joined(&self, body: &Bytes) -> Bytes {
        let mut whole = BytesMut::with_capacity(FRONT_BYTES + body.len());
        whole.put_u8(self.kind);
        whole.put_u8(match self.sender.role {
            Role::Node => 0,
            Role::Metadata => 1,
            Role::Gateway => 2,
            Role::Admin => 3,
        });
        whole.put_u64_le(self.sender.number);
        whole.put_u64_le(self.call);
        whole.put_slice(body);
        whole.freeze()
    }

    fn taken(datagram: &Bytes) -> Option<(Self, Bytes)> {
        let (front, _) = datagram.split_first_chunk::<FRONT_BYTES>()?;
        let number = |at: usize| Some(u64::from_le_bytes(front.get(at..at + 8)?.try_into().ok()?));
        let role = [Role::Node, Role::Metadata, Role::Gateway, Role::Admin]
            .get(usize::from(front[1]))
            .copied()?;
        let sender = ProcessId {
            role,
            number: number(2)?,
        };
        let front = Self {
            kind: front[0],
            sender,
            call: number(10)?,
        };
        Some((front, datagram.slice(FRONT_BYTES..)))
    }
}

impl SimTransport {
    /// Binds `own` on the host that runs this and serves what is put into the second part.
    ///
    /// Errors: the port is taken, which one process a host never finds.
    pub async fn bind(
        own: ProcessId,
        clock: Arc<dyn Clock>,
        random: Random,
        faults: Faults,
        trace: Trace,
    ) -> std::io::Result<(Arc<dyn Transport>, Service)> {
        let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address(own).port()))).await?;
        let wire = Arc::new(Wire {
            own,
            socket,
            calls: AtomicU64::new(random.u64()),
            random,
            faults,
            trace,
            waiting: Mutex::default(),
        });
        let service = Service::default();
        tokio::spawn(receive(Arc::clone(&wire), Arc::clone(&service)));
        let breakers = Breakers::new(clock);
        Ok((Arc::new(Self { wire, breakers }), service))
    }
}

async fn receive(wire: Arc<Wire>, service: Service) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((len_bytes, from)) = wire.socket.recv_from(&mut buffer).await else {
            return;
        };
        let datagram = Bytes::copy_from_slice(&buffer[..len_bytes]);
        let Some((front, body)) = Front::taken(&datagram) else {
            continue;
        };
        if front.kind == ANSWER {
            if let Some(waiting) = wire.waiting().remove(&front.call) {
                // Its caller may have given up in the meantime.
                drop(waiting.send(body));
            }
            continue;
        }
        let Some(handler) = service.get().cloned() else {
            continue;
        };
        let wire = Arc::clone(&wire);
        tokio::spawn(async move {
            let Front { sender, call, .. } = front;
            if let Some(answer) = datagram::serve(handler.as_ref(), wire.own, CLUSTER, sender, &body).await {
                wire.send(ANSWER, call, &answer, from);
            }
        });
    }
}

impl Wire {
    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Bytes>>> {
        // Single map operations.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, kind: u8, call: u64, body: &Bytes, to: SocketAddr) {
        let front = Front {
            kind,
            sender: self.own,
            call,
        };
        let is_lost = self.faults.is_lost(&self.random);
        let (len_bytes, name) = (body.len(), short(body));
        self.trace.note(
            Kind::Message,
            self.own,
            format_args!("to {to} kind {kind} {len_bytes} bytes {name} lost {is_lost}"),
        );
        if !is_lost && let Err(error) = self.socket.try_send_to(&front.joined(body), to) {
            tracing::debug!(%error, "datagram not sent");
        }
    }

    async fn exchange(&self, peer: &Peer, call: &Call, deadline: Duration) -> Result<Answer, RpcError> {
        let request = datagram::request(CLUSTER, peer, call, deadline)?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(number, sender);
        self.send(REQUEST, number, &request, peer.address);
        let answered = timeout(deadline, receiver).await;
        self.waiting().remove(&number);
        match answered {
            Ok(Ok(body)) => datagram::answer(peer, &body),
            Ok(Err(_)) | Err(_) => Err(RpcError::DeadlineMissed {
                peer: peer.process,
                was_sent: true,
            }),
        }
    }
}

#[async_trait]
impl Transport for SimTransport {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let exchange = self.wire.exchange(peer, &call, deadline);
        self.breakers.call(peer, &call, exchange).await
    }
}
