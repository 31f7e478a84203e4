//! One replica of one group: start, propose, read, status, bootstrap, stop.
//!
//! Invariants: nothing is served after a start before the state has caught up with what the cluster had committed; reads are
//! linearizable; a replica whose state is older than its purged log does not start, and one whose state cannot be read ends.
//! Not here: which groups a process has (`service`), what commands and queries mean (`state`).

use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::log_store::RaftLog;
use crate::raft::network::{GroupNetwork, GroupRaft, Receiver};
use crate::raft::outgoing::Outgoing;
use crate::raft::read_rounds::{NoRound, ReadRounds};
use crate::raft::state_machine::{Apply, GroupState};
use crate::raft::types::{CommandBytes, ReplicaInfo, TypeConfig};
use crate::room::Room;
use bytes::Bytes;
use kv::seam::{Kv, KvError, KvRead};
use model::id::{GroupId, RaftId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ClientWriteError, ForwardToLeader, RaftError};
use openraft::storage::RaftLogStorage;
use openraft::{Config, Instant, RaftMetrics, SnapshotPolicy};
use protocol::frame::{Answer, Call};
use protocol::wire_error::Failure;
use rpc::transport::Transport;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

mod group_error;

pub use group_error::GroupError;

/// Entries of one append to a follower; a byte limit cuts earlier.
const APPEND_ENTRIES_MAX: u64 = 512;
/// Entries kept behind a mark, so that a follower that was away shortly needs no snapshot. A guess.
const ENTRIES_KEPT: u64 = 2_000;
/// Applied entries since the last mark from which `mark_if_due` makes a new one. A guess: seconds of writing, little to replay.
const ENTRIES_BETWEEN_MARKS: u64 = 5_000;

/// How long a proposal or a read-index may take. Whoever calls from outside has a deadline of its own; this one is for the process's
/// workers, which would wait for ever, and keep it from stopping, when a majority is gone. A guess: some elections.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How a group's replicas find that one of them is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two signs of life of a leader.
    pub heartbeat: Duration,
    /// Shortest silence after which a follower stands for election.
    pub election_min: Duration,
    /// Longest such silence; also a leader's lease.
    pub election_max: Duration,
}

impl Timing {
    /// Replicas in one site or near each other.
    pub const LAN: Self = Self {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(600),
        election_max: Duration::from_millis(900),
    };
    /// Replicas far from each other.
    pub const WAN: Self = Self {
        heartbeat: Duration::from_millis(300),
        election_min: Duration::from_millis(1_400),
        election_max: Duration::from_millis(2_100),
    };
}

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

/// What a replica is made of.
pub struct GroupParts {
    /// Which group.
    pub group: GroupId,
    /// This replica.
    pub replica: RaftId,
    /// The log of the process.
    pub log: Arc<RaftLog>,
    /// The store of the process.
    pub kv: Arc<dyn Kv>,
    /// What commands mean.
    pub apply: Arc<dyn Apply>,
    /// How other replicas are called. Not held by the replica: whoever starts it keeps it.
    pub transport: Arc<dyn Transport>,
    /// Where they are.
    pub addresses: Arc<AddressBook>,
    /// The signs of life of the process.
    pub heartbeats: Arc<Heartbeats>,
    /// How much may wait at the process.
    pub room: Arc<Room>,
    /// How fast a lost leader is noticed.
    pub timing: Timing,
    /// A random number, for telling snapshot transfers apart.
    pub nonce: u64,
}

/// A running replica.
pub struct Group {
    group: GroupId,
    replica: RaftId,
    raft: GroupRaft,
    state: GroupState,
    receiver: Receiver,
    reads: ReadRounds,
    outgoing: Arc<Outgoing>,
    heartbeats: Arc<Heartbeats>,
    timing: Timing,
    room: Arc<Room>,
    /// Whether the state holds everything that was committed when the replica started.
    recovered: watch::Receiver<bool>,
    /// Why the replica was ended, when it was.
    fault: OnceLock<String>,
}

fn config_of(group: GroupId, timing: Timing) -> Config {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: format!("group-{group}"),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        max_payload_entries: APPEND_ENTRIES_MAX,
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        snapshot_policy: SnapshotPolicy::Never,
        enable_pre_vote: Some(true),
        // A restored leader could answer a read below an acknowledged commit, since the state is written without sync.
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}

