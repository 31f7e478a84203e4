//! Where the replicas of a cluster are: told by the configuration, corrected by the replicas themselves.
//!
//! Every call between replicas carries the address at which its sender listens, and whom a certificate names is believed about
//! itself. So a replica may come back at another address: its first call for votes tells the others, and the leader finds it.
//! Invariant: an address is looked up anew for each call. The addresses in a group's members are a first hint and nothing more.
//! Not here: whether the right process answers there (the transport's certificates).

use model::id::RaftId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};

/// The addresses of a cluster's replicas, as one of them knows them.
pub struct AddressBook {
    own: SocketAddr,
    known: RwLock<BTreeMap<RaftId, SocketAddr>>,
}

impl AddressBook {
    /// The book of a replica that others reach at `own`; `replicas` are those that the configuration names.
    pub fn new(own: SocketAddr, replicas: impl IntoIterator<Item = (RaftId, SocketAddr)>) -> Self {
        Self {
            own,
            known: RwLock::new(replicas.into_iter().collect()),
        }
    }

    /// Where others reach this replica.
    #[must_use]
    pub fn own(&self) -> SocketAddr {
        self.own
    }

    /// Where a replica was last known to be; `None` for one that neither the configuration nor the replica itself told.
    #[must_use]
    pub fn address_of(&self, replica: RaftId) -> Option<SocketAddr> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&replica).copied()
    }

    /// Notes what a replica says about itself. The caller has checked that it is that replica.
    pub fn learn(&self, replica: RaftId, address: SocketAddr) {
        if self.address_of(replica) == Some(address) {
            return;
        }
        let before = {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(replica, address)
        };
        tracing::info!(%replica, %address, ?before, "replica has another address");
    }
}

#[cfg(test)]
mod tests {
    use super::AddressBook;
    use model::id::RaftId;
    use std::net::SocketAddr;

    #[test]
    fn what_a_replica_says_of_itself_takes_the_place_of_what_was_configured() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let book = AddressBook::new(at(1), [(RaftId(1), at(1)), (RaftId(2), at(2))]);
        assert_eq!(book.address_of(RaftId(2)), Some(at(2)));
        book.learn(RaftId(2), at(20));
        book.learn(RaftId(3), at(3));
        let found = [1, 2, 3, 4].map(|id| book.address_of(RaftId(id)));
        assert_eq!(found, [Some(at(1)), Some(at(20)), Some(at(3)), None]);
        assert_eq!(book.own(), at(1));
    }
}
