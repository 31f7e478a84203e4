//! Whole metadata processes on real disks and RocksDB in a temporary directory, wired in memory or by QUIC.
//!
//! Invariants: a replica that starts again listens at another address; a killed one ends without any of its own clean-up.
//! Not here: gateways and nodes; the callers below speak to the replicas' services as their transport would.

use super::parts::{CLUSTER, DAY, Late, bind_quic, config};
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use daemon::metrics::Metrics;
use daemon::random::Random;
use daemon::shutdown::Shutdown;
use daemon::worker::Workers;
use disk::{Disk, DiskError, RealDisk};
use kv::rocks::{RocksBudget, RocksKv};
use kv::seam::{Kv, KvError};
use metadata_raft::serve::{MetadataProcess, Seams, start};
use metadata_raft::service::MetadataService;
use model::error_kind::ErrorKind;
use model::id::GroupId;
use model::process::{ProcessId, Role};
use model::time::WallTime;
use protocol::frame::{Call, Method, decode, encode};
use protocol::metadata::{
    Command, CommandAnswer, Envelope, GroupReply, ProposeRequest, Query, QueryAnswer, QueryRequest, Reply, RequestKey,
};
use protocol::wire_error::Failure;
use rpc::authority::ClusterAuthority;
use rpc::memory::{Fault, MemoryNetwork};
use rpc::transport::{Handler, Transport};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How long anything that must happen may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const GATEWAY: ProcessId = ProcessId {
    role: Role::Gateway,
    number: 1,
};

/// How replicas reach each other.
pub(crate) enum Wires {
    Memory(MemoryNetwork),
    Quic(Box<ClusterAuthority>),
}

impl Wires {
    pub(crate) fn memory() -> Self {
        Self::Memory(MemoryNetwork::new(Arc::new(SystemClock::new())))
    }

    pub(crate) fn quic() -> Self {
        let authority = ClusterAuthority::create(CLUSTER, SystemClock::new().wall(), DAY).unwrap();
        Self::Quic(Box::new(authority))
    }
}

struct Bound {
    transport: Arc<dyn Transport>,
    handler: Arc<Late>,
    address: SocketAddr,
}

/// One running replica.
pub(crate) struct Replica {
    pub(crate) process: Arc<MetadataProcess>,
    pub(crate) service: Arc<MetadataService>,
    pub(crate) metrics: Metrics,
    workers: Workers,
    shutdown: Shutdown,
    runtime: Runtime,
}

/// Another disk over a replica's own.
pub(crate) type OverDisk = Box<dyn Fn(Arc<dyn Disk>) -> Arc<dyn Disk> + Send + Sync>;

/// Replicas of one cluster, by number.
pub(crate) struct World {
    wires: Wires,
    dir: tempfile::TempDir,
    budget: RocksBudget,
    groups: u32,
    /// Whether leaders that are started from now on answer under their leases.
    pub(crate) lease_reads: bool,
    /// The regions of the first replicas, where they are not each in one of its own.
    pub(crate) regions: Vec<&'static str>,
    replicas: u64,
    addresses: BTreeMap<u64, SocketAddr>,
    /// Whether the groups were made.
    is_made: bool,
    /// What a test lays over the disks of logs.
    laid_over: BTreeMap<u64, OverDisk>,
    running: BTreeMap<u64, Arc<Replica>>,
}

