//! Roles of a process: each bound to its address under its own identity, then started on what it stands on.
//!
//! Used by `dev`, which runs all roles in one process, and by `serve`, which runs those that its configuration names.
//! Invariants: a role is dialled only after its service stands (`LateHandler` answers `starting` before); it stops in the order
//! service, workers, transport, and is watched from its start to its end.
//! Not here: which roles there are and what they are told.

use crate::first_start::{self, Begin};
use crate::late_handler::LateHandler;
use crate::row_source::ControlRows;
use crate::watching::{Ports, Watched, Watching};
use anyhow::Context;
use codec::cipher::{Aes256Gcm, Cipher};
use daemon::clock::{Clock, SystemClock};
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::status_port::Readiness;
use daemon::worker::Workers;
use disk::{CappedDisk, Disk, RealDisk};
use gateway::config::GatewayConfig;
use gateway::drive::metadata_client::MetadataClient;
use gateway::http::NodeSwitch;
use gateway::seams::Seams as GatewaySeams;
use gateway::serve::{Gateway, Place};
use kv::rocks::{RocksBudget, RocksKv};
use kv::seam::{Kv, KvError};
use metadata_raft::config::Config as MetadataConfig;
use metadata_raft::serve::{MetadataProcess, Seams as MetadataSeams};
use model::id::DiskId;
use model::process::Role;
use node::config::{Config as NodeConfig, DiskConfig};
use node::open::{DiskOpening, IndexOpening};
use node::serve::{Node, Seams as NodeSeams};
use node::store::identity::IDENTITY_FILE;
use rpc::identity::{Identity, Revocations};
use rpc::limits::RpcLimits;
use rpc::quic::{QuicOptions, QuicTransport};
use rpc::transport::{Handler, Peer, Transport};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long a closing transport waits for its last answers.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a replica that stops waits for its workers' steps while its groups go on.
const STEP_PATIENCE: Duration = Duration::from_secs(1);
/// Where a disk keeps its journal and its place index.
pub(crate) const STORE_DIR: &str = "store";
const INDEX_DIR: &str = "index";

/// Puts something in front of a disk.
pub type DiskFront = dyn Fn(Arc<dyn Disk>) -> Arc<dyn Disk> + Send + Sync;

/// Puts something in front of a storage node's disk of this number.
pub type NodeDiskFront = dyn Fn(DiskId, Arc<dyn Disk>) -> Arc<dyn Disk> + Send + Sync;

/// What all roles of a process share and stand on.
#[derive(Clone)]
pub struct Base {
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Ids, nonces, keys and tokens.
    pub random: Random,
    /// Work of more than 100 us of CPU.
    pub pool: Pool,
    /// The process's metrics.
    pub metrics: Metrics,
    /// Memory of all RocksDBs of the process.
    pub rocks: Arc<RocksBudget>,
    /// What the gateways seal content with. No configuration reaches it: only a test that plants another sets it.
    pub cipher: Arc<dyn Cipher>,
    /// What stands in front of the disk of a metadata log. No configuration reaches it: only a test that shows other space sets it.
    pub log_front: Arc<DiskFront>,
    /// The same of the disks of storage nodes, for a test whose disks fail.
    pub node_front: Arc<NodeDiskFront>,
    /// Certificates that are refused.
    pub revocations: Revocations,
    /// Whether the network between the processes carries jumbo frames for certain.
    pub has_jumbo_frames: bool,
    /// Where its roles are watched: each on a port of its own unless told otherwise.
    pub watching: Watching,
    /// Ends the process.
    pub shutdown: Shutdown,
}

