//! The processes of the world: the product's own services, each on its host of turmoil and on simulated seams.
//!
//! A life begins here anew after each death, on what `Storage` kept.
//! Not here: the binary's wiring (configuration files, certificates, status ports), which level 5 runs.

use crate::oracle::raft::RaftOracle;
use crate::world::collectors;
use crate::world::faults::{Faults, SimClock};
use crate::world::hatch::Hatch;
use crate::world::kind::Kind;
use crate::world::network::{Service, SimTransport};
use crate::world::phase::Phases;
use crate::world::plant::entries::{AlteredEntries, Proposed};
use crate::world::plant::{CountingFailed, Plant, PlantedReplica, collection};
use crate::world::shape::{self, CLUSTER, DISK_BYTES, GATEWAY};
use crate::world::storage::Storage;
use crate::world::trace::Trace;
use crate::world::wear::Worn;
use async_trait::async_trait;
use codec::cipher::Aes256Gcm;
use daemon::clock::Clock;
use daemon::metrics::Metrics;
use daemon::pool::Pool;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::worker::Workers;
use disk::DiskError;
use gateway::config::{
    AdmissionLimits, CACHE_BYTES_DEFAULT, CacheLimits, Functions, GatewayConfig, Limits, MetadataReads, create_kek,
};
use gateway::drive::Core;
use gateway::drive::metadata_client::MetadataClient;
use gateway::seams::Seams as GatewaySeams;
use gateway::serve::Place;
use metadata_raft::serve::Seams as MetadataSeams;
use metadata_raft::service::MetadataService;
use model::cluster::{Membership, NodeInfo};
use model::error_kind::ErrorKind;
use model::id::{NodeId, RaftId};
use model::process::ProcessId;
use model::profile::ProfileId;
use node::open::{DiskOpening, IndexOpening};
use node::rows::RowSource;
use node::serve::Seams as NodeSeams;
use node::store::identity::IDENTITY_FILE;
use protocol::metadata::control::{ControlCommand, NodeDisk};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::node::RowsUpdate;
use protocol::wire_error::Failure;
use rpc::transport::{Handler, Transport};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const REGISTER_AGAIN: Duration = Duration::from_millis(200);
const REFRESH_EVERY: Duration = Duration::from_secs(5);
const UPLOAD_BUDGET_BYTES: u64 = 256 << 20;

/// What all processes of a world share; clones are the same.
#[derive(Clone)]
pub struct Ground {
    /// What sort of world it is.
    pub kind: Kind,
    /// Hash and lines of what happens.
    pub trace: Trace,
    /// What the nemesis does to it.
    pub faults: Faults,
    /// What outlives processes.
    pub storage: Storage,
    /// Watches the groups.
    pub raft: RaftOracle,
    /// The bug of this world, if it has one.
    pub plant: Option<Plant>,
    /// Which replicas the gateway reads from.
    pub reads: MetadataReads,
    /// Whether leaders answer under their leases.
    pub lease_reads: bool,
    /// Gives every life a generator of its own.
    pub lives: Arc<Mutex<Random>>,
    /// What the gateway counts, over all of its lives.
    pub counted: Metrics,
    /// What was worn out.
    pub worn: Arc<Mutex<Worn>>,
    /// The replicas that run.
    pub running: Arc<Mutex<BTreeMap<ProcessId, Arc<MetadataService>>>>,
}