impl World {
    /// A world of `replicas` with `groups` drive groups, none of them running.
    pub(crate) fn new(wires: Wires, replicas: u64, groups: u32) -> Self {
        Self {
            wires,
            dir: tempfile::tempdir().unwrap(),
            budget: RocksBudget::new(32 << 20, 32 << 20).unwrap(),
            groups,
            lease_reads: false,
            regions: Vec::new(),
            replicas,
            addresses: BTreeMap::new(),
            is_made: false,
            laid_over: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }

    /// The same with all of them running, and up to date.
    pub(crate) async fn up(wires: Wires, replicas: u64, groups: u32) -> Self {
        let mut world = Self::new(wires, replicas, groups);
        let all = world.numbers();
        world.start(&all).await;
        world.caught_up(&all).await;
        world
    }

    /// Lays another disk over the one of a replica's log; before its start.
    #[allow(dead_code)]
    pub(crate) fn lay_over(&mut self, number: u64, over: OverDisk) {
        self.laid_over.insert(number, over);
    }

    /// Where a replica keeps its log (`disk`) and state (`kv`).
    pub(crate) fn directory(&self, number: u64) -> PathBuf {
        self.dir.path().join(format!("metadata-{number}"))
    }

    fn bind(&self, number: u64, runtime: &Runtime) -> Bound {
        let process = ProcessId {
            role: Role::Metadata,
            number,
        };
        let handler = Arc::new(Late::default());
        let _inside = runtime.enter();
        let (transport, address): (Arc<dyn Transport>, _) = match &self.wires {
            Wires::Memory(network) => {
                let (transport, address) = network.attach(process, CLUSTER, handler.clone());
                (transport, address)
            }
            Wires::Quic(authority) => {
                let pem = authority.issue(process, SystemClock::new().wall(), DAY).unwrap();
                bind_quic(&pem, ([127, 0, 0, 1], 0).into(), handler.clone())
            }
        };
        Bound {
            transport,
            handler,
            address,
        }
    }

    /// Starts these replicas at fresh addresses, the first last, since it makes the groups of a new cluster.
    pub(crate) async fn start(&mut self, numbers: &[u64]) {
        let mut bound = Vec::new();
        for number in numbers {
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let at = self.bind(*number, &runtime);
            self.addresses.insert(*number, at.address);
            bound.push((*number, runtime, at));
        }
        for (number, runtime, at) in bound.into_iter().rev() {
            self.run(number, runtime, at).await.unwrap();
        }
    }

    /// Starts one replica, or says why it does not.
    pub(crate) async fn try_start(&mut self, number: u64) -> Result<(), String> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let at = self.bind(number, &runtime);
        self.addresses.insert(number, at.address);
        self.run(number, runtime, at).await
    }

