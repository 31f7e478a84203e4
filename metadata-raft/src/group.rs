//! One replica of one group: start, propose, read, status, bootstrap, stop.
//!
//! Invariants: nothing is served after a start before the state has caught up with what the cluster had committed; reads are
//! linearizable; a replica whose state is older than its purged log does not start.
//! Not here: which groups a process has (`service`), what commands and queries mean (`state`).

use crate::raft::log_store::{LogError, RaftLog};
use crate::raft::network::{GroupNetwork, GroupRaft, Receiver};
use crate::raft::state_machine::{Apply, GroupState};
use crate::raft::types::{CommandBytes, ReplicaInfo, TypeConfig};
use bytes::Bytes;
use kv::seam::{Kv, KvError, KvRead};
use model::error_kind::ErrorKind;
use model::id::{GroupId, RaftId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::{Config, ReadPolicy, SnapshotPolicy};
use protocol::frame::{Answer, Call};
use protocol::wire_error::Failure;
use rpc::transport::Transport;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Entries of one append to a follower; a byte limit cuts earlier.
const APPEND_ENTRIES_MAX: u64 = 512;
/// Entries kept behind a mark, so that a follower that was away shortly needs no snapshot. A guess.
const ENTRIES_KEPT: u64 = 2_000;
/// Applied entries since the last mark from which `mark_if_due` makes a new one. A guess: seconds of writing, little to replay.
const ENTRIES_BETWEEN_MARKS: u64 = 5_000;

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

/// Why a replica did not do what was asked.
#[derive(Debug, Error)]
pub enum GroupError {
    /// Another replica leads, or none at present; nothing was done.
    #[error("group {group} is not led from here")]
    NotLeader {
        /// Which group.
        group: GroupId,
        /// Who leads, as far as this replica knows, and where that listens.
        leader: Option<(RaftId, ReplicaInfo)>,
    },
    /// Too few replicas answered, or the state has not caught up after a start; nothing was done.
    #[error("group {group} is unavailable: {detail}")]
    Unavailable {
        /// Which group.
        group: GroupId,
        /// What is missing.
        detail: String,
    },
    /// The command was proposed; whether it is or will be applied is not known.
    #[error("group {group}: outcome unknown: {detail}")]
    Ambiguous {
        /// Which group.
        group: GroupId,
        /// What happened.
        detail: String,
    },
    /// This replica's state is older than its purged log, as after the loss of its store: it must leave and come back as a new one.
    #[error("replica of group {group} is lost: applied {applied:?}, log purged to {purged}")]
    Lost {
        /// Which group.
        group: GroupId,
        /// What its state covers.
        applied: Option<u64>,
        /// Where its log begins.
        purged: u64,
    },
    /// The store failed.
    #[error("group store: {0}")]
    Store(#[from] KvError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// openraft refused what it must not refuse, as a configuration.
    #[error("group {group}: {detail}")]
    Bug {
        /// Which group.
        group: GroupId,
        /// What it said.
        detail: String,
    },
}

impl GroupError {
    /// What it means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } | Self::Unavailable { .. } | Self::Lost { .. } => ErrorKind::Unavailable,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::Store(_) | Self::Log(_) => ErrorKind::Unavailable,
            Self::Bug { .. } => ErrorKind::Bug,
        }
    }
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
    /// How other replicas are called.
    pub transport: Arc<dyn Transport>,
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
    timing: Timing,
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

impl Group {
    /// Starts a replica on what its log and store hold. It takes part at once and serves after `caught_up`.
    ///
    /// # Errors
    /// `Lost` when the state is older than the purged log; `Store`, `Log` or `Bug` when it cannot run.
    pub async fn start(parts: GroupParts) -> Result<Self, GroupError> {
        let GroupParts {
            group,
            replica,
            log,
            kv,
            apply,
            transport,
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
        let network = GroupNetwork::new(transport, group, nonce);
        let raft = GroupRaft::new(replica.0, Arc::new(config), network, log.store_of(group), state.clone())
            .await
            .map_err(|error| bug(error.to_string()))?;
        let receiver = Receiver::new(raft.clone(), state.clone(), group);
        Ok(Self {
            group,
            replica,
            raft,
            state,
            receiver,
            timing,
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

    /// Returns once the state holds everything that was committed when the replica started; nothing may be served before.
    ///
    /// # Errors
    /// `Unavailable` after `patience`.
    pub async fn caught_up(&self, patience: Duration) -> Result<(), GroupError> {
        match self.raft.wait_for_recovery(Some(patience)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(GroupError::Unavailable {
                group: self.group,
                detail: error.to_string(),
            }),
        }
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
    /// `NotLeader` with a hint; `Ambiguous` when leadership was lost after the command was appended.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, GroupError> {
        match self.raft.client_write(CommandBytes(command)).await {
            Ok(written) => Ok(written.data.0),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Err(self.not_leader(&forward)),
            Err(error) => Err(GroupError::Ambiguous {
                group: self.group,
                detail: error.to_string(),
            }),
        }
    }

    /// Returns once this replica's state holds everything acknowledged before the call: by a read-index, shared with other callers.
    ///
    /// # Errors
    /// `NotLeader` with a hint; `Unavailable` when too few replicas answered.
    pub async fn linearize(&self) -> Result<(), GroupError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => Err(self.not_leader(&forward)),
            Err(error) => Err(GroupError::Unavailable {
                group: self.group,
                detail: error.to_string(),
            }),
        }
    }

    /// Runs `read` over the present state, keys beginning with the slot; linearizable when `linearize` came before.
    pub fn read<T>(&self, read: impl FnOnce(&dyn KvRead) -> T) -> T {
        self.state.read(read)
    }

    /// Answers a call of another replica (`Method::Raft...`).
    ///
    /// # Errors
    /// `Invalid` or `Unavailable`.
    pub async fn handle_raft(&self, call: &Call) -> Result<Answer, Failure> {
        self.receiver.handle(call).await
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
            fault: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Whether this replica leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.status().leader == Some(self.replica)
    }

    /// Syncs the state and lets the log be purged up to it, when enough was applied since the last time or `is_forced`.
    ///
    /// # Errors
    /// `Unavailable` when the replica has stopped.
    pub async fn mark_if_due(&self, is_forced: bool) -> Result<(), GroupError> {
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

    /// Stops the replica; a leader hands over first and waits at most one election for it.
    pub async fn stop(&self) {
        let successor = self.status().voters.into_iter().find(|voter| *voter != self.replica);
        if let Some(successor) = successor.filter(|_| self.is_leader())
            && self.raft.trigger().transfer_leader(successor.0).await.is_ok()
        {
            let handed_over =
                |metrics: &openraft::RaftMetrics<TypeConfig>| metrics.current_leader != Some(self.replica.0);
            // Not handed over in time is no fault: the others elect one of them.
            drop(
                self.raft
                    .wait(Some(self.timing.election_max))
                    .metrics(handed_over, "leadership handed over")
                    .await,
            );
        }
        // A task that panicked is stopped too.
        drop(self.raft.shutdown().await);
    }
}

#[cfg(test)]
mod tests;
