//! A running node: its disks opened, its calls answered, its workers running.
//!
//! Steps: 1. per disk: seam, identity, index, replay; a disk that fails a step is missing, and the node says so and goes on;
//! 2. the handler; 3. per disk: scrub and compaction. Calls come in only after 1, so nothing is served before replay.
//! Not here: the listener and its certificates (the process's wiring hands calls to the handler).

use crate::config::{Config, DiskConfig};
use crate::rows::RowSource;
use crate::scrub::Scrub;
use crate::service::{DiskSlot, NodeService};
use crate::store::identity::{self, Identity};
use crate::store::replay::JOURNAL_DIR;
use crate::store::{CompactionStep, FragmentStore, StoreError, StoreOptions};
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::worker::{Next, StepError, Worker, Workers};
use disk::{Disk, DiskError};
use kv::seam::{Kv, KvError};
use model::id::{ClusterId, DiskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Longest batch of a journal, as design.md section 8 says.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Pause of a compaction that found nothing to do.
const COMPACTION_PAUSE: Duration = Duration::from_secs(10);
/// Pause between steps of a compaction that has more to do: it takes at most a share of the disk. Guess.
const COMPACTION_STEP_PAUSE: Duration = Duration::from_millis(50);

/// How an index is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexOpening {
    /// The one that is there, or an empty one where there is none.
    Present,
    /// The present one does not open: put it aside and begin an empty one.
    Fresh,
}

/// Opens the directory of a disk.
pub type OpenDisk = Arc<dyn Fn(&DiskConfig) -> Result<Arc<dyn Disk>, DiskError> + Send + Sync>;
/// Opens the place index of a disk.
pub type OpenIndex = Arc<dyn Fn(&DiskConfig, IndexOpening) -> Result<Arc<dyn Kv>, KvError> + Send + Sync>;

/// What a node stands on; real in production, simulated in chaos.
#[derive(Clone)]
pub struct Seams {
    /// The cluster that the process belongs to.
    pub cluster: ClusterId,
    /// Opens data directories.
    pub open_disk: OpenDisk,
    /// Opens place indexes.
    pub open_index: OpenIndex,
    /// Where newer rows are asked for.
    pub rows: Arc<dyn RowSource>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes, for the salts of segments.
    pub random: Random,
    /// CPU work.
    pub pool: Pool,
    /// The process's metrics.
    pub metrics: Metrics,
    /// The process's workers.
    pub workers: Workers,
}

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Not one disk works; each is named with its reason.
    #[error("no disk of the node works: {0}")]
    NoDisk(String),
    /// Kept rows do not read.
    #[error("read kept rows: {0}")]
    Rows(#[from] StoreError),
}

/// A node that answers calls until it is stopped.
#[derive(Clone)]
pub struct Node {
    service: NodeService,
}

impl Node {
    /// What answers the calls.
    #[must_use]
    pub fn service(&self) -> NodeService {
        self.service.clone()
    }

    /// Ends the disks' writers after what waits and makes their indexes durable.
    pub async fn stop(&self) {
        for (_, store) in self.service.stores() {
            store.stop().await;
        }
    }
}

/// Opens a node and starts its workers.
///
/// Errors: no disk works. Missing disks are logged, told by the status and answered with `disk_missing`.
pub async fn start(config: &Config, seams: &Seams) -> Result<Node, StartError> {
    let mut slots = BTreeMap::new();
    for disk in &config.disks {
        let (opened, config, seams) = (disk.clone(), config.clone(), seams.clone());
        let result = tokio::task::spawn_blocking(move || open_disk(&opened, &config, &seams)).await;
        let slot = match result.unwrap_or_else(|panic| Err(format!("opening panicked: {panic}"))) {
            Ok(store) => DiskSlot::Open(store),
            Err(reason) => {
                tracing::error!(disk = %disk.disk, path = %disk.path.display(), %reason, "disk is missing");
                DiskSlot::Missing(reason)
            }
        };
        slots.insert(disk.disk, slot);
    }
    if slots.values().all(|slot| matches!(slot, DiskSlot::Missing(_))) {
        let reasons: Vec<String> = slots
            .iter()
            .filter_map(|(disk, slot)| match slot {
                DiskSlot::Missing(reason) => Some(format!("disk {disk}: {reason}")),
                DiskSlot::Open(_) => None,
            })
            .collect();
        return Err(StartError::NoDisk(reasons.join("; ")));
    }
    let (rows, pool, metrics) = (Arc::clone(&seams.rows), seams.pool.clone(), seams.metrics.clone());
    let service = NodeService::new(config.node, slots, rows, pool, metrics)?;
    for (disk, store) in service.stores() {
        let clock = Arc::clone(&seams.clock);
        seams
            .workers
            .spawn(Scrub::new(disk, store.clone(), Arc::clone(&clock), config.scrub_period));
        seams.workers.spawn(Compaction {
            disk,
            store: store.clone(),
            clock,
            limbo: config.limbo,
        });
    }
    Ok(Node { service })
}