    /// Opens a replica's disk and store; waits a while for what a killed one has not let go of yet.
    async fn open(&self, number: u64) -> Result<(Arc<dyn Disk>, Arc<dyn Kv>), String> {
        let dir = self.directory(number);
        std::fs::create_dir_all(dir.join("disk")).unwrap();
        let begun = Instant::now();
        loop {
            let (is_held, error) = match RealDisk::open(&dir.join("disk")) {
                Err(error) => (matches!(error, DiskError::InUse(_)), error.to_string()),
                Ok(disk) => match RocksKv::open(&dir.join("kv"), &self.budget) {
                    Ok(kv) => {
                        let (disk, kv): (Arc<dyn Disk>, Arc<dyn Kv>) = (Arc::new(disk), Arc::new(kv));
                        let disk = match self.laid_over.get(&number) {
                            Some(over) => over(disk),
                            None => disk,
                        };
                        return Ok((disk, kv));
                    }
                    Err(error) => (matches!(error, KvError::Locked(_)), error.to_string()),
                },
            };
            if !is_held || begun.elapsed() > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn run(&mut self, number: u64, runtime: Runtime, bound: Bound) -> Result<(), String> {
        let (disk, kv) = match self.open(number).await {
            Ok(opened) => opened,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let shutdown = Shutdown::new();
        let workers = Workers::new(clock.clone(), shutdown.clone());
        let dir = self.directory(number);
        let metrics = Metrics::new();
        let seams = Seams {
            cluster: CLUSTER,
            disk,
            kv,
            transport: bound.transport,
            clock,
            random: Random::system(),
            metrics: metrics.clone(),
            workers: workers.clone(),
        };
        let mut config = config(number, dir, &self.addresses, self.groups);
        config.lease_reads = self.lease_reads;
        for (site, region) in config.sites.iter_mut().zip(&self.regions) {
            site.region = (*region).to_owned();
        }
        let makes_groups = number == 1 && !self.is_made;
        self.is_made |= makes_groups;
        let started = runtime.spawn(async move { start(&config, &seams, makes_groups).await });
        let process = match started.await.unwrap() {
            Ok(process) => Arc::new(process),
            Err(error) => {
                runtime.shutdown_background();
                return Err(error.to_string());
            }
        };
        let service = process.service();
        bound.handler.serve(service.clone());
        let replica = Replica {
            process,
            service,
            metrics,
            workers,
            shutdown,
            runtime,
        };
        self.running.insert(number, Arc::new(replica));
        Ok(())
    }

    /// Where a replica listens, or last did.
    pub(crate) fn address(&self, number: u64) -> SocketAddr {
        self.addresses[&number]
    }

    /// Whether a group of a running replica was ended by a failure.
    pub(crate) fn is_stopped(&self, number: u64) -> bool {
        let groups = self.running[&number].service.groups();
        groups.values().any(|group| group.status().fault.is_some())
    }

    /// Waits until each group of a replica has applied what any other has by now, or was ended by a failure.
    pub(crate) async fn settle(&self, number: u64) {
        let groups = self.running[&number].service.groups();
        for (id, group) in groups {
            let others = self
                .running
                .values()
                .map(|replica| replica.service.groups()[id].applied_index());
            let wanted = others.max().flatten();
            let settled = async {
                while group.status().fault.is_none() && group.applied_index() < wanted {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, settled).await.unwrap();
        }
    }

    /// Cuts a replica off from the others, in memory; callers of its service still reach it.
    #[allow(dead_code)]
    pub(crate) fn cut(&self, number: u64) {
        let Wires::Memory(network) = &self.wires else {
            panic!("only wires in memory can be cut")
        };
        let id = |number| ProcessId {
            role: Role::Metadata,
            number,
        };
        for other in self.numbers() {
            network.break_way(id(number), id(other), Fault::Cut);
            network.break_way(id(other), id(number), Fault::Cut);
        }
    }

    /// Takes all cuts back.
    #[allow(dead_code)]
    pub(crate) fn mend(&self) {
        if let Wires::Memory(network) = &self.wires {
            network.mend_all();
        }
    }

    /// A running replica.
    pub(crate) fn replica(&self, number: u64) -> Arc<Replica> {
        self.running[&number].clone()
    }

    /// Waits until these have caught up.
    pub(crate) async fn caught_up(&self, numbers: &[u64]) {
        for number in numbers {
            let process = self.running[number].process.clone();
            tokio::time::timeout(PATIENCE, process.caught_up()).await.unwrap();
        }
    }

    /// Stops a replica in order.
    pub(crate) async fn stop(&mut self, number: u64) {
        let replica = self.running.remove(&number).unwrap();
        let inner = replica.clone();
        let ended = replica.runtime.spawn(async move {
            inner.shutdown.request();
            inner.workers.ended().await;
            inner.process.stop().await;
            drop(inner);
        });
        ended.await.unwrap();
        end(replica).await;
    }

    /// Ends a replica at once: no hand-over, no sync, nothing told to anybody.
    pub(crate) async fn kill(&mut self, number: u64) {
        let replica = self.running.remove(&number).unwrap();
        replica.shutdown.request();
        end(replica).await;
    }

    /// All numbers.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        (1..=self.replicas).collect()
    }

    /// The running replicas.
    pub(crate) fn services(&self) -> Vec<(u64, Arc<MetadataService>)> {
        self.running
            .iter()
            .map(|(number, replica)| (*number, replica.service.clone()))
            .collect()
    }

    /// Who leads `group` as the replicas say; waits until one does.
    pub(crate) async fn leader(&self, group: GroupId) -> u64 {
        let look = async {
            loop {
                for replica in self.running.values() {
                    if let Some(leader) = replica
                        .process
                        .leader(group)
                        .filter(|id| self.running.contains_key(&id.0))
                    {
                        return leader.0;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap()
    }

    /// Commands `group` until a leader answers, as a gateway's client would.
    pub(crate) async fn command(
        &self,
        group: GroupId,
        request_id: Option<RequestKey>,
        command: &Command,
    ) -> Result<CommandAnswer, Failure> {
        self.command_at(SystemClock::new().wall(), group, request_id, command)
            .await
    }

    /// As `command`, of somebody whose clock shows `wall`.
    pub(crate) async fn command_at(
        &self,
        wall: WallTime,
        group: GroupId,
        request_id: Option<RequestKey>,
        command: &Command,
    ) -> Result<CommandAnswer, Failure> {
        let envelope = Envelope {
            request_id,
            wall,
            command: command.clone(),
        };
        let message = encode(&ProposeRequest {
            group,
            envelope: encode(&envelope).unwrap(),
        })
        .unwrap();
        self.ask(Method::Propose, message).await
    }

    /// Asks `group` until a replica answers.
    pub(crate) async fn query(&self, group: GroupId, query: &Query) -> Result<QueryAnswer, Failure> {
        let message = encode(&QueryRequest {
            group,
            query: encode(query).unwrap(),
        })
        .unwrap();
        self.ask(Method::Query, message).await
    }

    /// Asks one replica, once.
    #[allow(dead_code)]
    pub(crate) async fn query_at(&self, number: u64, group: GroupId, query: &Query) -> Result<QueryAnswer, Failure> {
        let query = encode(query)?;
        let message = encode(&QueryRequest { group, query })?;
        let answer = call(&self.replica(number).service, Method::QueryReplica, message).await?;
        Reply::<QueryAnswer>::from_bytes(&answer.reply)?.result
    }

    async fn ask<T: Serialize + DeserializeOwned>(&self, method: Method, message: Bytes) -> Result<T, Failure> {
        let services = self.services();
        let attempt = async {
            for turn in 0.. {
                let (_, service) = &services[turn % services.len()];
                if let Ok(answer) = call(service, method, message.clone()).await {
                    let reply = Reply::<T>::from_bytes(&answer.reply).unwrap();
                    match reply.result {
                        Err(failure) if failure.kind.is_retryable() => {}
                        result => return result,
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            unreachable!("the turns never end")
        };
        tokio::time::timeout(PATIENCE, attempt).await.unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let running = std::mem::take(&mut self.running);
        // A runtime must not end inside of another one, so those that are left end on a thread of their own.
        let ended = std::thread::spawn(move || {
            for replica in running.into_values().filter_map(Arc::into_inner) {
                replica.shutdown.request();
                replica.runtime.shutdown_timeout(PATIENCE);
            }
        });
        drop(ended.join());
    }
}

/// Proposes a command at one replica, once; for the example `commits`.
#[allow(dead_code)]
pub(crate) async fn propose(
    service: &MetadataService,
    group: GroupId,
    request_id: Option<RequestKey>,
    command: &Command,
) -> Result<CommandAnswer, Failure> {
    let envelope = encode(&Envelope {
        request_id,
        wall: SystemClock::new().wall(),
        command: command.clone(),
    })?;
    let answer = call(service, Method::Propose, encode(&ProposeRequest { group, envelope })?).await?;
    Reply::<CommandAnswer>::from_bytes(&answer.reply)?.result
}

/// Proposes at these replicas, beginning with the one that did it last, until one has done it; for the examples.
#[allow(dead_code)]
pub(crate) async fn propose_anywhere(
    services: &[Arc<MetadataService>],
    last: &mut usize,
    group: GroupId,
    command: &Command,
) {
    loop {
        match propose(&services[*last], group, None, command).await {
            Ok(_) => return,
            // Without a request id a repeat after an unknown outcome meets itself.
            Err(failure) if failure.code == "name_taken" => return,
            Err(failure) => assert!(
                failure.kind.is_retryable() || failure.kind == ErrorKind::Ambiguous,
                "{failure}"
            ),
        }
        *last = (*last + 1) % services.len();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One call to one replica, as its transport hands it over.
pub(crate) async fn call(service: &MetadataService, method: Method, message: Bytes) -> Result<GroupReply, Failure> {
    let call = Call {
        method,
        request_id: 0,
        message,
        payload: Bytes::new(),
    };
    let answer = service.handle(GATEWAY, call).await?;
    decode(&answer.message)
}

/// Waits for the last reference, so that files are closed, and for what blocks.
async fn end(mut replica: Arc<Replica>) {
    let replica = loop {
        match Arc::try_unwrap(replica) {
            Ok(replica) => break replica,
            Err(shared) => {
                replica = shared;
                tokio::task::yield_now().await;
            }
        }
    };
    let ended = tokio::task::spawn_blocking(move || {
        let Replica {
            process,
            service,
            workers,
            runtime,
            ..
        } = replica;
        // Tasks are dropped where they stand; what they own is closed with them.
        runtime.shutdown_timeout(PATIENCE);
        drop((process, service, workers));
    });
    ended.await.unwrap();
}
