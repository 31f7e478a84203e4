//! When a replica may be read: a read-index from a majority, a lease, or the leader's word.
//!
//! Invariant: nothing is told to be readable before the state holds everything that was acknowledged before the question.
//! Not here: reading itself (`Group::read`, `asking`), how a majority is asked (`raft/read_rounds`), leases (`raft/lease`).

use super::{ANSWER_WITHIN, Group, GroupError, leader_in};
use crate::raft::read_rounds::{NoRound, Told};
use openraft::async_runtime::watch::WatchReceiver;

/// By what right a state is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// This leader has heard from a majority since the read was asked for.
    Majority,
    /// This leader's lease holds.
    Lease,
    /// The leader told this follower up to where to apply.
    Follower,
}

impl Group {
    /// Returns once this replica's state holds everything acknowledged before the call: by a read-index, shared with other readers.
    /// A follower asks its leader for it. Never under a lease.
    ///
    /// # Errors
    /// `NotLeader` with a hint when no leader can be asked; `Recovering`; `Unavailable` when too few replicas answered.
    pub async fn linearize(&self) -> Result<ReadBy, GroupError> {
        self.require_serving()?;
        self.apply_to(self.reads.join().await).await
    }

    /// As `linearize`, under the lease where that is allowed and holds, and not shared: the caller has collected who waits.
    pub(super) async fn linearize_for_query(&self) -> Result<ReadBy, GroupError> {
        self.require_serving()?;
        let leased = match &self.lease {
            Some(lease) => lease.read_index().await,
            None => None,
        };
        let Some(index) = leased else {
            return self.apply_to(self.reads.alone().await).await;
        };
        self.applied_at_least(index).await?;
        Ok(ReadBy::Lease)
    }

    async fn apply_to(&self, told: Told) -> Result<ReadBy, GroupError> {
        let read = match told {
            Ok(read) => read,
            Err(NoRound::NotLed(leader)) => {
                let group = self.group;
                return Err(GroupError::NotLeader { group, leader });
            }
            Err(NoRound::Unavailable(detail)) => return Err(self.unavailable(detail)),
        };
        self.applied_at_least(read.index).await?;
        Ok(if read.is_follower {
            ReadBy::Follower
        } else {
            ReadBy::Majority
        })
    }

    async fn applied_at_least(&self, index: u64) -> Result<(), GroupError> {
        if self.applied_index() < Some(index) {
            let applied = self.raft.wait(Some(ANSWER_WITHIN));
            let applied = applied.applied_index_at_least(Some(index), "read-index").await;
            applied.map_err(|error| self.unavailable(error.to_string()))?;
        }
        Ok(())
    }

    /// Whether this replica leads as far as it knows.
    ///
    /// # Errors
    /// `NotLeader` with a hint when it serves and does not lead; what it does not serve is found when it is asked.
    pub fn require_leading(&self) -> Result<(), GroupError> {
        if self.require_serving().is_ok() && !self.leads() {
            let watched = self.raft.metrics();
            let metrics = watched.borrow_watched();
            return Err(GroupError::NotLeader {
                group: self.group,
                leader: leader_in(&metrics),
            });
        }
        Ok(())
    }

    /// As `linearize`, at the leader alone.
    ///
    /// # Errors
    /// As `linearize`, and `NotLeader` from a follower.
    pub async fn linearize_as_leader(&self) -> Result<(), GroupError> {
        self.require_leading()?;
        self.linearize().await.map(drop)
    }
}
