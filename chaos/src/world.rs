//! The simulated world: three metadata replicas, six storage nodes and a gateway's use cases on one thread, and one seed that
//! decides everything that happens (docs/testing.md level 4, decision 0031).
//!
//! Place in the picture: the product's own services on simulated seams: turmoil's network and time, disks and stores in memory,
//! clocks that may be wrong. `make sim` runs many seeds, each in a process of its own, since libraries below draw from
//! thread-locals and counters that a second run in the same process would find used.
//! There are three sorts of worlds (`kind`): one in which operations meet on a few names, the same beside a set that grows while the layout
//! changes, and one of collection.
//! Reading order: `shape`, `processes`, `network`, `storage`, `hatch`, `home`, `clients`, `workload`, `elements`, `turnover`, `draining`,
//! `nemesis`, `wear`, then the oracles, `logged` and `observed`, which show them replicas, and `proof`.
//! Not here: QUIC, RocksDB, HTTP and real disks, which level 5 runs.

pub mod campaign;
pub mod census;
pub mod clients;
pub mod collectors;
pub mod draining;
pub mod elements;
pub mod faults;
pub mod hatch;
pub mod history;
pub mod home;
pub mod kind;
pub mod ledger;
pub mod logged;
pub mod nemesis;
pub mod network;
pub mod observed;
pub mod phase;
pub mod plant;
pub mod processes;
pub mod proof;
pub mod report;
pub mod shape;
pub mod storage;
pub mod trace;
pub mod turnover;
mod verdict;
pub mod wear;
pub mod workload;

use crate::oracle::collection::Findings;
use crate::oracle::durability::Found;
use crate::oracle::raft::RaftOracle;
use crate::world::elements::Elements;
use crate::world::faults::Faults;
use crate::world::hatch::Hatch;
use crate::world::history::History;
use crate::world::kind::Kind;
use crate::world::ledger::Ledger;
use crate::world::nemesis::Nemesis;
use crate::world::phase::{Phase, Phases};
use crate::world::plant::Plant;
use crate::world::processes::Ground;
use crate::world::report::Report;
use crate::world::shape::{GATEWAY, USERS, host};
use crate::world::storage::Storage;
use crate::world::trace::Trace;
use crate::world::turnover::Turnover;
use crate::world::wear::Wear;
use crate::world::workload::Workload;
use daemon::metrics::Metrics;
use daemon::random::Random;
use gateway::config::MetadataReads;
use model::id::{EntryId, GroupId, RaftId};
use model::process::ProcessId;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use turmoil::{Builder, Sim};

/// One step of the world: nothing is finer than this between two hosts.
const TICK: Duration = Duration::from_millis(2);
const LATENCY_MIN: Duration = Duration::from_millis(1);
const LATENCY_MAX: Duration = Duration::from_millis(20);
/// How long the nemesis works, in the world's time.
const FAULTS_LAST: Duration = Duration::from_secs(40);
/// The same at most where a number of operations ends it, for each of them and in all: five times what one takes on average.
const FAULTS_AN_OPERATION: Duration = Duration::from_millis(1_200);
const FAULTS_LONGEST_MIN: Duration = Duration::from_secs(2_400);
/// Far more than any phase may take.
const WORLD_MAX: Duration = Duration::from_secs(400);

/// What a run is told.
#[derive(Clone, Debug, Default)]
pub struct Orders {
    /// Decides everything.
    pub seed: u64,
    /// What users do.
    pub kind: Kind,
    /// A bug that some oracle must catch.
    pub plant: Option<Plant>,
    /// No faults: the cluster is left in peace.
    pub is_calm: bool,
    /// The nemesis works until users were answered so often, and not for its usual time.
    pub operations: Option<usize>,
    /// Where every line of the trace goes too.
    pub trace_file: Option<std::path::PathBuf>,
}

/// What was found of each acknowledged version, or why the cluster did not serve again.
type ReadBack = Result<BTreeMap<(EntryId, u64), Found>, String>;

