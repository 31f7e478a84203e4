//! Rounds of read-index: all readers that wait when one begins share it.
//!
//! A read may be answered from a state that holds everything acknowledged before it began. A leader learns up to where that is by
//! hearing from a majority once; a follower asks its leader. A reader that comes while a round is under way waits for the next
//! one, since the present one may have looked before the reader came.
//! Invariants: a round begins after all of its readers came; one round at a time; each has a deadline, and one that asks a leader ends
//! when that leads no more.
//! Not here: waiting until the state is there, reading (`group`).

use crate::raft::network::{GroupNetwork, GroupRaft};
use crate::raft::types::{ReplicaInfo, TypeConfig};
use model::id::RaftId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{LinearizableReadError, RaftError};
use openraft::{RaftMetrics, ReadPolicy};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Why a round told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRound {
    /// Nobody that this replica could ask leads; who does as far as it knows.
    NotLed(Option<(RaftId, ReplicaInfo)>),
    /// Too few replicas answered, or the leader did not.
    Unavailable(String),
}

/// Up to which entry the state must have been applied, and whether another replica said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// The entry.
    pub index: u64,
    /// Whether the reader is a follower.
    pub is_follower: bool,
}

/// What a round found out.
pub type Told = Result<ReadIndex, NoRound>;

#[derive(Default)]
struct Readers {
    waiting: Vec<oneshot::Sender<Told>>,
    is_running: bool,
}

/// The rounds of one replica of one group; clones are the same.
#[derive(Clone)]
pub struct ReadRounds {
    raft: GroupRaft,
    network: GroupNetwork,
    within: Duration,
    readers: Arc<Mutex<Readers>>,
}

impl ReadRounds {
    /// A round may take `within`.
    #[must_use]
    pub fn new(raft: GroupRaft, network: GroupNetwork, within: Duration) -> Self {
        Self {
            raft,
            network,
            within,
            readers: Arc::default(),
        }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a round that begins after this call. May be dropped midway; the others of the round do not notice.
    ///
    /// # Errors
    /// Why nothing is known; the same for all readers of the round.
    pub async fn join(&self) -> Told {
        let (sender, told) = oneshot::channel();
        let begins = {
            let mut readers = self.readers();
            readers.waiting.push(sender);
            !std::mem::replace(&mut readers.is_running, true)
        };
        if begins {
            // Its own task: the reader that begins may be dropped, the others still wait.
            tokio::spawn(self.clone().run());
        }
        let gone = || Err(NoRound::Unavailable("the replica has stopped".to_owned()));
        told.await.unwrap_or_else(|_| gone())
    }

    /// A round of this caller alone, who may have collected readers of its own. May be dropped midway.
    ///
    /// # Errors
    /// As `join`.
    pub async fn alone(&self) -> Told {
        let told = timeout(self.within, self.round()).await;
        told.unwrap_or_else(|_| Err(NoRound::Unavailable("too few replicas answered in time".to_owned())))
    }

    async fn run(self) {
        loop {
            let round = {
                let mut readers = self.readers();
                readers.is_running = !readers.waiting.is_empty();
                std::mem::take(&mut readers.waiting)
            };
            if round.is_empty() {
                return;
            }
            let told = self.alone().await;
            for reader in round {
                // Some may not wait any more.
                drop(reader.send(told.clone()));
            }
        }
    }

    async fn round(&self) -> Told {
        let leader = match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(confirmed) => {
                return Ok(ReadIndex {
                    index: confirmed.read_log_id().index(),
                    is_follower: false,
                });
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => forward
                .leader_id
                .zip(forward.leader_node)
                .map(|(id, info)| (RaftId(id), info)),
            Err(error) => return Err(NoRound::Unavailable(error.to_string())),
        };
        let Some((id, info)) = leader else {
            return Err(NoRound::NotLed(None));
        };
        if !self.takes_for_leader(id) {
            // A leader that hands over names its successor before it is followed: that one is to be asked.
            return Err(NoRound::NotLed(leader));
        }
        tokio::select! {
            biased;
            told = self.network.read_index(id, info.address, self.within) => match told {
                Ok(index) => Ok(ReadIndex {
                    index,
                    is_follower: true,
                }),
                // It leads no more, or is gone: whoever asked tries again, there or elsewhere.
                Err(_) => Err(NoRound::NotLed(leader)),
            },
            // A dead leader would be waited for in vain, and with it all readers of the next round, also at a replica that leads itself
            // by then.
            () = self.no_longer_led_by(id) => Err(NoRound::NotLed(None)),
        }
    }

    fn takes_for_leader(&self, leader: RaftId) -> bool {
        self.raft.metrics().borrow_watched().current_leader == Some(leader.0)
    }

    /// Returns once this replica takes another one for the leader than `leader`, or none, or has stopped.
    async fn no_longer_led_by(&self, leader: RaftId) {
        let waiting = self.raft.wait(None);
        let is_another = |metrics: &RaftMetrics<TypeConfig>| metrics.current_leader != Some(leader.0);
        // An error says that the replica has stopped: nothing is told here any more.
        drop(waiting.metrics(is_another, "another leader").await);
    }
}
