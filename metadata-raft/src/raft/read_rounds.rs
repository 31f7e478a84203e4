//! Rounds of read-index: all readers that wait when one begins share it.
//!
//! A read may be answered from a state that holds everything acknowledged before it began. A leader learns up to where that is by
//! hearing from a majority once; a follower asks its leader, and is heard from by that (`is_majority`). A reader that comes while a
//! round is under way waits for the next one, since the present one may have looked before the reader came.
//! Invariants: a round begins after all of its readers came; one round at a time; each has a deadline, and one that asks a leader ends
//! when that leads no more.
//! Not here: waiting until the state is there, reading (`group`).

use crate::raft::network::{GroupNetwork, GroupRaft};
use crate::raft::types::{ReplicaInfo, TypeConfig};
use model::id::RaftId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{LinearizableReadError, RaftError};
use openraft::{RaftMetrics, ReadPolicy};
use std::collections::BTreeSet;
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

/// Whether `both`, replicas of one group, are a majority of each of its sets of voters: then a follower that asks a leader for a
/// read-index is all that this leader needs to hear from.
///
/// Nobody whom that leader does not know of can have been elected before the follower asked, and so have acknowledged anything that
/// its readers must see: whoever is elected has the vote of one of the two. The follower's was not given in a later term than it told,
/// and the leader's not in a later one than its own, in which it still leads when the question is there (Raft, section 6.4 of Ongaro's
/// thesis, with the question itself as the heartbeat's answer; decision 0057).
#[must_use]
pub fn is_majority(both: [RaftId; 2], voters: &[BTreeSet<u64>]) -> bool {
    let of_both = |set: &BTreeSet<u64>| set.iter().filter(|voter| both.contains(&RaftId(**voter))).count();
    voters.iter().all(|set| of_both(set) * 2 > set.len())
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
        // Asked for behind the coming of all readers: how far this replica has gone along with elections by then.
        let term = self.raft.with_raft_state(|state| state.vote_ref().leader_id.term).await;
        let Ok(term) = term else {
            return Err(NoRound::Unavailable("the replica has stopped".to_owned()));
        };
        tokio::select! {
            biased;
            told = self.network.read_index(id, info.address, term, self.within) => match told {
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

#[cfg(test)]
mod tests {
    use super::is_majority;
    use model::id::RaftId;
    use std::collections::BTreeSet;

    #[test]
    fn two_replicas_are_a_majority_of_up_to_three_voters_and_of_each_set_where_there_are_two() {
        let check = |both: [u64; 2], sets: &[&[u64]]| {
            let sets: Vec<BTreeSet<u64>> = sets.iter().map(|set| set.iter().copied().collect()).collect();
            is_majority(both.map(RaftId), &sets)
        };
        assert!(check([1, 2], &[&[1, 2]]) && check([1, 3], &[&[1, 2, 3]]));
        assert!(!check([1, 3], &[&[1, 2, 3, 4]]) && !check([1, 3], &[&[1, 2, 3, 4, 5]]));
        assert!(!check([1, 4], &[&[1, 2, 3]]), "one that may not vote");
        assert!(!check([1, 1], &[&[1, 2, 3]]), "one for both");
        assert!(check([1, 3], &[&[1, 2, 3], &[1, 3, 4]]));
        assert!(
            !check([1, 2], &[&[1, 2, 3], &[1, 3, 4]]),
            "a majority of the first alone"
        );
    }
}
