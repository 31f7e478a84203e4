//! A running metadata process: its log opened, its groups started, its calls answered, its workers running.
//!
//! Steps: 1. volume, directory and identity; 2. log and state; 3. a replica of each group; 4. the handler; 5. groups that are new
//! are made by the replica that was told to; 6. each group serves once it has caught up; 7. workers.
//! Invariant: nothing is served by a group before step 6.
//! Not here: the listener and its certificates (the process's wiring hands calls to the handler).

use crate::config::{Config, Timing as TimingChoice};
use crate::feed_watch::FeedWatch;
use crate::group::{Group, GroupError, GroupParts, Timing};
use crate::identity::{self, IdentityError};
use crate::metrics;
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::journal_stream::JournalStream;
use crate::raft::log_store::{LogError, RaftLog};
use crate::raft::state_machine::Apply;
use crate::raft::types::ReplicaInfo;
use crate::readiness::MetadataReadiness;
use crate::room::Room;
use crate::service::MetadataService;
use crate::state::State;
use crate::state::age::Times;
use crate::volume;
use crate::worker::age::AgeWorker;
use crate::worker::bell::Bell;
use crate::worker::control_reader::ControlReader;
use crate::worker::founder::Founder;
use crate::worker::group_keeper::GroupKeeper;
use crate::worker::layout::LayoutWorker;
use crate::worker::leader_spread::LeaderSpread;
use crate::worker::log_keeper::LogKeeper;
use crate::worker::space_keeper::SpaceKeeper;
use crate::worker::sweep::SweepWorker;
use bytes::Bytes;
use daemon::clock::{Clock, until_multiple};
use daemon::metrics::Metrics;
use daemon::random::Random;
use daemon::status_port::Readiness;
use daemon::worker::Workers;
use disk::{Disk, JournalOptions, TailPolicy};
use futures_util::future::join_all;
use kv::overlay::Overlay;
use kv::seam::{Kv, KvError};
use model::id::{CONTROL_GROUP, ClusterId, GroupId, RaftId};
use rpc::transport::Transport;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;

/// Where the Raft log lies on its disk.
pub const LOG_DIR: &str = "raft";
/// How often a process looks whether its log and its store can still be written.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a group may take to catch up before that is said in the log; it goes on trying.
const CATCH_UP_SAID_AFTER: Duration = Duration::from_secs(10);

/// What a metadata process stands on; real in production, simulated in chaos.
#[derive(Clone)]
pub struct Seams {
    /// The cluster that the process belongs to.
    pub cluster: ClusterId,
    /// Holds the log and the identity.
    pub disk: Arc<dyn Disk>,
    /// Holds the state of all groups.
    pub kv: Arc<dyn Kv>,
    /// Calls the other replicas and the nodes.
    pub transport: Arc<dyn Transport>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Random,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's workers.
    pub workers: Workers,
}

/// Why a metadata process does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The directory is not this replica's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Names and the tree would lie unencrypted although that was forbidden.
    #[error(
        "the metadata directory does not lie on an encrypted volume; set one up (LUKS) or unset metadata.require_encrypted_volume"
    )]
    NotEncrypted,
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A group cannot be started.
    #[error(transparent)]
    Group(#[from] GroupError),
}

/// A metadata process that answers calls until it is stopped.
pub struct MetadataProcess {
    service: Arc<MetadataService>,
    groups: BTreeMap<GroupId, Arc<Group>>,
    log: Arc<RaftLog>,
    stream: Arc<JournalStream>,
    kv: Arc<dyn Kv>,
    transport: Arc<dyn Transport>,
}

/// The state machine as Raft calls it.
pub(crate) struct StateApply {
    state: State,
    /// Of the control group for each command, of a drive group for those that leave something to do.
    bell: Arc<Bell>,
    is_control: bool,
    /// Of the batch that is being applied.
    times: Mutex<Times>,
    feed: Arc<FeedWatch>,
}

