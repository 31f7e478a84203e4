//! The transport in memory: processes of one program call each other through the same frames and checks, with faults on demand.
//!
//! Invariants: every call is encoded and decoded as on the wire; identity is what was given at `attach`, as certificates would say.
//! Not here: lost or late packets (chaos has turmoil's network for those); streams, windows and certificates (quic.rs).

use crate::admission::{check_request, run_handler};
use crate::breaker::PeerBreakers;
use crate::limits::DEADLINE_MAX;
use crate::transport::{Handler, Peer, RpcError, Transport};
use crate::wire::{PREAMBLE_BYTES, decode_answer_head, decode_request_head, encode_answer, encode_request};
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::Clock;
use model::id::ClusterId;
use model::process::ProcessId;
use protocol::frame::{Answer, AnswerHead, Call, RequestHead};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// What is wrong with the way from one process to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Connections are refused: calls fail at once as `Unreachable`.
    Cut,
    /// Requests vanish: nothing is executed and nothing comes back.
    RequestsVanish,
    /// Requests arrive and are executed, answers vanish.
    AnswersVanish,
}

/// The network that the transports share; clones are the same network.
#[derive(Clone)]
pub struct MemoryNetwork {
    inner: Arc<Mutex<Wires>>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Wires {
    attached: BTreeMap<SocketAddr, Attached>,
    faults: BTreeMap<(ProcessId, ProcessId), Fault>,
    ports_given: u16,
}

#[derive(Clone)]
struct Attached {
    process: ProcessId,
    cluster: ClusterId,
    handler: Arc<dyn Handler>,
}

/// Calls in memory. Detached from the network when dropped.
pub struct MemoryTransport {
    network: MemoryNetwork,
    process: ProcessId,
    cluster: ClusterId,
    address: SocketAddr,
    breakers: PeerBreakers,
}

impl MemoryNetwork {
    /// A network without processes and faults, whose breakers go by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::default(),
            clock,
        }
    }

    /// Adds a process; returns its transport and the address under which others call it.
    ///
    /// # Panics
    /// After 65,535 attachments.
    #[must_use]
    pub fn attach(
        &self,
        process: ProcessId,
        cluster: ClusterId,
        handler: Arc<dyn Handler>,
    ) -> (Arc<MemoryTransport>, SocketAddr) {
        let mut wires = self.wires();
        wires.ports_given = wires
            .ports_given
            .checked_add(1)
            .expect("a simulation attaches fewer than 65,536 processes");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, wires.ports_given));
        wires.attached.insert(
            address,
            Attached {
                process,
                cluster,
                handler,
            },
        );
        let breakers = PeerBreakers::default();
        (
            Arc::new(MemoryTransport {
                network: self.clone(),
                process,
                cluster,
                address,
                breakers,
            }),
            address,
        )
    }

    /// Puts a fault on the way from one process to another; the way back is another one. Calls under way are not touched.
    pub fn break_way(&self, from: ProcessId, to: ProcessId, fault: Fault) {
        self.wires().faults.insert((from, to), fault);
    }

    /// Takes the fault off the way from one process to another.
    pub fn mend_way(&self, from: ProcessId, to: ProcessId) {
        self.wires().faults.remove(&(from, to));
    }

    /// Takes all faults off.
    pub fn mend_all(&self) {
        self.wires().faults.clear();
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        // Changes are single map operations.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryTransport {
    async fn exchange(&self, peer: &Peer, head: &RequestHead, call: &Call) -> Result<Answer, RpcError> {
        let frame = encode_request(head, call)?;
        let (attached, fault) = {
            let wires = self.network.wires();
            let fault = wires.faults.get(&(self.process, peer.process)).copied();
            (wires.attached.get(&peer.address).cloned(), fault)
        };
        let unreachable = |detail: &str| RpcError::Unreachable {
            peer: peer.process,
            detail: detail.to_owned(),
        };
        if fault == Some(Fault::Cut) {
            return Err(unreachable("the way is cut"));
        }
        if fault == Some(Fault::RequestsVanish) {
            return std::future::pending().await;
        }
        let attached = attached.ok_or_else(|| unreachable("nobody listens there"))?;
        if attached.cluster != self.cluster {
            let detail = "the process belongs to another cluster".to_owned();
            return Err(RpcError::Untrusted {
                peer: peer.process,
                detail,
            });
        }
        if attached.process != peer.process {
            return Err(RpcError::WrongPeer {
                expected: peer.process,
                found: attached.process,
            });
        }
        let joined: Bytes = [&frame.front[PREAMBLE_BYTES..], &frame.message[..]].concat().into();
        let served = async {
            let (fields, message) = decode_request_head(&joined)?;
            check_request(attached.process, attached.cluster, self.process, &fields)?;
            let call = Call {
                method: fields.method,
                request_id: fields.request_id,
                message,
                payload: frame.payload,
            };
            run_handler(attached.handler.as_ref(), attached.process, self.process, call).await
        };
        let answer = encode_answer(served.await);
        if fault == Some(Fault::AnswersVanish) {
            return std::future::pending().await;
        }
        match decode_answer_head(&answer.front.slice(PREAMBLE_BYTES..)) {
            Ok(AnswerHead::Done(message)) => Ok(Answer {
                message,
                payload: answer.payload,
            }),
            Ok(AnswerHead::Failed(failure)) => Err(RpcError::Refused(failure)),
            Err(failure) => Err(RpcError::Malformed {
                peer: peer.process,
                detail: failure.detail,
            }),
        }
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        self.network.wires().attached.remove(&self.address);
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let deadline = deadline.min(DEADLINE_MAX);
        let head = RequestHead {
            cluster: self.cluster,
            target: peer.process,
            method: call.method,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
            request_id: call.request_id,
        };
        let clock = &self.network.clock;
        self.breakers.ask(peer, call.method, clock.monotonic())?;
        let result = timeout(deadline, self.exchange(peer, &head, &call))
            .await
            // In memory the request leaves at once, so a missed deadline is always one after sending.
            .unwrap_or(Err(RpcError::DeadlineMissed {
                peer: peer.process,
                was_sent: true,
            }));
        self.breakers.tell(peer, call.method, clock.monotonic(), &result);
        result
    }
}