/// What users leave for the report.
enum Left {
    /// Of a world of names.
    Names(ReadBack),
    /// Of a world of collection; why there is nothing to be judged, when the cluster did not serve again.
    Collection(Result<Findings, String>),
}

/// What users did and were told; which one is used follows from the world's sort. Clones are the same.
#[derive(Clone, Default)]
struct Records {
    history: History,
    ledger: Ledger,
}

impl Records {
    fn answered(&self) -> usize {
        self.history.answered() + self.ledger.answered()
    }
}

/// Runs the world of a seed to its end. Once in a process, on a thread that does nothing else.
///
/// Errors: the trace file or a temporary directory cannot be made; turmoil gives up.
pub fn run(orders: &Orders) -> anyhow::Result<Report> {
    let seed = Random::seeded(orders.seed);
    daemon::blocking::inline_on_this_thread(Random::seeded(seed.u64()));
    let trace = match &orders.trace_file {
        Some(path) => Trace::into_file(File::create(path)?),
        None => Trace::default(),
    };
    let ground = ground(orders, &seed, trace);
    let witness = ground.raft.clone();
    // A task's panic is seen by nobody else; the process has one world and ends with it.
    std::panic::set_hook(Box::new(move |panic| witness.accuse(format!("panic: {panic}"))));
    let (records, phases) = (Records::default(), Phases::default());
    let left: Arc<Mutex<Option<Left>>> = Arc::default();
    let mut sim = Builder::new()
        .rng_seed(seed.u64())
        .tick_duration(TICK)
        .simulation_duration(WORLD_MAX + orders.kind.quiet() + orders.operations.map_or(Duration::ZERO, longest))
        .min_message_latency(LATENCY_MIN)
        .max_message_latency(LATENCY_MAX)
        .udp_capacity(1 << 16)
        .build();
    settle(&mut sim, &ground);
    let directory = tempfile::tempdir()?;
    let (hatch, users) = (Hatch::default(), Random::seeded(seed.u64()));
    let (own, own_phases, own_hatch) = (ground.clone(), phases.clone(), hatch.clone());
    let path = directory.path().to_owned();
    sim.host(host(GATEWAY), move || {
        processes::gateway(own.clone(), path.clone(), own_phases.clone(), own_hatch.clone())
    });
    let (own, own_records, own_phases) = (ground.clone(), records.clone(), phases.clone());
    let end = Arc::clone(&left);
    sim.client(USERS, async move {
        let found = live(&own, &hatch, own_records, &own_phases, users).await;
        own_phases.enter(Phase::Peace);
        *end.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(())
    });
    let nemesis = Nemesis::new(ground.clone(), Random::seeded(seed.u64()));
    let wear = Wear::new(ground.clone(), Random::seeded(seed.u64()));
    drive(&mut sim, &ground, &phases, (nemesis, wear), (orders, &records))?;
    let found = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    let simulated = sim.elapsed();
    drop(sim);
    Ok(verdict::report(orders, &ground, &records, found, simulated))
}

/// What users do from the beginning to the end of a world.
async fn live(ground: &Ground, hatch: &Hatch, records: Records, phases: &Phases, users: Random) -> Left {
    let hatch = hatch.clone();
    match ground.kind {
        Kind::Names => {
            let found = async {
                let workload = Workload::begin(hatch, records.history, users, ground.plant).await?;
                phases.enter(Phase::Faults);
                workload.work(phases).await;
                workload.read_back().await
            };
            Left::Names(found.await)
        }
        Kind::Layout => {
            let found = async {
                let (moves, adds) = (Random::seeded(users.u64()), Random::seeded(users.u64()));
                let history = records.history.clone();
                let workload = Workload::begin(hatch.clone(), history, users, ground.plant).await?;
                let set = Elements::begin(hatch.clone(), workload.account().clone(), records.history).await?;
                let before = draining::row_versions(&hatch).await?;
                phases.enter(Phase::Faults);
                let changes = draining::make(&hatch, &ground.trace, phases, &moves);
                tokio::join!(workload.work(phases), changes, set.work(phases, &adds));
                let found = workload.read_back().await?;
                set.take_stock().await?;
                draining::require_changed(&hatch, &before).await.map(|()| found)
            };
            Left::Names(found.await)
        }
        Kind::Collection => {
            let found = async {
                let turnover = Turnover::begin(hatch, records.ledger, users).await?;
                phases.enter(Phase::Faults);
                turnover.work(phases).await;
                turnover.take_stock(ground).await
            };
            Left::Collection(found.await)
        }
    }
}

