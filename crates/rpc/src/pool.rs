//! The connections that a dialer keeps: two to each peer, made when needed and made again when broken.
//!
//! Invariant: a connection is handed out only after its other end proved to be the peer's process.
//! Not here: connections that others make to us (listener.rs).

use crate::limits::CONNECTIONS_PER_PEER;
use crate::transport::{Peer, RpcError};
use model::process::ProcessId;
use quinn::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The connections of one transport.
#[derive(Default)]
pub(crate) struct ConnectionPool {
    peers: Mutex<BTreeMap<ProcessId, Arc<PeerConnections>>>,
}

struct PeerConnections {
    address: SocketAddr,
    /// A slot is locked while it is dialed, so that a hundred callers make one connection and wait for it.
    slots: [tokio::sync::Mutex<Option<Connection>>; CONNECTIONS_PER_PEER],
    next: AtomicUsize,
}

impl ConnectionPool {
    /// A live connection to `peer`, in turn from its slots; `dial` makes a missing one. May be dropped midway.
    pub(crate) async fn connection<Dial, Dialing>(&self, peer: &Peer, dial: Dial) -> Result<Connection, RpcError>
    where
        Dial: FnOnce() -> Dialing,
        Dialing: Future<Output = Result<Connection, RpcError>>,
    {
        let connections = self.connections_of(peer);
        let turn = connections.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS_PER_PEER;
        let mut slot = connections.slots[turn].lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.close_reason().is_none()) {
            return Ok(connection.clone());
        }
        let connection = dial().await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Drops the peer's connections from the pool: the next calls dial anew, calls under way keep theirs.
    pub(crate) fn forget(&self, process: ProcessId) {
        self.peers().remove(&process);
    }

    fn connections_of(&self, peer: &Peer) -> Arc<PeerConnections> {
        let mut peers = self.peers();
        if let Some(found) = peers.get(&peer.process).filter(|found| found.address == peer.address) {
            return Arc::clone(found);
        }
        // A peer that moved to another address is dialed there; the old connections end with their last call.
        let fresh = Arc::new(PeerConnections {
            address: peer.address,
            slots: std::array::from_fn(|_| tokio::sync::Mutex::new(None)),
            next: AtomicUsize::new(0),
        });
        peers.insert(peer.process, Arc::clone(&fresh));
        fresh
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Arc<PeerConnections>>> {
        // Changes are single map operations.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
