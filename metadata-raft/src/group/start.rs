//! Making a replica out of its parts, and a group out of replicas.
//!
//! Invariants: a replica whose state is older than its purged log does not start; one that was started takes part at once and is
//! `recovered` only when it knows that its state holds everything that was committed before.
//! Not here: what a replica does then (`group`).

use super::{ANSWER_WITHIN, Group, GroupError, LogBounds, asking};
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::incoming::Incoming;
use crate::raft::lease::{self, Lease, OldPromise};
use crate::raft::log_store::RaftLog;
use crate::raft::network::{GroupNetwork, GroupRaft};
use crate::raft::outgoing::Outgoing;
use crate::raft::read_rounds::ReadRounds;
use crate::raft::receiver::Receiver;
use crate::raft::state_machine::{Apply, GroupState};
use crate::raft::types::{ReplicaInfo, TypeConfig};
use crate::room::Room;
use daemon::clock::Clock;
use kv::seam::Kv;
use model::id::{GroupId, RaftId};
use openraft::storage::RaftLogStorage;
use openraft::{Config, RaftMetrics, SnapshotPolicy};
use rpc::transport::Transport;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// Entries of one append to a follower; a byte limit cuts earlier.
const APPEND_ENTRIES_MAX: u64 = 512;
/// What may wait for openraft's core of one group: commands and queries as many as the room lets in, and calls of the other replicas,
/// which QUIC bounds. One that is full makes its caller wait.
const CORE_CALLS_MAX: u64 = 16_384;
/// What openraft's own tasks may tell that core: ticks, ends of I/O and progress of followers. The core tells itself some of it, so
/// this must never fill up, also not while it waits for a full disk (`Group::rest_clock`): openraft's own size.
const CORE_NOTES_MAX: u64 = 65_536;
/// Batches that wait to be applied; then the core waits. openraft's own size.
const APPLIES_MAX: u64 = 1_024;

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
        heartbeat: Duration::from_millis(180),
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
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// Whether queries are answered under a leader's lease.
    pub lease_reads: bool,
    /// How long the log gets.
    pub bounds: LogBounds,
    /// A random number, for telling snapshot transfers apart.
    pub nonce: u64,
}

fn bug(group: GroupId, error: impl std::fmt::Display) -> GroupError {
    GroupError::Bug {
        group,
        detail: error.to_string(),
    }
}

/// Refuses a state that lacks entries which the log has no more, and drops entries that contradict the state.
async fn reconcile(log: &Arc<RaftLog>, state: &GroupState, group: GroupId) -> Result<(), GroupError> {
    let applied = state.last_applied();
    let at = applied.map(|applied| applied.index);
    if let Some(purged) = log.purged(group).map(|purged| purged.index)
        && at.is_none_or(|at| at < purged)
    {
        let applied = at;
        return Err(GroupError::Lost { group, applied, purged });
    }
    let Some(applied) = applied else {
        return Ok(());
    };
    let dropped = log.drop_contradicted(group, applied).await;
    dropped.map_err(|error| bug(group, error))
}

/// What the store holds of a group, after the log agrees with it.
async fn open_state(
    log: &Arc<RaftLog>,
    kv: Arc<dyn Kv>,
    group: GroupId,
    apply: Arc<dyn Apply>,
) -> Result<GroupState, GroupError> {
    if let Some(fault) = log.fault() {
        return Err(fault.into());
    }
    let state = GroupState::open(kv, group, apply)?;
    reconcile(log, &state, group).await?;
    Ok(state)
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
    pub(super) async fn start_on<L: RaftLogStorage<TypeConfig>>(
        parts: GroupParts,
        mut store: L,
    ) -> Result<Self, GroupError> {
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
            clock,
            lease_reads,
            bounds,
            nonce,
        } = parts;
        let feed = apply.feed();
        let state = open_state(&log, kv, group, apply).await?;
        let config = config_of(group, timing, bounds.entries_kept)?;
        let log_at_start = store.get_log_state().await.map_err(|error| bug(group, error))?;
        let promise = OldPromise::of(&mut store, Arc::clone(&clock), timing.election_min).await;
        let promise = promise.map_err(|error| bug(group, error))?;
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
            .map_err(|error| bug(group, error))?;
        let election_clock = heartbeats.join(group, raft.clone());
        let lease = lease_reads.then(|| Arc::new(Lease::new(raft.clone(), clock, lease::longest(timing.election_min))));
        let receiver = Receiver::new(
            raft.clone(),
            Arc::clone(&election_clock),
            Incoming::new(raft.clone(), state.clone(), group),
            addresses,
            promise,
            lease.clone(),
            Arc::clone(&room),
        );
        Ok(Self {
            group,
            replica,
            recovered: watch_recovery(raft.clone(), log_at_start.last_log_id.map(|last| last.index)),
            reads: ReadRounds::new(raft.clone(), network, ANSWER_WITHIN),
            raft,
            state,
            receiver,
            lease,
            asking: asking::Asking::default(),
            outgoing,
            heartbeats,
            election_clock,
            timing,
            bounds,
            room,
            unsynced: Arc::clone(log.unsynced()),
            feed,
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
        initialized.map_err(|error| bug(self.group, error))
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
}

/// What openraft takes for the time between heartbeats. Those are sent by `Heartbeats`; openraft draws from it only how often a group
/// looks whether its election is due (`tick_ms`) and how long a successor is waited for. Looking at a sixth of the shortest silence
/// delays an election by that at most. It looks only while no leader lives (`raft::election_clock`).
const fn tick_base_ms(timing: Timing) -> u128 {
    timing.election_min.as_millis() * 3 / 4
}

/// Between two looks of openraft. The fraction of `tick_base_ms` is openraft's own (`Config::tick_interval`, which is not public).
const fn tick_ms(timing: Timing) -> u128 {
    tick_base_ms(timing) * 13 / 64
}

/// Whether an election clock that rests runs again before an election can be due: a look finds the last sign of life, the next one finds
/// none, and the first tick comes a tick later.
const fn runs_in_time(timing: Timing) -> bool {
    timing.heartbeat.as_millis() * 2 + tick_ms(timing) < timing.election_min.as_millis()
}

const _: () = assert!(
    runs_in_time(Timing::LAN) && runs_in_time(Timing::WAN),
    "an election clock that rests would miss when an election is due"
);

fn config_of(group: GroupId, timing: Timing, entries_kept: u64) -> Result<Config, GroupError> {
    let ms = |count: u128| u64::try_from(count).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: format!("group-{group}"),
        heartbeat_interval: ms(tick_base_ms(timing)),
        election_timeout_min: ms(timing.election_min.as_millis()),
        election_timeout_max: ms(timing.election_max.as_millis()),
        max_payload_entries: APPEND_ENTRIES_MAX,
        api_channel_size: Some(CORE_CALLS_MAX),
        notification_channel_size: Some(CORE_NOTES_MAX),
        state_machine_channel_size: Some(APPLIES_MAX),
        max_in_snapshot_log_to_keep: entries_kept,
        snapshot_policy: SnapshotPolicy::Never,
        enable_pre_vote: Some(true),
        // A restored leader could answer a read below an acknowledged commit, since the state is written without sync.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|error| bug(group, error))
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