/// Tells once the state holds everything that was committed when the replica started.
///
/// The commit must be known to cover the log as it was at the start, or what is left of it after a new leader cut its end off; and
/// the state must have applied all of that. openraft's `wait_for_recovery` asks for the log as it is now, which a replica that is
/// being written to never reaches.
fn watch_recovery(raft: GroupRaft, last_at_start: Option<u64>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let covers = move |metrics: &RaftMetrics<TypeConfig>| {
        let committed = metrics.cluster_committed.map(|at| at.index);
        committed.is_some() && committed >= metrics.last_log_index.min(last_at_start)
    };
    tokio::spawn(async move {
        // Errors mean that the replica has stopped first; the dropped sender says so.
        let Ok(metrics) = raft.wait(None).metrics(covers, "commit covers the log").await else {
            return;
        };
        let target = metrics.cluster_committed.map(|at| at.index);
        if raft.wait(None).applied_index_at_least(target, "applied").await.is_ok() {
            sender.send_replace(true);
        }
    });
    receiver
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
    /// Starts a replica on what its log and store hold. It takes part at once and serves after `caught_up`.
    ///
    /// # Errors
    /// `Lost` when the state is older than the purged log; `Store`, `Log` or `Bug` when it cannot run.
    pub async fn start(parts: GroupParts) -> Result<Self, GroupError> {
        let store = parts.log.store_of(parts.group);
        Self::start_on(parts, store).await
    }

    /// Starts a replica whose log openraft sees through `store`.
    async fn start_on<L: RaftLogStorage<TypeConfig>>(parts: GroupParts, mut store: L) -> Result<Self, GroupError> {
        let GroupParts {
            group,
            replica,
            log,
            kv,
            apply,
            transport,
            addresses,
            heartbeats,
            room,
            timing,
            nonce,
        } = parts;
        if let Some(fault) = log.fault() {
            return Err(fault.into());
        }
        let state = GroupState::open(kv, group, apply)?;
        let applied = state.last_applied().map(|applied| applied.index);
        if let Some(purged) = log.purged(group).map(|purged| purged.index)
            && applied.is_none_or(|applied| applied < purged)
        {
            return Err(GroupError::Lost { group, applied, purged });
        }
        let bug = |detail: String| GroupError::Bug { group, detail };
        let config = config_of(group, timing)
            .validate()
            .map_err(|error| bug(error.to_string()))?;
        let last_at_start = store.get_log_state().await.map_err(|error| bug(error.to_string()))?;
        let last_at_start = last_at_start.last_log_id.map(|last| last.index);
        let outgoing = Arc::new(Outgoing::new(nonce));
        let network = GroupNetwork::new(
            &transport,
            Arc::clone(&addresses),
            group,
            Arc::clone(&outgoing),
            Arc::clone(&heartbeats),
            timing.election_min,
        );
        let raft = GroupRaft::new(replica.0, Arc::new(config), network.clone(), store, state.clone())
            .await
            .map_err(|error| bug(error.to_string()))?;
        heartbeats.join(group, raft.clone());
        let reads = ReadRounds::new(raft.clone(), network, ANSWER_WITHIN);
        let receiver = Receiver::new(raft.clone(), state.clone(), group, addresses);
        let recovered = watch_recovery(raft.clone(), last_at_start);
        Ok(Self {
            group,
            replica,
            raft,
            state,
            receiver,
            reads,
            outgoing,
            heartbeats,
            timing,
            room,
            recovered,
            fault: OnceLock::new(),
        })
    }

    /// Makes a new group of these voters. Called on one of them, once in a group's life; an error when it has a log already.
    ///
    /// # Errors
    /// `Bug` when the group exists.
    pub async fn bootstrap(&self, voters: BTreeMap<RaftId, ReplicaInfo>) -> Result<(), GroupError> {
        let voters: BTreeMap<u64, ReplicaInfo> = voters.into_iter().map(|(id, info)| (id.0, info)).collect();
        let initialized = self.raft.initialize(voters).await;
        initialized.map_err(|error| GroupError::Bug {
            group: self.group,
            detail: error.to_string(),
        })
    }

    /// Whether the group was made: this replica has a vote or an entry of it.
    ///
    /// # Errors
    /// `Unavailable` when the replica has stopped.
    pub async fn is_made(&self) -> Result<bool, GroupError> {
        self.raft
            .is_initialized()
            .await
            .map_err(|error| GroupError::Unavailable {
                group: self.group,
                detail: error.to_string(),
            })
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
        let place = self.room.enter_command(command.len());
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

    /// Returns once this replica's state holds everything acknowledged before the call: by a read-index, shared with other readers.
    /// A follower asks its leader for it. True when this replica is a follower.
    ///
    /// # Errors
    /// `NotLeader` with a hint when no leader can be asked; `Recovering`; `Unavailable` when too few replicas answered.
    pub async fn linearize(&self) -> Result<bool, GroupError> {
        self.require_serving()?;
        let read = match self.reads.join().await {
            Ok(read) => read,
            Err(NoRound::NotLed(leader)) => {
                let group = self.group;
                return Err(GroupError::NotLeader { group, leader });
            }
            Err(NoRound::Unavailable(detail)) => return Err(self.unavailable(detail)),
        };
        if self.applied_index() < Some(read.index) {
            let applied = self.raft.wait(Some(ANSWER_WITHIN));
            let applied = applied.applied_index_at_least(Some(read.index), "read-index").await;
            applied.map_err(|error| self.unavailable(error.to_string()))?;
        }
        Ok(read.is_follower)
    }

    /// As `linearize`, at the leader alone.
    ///
    /// # Errors
    /// As `linearize`, and `NotLeader` from a follower.
    pub async fn linearize_as_leader(&self) -> Result<(), GroupError> {
        if self.require_serving().is_ok() && !self.leads() {
            let watched = self.raft.metrics();
            let metrics = watched.borrow_watched();
            return Err(GroupError::NotLeader {
                group: self.group,
                leader: leader_in(&metrics),
            });
        }
        self.linearize().await.map(drop)
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

    fn leads(&self) -> bool {
        self.raft.metrics().borrow_watched().current_leader == Some(self.replica.0)
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
        if !is_forced && applied.saturating_sub(marked) < ENTRIES_BETWEEN_MARKS {
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
            self.hand_over(*successor).await;
        }
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
