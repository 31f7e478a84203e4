//! Workers over one replica of a group whose clock moves only when told.

mod age;
mod layout;
mod sweep;

use super::bell::Bell;
use super::sweep::SweepWorker;
use super::{command, query};
use crate::founding::{founding, user};
use crate::group::{Group, GroupParts, LogBounds, Timing};
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::journal_stream::JournalStream;
use crate::raft::tests::options;
use crate::raft::types::ReplicaInfo;
use crate::room::Room;
use crate::serve::StateApply;
use async_trait::async_trait;
use daemon::clock::{Clock, ManualClock};
use daemon::metrics::Metrics;
use daemon::random::Random;
use disk::SimDisk;
use kv::memory::MemoryKv;
use model::authorize::Principal;
use model::id::{DriveId, EntryId, GroupId, RaftId};
use model::name::EntryName;
use model::time::WallTime;
use protocol::frame::{Answer, Call};
use protocol::metadata::drive::{DriveCommand, Place};
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer};
use rpc::transport::{Peer, RpcError, Transport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const GROUP: GroupId = GroupId(3);
const PATIENCE: Duration = Duration::from_secs(20);

/// Nobody is there.
struct Alone;

#[async_trait]
impl Transport for Alone {
    async fn call(&self, peer: &Peer, _call: Call, _deadline: Duration) -> Result<Answer, RpcError> {
        Err(RpcError::Unreachable {
            peer: peer.process,
            detail: "nobody is there".to_owned(),
        })
    }
}

/// Makes the folder of this number in another one.
pub(crate) fn folder(principal: Principal, parent: EntryId, number: u64) -> Command {
    let place = Place::In {
        parent,
        name: EntryName::new(&format!("folder {number}")).unwrap(),
    };
    Command::Drive(DriveCommand::CreateFolder {
        principal,
        drive: parent.drive,
        place,
        with_parents: false,
        fresh: vec![number],
    })
}

/// Removes a folder by a job of its number.
pub(crate) fn purge(principal: Principal, entry: EntryId) -> Command {
    Command::Drive(DriveCommand::PurgeEntry {
        principal,
        entry,
        base_revision: None,
        job: entry.number,
    })
}

/// What each job of a drive has done.
pub(crate) async fn jobs(group: &Arc<Group>, drive: DriveId) -> Vec<u64> {
    let ask = Query::Drive(DriveQuery {
        drive,
        principal: None,
        ask: DriveAsk::Jobs,
    });
    match query(group, &ask).await.unwrap() {
        QueryAnswer::Jobs(jobs) => jobs.into_iter().map(|job| job.operations).collect(),
        other => panic!("{other:?}"),
    }
}

/// One replica that leads, with one user.
struct Bench {
    group: Arc<Group>,
    bell: Arc<Bell>,
    clock: Arc<ManualClock>,
    metrics: Metrics,
    owner: Principal,
    drive: DriveId,
    next: u64,
    _stream: Arc<JournalStream>,
    transport: Arc<dyn Transport>,
}

fn info() -> ReplicaInfo {
    ReplicaInfo {
        address: "127.0.0.1:1".parse().unwrap(),
    }
}

impl Bench {
    async fn new() -> Self {
        Self::of(GROUP).await
    }

    async fn of(group: GroupId) -> Self {
        let disk = Arc::new(SimDisk::new(1 << 30));
        let (log, stream) = JournalStream::open(disk, "raft", options()).unwrap();
        let transport: Arc<dyn Transport> = Arc::new(Alone);
        let (bell, metrics) = (Arc::<Bell>::default(), Metrics::new());
        let parts = GroupParts {
            group,
            replica: RaftId(1),
            log,
            kv: Arc::new(MemoryKv::new()),
            apply: Arc::new(StateApply::new(group, bell.clone())),
            heartbeats: Heartbeats::start(
                &transport,
                info().address,
                RaftId(1),
                Arc::new(ManualClock::new(WallTime(0))),
                Timing::LAN.heartbeat,
            ),
            transport: transport.clone(),
            addresses: Arc::new(AddressBook::new(info().address, [])),
            room: Arc::new(Room::new(&metrics)),
            timing: Timing::LAN,
            clock: Arc::new(ManualClock::new(WallTime(0))),
            lease_reads: false,
            bounds: LogBounds::PRODUCTION,
            nonce: 1,
        };
        let group = Arc::new(Group::start(parts).await.unwrap());
        let (owner, drive) = user("ada");
        Self {
            group,
            bell,
            clock: Arc::new(ManualClock::new(WallTime(1_700_000_000_000))),
            metrics,
            owner,
            drive,
            next: 100,
            _stream: stream,
            transport,
        }
    }

    /// Has the replica lead.
    async fn lead(&self) {
        self.group
            .bootstrap(BTreeMap::from([(RaftId(1), info())]))
            .await
            .unwrap();
        let leads = async {
            while !self.group.is_leader() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, leads).await.unwrap();
    }

    /// Has the replica lead, with a user's drive in its group.
    async fn found(&mut self) {
        self.lead().await;
        for command in founding("ada") {
            self.run(command).await;
        }
    }

    async fn run(&self, what: Command) -> CommandAnswer {
        command(&self.group, self.clock.as_ref(), what).await.unwrap()
    }

    async fn folder(&mut self, parent: EntryId) -> EntryId {
        self.next += 1;
        self.run(folder(self.owner, parent, self.next)).await;
        EntryId {
            drive: self.drive,
            number: self.next,
        }
    }

    /// Leaves a job that removes so many entries.
    async fn purge(&mut self, entries: usize) {
        let folder = self.folder(self.drive.root()).await;
        for _ in 0..entries {
            self.folder(folder).await;
        }
        self.run(purge(self.owner, folder)).await;
    }

    async fn jobs(&self) -> Vec<u64> {
        jobs(&self.group, self.drive).await
    }

    fn sweeper(&self) -> SweepWorker {
        let (group, clock): (_, Arc<dyn Clock>) = (self.group.clone(), self.clock.clone());
        SweepWorker::new(GROUP, group, clock, Random::system(), self.metrics.clone())
    }
}