/// Runs a node until `shutdown`; `ready` is called with its service when it may take calls.
///
/// Errors: as `start`.
pub async fn serve(
    config: &Config,
    seams: &Seams,
    shutdown: &Shutdown,
    ready: impl FnOnce(NodeService),
) -> Result<(), StartError> {
    let node = start(config, seams).await?;
    ready(node.service());
    shutdown.requested().await;
    node.stop().await;
    Ok(())
}

fn open_disk(config: &DiskConfig, whole: &Config, seams: &Seams) -> Result<FragmentStore, String> {
    let disk = (seams.open_disk)(config).map_err(|error| error.to_string())?;
    let expected = Identity {
        cluster: seams.cluster,
        disk: config.disk,
    };
    let holds_data = holds_segments(disk.as_ref()).map_err(|error| error.to_string())?;
    identity::check_or_write(disk.as_ref(), expected, holds_data).map_err(|error| error.to_string())?;
    let random = seams.random.clone();
    let options = StoreOptions {
        segment_bytes: whole.segment_bytes,
        batch_bytes_max: BATCH_BYTES_MAX,
        next_salt: Arc::new(move || random.u64()),
    };
    let index = match (seams.open_index)(config, IndexOpening::Present) {
        Ok(index) => index,
        Err(KvError::Corrupt(cause)) => {
            // The index is a copy of what the segments say, so a damaged one is put aside and made anew.
            tracing::error!(disk = %config.disk, %cause, "place index is damaged and rebuilt");
            (seams.open_index)(config, IndexOpening::Fresh).map_err(|error| error.to_string())?
        }
        Err(error) => return Err(error.to_string()),
    };
    let opened = FragmentStore::open(config.disk, Arc::clone(&disk), Arc::clone(&index), &options);
    let (store, report) = match opened {
        Err(StoreError::IndexDamaged(cause)) => {
            tracing::error!(disk = %config.disk, %cause, "place index is damaged and rebuilt");
            drop(index);
            let fresh = (seams.open_index)(config, IndexOpening::Fresh).map_err(|error| error.to_string())?;
            FragmentStore::open(config.disk, disk, fresh, &options).map_err(|error| error.to_string())?
        }
        other => other.map_err(|error| error.to_string())?,
    };
    let records = report.records_replayed;
    tracing::info!(disk = %config.disk, records, rebuilt = report.index_was_rebuilt, "disk opened");
    if report.damaged_found + report.damage_without_name > 0 {
        let (listed, nameless) = (report.damaged_found, report.damage_without_name);
        tracing::error!(disk = %config.disk, listed, nameless, "disk has damaged records");
    }
    Ok(store)
}

fn holds_segments(disk: &dyn Disk) -> Result<bool, DiskError> {
    match disk.list(JOURNAL_DIR) {
        Ok(names) => Ok(!names.is_empty()),
        Err(DiskError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The worker that compacts one disk.
struct Compaction {
    disk: DiskId,
    store: FragmentStore,
    clock: Arc<dyn Clock>,
    limbo: Duration,
}

#[async_trait]
impl Worker for Compaction {
    fn name(&self) -> String {
        format!("compaction disk-{}", self.disk)
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        match self.store.compact(self.clock.monotonic(), self.limbo).await {
            Ok(CompactionStep::Idle) => Ok(Next::After(COMPACTION_PAUSE)),
            Ok(_) => Ok(Next::After(COMPACTION_STEP_PAUSE)),
            // Told once by the store; only opening the disk again changes it.
            Err(StoreError::ReadOnly(_) | StoreError::Stopped) => Ok(Next::Never),
            Err(error) => Err(error.into()),
        }
    }
}
