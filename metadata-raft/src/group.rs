//! One replica of one group: propose, read, status, hand over, stop.
//!
//! Invariants: nothing is served after a start before the state has caught up with what the cluster had committed; reads are
//! linearizable; a replica whose state cannot be read ends.
//! Not here: its start (`start`), which groups a process has (`service`), what commands and queries mean (`state`).

use crate::feed_watch::FeedWatch;
use crate::raft::election_clock::ElectionClock;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::lease::Lease;
use crate::raft::network::GroupRaft;
use crate::raft::outgoing::Outgoing;
use crate::raft::read_rounds::ReadRounds;
use crate::raft::receiver::Receiver;
use crate::raft::state_machine::GroupState;
use crate::raft::types::{CommandBytes, ReplicaInfo, TypeConfig};
use crate::raft::unsynced::Unsynced;
use crate::room::Room;
use bytes::Bytes;
use kv::seam::{KvError, KvRead};
use model::id::{GroupId, RaftId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::{Instant, RaftMetrics};
use protocol::frame::{Answer, Call};
use protocol::wire_error::Failure;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

mod asking;
mod group_error;
mod log_bounds;
mod reading;
mod start;
mod watching;

pub use asking::{Answered, answer};
pub use group_error::GroupError;
pub use log_bounds::LogBounds;
pub use reading::ReadBy;
pub use start::{GroupParts, Timing};

/// How long a proposal or a read-index may take. Whoever calls from outside has a deadline of its own; this one is for the process's
/// workers, which would wait for ever, and keep it from stopping, when a majority is gone. A guess: some elections.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A replica as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads, as far as this replica knows.
    pub leader: Option<RaftId>,
    /// The current term.
    pub term: u64,
    /// The last entry of the log.
    pub last_index: Option<u64>,
    /// The last applied entry.
    pub applied_index: Option<u64>,
    /// Everything up to here is purged from the log.
    pub purged_index: Option<u64>,
    /// Who votes.
    pub voters: Vec<RaftId>,
    /// Why the replica stopped; `None` while it runs.
    pub fault: Option<String>,
}

/// A running replica.
pub struct Group {
    group: GroupId,
    replica: RaftId,
    raft: GroupRaft,
    state: GroupState,
    receiver: Receiver,
    reads: ReadRounds,
    lease: Option<Arc<Lease>>,
    asking: asking::Asking,
    outgoing: Arc<Outgoing>,
    heartbeats: Arc<Heartbeats>,
    election_clock: Arc<ElectionClock>,
    timing: Timing,
    bounds: LogBounds,
    room: Arc<Room>,
    /// What the process's log has not synced. Not the log itself, which ends with its process.
    unsynced: Arc<Unsynced>,
    feed: Option<Arc<FeedWatch>>,
    /// Whether the state holds everything that was committed when the replica started.
    recovered: watch::Receiver<bool>,
    /// Why the replica was ended, when it was.
    fault: OnceLock<String>,
}

/// Who leads and where that was when it became a member.
fn leader_in(metrics: &RaftMetrics<TypeConfig>) -> Option<(RaftId, ReplicaInfo)> {
    let leader = metrics.current_leader?;
    let mut members = metrics.membership_config.nodes();
    members
        .find(|(id, _)| **id == leader)
        .map(|(id, info)| (RaftId(*id), *info))
}

