//! The metadata of a cluster in memory: the state machines of the control group and of one group of drives, as one process without Raft.
//!
//! Invariant: every command that is proposed is noted in order, refused ones too.
//! Not here: elections, a log, other replicas.

use async_trait::async_trait;
use daemon::clock::{Clock, ManualClock};
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::Kv;
use metadata_raft::feed_watch::FeedWatch;
use metadata_raft::state::State;
use model::cluster::{Membership, NodeInfo};
use model::id::{CONTROL_GROUP, ClusterId, DiskId, GroupId, NodeId, RaftId, RowVersion, SLOTS, Slot};
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use model::time::{Age, WallTime};
use protocol::frame::{Answer, Call, Method, decode, encode};
use protocol::metadata::control::{ClusterSettings, ControlCommand, NodeDisk, SlotRange};
use protocol::metadata::group::{AdoptedSlot, GroupCommand, GroupSettings};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::watch::{MovedScope, WatchAnswer, WatchRequest};
use protocol::metadata::{
    Command, CommandAnswer, Envelope, GroupReply, ProposeRequest, Query, QueryAnswer, QueryRequest,
    Reply as GroupAnswer,
};
use protocol::status::{GroupStatus, MetadataStatus};
use protocol::wire_error::Failure;
use rpc::transport::Handler;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, RwLock};

pub(super) const CLUSTER: ClusterId = ClusterId(1);
pub(super) const NOW: WallTime = WallTime(1_800_000_000_000);
const SETTINGS: ClusterSettings = ClusterSettings {
    default_profile: ProfileId::Dev,
    default_quota_bytes: 1 << 40,
    birth_epoch_ms: 3_600_000,
    block_grace_ms: 60_000,
};

/// The state machines of both groups.
pub(super) struct Replica {
    stores: [MemoryKv; 2],
    pub(super) commands: Mutex<Vec<Command>>,
    /// A command that opens a session is told here when it arrives, and waits while a test holds the gate.
    pub(super) opening: Notify,
    pub(super) gate: RwLock<()>,
    /// What the group of drives tells of feeds that go on.
    pub(super) feed: FeedWatch,
    /// Whether it tells of nothing.
    pub(super) is_mute: AtomicBool,
    pub(super) asked: Mutex<Vec<Method>>,
    applied: AtomicU64,
    clock: ManualClock,
}

impl Replica {
    /// Of groups that nobody told anything.
    pub(super) fn new(clock: ManualClock) -> Self {
        Self {
            stores: [MemoryKv::new(), MemoryKv::new()],
            commands: Mutex::default(),
            opening: Notify::new(),
            gate: RwLock::new(()),
            feed: FeedWatch::new(0),
            is_mute: AtomicBool::new(false),
            asked: Mutex::default(),
            applied: AtomicU64::new(0),
            clock,
        }
    }

    fn propose(&self, group: GroupId, envelope: &[u8]) -> bytes::Bytes {
        // Held over the whole: commands are applied one after the other.
        let mut commands = self.commands.lock().unwrap();
        let kv = &self.stores[group.0 as usize];
        let mut overlay = Overlay::new(kv);
        let reply = State::new(group)
            .apply(&mut overlay, self.applied.fetch_add(1, Ordering::Relaxed) + 1, envelope)
            .unwrap();
        let batch = overlay.into_batch();
        kv.write(batch).unwrap();
        commands.push(decode::<Envelope>(envelope).unwrap().command);
        self.tell(&commands);
        reply
    }

    /// Tells where the feed of the last command's drive stands, and whose tokens it may have ended.
    fn tell(&self, commands: &[Command]) {
        if self.is_mute.load(Ordering::Relaxed) {
            return;
        }
        let drive = match commands.last() {
            Some(Command::Drive(command)) => command.drive(),
            Some(Command::Upload(command)) => command.drive(),
            Some(Command::User(command)) => {
                let index = self.feed.index() + 1;
                let ended = command.ends_tokens_of();
                let told = ended.map(|user| MovedScope::of_tokens(user, index));
                self.feed.moves(index, told.into_iter().collect());
                self.feed.written(index);
                return;
            }
            _ => return,
        };
        let query = encode(&Query::FeedEnds(vec![drive.root()])).unwrap();
        let reply = State::new(GroupId(1)).query(&self.stores[1], &query).unwrap();
        let answer = GroupAnswer::<QueryAnswer>::from_bytes(&reply).unwrap().result;
        let Ok(QueryAnswer::FeedEnds(ends)) = answer else {
            panic!("asked for the ends of feeds")
        };
        let index = self.feed.index() + 1;
        let moved = ends.iter().map(|end| MovedScope {
            scope: end.scope,
            sequence: end.sequence,
        });
        self.feed.moves(index, moved.collect());
        self.feed.written(index);
    }

    pub(super) fn command(&self, group: GroupId, command: Command) {
        let envelope = Envelope {
            request_id: None,
            wall: NOW,
            command,
        };
        let reply = self.propose(group, &encode(&envelope).unwrap());
        GroupAnswer::<CommandAnswer>::from_bytes(&reply)
            .unwrap()
            .result
            .unwrap();
    }

    fn query(&self, query: &Query) -> QueryAnswer {
        let group = GroupId(u32::from(query.slot().is_some()));
        let kv = &self.stores[group.0 as usize];
        let reply = State::new(group).query(kv, &encode(query).unwrap()).unwrap();
        GroupAnswer::<QueryAnswer>::from_bytes(&reply).unwrap().result.unwrap()
    }