impl StateApply {
    /// The machine of `group`, which rings `bell`.
    pub(crate) fn new(group: GroupId, bell: Arc<Bell>) -> Self {
        Self {
            state: State::new(group),
            bell,
            is_control: group == CONTROL_GROUP,
            times: Mutex::default(),
            feed: Arc::new(FeedWatch::new(0)),
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Apply for StateApply {
    fn apply(&self, state: &mut Overlay<'_>, _term: u64, index: u64, command: &Bytes) -> Result<Bytes, KvError> {
        let applied = self.state.apply_noting(state, &mut self.times(), index, command)?;
        if applied.enters_work || self.is_control {
            self.bell.pull();
        }
        if !applied.moved.is_empty() {
            self.feed.moves(index, applied.moved);
        }
        Ok(applied.reply)
    }

    fn applied(&self, index: u64) {
        // Before the next batch a snapshot may be installed.
        self.times().forget();
        self.bell.ring();
        self.feed.written(index);
    }

    fn jumped(&self, index: u64) {
        self.feed.jumped(index);
    }

    fn feed(&self) -> Option<Arc<FeedWatch>> {
        Some(Arc::clone(&self.feed))
    }
}

impl MetadataProcess {
    /// What answers the calls.
    #[must_use]
    pub fn service(&self) -> Arc<MetadataService> {
        Arc::clone(&self.service)
    }

    /// Whether it can serve its groups now.
    #[must_use]
    pub fn readiness(&self) -> Arc<dyn Readiness> {
        let transport = Arc::clone(&self.transport);
        Arc::new(MetadataReadiness::new(self.service(), transport))
    }

    /// Who leads `group`, as far as this replica knows; `None` when nobody does or the process has no replica of it.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<RaftId> {
        self.groups.get(&group)?.status().leader
    }

    /// Hands leadership over, ends the groups and the log, and makes the state durable.
    pub async fn stop(&self) {
        self.stream.space().end();
        // All at once: each may wait for an election, and there may be hundreds.
        join_all(self.groups.values().map(|group| group.stop())).await;
        self.make_durable().await;
    }

    /// As `stop`, without handing over: for when all replicas end at once.
    pub async fn end(&self) {
        self.stream.space().end();
        join_all(self.groups.values().map(|group| group.end())).await;
        self.make_durable().await;
    }

    async fn make_durable(&self) {
        if let Err(error) = self.log.flush().await {
            tracing::error!(%error, "raft log did not take its last positions");
        }
        let (stream, kv) = (Arc::clone(&self.stream), Arc::clone(&self.kv));
        let ended = tokio::task::spawn_blocking(move || (stream.stop(), kv.sync())).await;
        if let Ok((Err(error), _)) = &ended {
            tracing::error!(%error, "raft log did not end well");
        }
        if let Ok((_, Err(error))) = &ended {
            tracing::error!(%error, "metadata state did not sync");
        }
    }

    /// Returns, with the reason, once the log or the store has failed to write: then none of the groups takes anything in any more, and
    /// both must be opened anew, which a start of the process does. A full disk under the log is no such failure: that is waited for.
    /// Never of a process that was stopped and dropped. May be dropped midway.
    pub fn failed(&self, clock: Arc<dyn Clock>) -> impl Future<Output = String> + Send + use<> {
        let (log, kv) = (Arc::downgrade(&self.log), Arc::downgrade(&self.kv));
        async move {
            loop {
                let (Some(log), Some(kv)) = (log.upgrade(), kv.upgrade()) else {
                    return std::future::pending().await;
                };
                let failure = log.fault().map(|fault| fault.to_string()).or_else(|| kv.failure());
                drop((log, kv));
                match failure {
                    Some(failure) => return failure,
                    None => clock.sleep(until_multiple(clock.wall(), LOOK_EVERY)).await,
                }
            }
        }
    }

    /// Returns once every group has a leader and this replica serves.
    pub async fn caught_up(&self) {
        for (id, group) in &self.groups {
            while let Err(error) = group.caught_up(CATCH_UP_SAID_AFTER).await {
                tracing::warn!(group = %id, %error, "group has not caught up yet");
            }
        }
    }
}

/// Opens log and state, starts a replica of each group and the workers.
///
/// `makes_groups` tells the one replica that makes the groups of a new cluster, at its first start alone: whether that is over is
/// the wiring's to know, since an empty directory does not tell.
///
/// Errors: see `StartError`; nothing is left running then.
pub async fn start(config: &Config, seams: &Seams, makes_groups: bool) -> Result<MetadataProcess, StartError> {
    if !volume::report(&config.data_dir, config.require_encrypted_volume, &seams.metrics) {
        return Err(StartError::NotEncrypted);
    }
    identity::check_or_write(seams.disk.as_ref(), seams.cluster, config.replica, LOG_DIR)?;
    let random = seams.random.clone();
    let mut options = JournalOptions::new(TailPolicy::StopAtFirstBad, Arc::new(move || random.u64()));
    options.segment_bytes = config.segment_bytes;
    let (log, stream) = JournalStream::open(Arc::clone(&seams.disk), LOG_DIR, options)?;
    stream.space().watch(&seams.kv);
    let mut groups = BTreeMap::new();
    let shared = Shared::new(config, seams, &log);
    for id in std::iter::once(CONTROL_GROUP).chain(config.groups.iter().copied()) {
        groups.insert(id, Arc::new(start_group(id, config, seams, &shared).await?));
    }
    if makes_groups {
        let info = |(id, address): &(RaftId, std::net::SocketAddr)| (*id, ReplicaInfo { address: *address });
        let voters: BTreeMap<RaftId, ReplicaInfo> = config.replicas.iter().map(info).collect();
        for group in groups.values() {
            // A first start that was cut off has made some of them.
            if !group.is_made().await? {
                group.bootstrap(voters.clone()).await?;
            }
        }
    }
    let service = MetadataService::new(
        config.replica,
        config.data_dir.clone(),
        groups.clone(),
        Arc::clone(&shared.addresses),
        Arc::clone(stream.space()),
        Arc::clone(&seams.clock),
        seams.metrics.clone(),
    );
    let process = MetadataProcess {
        service: Arc::new(service),
        groups,
        log,
        stream,
        kv: Arc::clone(&seams.kv),
        transport: Arc::clone(&seams.transport),
    };
    seams.metrics.define(&metrics::ALL);
    // Held weakly: the service counts, so it holds the metrics.
    let shown = Arc::downgrade(&process.service);
    seams.metrics.before_reading(move || {
        if let Some(service) = shown.upgrade() {
            service.show();
        }
    });
    start_workers(config, seams, &process, &shared.bells);
    Ok(process)
}

/// What the groups of a process have in common.
struct Shared {
    log: Arc<RaftLog>,
    addresses: Arc<AddressBook>,
    heartbeats: Arc<Heartbeats>,
    room: Arc<Room>,
    bells: BTreeMap<GroupId, Arc<Bell>>,
}

impl Shared {
    fn new(config: &Config, seams: &Seams, log: &Arc<RaftLog>) -> Self {
        let own = config.replicas.iter().find(|(id, _)| *id == config.replica);
        // The checked configuration names this replica.
        let own = own.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |(_, address)| *address);
        let heartbeat = timing_of(config).heartbeat;
        Self {
            log: Arc::clone(log),
            addresses: Arc::new(AddressBook::new(own, config.replicas.iter().copied())),
            heartbeats: Heartbeats::start(
                &seams.transport,
                own,
                config.replica,
                Arc::clone(&seams.clock),
                heartbeat,
            ),
            room: Arc::new(Room::new(&seams.metrics)),
            bells: std::iter::once(CONTROL_GROUP)
                .chain(config.groups.iter().copied())
                .map(|id| (id, Arc::default()))
                .collect(),
        }
    }
}

fn timing_of(config: &Config) -> Timing {
    match config.timing {
        TimingChoice::Lan => Timing::LAN,
        TimingChoice::Wan => Timing::WAN,
    }
}

async fn start_group(id: GroupId, config: &Config, seams: &Seams, shared: &Shared) -> Result<Group, GroupError> {
    Group::start(GroupParts {
        group: id,
        replica: config.replica,
        log: Arc::clone(&shared.log),
        kv: Arc::clone(&seams.kv),
        apply: Arc::new(StateApply::new(id, shared.bells.get(&id).cloned().unwrap_or_default())),
        transport: Arc::clone(&seams.transport),
        addresses: Arc::clone(&shared.addresses),
        heartbeats: Arc::clone(&shared.heartbeats),
        room: Arc::clone(&shared.room),
        timing: timing_of(config),
        clock: Arc::clone(&seams.clock),
        lease_reads: config.lease_reads,
        bounds: config.log_bounds,
        nonce: seams.random.u64(),
    })
    .await
}

fn start_workers(config: &Config, seams: &Seams, process: &MetadataProcess, bells: &BTreeMap<GroupId, Arc<Bell>>) {
    let (groups, clock) = (&process.groups, &seams.clock);
    let hang = |group: &GroupId, wakers| {
        if let Some(bell) = bells.get(group) {
            bell.hang(wakers);
        }
    };
    seams
        .workers
        .spawn(AgeWorker::new(groups.clone(), Arc::clone(clock), config.age_every));
    let (log, every) = (Arc::clone(&process.log), config.log_bounds.look_every);
    seams.workers.spawn(LogKeeper::new(groups.clone(), log, every));
    seams.workers.spawn(LeaderSpread::new(groups.clone(), config));
    seams.workers.spawn(SpaceKeeper::new(
        groups.clone(),
        Arc::clone(process.stream.space()),
        Arc::clone(clock),
        seams.metrics.clone(),
    ));
    for (id, group) in groups.iter().filter(|(id, _)| **id != CONTROL_GROUP) {
        let (random, metrics) = (seams.random.clone(), seams.metrics.clone());
        let sweeper = SweepWorker::new(*id, Arc::clone(group), Arc::clone(clock), random, metrics);
        hang(id, vec![seams.workers.spawn(sweeper)]);
    }
    let Some(control) = groups.get(&CONTROL_GROUP) else {
        return;
    };
    seams.workers.spawn(Founder::new(
        Arc::clone(control),
        Arc::clone(clock),
        seams.cluster,
        config,
    ));
    let layout = seams.workers.spawn(LayoutWorker::new(
        Arc::clone(control),
        Arc::clone(&seams.transport),
        Arc::clone(clock),
        seams.workers.shutdown().clone(),
        config.nodes_expected,
    ));
    let keeper = seams.workers.spawn(GroupKeeper::new(
        groups.clone(),
        Arc::clone(control),
        ControlReader::new(Arc::clone(control), Arc::clone(&seams.transport), &config.replicas),
        Arc::clone(clock),
    ));
    hang(&CONTROL_GROUP, vec![layout, keeper]);
}
