//! Signs of life between processes that lead many groups: one call to each peer a tick, however many groups are led.
//!
//! Time is virtual once all is quiet, and calls are counted against ticks. Not here: when a tick is due (`heartbeats`).

use super::installs::applied;
use super::{PATIENCE, info, voters};
use crate::group::{Group, GroupParts, LogBounds, Timing};
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::{Heartbeats, answer_beats};
use crate::raft::journal_stream::JournalStream;
use crate::raft::receiver::group_of;
use crate::raft::tests::{Recorder, options};
use crate::room::Room;
use async_trait::async_trait;
use bytes::Bytes;
use daemon::clock::{Clock, ManualClock};
use daemon::metrics::Metrics;
use disk::SimDisk;
use kv::memory::MemoryKv;
use model::id::{GroupId, RaftId};
use model::time::WallTime;
use protocol::frame::{Answer, Call, Method};
use rpc::transport::{Peer, RpcError, Transport};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const REPLICAS: u64 = 3;
/// Of which each replica leads a third.
const GROUPS: u32 = 30;
const LED: u64 = 10;
/// What openraft's own timers would say comes several times within the ticks that are counted; elections are far off.
const TIMING: Timing = Timing {
    heartbeat: Duration::from_secs(1),
    election_min: Duration::from_secs(60),
    election_max: Duration::from_secs(90),
};
const TICKS: u32 = 100;

/// What one process has said to another one.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// Messages of signs of life.
    messages: u64,
    /// Signs of life in them.
    beats: u64,
    /// All other calls.
    others: u64,
}

/// Calls land in the groups of the same process.
#[derive(Default)]
struct Wires {
    groups: Mutex<BTreeMap<(u64, GroupId), Arc<Group>>>,
    /// By sender and receiver.
    said: Mutex<BTreeMap<(u64, u64), Said>>,
}

impl Wires {
    fn group(&self, replica: u64, group: GroupId) -> Arc<Group> {
        self.groups.lock().unwrap()[&(replica, group)].clone()
    }

    fn note(&self, sender: u64, receiver: u64, note: impl FnOnce(&mut Said)) {
        note(self.said.lock().unwrap().entry((sender, receiver)).or_default());
    }

    /// What was said since the last time.
    fn take(&self) -> BTreeMap<(u64, u64), Said> {
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

/// The wires as one process has them.
struct Wire {
    wires: Arc<Wires>,
    own: u64,
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, peer: &Peer, call: Call, deadline: Duration) -> Result<Answer, RpcError> {
        let (wires, own, receiver) = (&self.wires, self.own, peer.process.number);
        let answered = async {
            if call.method == Method::RaftHeartbeats {
                wires.note(own, receiver, |said| said.messages += 1);
                let take = |group: GroupId, append: Bytes| {
                    wires.note(own, receiver, |said| said.beats += 1);
                    let group = wires.group(receiver, group);
                    async move { group.handle_beat(&append).await }
                };
                return answer_beats(&call, |_| (), take).await;
            }
            wires.note(own, receiver, |said| said.others += 1);
            match group_of(&call) {
                Ok(group) => wires.group(receiver, group).handle_raft(RaftId(own), &call).await,
                Err(refused) => Err(refused),
            }
        };
        match tokio::time::timeout(deadline, answered).await {
            Ok(answer) => answer.map_err(RpcError::Refused),
            Err(_) => Err(RpcError::DeadlineMissed {
                peer: peer.process,
                was_sent: true,
            }),
        }
    }
}

/// What must live as long as a process.
struct Process {
    _transport: Arc<dyn Transport>,
    _stream: Arc<JournalStream>,
}

fn groups() -> impl Iterator<Item = GroupId> {
    (1..=GROUPS).map(GroupId)
}

fn leader_of(group: GroupId) -> u64 {
    u64::from(group.0) % REPLICAS + 1
}

/// A process with a replica of each group; one log, one store and one ticker for all of them.
async fn start(wires: &Arc<Wires>, id: u64) -> Process {
    let transport: Arc<dyn Transport> = Arc::new(Wire {
        wires: wires.clone(),
        own: id,
    });
    // It stands still at a whole tick, so a ticker rests for a whole one, too.
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(WallTime(60_000)));
    let (log, stream) = JournalStream::open(Arc::new(SimDisk::new(1 << 30)), "raft", options()).unwrap();
    let kv = Arc::new(MemoryKv::new());
    let addresses = Arc::new(AddressBook::new(info().address, []));
    let room = Arc::new(Room::new(&Metrics::new()));
    let heartbeats = Heartbeats::start(&transport, info().address, RaftId(id), clock.clone(), TIMING.heartbeat);
    for group in groups() {
        let parts = GroupParts {
            group,
            replica: RaftId(id),
            log: log.clone(),
            kv: kv.clone(),
            apply: Arc::new(Recorder),
            transport: transport.clone(),
            addresses: addresses.clone(),
            heartbeats: heartbeats.clone(),
            room: room.clone(),
            timing: TIMING,
            clock: clock.clone(),
            lease_reads: false,
            bounds: LogBounds::PRODUCTION,
            nonce: id << 32,
        };
        let started = Arc::new(Group::start(parts).await.unwrap());
        wires.groups.lock().unwrap().insert((id, group), started);
    }
    Process {
        _transport: transport,
        _stream: stream,
    }
}

/// Waits until each group has its leader and nothing is left to be said or written.
async fn quiet(wires: &Wires) {
    for group in groups() {
        let leader = wires.group(leader_of(group), group);
        leader.caught_up(PATIENCE).await.unwrap();
        assert!(leader.is_leader(), "group {group}");
        let last = leader.status().last_index.unwrap();
        for replica in 1..=REPLICAS {
            applied(&wires.group(replica, group), last).await;
        }
    }
}

#[tokio::test]
async fn the_groups_of_a_process_say_together_that_their_leaders_live() {
    let wires = Arc::new(Wires::default());
    let mut processes = Vec::new();
    for id in 1..=REPLICAS {
        processes.push(start(&wires, id).await);
    }
    for group in groups() {
        let first = wires.group(leader_of(group), group);
        first.bootstrap(voters(REPLICAS)).await.unwrap();
        first.raft.trigger().elect(false).await.unwrap();
    }
    quiet(&wires).await;
    tokio::time::pause();
    // What was still under way ends before the count.
    tokio::time::sleep(TIMING.heartbeat * 2).await;
    drop(wires.take());
    tokio::time::sleep(TIMING.heartbeat * TICKS).await;
    let said = wires.take();
    assert_eq!(said.len(), 6, "each to each: {said:?}");
    let ticks = u64::from(TICKS);
    for (way, said) in said {
        // A tick may lie on either edge. A call for each group would be ten times as many, and openraft's own timers twenty more.
        assert!(said.messages >= ticks - 2, "{way:?}: {said:?}");
        assert!(said.messages + said.others <= ticks + LED, "{way:?}: {said:?}");
        assert!(said.beats >= LED * (ticks - 2), "{way:?}: {said:?}");
    }
    for group in groups() {
        assert!(wires.group(leader_of(group), group).is_leader(), "group {group}");
    }
    drop(processes);
}
