//! Snapshots: sent when the log is gone, broken off midway and continued, and what the log may forget meanwhile.

use super::{GROUP, Group, Machine, PATIENCE, World, bootstrap, info, linearized};
use crate::founding::{founding, user};
use crate::group::LogBounds;
use crate::raft::journal_stream::JournalStream;
use crate::raft::tests::{entry, log_id, options};
use crate::serve::StateApply;
use crate::state::check::check;
use bytes::Bytes;
use disk::sim::Survivors;
use futures_util::future::join_all;
use kv::seam::{KvRead, Scan};
use model::name::EntryName;
use model::time::WallTime;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use protocol::frame::{Method, encode};
use protocol::metadata::drive::{DriveCommand, Place};
use protocol::metadata::{Command, CommandAnswer, Envelope, Reply};
use std::sync::Arc;

/// Entries and their bytes: about twenty parts of a megabyte.
const ENTRIES: u64 = 20_000;
const ENTRY_BYTES: usize = 1_000;

fn command(number: u64) -> Bytes {
    let mut command = format!("put {number:08}").into_bytes();
    command.resize(ENTRY_BYTES, b'.');
    Bytes::from(command)
}

/// Proposes at once, some hundreds at a time, as many clients would.
async fn put_many(leader: &Group, numbers: std::ops::Range<u64>) {
    let numbers: Vec<u64> = numbers.collect();
    for run in numbers.chunks(500) {
        let puts = join_all(run.iter().map(|number| leader.propose(command(*number)))).await;
        puts.into_iter().for_each(|put| drop(put.unwrap()));
    }
}

/// All rows of the state, as long as it is.
fn rows(group: &Group) -> Vec<(Bytes, Bytes)> {
    group
        .read(|state: &dyn KvRead| state.scan(&Scan::prefix(&[0, 1], usize::MAX)))
        .unwrap()
}

fn marked(group: &Group) -> Option<u64> {
    let watched = group.raft.metrics();
    let metrics = watched.borrow_watched();
    metrics.snapshot.map(|at| at.index)
}

pub(super) async fn applied(group: &Group, index: u64) {
    let wait = group.raft.wait(Some(PATIENCE));
    wait.applied_index_at_least(Some(index), "applied").await.unwrap();
}

/// Marks the state and purges the log, nothing kept.
pub(super) async fn purge_all(leader: &Group) -> u64 {
    let last = leader.status().last_index.unwrap();
    applied(leader, last).await;
    leader.mark_if_due(true).await.unwrap();
    let wait = leader.raft.wait(Some(PATIENCE));
    let is_marked = |metrics: &openraft::RaftMetrics<_>| metrics.snapshot.is_some_and(|at| at.index >= last);
    wait.metrics(is_marked, "a mark").await.unwrap();
    leader.raft.trigger().purge_log(last).await.unwrap();
    let is_purged = |metrics: &openraft::RaftMetrics<_>| metrics.purged.is_some_and(|at| at.index >= last);
    wait.metrics(is_purged, "purged").await.unwrap();
    last
}