impl Base {
    /// The machine's own clock, randomness and threads, and the cipher of production.
    ///
    /// Errors: the threads of the pool cannot be started.
    pub fn of_machine(rocks: RocksBudget) -> anyhow::Result<Self> {
        Ok(Self {
            clock: Arc::new(SystemClock::new()),
            random: Random::system(),
            pool: Pool::of_machine().context("start the CPU pool")?,
            metrics: Metrics::new(),
            rocks: Arc::new(rocks),
            cipher: Arc::new(Aes256Gcm),
            log_front: Arc::new(|disk: Arc<dyn Disk>| disk),
            node_front: Arc::new(|_, disk: Arc<dyn Disk>| disk),
            revocations: Revocations::default(),
            has_jumbo_frames: false,
            watching: Watching::Apart(Ports::default()),
            shutdown: Shutdown::new(),
        })
    }

    /// The base of one role of the process: its own part of the metrics, a shutdown of its own, and being watched from now on.
    fn of_role(&self, bound: &Bound) -> anyhow::Result<(Self, Watched)> {
        let name = bound.identity.process().to_string();
        let (metrics, shutdown) = (self.metrics.of_role(&name), self.shutdown.part());
        let watched = self.watching.begin(&name, &metrics, &shutdown)?;
        let base = Self {
            metrics,
            shutdown,
            ..self.clone()
        };
        Ok((base, watched))
    }
}

/// A role with an address, before its service stands.
pub(crate) struct Bound {
    pub(crate) identity: Identity,
    pub(crate) transport: Arc<QuicTransport>,
    pub(crate) address: SocketAddr,
    handler: Arc<LateHandler>,
}

/// Opens the transport of a role at `listen`; port 0 takes a free one.
pub(crate) fn bind(identity: Identity, listen: SocketAddr, base: &Base) -> anyhow::Result<Bound> {
    let handler = Arc::new(LateHandler::default());
    if matches!(identity.process().role, Role::Gateway | Role::Admin) {
        handler.only_calls();
    }
    let options = QuicOptions {
        identity: identity.clone(),
        listen,
        clock: Arc::clone(&base.clock),
        limits: RpcLimits::default(),
        revocations: base.revocations.clone(),
        has_jumbo_frames: base.has_jumbo_frames,
    };
    let (transport, address) = QuicTransport::bind(options, Arc::clone(&handler) as Arc<dyn Handler>)?;
    Ok(Bound {
        identity,
        transport,
        address,
        handler,
    })
}

impl Bound {
    /// A client of the metadata groups under this role's identity.
    pub(crate) fn metadata_client(&self, base: &Base, seeds: Vec<Peer>) -> Arc<MetadataClient> {
        let seams = self.gateway_seams(base);
        Arc::new(MetadataClient::new(seams, self.identity.process().number, seeds))
    }

    /// What a gateway stands on, under this role's identity.
    pub(crate) fn gateway_seams(&self, base: &Base) -> GatewaySeams {
        GatewaySeams {
            transport: Arc::clone(&self.transport) as Arc<dyn Transport>,
            clock: Arc::clone(&base.clock),
            pool: base.pool.clone(),
            random: base.random.clone(),
            metrics: base.metrics.clone(),
            cipher: Arc::clone(&base.cipher),
        }
    }

    /// Calls others under this role's identity.
    pub(crate) fn dialer(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport) as Arc<dyn Transport>
    }

    /// Ends the transport after its last answers.
    pub(crate) async fn close(&self) {
        self.transport.close(CLOSE_PATIENCE).await;
        self.handler.let_go();
    }
}

/// A running metadata replica.
pub(crate) struct MetadataRole {
    bound: Bound,
    process: MetadataProcess,
    workers: Workers,
    shutdown: Shutdown,
    watched: Watched,
}

