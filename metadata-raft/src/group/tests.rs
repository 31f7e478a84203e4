//! Three replicas in one process: elect, commit, survive the restart of one, lose power together, feed a fresh one by a snapshot.

mod atomic;
mod beats;
mod clocks;
mod damage;
mod handover;
mod installs;
mod leases;
mod ordering;
mod overload;
mod quorum;
mod reads;
mod recovery;
mod sweeps;

use super::{Group, GroupError, GroupParts, LogBounds, ReadBy, Timing, answer};
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::{Heartbeats, answer_beats};
use crate::raft::journal_stream::JournalStream;
use crate::raft::state_machine::Apply;
use crate::raft::tests::{Recorder, options};
use crate::raft::types::ReplicaInfo;
use crate::room::Room;
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::{Clock, SystemClock};
use daemon::metrics::Metrics;
use disk::SimDisk;
use disk::sim::Survivors;
use kv::memory::MemoryKv;
use kv::seam::{KvRead, Scan};
use model::id::{GroupId, RaftId};
use protocol::frame::{Answer, Call, Method};
use rpc::transport::{Peer, RpcError, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

const GROUP: GroupId = GroupId(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls land in the replicas of the same process; one that is not there is unreachable.
#[derive(Default)]
struct Loopback {
    replicas: Mutex<BTreeMap<u64, Arc<Group>>>,
    /// Replicas that nobody reaches and that reach nobody.
    cut: Mutex<BTreeSet<u64>>,
    /// Calls that reached somebody, by receiver and method.
    calls: Mutex<BTreeMap<(u64, Method), u64>>,
    /// Whose answers to which calls wait, also beyond their deadline.
    held: Mutex<Option<((u64, Method), Held)>>,
}

/// Answers that wait; clones are the same.
#[derive(Clone)]
struct Held {
    is_released: Arc<watch::Sender<bool>>,
}

impl Held {
    fn waiting(&self) -> usize {
        self.is_released.receiver_count()
    }

    fn release(&self) {
        self.is_released.send_replace(true);
    }
}

impl Loopback {
    fn note(&self, receiver: u64, call: &Call) {
        *self.calls.lock().unwrap().entry((receiver, call.method)).or_default() += 1;
    }

    /// From now on answers of a replica to such calls wait until they are released.
    fn hold_answers_of(&self, replica: u64, method: Method) -> Held {
        let held = Held {
            is_released: Arc::new(watch::Sender::new(false)),
        };
        *self.held.lock().unwrap() = Some(((replica, method), held.clone()));
        held
    }

    async fn wait_if_held(&self, replica: u64, method: Method) {
        let held = self.held.lock().unwrap().clone();
        if let Some((_, held)) = held.filter(|(held, _)| *held == (replica, method)) {
            let mut released = held.is_released.subscribe();
            drop(released.wait_for(|is_released| *is_released).await);
        }
    }

    fn calls(&self, receiver: u64, method: Method) -> u64 {
        self.calls
            .lock()
            .unwrap()
            .get(&(receiver, method))
            .copied()
            .unwrap_or(0)
    }
}

/// The loopback as one replica has it.
struct Wire {
    network: Arc<Loopback>,
    own: u64,
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let number = peer.process.number;
        let replica = self.network.replicas.lock().unwrap().get(&number).cloned();
        let is_cut = {
            let cut = self.network.cut.lock().unwrap();
            cut.contains(&self.own) || cut.contains(&number)
        };
        let Some(replica) = replica.filter(|_| !is_cut) else {
            return Err(RpcError::Unreachable {
                peer: peer.process,
                detail: "stopped".to_owned(),
            });
        };
        let answered = async {
            let sender = RaftId(self.own);
            match call.method {
                Method::RaftHeartbeats => {
                    let group = &replica;
                    answer_beats(
                        &call,
                        |_| (),
                        |_, append| async move { group.handle_beat(&append).await },
                    )
                    .await
                }
                _ => replica.handle_raft(sender, &call).await,
            }
        };
        self.network.note(number, &call);
        let answered = tokio::time::timeout(deadline, answered).await;
        self.network.wait_if_held(number, call.method).await;
        match answered {
            Ok(answer) => answer.map_err(RpcError::Refused),
            Err(_) => Err(RpcError::DeadlineMissed {
                peer: peer.process,
                was_sent: true,
            }),
        }
    }
}

struct Machine {
    disk: SimDisk,
    kv: Arc<MemoryKv>,
    stream: Option<Arc<JournalStream>>,
    /// Held here, as the wiring of a process does.
    wire: Option<Arc<dyn Transport>>,
}

impl Machine {
    fn empty() -> Self {
        Self {
            disk: SimDisk::new(1 << 30),
            kv: Arc::new(MemoryKv::new()),
            stream: None,
            wire: None,
        }
    }
}

struct World {
    network: Arc<Loopback>,
    machines: BTreeMap<u64, Machine>,
    clock: Arc<dyn Clock>,
    lease_reads: bool,
    timing: Timing,
    /// What commands mean, for each replica anew.
    apply: fn() -> Arc<dyn Apply>,
    bounds: LogBounds,
}

/// For what is not about elections: so patient that none is held because the machine is busy.
const CALM: Timing = Timing {
    heartbeat: Duration::from_millis(150),
    election_min: Duration::from_secs(6),
    election_max: Duration::from_secs(9),
};

fn info() -> ReplicaInfo {
    ReplicaInfo {
        address: "127.0.0.1:1".parse().unwrap(),
    }
}

fn voters(replicas: u64) -> BTreeMap<RaftId, ReplicaInfo> {
    (1..=replicas).map(|id| (RaftId(id), info())).collect()
}

impl World {
    fn new(replicas: u64) -> Self {
        let machines = (1..=replicas).map(|id| (id, Machine::empty())).collect();
        Self {
            network: Arc::default(),
            machines,
            clock: Arc::new(SystemClock::new()),
            lease_reads: false,
            timing: Timing::LAN,
            apply: || Arc::new(Recorder),
            bounds: LogBounds::PRODUCTION,
        }
    }

    fn calm(replicas: u64) -> Self {
        Self {
            timing: CALM,
            ..Self::new(replicas)
        }
    }

    /// What a replica is made of, after its log was opened.
    fn parts(&mut self, id: u64) -> Result<GroupParts, GroupError> {
        let machine = self.machines.get_mut(&id).unwrap();
        let (log, stream) = JournalStream::open(Arc::new(machine.disk.clone()), "raft", options())?;
        machine.stream = Some(stream);
        let transport: Arc<dyn Transport> = Arc::new(Wire {
            network: self.network.clone(),
            own: id,
        });
        machine.wire = Some(transport.clone());
        let heartbeat = self.timing.heartbeat;
        Ok(GroupParts {
            group: GROUP,
            replica: RaftId(id),
            log,
            kv: machine.kv.clone(),
            apply: (self.apply)(),
            heartbeats: Heartbeats::start(&transport, info().address, RaftId(id), self.clock.clone(), heartbeat),
            transport,
            addresses: Arc::new(AddressBook::new(info().address, [])),
            room: Arc::new(Room::new(&Metrics::new())),
            timing: self.timing,
            clock: self.clock.clone(),
            lease_reads: self.lease_reads,
            bounds: self.bounds,
            nonce: id << 32,
        })
    }

    async fn start(&mut self, id: u64) -> Result<Arc<Group>, GroupError> {
        let parts = self.parts(id)?;
        Ok(self.run(Group::start(parts).await?))
    }

    /// Lets the others reach a replica.
    fn run(&self, group: Group) -> Arc<Group> {
        let group = Arc::new(group);
        let mut replicas = self.network.replicas.lock().unwrap();
        replicas.insert(group.replica.0, group.clone());
        group
    }

    fn replica(&self, id: u64) -> Arc<Group> {
        self.network.replicas.lock().unwrap()[&id].clone()
    }

    async fn stop(&mut self, id: u64) {
        let group = self.network.replicas.lock().unwrap().remove(&id).unwrap();
        group.stop().await;
        self.machines
            .get_mut(&id)
            .unwrap()
            .stream
            .take()
            .unwrap()
            .stop()
            .unwrap();
    }

    /// All lose power at once: nothing unsynced survives on the disks, any prefix in the stores.
    async fn power_cut(&mut self) -> usize {
        let mut lost = 0;
        // The disks are cut before anything can be written by stopping.
        let disks: BTreeMap<u64, SimDisk> = self
            .machines
            .iter()
            .map(|(id, machine)| (*id, machine.disk.crash(Survivors::None)))
            .collect();
        let running = std::mem::take(&mut *self.network.replicas.lock().unwrap());
        for group in running.values() {
            group.raft.shutdown().await.unwrap();
        }
        for (id, machine) in &mut self.machines {
            drop(machine.stream.take().map(|stream| stream.stop()));
            machine.disk = disks[id].clone();
            lost += machine.kv.power_cut(*id);
        }
        lost
    }

    async fn leader(&self) -> Arc<Group> {
        let first = self.network.replicas.lock().unwrap().values().next().cloned().unwrap();
        let wait = first.raft.wait(Some(PATIENCE));
        let metrics = wait
            .metrics(|metrics| metrics.current_leader.is_some(), "a leader")
            .await
            .unwrap();
        let id = metrics.current_leader.unwrap();
        self.network.replicas.lock().unwrap().get(&id).cloned().unwrap_or(first)
    }

    /// Proposes at one replica until it is done.
    async fn put_at(&self, id: u64, command: &str) {
        let put = self.replica(id);
        let put = put.propose(Bytes::from(command.to_owned()));
        tokio::time::timeout(PATIENCE, put).await.unwrap().unwrap();
    }

    /// Proposes until some replica commits it, as a client would; answers the index.
    async fn put(&self, command: &str) -> u64 {
        let attempt = async {
            loop {
                match self.leader().await.propose(Bytes::from(command.to_owned())).await {
                    Ok(answer) => return u64::from_be_bytes(answer.as_ref().try_into().unwrap()),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, attempt).await.unwrap()
    }
}

fn commands(group: &Group) -> Vec<Bytes> {
    let rows = group
        .read(|state: &dyn KvRead| state.scan(&Scan::prefix(&[0, 1], 1_000)))
        .unwrap();
    rows.into_iter().map(|(_, command)| command).collect()
}

async fn bootstrapped() -> World {
    bootstrap(World::new(3)).await
}

async fn bootstrap(mut world: World) -> World {
    for id in 1..=3 {
        world.start(id).await.unwrap();
    }
    world.replica(1).bootstrap(voters(3)).await.unwrap();
    world
}

async fn linearized(world: &World) -> Arc<Group> {
    let attempt = async {
        loop {
            let leader = world.leader().await;
            if leader.caught_up(PATIENCE).await.is_ok() && leader.linearize_as_leader().await.is_ok() {
                return leader;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, attempt).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_commit_while_one_is_away_and_it_catches_up() {
    let mut world = bootstrapped().await;
    world.put("before").await;
    world.stop(2).await;
    let last = world.put("meanwhile").await;
    let back = world.start(2).await.unwrap();
    back.caught_up(PATIENCE).await.unwrap();
    let applied = back
        .raft
        .wait(Some(PATIENCE))
        .applied_index_at_least(Some(last), "caught up")
        .await;
    applied.unwrap();
    assert!(commands(&back).contains(&Bytes::from_static(b"before")));
    assert!(commands(&back).contains(&Bytes::from_static(b"meanwhile")));
}

/// shows: F5
#[tokio::test(flavor = "multi_thread")]
async fn after_all_lost_power_the_first_read_has_everything_acknowledged() {
    let mut world = bootstrapped().await;
    for number in 0..20 {
        world.put(&format!("put {number}")).await;
    }
    let lost = world.power_cut().await;
    assert!(lost > 0, "the stores must have lost batches");
    for id in 1..=3 {
        world.start(id).await.unwrap();
    }
    let leader = linearized(&world).await;
    let found = commands(&leader);
    for number in 0..20 {
        assert!(
            found.contains(&Bytes::from(format!("put {number}"))),
            "put {number} was acknowledged"
        );
    }
}

/// shows: B-3 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_replica_is_fed_by_a_snapshot_when_the_log_is_purged() {
    let mut world = bootstrapped().await;
    let mut last = 0;
    for number in 0..50 {
        last = world.put(&format!("put {number}")).await;
    }
    let leader = linearized(&world).await;
    installs::purge_all(&leader).await;
    world.machines.insert(4, Machine::empty());
    let fresh = world.start(4).await.unwrap();
    leader.raft.add_learner(4, info(), true).await.unwrap();
    fresh
        .raft
        .wait(Some(PATIENCE))
        .applied_index_at_least(Some(last), "fed")
        .await
        .unwrap();
    assert_eq!(commands(&fresh), commands(&leader));
    let is_purged = |metrics: &openraft::RaftMetrics<_>| metrics.snapshot.is_some();
    fresh
        .raft
        .wait(Some(PATIENCE))
        .metrics(is_purged, "it came by a snapshot")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_state_is_older_than_its_purged_log_does_not_start() {
    let mut world = bootstrapped().await;
    world.put("put").await;
    let leader = linearized(&world).await;
    let id = leader.replica.0;
    installs::purge_all(&leader).await;
    drop(leader);
    world.stop(id).await;
    world.machines.get_mut(&id).unwrap().kv = Arc::new(MemoryKv::new());
    assert!(matches!(world.start(id).await, Err(GroupError::Lost { .. })));
}