fn ground(orders: &Orders, seed: &Random, trace: Trace) -> Ground {
    let (faults, raft) = (Faults::default(), RaftOracle::default());
    // Half of the worlds read from whichever replica is nearest; so do those whose bug is a replica's.
    let is_replicas_bug = matches!(
        orders.plant,
        Some(Plant::FollowerReadsAlone | Plant::ServesBeforeRecovery)
    );
    let reads = match seed.below(2) == 0 || is_replicas_bug {
        true => MetadataReads::Nearest,
        false => MetadataReads::Leader,
    };
    Ground {
        kind: orders.kind,
        storage: Storage::new(
            Random::seeded(seed.u64()),
            trace.clone(),
            faults.clone(),
            orders.plant,
            raft.clone(),
        ),
        trace,
        faults,
        raft,
        plant: orders.plant,
        reads,
        // Of every three worlds one; not drawn, so that what a seed draws stays as it was.
        lease_reads: orders.seed % 3 == 2,
        lives: Arc::new(Mutex::new(Random::seeded(seed.u64()))),
        counted: Metrics::new(),
        worn: Arc::default(),
        running: Arc::default(),
    }
}

fn settle(sim: &mut Sim<'_>, ground: &Ground) {
    for process in shape::replicas() {
        let ground = ground.clone();
        sim.host(host(process), move || processes::replica(ground.clone(), process));
    }
    for process in shape::nodes() {
        let ground = ground.clone();
        sim.host(host(process), move || processes::node(ground.clone(), process));
    }
}

fn drive(
    sim: &mut Sim<'_>,
    ground: &Ground,
    phases: &Phases,
    (mut nemesis, mut wear): (Nemesis, Wear),
    (orders, records): (&Orders, &Records),
) -> anyhow::Result<()> {
    let mut faults_began = None;
    loop {
        let is_over = sim
            .step()
            .map_err(|error| anyhow::anyhow!("the world ended: {error}"))?;
        let elected = look(ground);
        if phases.now() == Phase::Faults {
            let lasted = sim.elapsed() - *faults_began.get_or_insert(sim.elapsed());
            let is_enough = match orders.operations {
                None => lasted >= FAULTS_LAST,
                Some(operations) => records.answered() >= operations || lasted >= longest(operations),
            };
            if is_enough {
                nemesis.end_all(sim);
                wear.end_all(sim);
                phases.enter(Phase::Peace);
            } else if !orders.is_calm {
                nemesis.step(sim, &elected);
                wear.step(sim);
            }
        }
        if is_over {
            return Ok(());
        }
    }
}

/// The longest that the nemesis works until so many operations were answered.
fn longest(operations: usize) -> Duration {
    let operations = u32::try_from(operations).unwrap_or(u32::MAX);
    FAULTS_LONGEST_MIN.max(FAULTS_AN_OPERATION * operations)
}

/// Shows the oracle who leads; answers who is new.
fn look(ground: &Ground) -> Vec<(GroupId, ProcessId)> {
    let running = ground.running().clone();
    let mut elected = Vec::new();
    for (process, service) in running {
        let own = RaftId(process.number);
        for (group, replica) in service.groups() {
            let status = replica.status();
            if let Some(purged) = status.purged_index {
                ground.raft.purged(*group, own, purged);
            }
            if let Some(fault) = status.fault {
                ground.running().remove(&process);
                ground.raft.accuse(format!("{process} group {group} ended: {fault}"));
            } else if status.leader == Some(own) && ground.raft.leads(*group, own, status.term) {
                elected.push((*group, process));
            }
        }
    }
    elected
}