impl MetadataRole {
    /// Starts the replica on `config.data_dir`, which must exist. The replica of the lowest id makes the groups, at its first start;
    /// on return a first start is over for good.
    pub(crate) async fn start(
        bound: Bound,
        config: &MetadataConfig,
        base: &Base,
        begin: Begin,
        identity_dir: &Path,
    ) -> anyhow::Result<Self> {
        let (base, watched) = base.of_role(&bound)?;
        let workers = Workers::new(Arc::clone(&base.clock), base.shutdown.clone());
        let directory = &config.data_dir;
        let disk = RealDisk::open(&directory.join(first_start::LOG_DIR))
            .with_context(|| format!("open {}", directory.display()))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        // Whose it is, before the state's store is opened: that writes.
        let replica = config.replica;
        metadata_raft::identity::check(
            disk.as_ref(),
            bound.identity.cluster(),
            replica,
            metadata_raft::serve::LOG_DIR,
        )?;
        let kv = RocksKv::open(&directory.join("state"), &base.rocks)
            .with_context(|| format!("open {}", directory.display()))?;
        let seams = MetadataSeams {
            cluster: bound.identity.cluster(),
            disk: (base.log_front)(disk),
            kv: Arc::new(kv),
            transport: Arc::clone(&bound.transport) as Arc<dyn Transport>,
            clock: Arc::clone(&base.clock),
            random: base.random.clone(),
            metrics: base.metrics.clone(),
            workers: workers.clone(),
        };
        let is_lowest = config.replicas.iter().all(|(other, _)| *other >= config.replica);
        let makes_groups = is_lowest && begin == Begin::First;
        let process = metadata_raft::serve::start(config, &seams, makes_groups).await?;
        if begin == Begin::First {
            first_start::done(identity_dir)?;
        }
        bound.handler.put(process.service());
        watched.stands(process.readiness());
        Ok(Self {
            bound,
            process,
            workers,
            shutdown: base.shutdown,
            watched,
        })
    }

    /// Returns once every group has a leader and this replica has caught up.
    pub(crate) async fn caught_up(&self) {
        self.process.caught_up().await;
    }

    /// Returns with the reason once the replica's log or store cannot be written any more. May be dropped midway.
    pub(crate) fn failed(&self, clock: Arc<dyn Clock>) -> impl Future<Output = String> + Send + use<> {
        self.process.failed(clock)
    }

    /// Hands leadership over and stops.
    pub(crate) async fn stop(self) {
        self.stop_workers_and(self.process.stop()).await;
        self.bound.close().await;
    }

    /// Stops with all other replicas, so that nobody is there to hand leadership over to.
    pub(crate) async fn end(self) {
        self.stop_workers_and(self.process.end()).await;
        self.bound.close().await;
    }

    /// Lets the workers end their steps before the groups end. A step may wait for a majority that is gone by now: it fails when the
    /// groups end, and not only with its deadline.
    async fn stop_workers_and(&self, end_groups: impl Future<Output = ()>) {
        self.shutdown.request();
        self.watched.stops();
        let mut workers = pin!(self.workers.ended());
        let have_ended = tokio::time::timeout(STEP_PATIENCE, &mut workers).await.is_ok();
        end_groups.await;
        if !have_ended {
            workers.await;
        }
    }
}

/// A running storage node.
pub(crate) struct NodeRole {
    bound: Bound,
    node: Node,
    workers: Workers,
    shutdown: Shutdown,
    watched: Watched,
}

impl NodeRole {
    /// Starts the node on the disks that it has, without those of `refused`, which has the reasons.
    pub(crate) async fn start(
        bound: Bound,
        config: &NodeConfig,
        base: &Base,
        seeds: Vec<Peer>,
        refused: BTreeMap<DiskId, String>,
    ) -> anyhow::Result<Self> {
        let (base, watched) = base.of_role(&bound)?;
        let workers = Workers::new(Arc::clone(&base.clock), base.shutdown.clone());
        let (rocks, front) = (Arc::clone(&base.rocks), Arc::clone(&base.node_front));
        let directory = RealDisk::open(&config.data_dir).context("open node.data_dir")?;
        let seams = NodeSeams {
            cluster: bound.identity.cluster(),
            directory: Arc::new(directory),
            open_disk: Arc::new(move |disk, opening| match refused.get(&disk.disk) {
                Some(reason) => Err(disk::DiskError::Io(reason.clone())),
                None => open_disk(disk, opening).map(|opened| front(disk.disk, opened)),
            }),
            open_index: Arc::new(move |disk, opening| open_index(disk, opening, &rocks)),
            rows: Arc::new(ControlRows {
                metadata: bound.metadata_client(&base, seeds),
            }),
            clock: Arc::clone(&base.clock),
            random: base.random.clone(),
            pool: base.pool.clone(),
            metrics: base.metrics.clone(),
            workers: workers.clone(),
        };
        let node = node::serve::start(config, &seams).await?;
        bound.handler.put(Arc::new(node.service()));
        watched.stands(Arc::new(node.service()));
        Ok(Self {
            bound,
            node,
            workers,
            shutdown: base.shutdown,
            watched,
        })
    }

