//! A running node: its disks opened, its calls answered, its workers running.
//!
//! Steps: 1. the disks (`open.rs`); one that cannot be opened is missing, and the node says so and goes on, also without any;
//! 2. the handler; 3. per disk: scrub and compaction. Calls come in only after 1, so nothing is served before replay.
//! Not here: the listener and its certificates (the process's wiring hands calls to the handler).

use crate::config::Config;
use crate::open::{OpenDisk, OpenIndex, open_disks};
use crate::register::RegisterError;
use crate::rows::RowSource;
use crate::scrub::Scrub;
use crate::service::NodeService;
use crate::store::{CompactionStep, FragmentStore, StoreError};
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::worker::{Next, StepError, Worker, Workers};
use disk::Disk;
use model::id::{ClusterId, DiskId};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// Pause of a compaction that found nothing to do.
const COMPACTION_PAUSE: Duration = Duration::from_secs(10);
/// Longer than a call under way may take.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
const RELEASE_LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Pause between steps of a compaction that has more to do: it takes at most a share of the disk. Guess.
const COMPACTION_STEP_PAUSE: Duration = Duration::from_millis(50);

/// What a node stands on; real in production, simulated in chaos.
#[derive(Clone)]
pub struct Seams {
    /// The cluster that the process belongs to.
    pub cluster: ClusterId,
    /// The node's own directory (`data_dir`), which lies on none of its disks.
    pub directory: Arc<dyn Disk>,
    /// Opens the directories of disks.
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

/// Why a node does not start. A disk is never the reason: it is missing, and the node starts with the others.
#[derive(Debug, Error)]
pub enum StartError {
    /// The node's own directory cannot be used, so that nobody knows which disks are new.
    #[error("start node: {0}")]
    Register(#[from] RegisterError),
}

/// A node that answers calls until it is stopped.
#[derive(Clone)]
pub struct Node {
    service: NodeService,
    clock: Arc<dyn Clock>,
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

    /// Waits until nobody holds the disks any more, so that they can be opened again; `stop` and an end of all calls come first.
    ///
    /// Calls that were cut off may read a moment longer. Gives up, and says so, after a few seconds.
    pub async fn released(self) {
        let Self { service, clock } = self;
        let holds: Vec<_> = service.stores().map(|(disk, store)| (disk, store.hold())).collect();
        drop(service);
        let give_up_at = clock.monotonic() + RELEASE_PATIENCE;
        for (disk, hold) in holds {
            while hold.is_held() {
                if clock.monotonic() >= give_up_at {
                    tracing::warn!(%disk, "disk of a stopped node is still in use");
                    break;
                }
                clock.sleep(RELEASE_LOOK_AGAIN).await;
            }
        }
    }
}

/// Opens a node and starts its workers.
///
/// Missing disks are logged, told by status and metrics and answered with `disk_missing`; a node without any working disk runs and
/// says so. Errors: the node's own directory cannot be used.
pub async fn start(config: &Config, seams: &Seams) -> Result<Node, StartError> {
    let slots = open_disks(config, seams).await?;
    let (rows, pool, metrics) = (Arc::clone(&seams.rows), seams.pool.clone(), seams.metrics.clone());
    let service = NodeService::new(config.node, slots, rows, pool, metrics);
    service.show_in_metrics();
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
    Ok(Node {
        service,
        clock: Arc::clone(&seams.clock),
    })
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