impl Ground {
    /// What was worn out so far.
    pub fn worn(&self) -> MutexGuard<'_, Worn> {
        // Single counters.
        self.worn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The replicas that run, by process.
    pub fn running(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Arc<MetadataService>>> {
        // Whole entries are put and taken.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one life of a process stands on.
struct Life {
    own: ProcessId,
    clock: Arc<dyn Clock>,
    random: Random,
    metrics: Metrics,
    workers: Workers,
    transport: Arc<dyn Transport>,
    service: Service,
    /// Never requested: a process of this world ends by dying.
    _shutdown: Shutdown,
}

impl Life {
    async fn begin(ground: &Ground, own: ProcessId) -> std::io::Result<Self> {
        let seed = ground.lives.lock().unwrap_or_else(PoisonError::into_inner).u64();
        let random = Random::seeded(seed);
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(own, ground.faults.clone()));
        let wire = Random::seeded(random.u64());
        let (faults, trace) = (ground.faults.clone(), ground.trace.clone());
        let (transport, service) = SimTransport::bind(own, Arc::clone(&clock), wire, faults, trace).await?;
        let shutdown = Shutdown::new();
        Ok(Self {
            own,
            workers: Workers::new(Arc::clone(&clock), shutdown.clone()),
            clock,
            random,
            metrics: match own == GATEWAY {
                true => ground.counted.clone(),
                false => Metrics::new(),
            },
            transport,
            service,
            _shutdown: shutdown,
        })
    }

    fn serve(&self, handler: Arc<dyn Handler>) {
        // Once in a life.
        drop(self.service.set(handler));
    }

    fn gateway_seams(&self) -> GatewaySeams {
        GatewaySeams {
            transport: Arc::clone(&self.transport),
            clock: Arc::clone(&self.clock),
            pool: Pool::inline(),
            random: self.random.clone(),
            metrics: self.metrics.clone(),
            cipher: Arc::new(Aes256Gcm),
        }
    }

    fn metadata_client(&self) -> Arc<MetadataClient> {
        let seeds = shape::replicas().map(shape::peer).collect();
        Arc::new(MetadataClient::new(self.gateway_seams(), self.own.number, seeds))
    }
}

/// One life of a metadata replica.
///
/// Errors: the host's port is taken. A replica that does not start is told to the oracle: none ever should.
pub async fn replica(ground: Ground, own: ProcessId) -> turmoil::Result {
    let life = Life::begin(&ground, own).await?;
    let proposed = Proposed::default();
    let seams = MetadataSeams {
        cluster: CLUSTER,
        disk: ground.storage.directory(own),
        kv: ground.storage.state(own),
        transport: AlteredEntries::around(Arc::clone(&life.transport), &proposed, ground.plant),
        clock: Arc::clone(&life.clock),
        random: life.random.clone(),
        metrics: life.metrics.clone(),
        workers: life.workers.clone(),
    };
    let makes_groups = own.number == 1 && !ground.storage.is_founded();
    let config = shape::metadata_config(own, ground.lease_reads, ground.kind);
    match metadata_raft::serve::start(&config, &seams, makes_groups).await {
        Err(error) => ground.raft.accuse(format!("{own} does not start: {error}")),
        Ok(process) => {
            if makes_groups {
                ground.storage.founded();
            }
            let service = process.service();
            ground.running().insert(own, Arc::clone(&service));
            let replica = PlantedReplica::around(service, RaftId(own.number), ground.plant, proposed);
            life.serve(replica);
            // Kept to the end of the life, which comes from outside.
            let _kept = (process, life);
            std::future::pending::<()>().await;
        }
    }
    std::future::pending().await
}

/// One life of a storage node.
///
/// Errors: the host's port is taken. A disk that does not open is told to the oracle: none ever should.
pub async fn node(ground: Ground, own: ProcessId) -> turmoil::Result {
    let life = Life::begin(&ground, own).await?;
    let (disks, indexes) = (ground.storage.clone(), ground.storage.clone());
    let client = life.metadata_client();
    let seams = NodeSeams {
        cluster: CLUSTER,
        directory: ground.storage.directory(own),
        open_disk: Arc::new(move |config, opening| {
            let disk = disks.disk_of(own, config.disk);
            match (opening, disk.open(IDENTITY_FILE)) {
                (DiskOpening::Present, Err(_)) => Err(DiskError::NotFound(IDENTITY_FILE.to_owned())),
                _ => Ok(disk),
            }
        }),
        open_index: Arc::new(move |config, opening| {
            Ok(indexes.index(own, config.disk, opening == IndexOpening::Fresh))
        }),
        rows: Arc::new(Rows(Arc::clone(&client))),
        clock: Arc::clone(&life.clock),
        random: life.random.clone(),
        pool: Pool::inline(),
        metrics: life.metrics.clone(),
        workers: life.workers.clone(),
    };
    match node::serve::start(&shape::node_config(own, ground.kind), &seams).await {
        Err(error) => ground.raft.accuse(format!("{own} does not start: {error}")),
        Ok(node) => {
            for (disk, reason) in node.service().missing() {
                ground.raft.accuse(format!("{own} misses disk {disk}: {reason}"));
            }
            ground.faults.serves(own);
            life.serve(Arc::new(node.service()));
            register(&client, own, life.clock.as_ref()).await;
            let _kept = (node, life);
            std::future::pending::<()>().await;
        }
    }
    std::future::pending().await
}

async fn register(client: &MetadataClient, own: ProcessId, clock: &dyn Clock) {
    let disks = shape::disks(own).map(|disk| NodeDisk {
        disk,
        weight_bytes: DISK_BYTES,
    });
    let command = Command::Control(ControlCommand::RegisterNode {
        node: NodeId(u32::try_from(own.number).expect("a world has few nodes")),
        info: NodeInfo {
            region: shape::region(own),
            zone: "z1".to_owned(),
            address: shape::address(own),
            membership: Membership::Active,
        },
        disks: disks.collect(),
    });
    while client.command(command.clone(), None, 0).await.is_err() {
        clock.sleep(REGISTER_AGAIN).await;
    }
}

/// Where nodes ask for rows.
struct Rows(Arc<MetadataClient>);

#[async_trait]
impl RowSource for Rows {
    async fn fetch(&self, profile: ProfileId) -> Result<RowsUpdate, Failure> {
        let query = Query::Control(ControlQuery::Layout(Some(profile)));
        let unknown = || {
            Failure::new(
                ErrorKind::Unavailable,
                "row_unknown",
                "the profile has no rows yet; try again",
            )
        };
        let (QueryAnswer::Layout(layout), _) = self.0.query(&query, 0).await? else {
            return Err(unknown());
        };
        let table = layout.tables.get(&profile).ok_or_else(unknown)?;
        Ok(RowsUpdate {
            profile,
            pg_bits: table.pg_bits,
            rows: (0_u32..).zip(table.rows.iter().cloned()).collect(),
        })
    }
}

/// One life of the gateway, which does what is asked for at `hatch`; its first one leaves the KEK in `directory`.
///
/// Errors: the host's port is taken, or the KEK cannot be written or read.
pub async fn gateway(ground: Ground, directory: PathBuf, phases: Phases, hatch: Hatch) -> turmoil::Result {
    let life = Life::begin(&ground, GATEWAY).await?;
    let kek_file = directory.join("kek");
    if !kek_file.try_exists()? {
        create_kek(&kek_file, &life.random)?;
    }
    let lives = Random::seeded(life.random.u64());
    let core = core(&ground, kek_file, life)?;
    if ground.kind == Kind::Collection {
        tokio::spawn(collectors::keep(Arc::clone(&core), phases, lives));
    }
    hatch.serve(core).await;
    Ok(())
}

/// The gateway's use cases, kept fresh as its `serve` does.
fn core(ground: &Ground, kek_file: PathBuf, life: Life) -> Result<Arc<Core>, Box<dyn std::error::Error>> {
    let config = GatewayConfig {
        listen: shape::address(GATEWAY),
        kek_file,
        tls: None,
        functions: Functions::ALL,
        upload_budget_bytes: UPLOAD_BUDGET_BYTES,
        admission: AdmissionLimits::default(),
        metadata_reads: ground.reads,
        // Contents are read from disks, so that what is lost is seen; answers are kept, so that a stale one is.
        cache: CacheLimits {
            blocks_bytes: 0,
            ..CacheLimits::of(CACHE_BYTES_DEFAULT)
        },
        limits: Limits::default(),
        browser_origins: Vec::new(),
    };
    let place = Place {
        number: GATEWAY.number,
        metadata: shape::replicas().map(shape::peer).collect(),
        nodes: None,
    };
    let transport = CountingFailed::around(Arc::clone(&life.transport), ground.plant);
    let transport = collection::around(transport, ground.plant);
    let seams = GatewaySeams {
        transport,
        ..life.gateway_seams()
    };
    let core = gateway::serve::core(&config, &place, &seams)?;
    let (fresh, probing) = (Arc::clone(&core), Arc::clone(&core));
    tokio::spawn(async move {
        let _kept = life;
        loop {
            // A refusal is asked again at the next turn, as by whoever needs it.
            drop(fresh.directory.refresh(0).await);
            fresh.seams.clock.sleep(REFRESH_EVERY).await;
        }
    });
    tokio::spawn(async move { probing.keep_probing().await });
    Ok(core)
}