    /// Where it is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// The disks that work, and the others with their reasons.
    pub(crate) fn disks(&self) -> (Vec<DiskId>, Vec<(DiskId, String)>) {
        let service = self.node.service();
        (service.stores().map(|(disk, _)| disk).collect(), service.missing())
    }

    /// Ends the disks' writers after what waits, and the transport; on return the disks can be opened again.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.watched.stops();
        self.workers.ended().await;
        self.node.stop().await;
        self.bound.close().await;
        self.node.released().await;
    }
}

fn open_disk(config: &DiskConfig, opening: DiskOpening) -> Result<Arc<dyn Disk>, disk::DiskError> {
    // The directory is the operator's (a mount point): one that is missing is a missing disk, never made here.
    let store = config.path.join(STORE_DIR);
    Ok(match (opening, config.capacity_bytes) {
        (DiskOpening::Present, Some(capacity)) => Arc::new(CappedDisk::open_holding(&store, IDENTITY_FILE, capacity)?),
        (DiskOpening::Present, None) => Arc::new(RealDisk::open_holding(&store, IDENTITY_FILE)?),
        (DiskOpening::New, Some(capacity)) => Arc::new(CappedDisk::open(&store, capacity)?),
        (DiskOpening::New, None) => Arc::new(RealDisk::open(&store)?),
    })
}

fn open_index(config: &DiskConfig, opening: IndexOpening, rocks: &RocksBudget) -> Result<Arc<dyn Kv>, KvError> {
    let index = config.path.join(INDEX_DIR);
    if opening == IndexOpening::Fresh && index.exists() {
        put_aside(&index)?;
    }
    Ok(Arc::new(RocksKv::open(&index, rocks)?))
}

/// A damaged index is kept beside for whoever wants to look at it; an older one kept before goes.
fn put_aside(index: &Path) -> Result<(), KvError> {
    let aside = index.with_extension("damaged");
    let failed = |error: std::io::Error| KvError::Io(format!("{}: {error}", aside.display()));
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(failed)?;
    }
    std::fs::rename(index, &aside).map_err(failed)
}

/// A running gateway.
pub(crate) struct GatewayRole {
    bound: Bound,
    gateway: Gateway,
    shutdown: Shutdown,
    watched: Watched,
}

impl GatewayRole {
    /// Starts the gateway; on return it listens.
    pub(crate) async fn start(
        bound: Bound,
        config: GatewayConfig,
        base: &Base,
        seeds: Vec<Peer>,
        nodes: Option<Arc<dyn NodeSwitch>>,
    ) -> anyhow::Result<Self> {
        let (base, watched) = base.of_role(&bound)?;
        let place = Place {
            number: bound.identity.process().number,
            metadata: seeds,
            nodes,
        };
        let gateway = gateway::serve::start(config, place, bound.gateway_seams(&base), base.shutdown.clone()).await?;
        watched.stands(Arc::clone(&gateway.app().core) as Arc<dyn Readiness>);
        Ok(Self {
            bound,
            gateway,
            shutdown: base.shutdown,
            watched,
        })
    }

    /// The running gateway.
    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Takes no new connection, lets requests end for a while, and stops.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.watched.stops();
        self.gateway.ended().await;
        self.bound.close().await;
    }
}