    /// As a leader's replica.
    async fn watch(&self, request: &WatchRequest) -> WatchAnswer {
        let Some(after) = request.after else {
            return self.feed.behind(self.feed.index());
        };
        let end = self.clock.monotonic() + Duration::from_millis(u64::from(request.wait_ms));
        let mut news = self.feed.news();
        loop {
            news.borrow_and_update();
            let told = self.feed.behind(after);
            let left = end.saturating_sub(self.clock.monotonic());
            if !told.moved.is_empty() || !told.is_whole || left.is_zero() {
                return told;
            }
            tokio::select! {
                changed = news.changed() => changed.unwrap(),
                () = self.clock.sleep(left) => {}
            }
        }
    }
}

#[async_trait]
impl Handler for Replica {
    async fn handle(&self, _: ProcessId, call: Call) -> Result<Answer, Failure> {
        self.asked.lock().unwrap().push(call.method);
        let reply = match call.method {
            Method::WatchFeed => {
                return Ok(Answer {
                    message: encode(&self.watch(&decode(&call.message)?).await)?,
                    payload: bytes::Bytes::new(),
                });
            }
            Method::Propose => {
                let request: ProposeRequest = decode(&call.message)?;
                let command = decode::<Envelope>(&request.envelope)?.command;
                if matches!(command, Command::Upload(UploadCommand::OpenSession { .. })) {
                    self.opening.notify_one();
                    drop(self.gate.read().await);
                }
                self.propose(request.group, &request.envelope)
            }
            Method::Query => {
                // As over any network, the answer comes later than the question.
                tokio::task::yield_now().await;
                let request: QueryRequest = decode(&call.message)?;
                let kv = &self.stores[request.group.0 as usize];
                State::new(request.group).query(kv, &request.query).unwrap()
            }
            Method::MetadataStatus => {
                return Ok(Answer {
                    message: encode(&own_word())?,
                    payload: bytes::Bytes::new(),
                });
            }
            other => panic!("{other:?} is not asked of this replica"),
        };
        let message = encode(&GroupReply { log_index: 1, reply })?;
        Ok(Answer {
            message,
            payload: bytes::Bytes::new(),
        })
    }
}

/// What the one replica says of its two groups.
fn own_word() -> MetadataStatus {
    let group = |group| GroupStatus {
        group,
        leader: Some(RaftId(1)),
        term: 3,
        applied_index: 7,
        last_index: 7,
        has_quorum: true,
        voters: vec![RaftId(1)],
        stopped: None,
    };
    MetadataStatus {
        replica: RaftId(1),
        groups: vec![group(CONTROL_GROUP), group(GroupId(1))],
        is_volume_encrypted: None,
    }
}

pub(super) fn process(role: Role, number: u64) -> ProcessId {
    ProcessId { role, number }
}

fn node_info(number: u32, address: SocketAddr) -> NodeInfo {
    NodeInfo {
        region: format!("r{}", number.div_ceil(2)),
        zone: format!("z{}", number.div_ceil(2)),
        address,
        membership: Membership::Active,
    }
}

/// What processes, leaders and workers tell the groups in a real cluster.
pub(super) fn furnish(replica: &Replica, metadata: SocketAddr, shelves: &[SocketAddr]) {
    let control = |command| replica.command(CONTROL_GROUP, Command::Control(command));
    control(ControlCommand::InitCluster {
        cluster: CLUSTER,
        settings: SETTINGS,
    });
    control(ControlCommand::RegisterProcess {
        id: process(Role::Metadata, 1),
        address: metadata,
        region: "r1".to_owned(),
        zone: "z1".to_owned(),
    });
    for (number, address) in (1..).zip(shelves) {
        let disks = [2 * number - 1, 2 * number].map(|disk| NodeDisk {
            disk: DiskId(disk),
            weight_bytes: 1 << 40,
        });
        control(ControlCommand::RegisterNode {
            node: NodeId(number),
            info: node_info(number, *address),
            disks: disks.to_vec(),
        });
    }
    for group in [CONTROL_GROUP, GroupId(1)] {
        control(ControlCommand::SetGroup {
            group,
            voters: vec![RaftId(1)],
        });
    }
    let (first, last) = (Slot::new(0).unwrap(), Slot::new(SLOTS - 1).unwrap());
    let group = GroupId(1);
    control(ControlCommand::AssignSlots {
        ranges: vec![SlotRange { first, last, group }],
    });
    let QueryAnswer::Cluster(cluster) = replica.query(&Query::Control(ControlQuery::Cluster)) else {
        panic!("asked for the cluster")
    };
    let drives = |command| replica.command(group, Command::Group(command));
    drives(GroupCommand::Configure(GroupSettings {
        birth_epoch_ms: SETTINGS.birth_epoch_ms,
        block_grace_ms: SETTINGS.block_grace_ms,
    }));
    for profile in [ProfileId::Dev, ProfileId::Copies] {
        let table = placement::layout::plan(&cluster.map, None, profile).unwrap().table;
        let versions: Vec<RowVersion> = table.rows.iter().map(|row| row.version).collect();
        let pg_bits = table.pg_bits;
        control(ControlCommand::SetTable {
            planned_from: cluster.map.version,
            table,
        });
        drives(GroupCommand::TellRows {
            profile,
            pg_bits,
            versions,
        });
    }
    let all: Vec<AdoptedSlot> = (0..SLOTS)
        .filter_map(Slot::new)
        .map(|slot| AdoptedSlot { slot, age: Age(0) })
        .collect();
    for slots in all.chunks(1000) {
        drives(GroupCommand::AdoptSlots { slots: slots.to_vec() });
    }
}
