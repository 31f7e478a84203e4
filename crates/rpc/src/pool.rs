//! The connections that a dialer keeps: one to each peer and a spare one while several calls are under way at once, made when needed
//! and made again when broken.
//!
//! A connection that nobody uses still costs probes and acknowledgements; of a cluster that does nothing they were a quarter of all
//! packets. So spare ones go soon, and the last one to a storage node goes when that was not called for minutes.
//! Invariants: a connection is handed out only after its other end proved to be the peer's process; none is let go under a call, nor
//! the last one to a metadata replica: an election, and whoever looks for the new leader, would wait for a handshake.
//! Not here: connections that others make to us (listener.rs).

use crate::limits::{CONNECTIONS_PER_PEER, SPARE_KEPT, UNUSED_KEPT};
use crate::transport::{Peer, RpcError};
use model::process::{ProcessId, Role};
use quinn::Connection;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The connections of one transport.
#[derive(Default)]
pub(crate) struct ConnectionPool {
    peers: Mutex<BTreeMap<ProcessId, Arc<PeerConnections>>>,
    /// When all peers were looked at last, in milliseconds of the caller's monotonic clock.
    looked_ms: AtomicU64,
}

struct PeerConnections {
    address: SocketAddr,
    /// Whether the last connection stays however long nobody calls.
    is_kept: bool,
    /// A slot is locked while it is dialed, so that a hundred callers make one connection and wait for it.
    slots: [ConnectionSlot; CONNECTIONS_PER_PEER],
    next: AtomicUsize,
    /// Calls under way.
    calls: AtomicUsize,
    /// When the last call began, in milliseconds of the caller's monotonic clock.
    used_ms: AtomicU64,
    /// When another slot than the first was used last, by the same clock.
    spare_used_ms: AtomicU64,
}

/// A place for a connection.
type ConnectionSlot = tokio::sync::Mutex<Option<Kept>>;

/// A connection as its slot and the calls over it share it.
#[derive(Clone)]
pub(crate) struct Kept {
    connection: Connection,
    is_forgotten: Arc<AtomicBool>,
}

impl Kept {
    /// No later call gets this connection, the next one in its slot dials anew; calls under way keep it.
    pub(crate) fn forget(&self) {
        self.is_forgotten.store(true, Ordering::Relaxed);
    }

    fn is_usable(&self) -> bool {
        !self.is_forgotten.load(Ordering::Relaxed) && self.connection.close_reason().is_none()
    }
}

impl Deref for Kept {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A connection for one call, whose end is this one's.
pub(crate) struct Lent {
    kept: Kept,
    peer: Arc<PeerConnections>,
}

impl Lent {
    /// The connection, to be held beyond the call.
    pub(crate) fn kept(&self) -> &Kept {
        &self.kept
    }
}

impl Deref for Lent {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.kept
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.peer.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a call until it has its connection.
struct Asking(Option<Arc<PeerConnections>>);

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(peer) = self.0.take() {
            peer.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl PeerConnections {
    /// The slot for a call: the first while it is alone, else each in turn.
    fn slot(&self, others: usize, now_ms: u64) -> usize {
        if others > 0 {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS_PER_PEER;
            if turn > 0 {
                self.spare_used_ms.store(now_ms, Ordering::Relaxed);
            }
            return turn;
        }
        self.let_spares_go(now_ms);
        0
    }

    /// Lets those go that were not used for too long. Called while no call needs them.
    fn let_spares_go(&self, now_ms: u64) {
        if is_longer_ago(SPARE_KEPT, self.spare_used_ms.load(Ordering::Relaxed), now_ms) {
            let_go(&self.slots[1..]);
        }
    }

    /// As `let_spares_go`, and lets the last connection to a storage node go as well once nobody has called for long.
    fn let_unused_go(&self, now_ms: u64) {
        self.let_spares_go(now_ms);
        if !self.is_kept && is_longer_ago(UNUSED_KEPT, self.used_ms.load(Ordering::Relaxed), now_ms) {
            let_go(&self.slots);
        }
    }
}

fn let_go(slots: &[ConnectionSlot]) {
    for slot in slots {
        // One that is being dialed is not let go. The last handle that is dropped closes a connection, so no call loses it.
        if let Ok(mut slot) = slot.try_lock() {
            *slot = None;
        }
    }
}

fn is_longer_ago(span: Duration, then_ms: u64, now_ms: u64) -> bool {
    u128::from(now_ms.saturating_sub(then_ms)) > span.as_millis()
}

impl ConnectionPool {
    /// A live connection to `peer` for one call that begins at `now` of the monotonic clock; `dial` makes a missing one. May be
    /// dropped midway.
    pub(crate) async fn connection<Dial, Dialing>(
        &self,
        peer: &Peer,
        now: Duration,
        dial: Dial,
    ) -> Result<Lent, RpcError>
    where
        Dial: FnOnce() -> Dialing,
        Dialing: Future<Output = Result<Connection, RpcError>>,
    {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let connections = self.connections_of(peer);
        let others = connections.calls.fetch_add(1, Ordering::Relaxed);
        let mut asking = Asking(Some(Arc::clone(&connections)));
        connections.used_ms.store(now_ms, Ordering::Relaxed);
        // Behind the count, so that this call finds the connection that it is about to use.
        self.let_unused_go_if_due(now_ms);
        let turn = connections.slot(others, now_ms);
        let mut slot = connections.slots[turn].lock().await;
        let known = slot.as_ref().filter(|kept| kept.is_usable());
        let kept = match known {
            Some(kept) => kept.clone(),
            None => {
                let fresh = Kept {
                    connection: dial().await?,
                    is_forgotten: Arc::default(),
                };
                *slot = Some(fresh.clone());
                fresh
            }
        };
        drop(slot);
        asking.0 = None;
        Ok(Lent {
            kept,
            peer: connections,
        })
    }

    /// Lets connections to all peers go now and then that nobody uses: a peer that is not called any more would keep its own for good.
    fn let_unused_go_if_due(&self, now_ms: u64) {
        if !is_longer_ago(SPARE_KEPT, self.looked_ms.load(Ordering::Relaxed), now_ms) {
            return;
        }
        // Two calls that both look do no harm.
        self.looked_ms.store(now_ms, Ordering::Relaxed);
        let peers: Vec<Arc<PeerConnections>> = self.peers().values().cloned().collect();
        for peer in peers {
            if peer.calls.load(Ordering::Relaxed) == 0 {
                peer.let_unused_go(now_ms);
            }
        }
    }

    fn connections_of(&self, peer: &Peer) -> Arc<PeerConnections> {
        let mut peers = self.peers();
        if let Some(found) = peers.get(&peer.process).filter(|found| found.address == peer.address) {
            return Arc::clone(found);
        }
        // A peer that moved to another address is dialed there; the old connections end with their last call.
        let fresh = Arc::new(PeerConnections {
            address: peer.address,
            is_kept: peer.process.role != Role::Node,
            slots: std::array::from_fn(|_| tokio::sync::Mutex::new(None)),
            next: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            used_ms: AtomicU64::new(0),
            spare_used_ms: AtomicU64::new(0),
        });
        peers.insert(peer.process, Arc::clone(&fresh));
        fresh
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Arc<PeerConnections>>> {
        // Changes are single map operations.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