impl Group {
    /// Which group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.group
    }

    /// Returns once the state holds everything that was committed when the replica started; nothing may be served before.
    ///
    /// # Errors
    /// `Unavailable` after `patience`.
    pub async fn caught_up(&self, patience: Duration) -> Result<(), GroupError> {
        let mut recovered = self.recovered.clone();
        let waited = tokio::time::timeout(patience, recovered.wait_for(|is_recovered| *is_recovered)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.unavailable("the replica has stopped")),
            Err(_) => Err(GroupError::Recovering { group: self.group }),
        }
    }

    fn unavailable(&self, detail: impl Into<String>) -> GroupError {
        GroupError::Unavailable {
            group: self.group,
            detail: detail.into(),
        }
    }

    /// Refuses whatever asks for the state before it is complete, and after the replica was ended.
    fn require_serving(&self) -> Result<(), GroupError> {
        if let Some(fault) = self.fault.get() {
            return Err(self.unavailable(fault));
        }
        if *self.recovered.borrow() {
            return Ok(());
        }
        let watched = self.raft.metrics();
        let metrics = watched.borrow_watched();
        match metrics.current_leader.filter(|leader| *leader != self.replica.0) {
            // Whoever leads may serve already.
            Some(_) => Err(GroupError::NotLeader {
                group: self.group,
                leader: leader_in(&metrics),
            }),
            None => Err(GroupError::Recovering { group: self.group }),
        }
    }

    /// Ends the replica for good: its store does not give back what was written, so nothing it says can be believed.
    /// The others go on; an operator must look.
    pub fn end_on(&self, error: &KvError) {
        if self.fault.set(error.to_string()).is_err() {
            return;
        }
        tracing::error!(group = %self.group, %error, "replica ended: its store failed");
        let raft = self.raft.clone();
        // Its own task: whoever met the failure may be dropped.
        tokio::spawn(async move { raft.shutdown().await });
    }

    fn not_leader(&self, forward: &ForwardToLeader<TypeConfig>) -> GroupError {
        let leader = forward
            .leader_id
            .zip(forward.leader_node)
            .map(|(id, info)| (RaftId(id), info));
        GroupError::NotLeader {
            group: self.group,
            leader,
        }
    }

    /// Proposes a command and returns its answer once a majority has it synced and this replica has applied it. Dropped midway the
    /// command may still be applied.
    ///
    /// # Errors
    /// `NotLeader` with a hint; `Recovering`; `Overloaded`; `Ambiguous` when leadership was lost after the command was appended.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, GroupError> {
        self.require_serving()?;
        let place = self.room.enter_command(command.len(), &self.unsynced);
        let place = place.ok_or(GroupError::Overloaded { group: self.group })?;
        let raft = self.raft.clone();
        // Its own task: a command that nobody waits for any more still takes its place until it is done.
        let written = tokio::spawn(async move {
            let written = raft.client_write(CommandBytes(command)).await;
            drop(place);
            written
        });
        let ambiguous = |detail: String| GroupError::Ambiguous {
            group: self.group,
            detail,
        };
        let Ok(written) = tokio::time::timeout(ANSWER_WITHIN, written).await else {
            return Err(ambiguous("no majority confirmed it in time".to_owned()));
        };
        match written.map_err(|error| ambiguous(error.to_string()))? {
            Ok(written) => Ok(written.data.0),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(self.not_leader(&forward)),
            Err(error) => Err(ambiguous(error.to_string())),
        }
    }

    /// Runs `read` over the present state, keys beginning with the slot; linearizable when `linearize` came before.
    pub fn read<T>(&self, read: impl FnOnce(&dyn KvRead) -> T) -> T {
        self.state.read(read)
    }

    /// How much may wait at the process.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Answers a call of another replica (`Method::Raft...`), whose certificate says that it is `caller`.
    ///
    /// # Errors
    /// `Invalid` or `Unavailable`.
    pub async fn handle_raft(&self, caller: RaftId, call: &Call) -> Result<Answer, Failure> {
        self.receiver.handle(caller, call).await
    }

    /// Answers one sign of life of another replica's message of many.
    ///
    /// # Errors
    /// As `handle_raft`.
    pub async fn handle_beat(&self, append: &Bytes) -> Result<Bytes, Failure> {
        self.receiver.take_beat(append).await
    }

    /// The present state of things here.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        let watched = self.raft.metrics();
        let metrics = watched.borrow_watched();
        GroupStatus {
            leader: metrics.current_leader.map(RaftId),
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied_index: metrics.last_applied.map(|applied| applied.index),
            purged_index: metrics.purged.map(|purged| purged.index),
            voters: metrics.membership_config.voter_ids().map(RaftId).collect(),
            fault: self
                .fault
                .get()
                .cloned()
                .or_else(|| metrics.running_state.as_ref().err().map(ToString::to_string)),
        }
    }

    /// The last applied entry of this replica.
    #[must_use]
    pub fn applied_index(&self) -> Option<u64> {
        self.state.last_applied().map(|applied| applied.index)
    }

    /// Whether this replica leads, as far as it knows, and serves.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.leads() && self.require_serving().is_ok()
    }

    /// Whether the replica waits until a vote is on its disk. It does nothing else meanwhile, and does not see who leads by now.
    #[must_use]
    pub fn saves_vote(&self) -> bool {
        self.unsynced.saves_vote(self.group)
    }

    /// Lets openraft's clock rest while `is_held` and the replica waits until a vote is on its disk. Its core reads nothing then, and
    /// puts a word of its own into the queue of notes before it reads on: ticks would fill that within two hours, and it would wait
    /// for itself for good.
    pub fn rest_clock(&self, is_held: bool) {
        self.election_clock.hold(is_held && self.saves_vote());
    }

    fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().current_leader == Some(self.replica.0) && !self.saves_vote()
    }

    /// Syncs the state and lets the log be purged up to it, when enough was applied since the last time or `is_forced`.
    /// Not while a replica is being sent the state, since it needs the log from there on.
    ///
    /// # Errors
    /// `Unavailable` when the replica has stopped.
    pub async fn mark_if_due(&self, is_forced: bool) -> Result<(), GroupError> {
        if self.outgoing.look() && !is_forced {
            return Ok(());
        }
        let (applied, marked) = {
            let watched = self.raft.metrics();
            let metrics = watched.borrow_watched();
            (
                metrics.last_applied.map_or(0, |at| at.index),
                metrics.snapshot.map_or(0, |at| at.index),
            )
        };
        if !is_forced && applied.saturating_sub(marked) < self.bounds.entries_between_marks {
            return Ok(());
        }
        let triggered = self.raft.trigger().snapshot().await;
        triggered.map_err(|error| GroupError::Unavailable {
            group: self.group,
            detail: error.to_string(),
        })
    }

    /// The voters that could lead at once: those that answered this leader within an election. Empty where this replica follows.
    #[must_use]
    pub fn successors(&self) -> Vec<RaftId> {
        let watched = self.raft.metrics();
        let metrics = watched.borrow_watched();
        let Some(heard) = &metrics.heartbeat else {
            return Vec::new();
        };
        let is_fresh = |voter: &u64| {
            let last = heard.get(voter).and_then(|last| last.as_ref());
            *voter != self.replica.0 && last.is_some_and(|last| last.elapsed() < self.timing.election_min)
        };
        metrics
            .membership_config
            .voter_ids()
            .filter(is_fresh)
            .map(RaftId)
            .collect()
    }

    /// Hands leadership to `successor`. False when that did not come about within an election; then this replica goes on, or the
    /// others elect one of them. Where this replica follows nothing happens.
    pub async fn hand_over(&self, successor: RaftId) -> bool {
        if !self.leads() || self.raft.trigger().transfer_leader(successor.0).await.is_err() {
            return false;
        }
        let handed_over =
            |metrics: &RaftMetrics<TypeConfig>| metrics.current_leader.is_some_and(|leader| leader != self.replica.0);
        let wait = self.raft.wait(Some(self.timing.election_max));
        wait.metrics(handed_over, "leadership handed over").await.is_ok()
    }

    /// Stops the replica; a leader hands over first and waits at most one election for it.
    pub async fn stop(&self) {
        let successors = self.successors();
        // Groups of a process that stops go to different ones of the others.
        let at = usize::try_from(self.group.0).unwrap_or(0) % successors.len().max(1);
        if let Some(successor) = successors.get(at) {
            // Not handed over in time is no fault: the others elect one of them.
            let is_done = self.hand_over(*successor).await;
            tracing::info!(group = %self.group, %successor, is_done, "leadership handed over at the stop");
        } else if self.leads() {
            tracing::info!(group = %self.group, "stops as leader: no other voter answered it within an election");
        }
        self.end().await;
    }

    /// Stops the replica as it is, for when its peers end too: nobody is there to hand over to.
    pub async fn end(&self) {
        self.heartbeats.leave(self.group);
        self.outgoing.clear();
        // A task that panicked is stopped too.
        drop(self.raft.shutdown().await);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.heartbeats.leave(self.group);
    }
}

#[cfg(test)]
mod tests;