/// Waits until so many parts of a snapshot have reached a replica.
async fn parts_reach(world: &World, receiver: u64, parts: u64) {
    let reached = async {
        while world.network.calls(receiver, Method::RaftSnapshot) < parts {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

/// Ends a replica without any clean-up. A killed process leaves what it gave to the operating system; a power cut does not. RocksDB
/// holds up to a megabyte of the state back, which goes with a killed process as well; here the power cut alone takes any of it.
pub(super) async fn end(world: &mut World, id: u64, loses_power: bool) {
    let group = world.network.replicas.lock().unwrap().remove(&id).unwrap();
    let machine = world.machines.get_mut(&id).unwrap();
    // Copies as of now: what the dead process still has under way does not reach them.
    let unsynced = machine.kv.unsynced_batches();
    let (survivors, kept) = match loses_power {
        true => (Survivors::None, unsynced / 2),
        false => (Survivors::All, unsynced),
    };
    // The state first: it may be behind the log, never ahead of it.
    machine.kv = Arc::new(machine.kv.crash(kept));
    machine.disk = machine.disk.crash(survivors);
    group.raft.shutdown().await.unwrap();
    drop(machine.stream.take().map(|stream| stream.stop()));
}

async fn grown() -> (World, Arc<Group>) {
    let world = bootstrap(World::calm(3)).await;
    world.put("first").await;
    let leader = linearized(&world).await;
    put_many(&leader, 0..ENTRIES).await;
    purge_all(&leader).await;
    (world, leader)
}

/// shows: B-3 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_killed_midway_under_load_goes_on_where_it_was() {
    let (mut world, leader) = grown().await;
    world.machines.insert(4, Machine::empty());
    drop(world.start(4).await.unwrap());
    leader.raft.add_learner(4, info(), false).await.unwrap();
    parts_reach(&world, 4, 9).await;
    end(&mut world, 4, false).await;
    let before = world.network.calls(4, Method::RaftSnapshot);
    let mark = marked(&leader);
    // More than a mark is due after: the log must reach back to what the receiver has begun to take.
    put_many(&leader, ENTRIES..ENTRIES + 6_000).await;
    leader.mark_if_due(false).await.unwrap();
    let last = leader.status().last_index.unwrap();
    let back = world.start(4).await.unwrap();
    applied(&back, last).await;
    let after = world.network.calls(4, Method::RaftSnapshot) - before;
    assert!(
        before >= 9 && after < 16,
        "{before} parts before the kill, {after} after it, of about 22"
    );
    assert_eq!(marked(&leader), mark, "no mark while the state was being sent");
    assert!(rows(&back) == rows(&leader), "the states differ");
    leader.mark_if_due(false).await.unwrap();
    let wait = leader.raft.wait(Some(PATIENCE));
    let is_marked = |metrics: &openraft::RaftMetrics<_>| metrics.snapshot.map(|at| at.index) > mark;
    wait.metrics(is_marked, "marks go on afterwards").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_loses_power_midway_ends_with_the_whole_state() {
    let (mut world, leader) = grown().await;
    world.machines.insert(4, Machine::empty());
    drop(world.start(4).await.unwrap());
    leader.raft.add_learner(4, info(), false).await.unwrap();
    let mut parts = 0;
    for _ in 0..3 {
        parts += 6;
        parts_reach(&world, 4, parts).await;
        end(&mut world, 4, true).await;
        parts = world.network.calls(4, Method::RaftSnapshot);
        drop(world.start(4).await.unwrap());
    }
    let last = leader.status().last_index.unwrap();
    let back = world.replica(4);
    applied(&back, last).await;
    assert!(rows(&back) == rows(&leader), "the states differ");
    // What was installed is durable: the log behind it is gone at the leader.
    drop(back);
    end(&mut world, 4, true).await;
    let back = world.start(4).await.unwrap();
    applied(&back, last).await;
    assert!(
        rows(&back) == rows(&leader),
        "the states differ after another power cut"
    );
}

/// A command of a drive group, which is done.
async fn command_one(leader: &Group, command: Command) {
    let envelope = Envelope {
        request_id: None,
        wall: WallTime(1_700_000_000_000),
        command,
    };
    let reply = leader.propose(encode(&envelope).unwrap()).await.unwrap();
    Reply::<CommandAnswer>::from_bytes(&reply).unwrap().result.unwrap();
}

/// Everything that the state holds, and that it is sound.
fn drives(group: &Group) -> Vec<(Bytes, Bytes)> {
    group.read(|state: &dyn KvRead| {
        assert_eq!(check(state).unwrap(), Vec::<String>::new());
        state.scan(&Scan::prefix(b"", usize::MAX)).unwrap()
    })
}

/// Of drives, and purged by the product's own rule when a mark is due, which keeps nothing behind the mark here. The learner is known
/// to the group before it exists, so that nothing is written when it comes.
///
/// shows: F4
#[tokio::test(flavor = "multi_thread")]
async fn a_new_empty_replica_of_an_idle_fully_purged_group_converges() {
    let mut world = bootstrap(World {
        apply: || Arc::new(StateApply::new(GROUP, Arc::default())),
        bounds: LogBounds {
            entries_kept: 0,
            ..LogBounds::PRODUCTION
        },
        ..World::calm(3)
    })
    .await;
    let leader = linearized(&world).await;
    let (principal, drive) = user("ada");
    let folder = |number: u64| {
        Command::Drive(DriveCommand::CreateFolder {
            principal,
            drive,
            place: Place::In {
                parent: drive.root(),
                name: EntryName::new(&format!("folder {number}")).unwrap(),
            },
            with_parents: false,
            fresh: vec![number + 1_000],
        })
    };
    for command in founding("ada") {
        command_one(&leader, command).await;
    }
    let entries_between_marks = LogBounds::PRODUCTION.entries_between_marks;
    let numbers: Vec<u64> = (0..entries_between_marks).collect();
    for run in numbers.chunks(500) {
        join_all(run.iter().map(|number| command_one(&leader, folder(*number)))).await;
    }
    leader.raft.add_learner(4, info(), false).await.unwrap();
    let last = leader.status().last_index.unwrap();
    applied(&leader, last).await;
    leader.mark_if_due(false).await.unwrap();
    let wait = leader.raft.wait(Some(PATIENCE));
    let is_purged = |metrics: &openraft::RaftMetrics<_>| metrics.purged.is_some_and(|at| at.index >= last);
    wait.metrics(is_purged, "purged by the rule").await.unwrap();
    assert_eq!(leader.status().purged_index, Some(last));
    world.machines.insert(4, Machine::empty());
    let fresh = world.start(4).await.unwrap();
    applied(&fresh, last).await;
    let whole = drives(&leader);
    assert!(whole.len() as u64 > entries_between_marks, "{} rows", whole.len());
    assert!(drives(&fresh) == whole, "the states differ");
    assert_eq!(leader.status().last_index, Some(last), "nothing was written meanwhile");
    assert!(
        world.network.calls(4, Method::RaftSnapshot) >= 3,
        "it came by a snapshot"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_only_up_to_what_a_synced_state_covers() {
    let mut world = bootstrap(World::calm(3)).await;
    world.put("first").await;
    let leader = linearized(&world).await;
    leader.mark_if_due(false).await.unwrap();
    put_many(&leader, 0..6_000).await;
    for id in 1..=3 {
        let replica = world.replica(id);
        assert_eq!(replica.status().purged_index, None, "nobody marked");
        applied(&replica, leader.status().last_index.unwrap()).await;
        replica.mark_if_due(false).await.unwrap();
        let wait = replica.raft.wait(Some(PATIENCE));
        let is_purged = |metrics: &openraft::RaftMetrics<_>| metrics.purged.is_some();
        wait.metrics(is_purged, "purged").await.unwrap();
        let (purged, mark) = (replica.status().purged_index.unwrap(), marked(&replica).unwrap());
        assert!(
            purged + 1_900 < mark && mark > 5_000,
            "purged to {purged}, marked at {mark}"
        );
    }
    put_many(&leader, 6_000..6_200).await;
    drop(leader);
    assert!(world.power_cut().await > 0, "the stores must have lost batches");
    for id in 1..=3 {
        world.start(id).await.unwrap();
    }
    let leader = linearized(&world).await;
    assert_eq!(rows(&leader).len(), 6_201, "what was acknowledged is there");
}

/// A follower had entries of an older term and was sent the state of a newer one; the power took the truncation of those entries and
/// left the state. Its log ends so far beyond the state.
async fn starts_and_goes_on(beyond: u64) {
    let mut world = bootstrap(World::calm(3)).await;
    world.put("first").await;
    let leader = linearized(&world).await;
    let id = (1..=3).find(|id| *id != leader.replica.0).unwrap();
    let last = leader.status().last_index.unwrap();
    applied(&world.replica(id), last).await;
    end(&mut world, id, false).await;
    let disk = Arc::new(world.machines[&id].disk.clone());
    let (log, stream) = JournalStream::open(disk, "raft", options()).unwrap();
    let mut store = log.store_of(GROUP);
    store.truncate_after(Some(log_id(0, 0))).await.unwrap();
    let older = (1..=last + beyond).map(|index| entry(0, index));
    store.blocking_append(older).await.unwrap();
    stream.stop().unwrap();
    drop(store);
    let back = world.start(id).await.unwrap();
    let last = world.put("second").await;
    applied(&back, last).await;
    applied(&leader, last).await;
    assert!(rows(&back) == rows(&leader), "the states differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_truncation_was_lost_behind_an_install_starts_and_goes_on() {
    starts_and_goes_on(0).await;
    starts_and_goes_on(2).await;
}
