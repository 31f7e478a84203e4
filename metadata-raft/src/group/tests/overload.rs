//! More than may wait.

use super::{Group, GroupError, PATIENCE, World, commands, linearized, voters};
use crate::raft::unsynced::Unsynced;
use crate::room::{COMMANDS_MAX, QUERIES_MAX, Room};
use bytes::Bytes;
use daemon::metrics::Metrics;
use futures_util::future::join_all;
use model::error_kind::ErrorKind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const ROOM: usize = 8;
/// What may wait at a replica with a log that is not synced: commands, entries of leaders, and the log itself, in bytes each.
const LOG_ROOM: usize = 256 << 10;
const COMMAND: usize = 64 << 10;
/// Votes and marks.
const SLACK: usize = 4 << 10;
const DISK: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_at_once_and_the_rest_is_done() {
    let mut world = World::new(3);
    let metrics = Metrics::new();
    let room = Arc::new(Room::of(ROOM, 1 << 20, ROOM, &metrics));
    for id in 1..=3 {
        let mut parts = world.parts(id).unwrap();
        parts.room = room.clone();
        world.run(Group::start(parts).await.unwrap());
    }
    world.replica(1).bootstrap(voters(3)).await.unwrap();
    world.put("first").await;
    let leader = linearized(&world).await;
    let asked = 200;
    let puts = (0..asked).map(|number| leader.propose(Bytes::from(format!("put {number}"))));
    let answers = tokio::time::timeout(PATIENCE, join_all(puts)).await.unwrap();
    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    for error in refused {
        let is_typed = matches!(error, GroupError::Overloaded { .. });
        assert!(is_typed && error.kind() == ErrorKind::Busy, "{error}");
    }
    assert!((ROOM..asked).contains(&done), "{done} were done");
    // What was refused was not done, what was done is there, and the room is free again.
    world.put("last").await;
    assert_eq!(commands(&leader).len(), done + 2);
    let text = metrics.encode();
    assert!(text.contains("metadata_waiting_requests{kind=\"command\"} 0"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_nobody_waits_for_keeps_its_place_until_it_is_done() {
    let mut world = World::new(1);
    let mut parts = world.parts(1).unwrap();
    let room = Arc::new(Room::of(1, 1 << 20, 1, &Metrics::new()));
    parts.room = room.clone();
    let group = world.run(Group::start(parts).await.unwrap());
    group.bootstrap(voters(1)).await.unwrap();
    world.put("first").await;
    let mut dropped = Box::pin(group.propose(Bytes::from_static(b"dropped")));
    // Mostly pending: on an idle machine a single voter may have done it already.
    drop(futures_util::poll!(dropped.as_mut()));
    drop(dropped);
    // Either it still waits and there is no room, or it is done and there is.
    loop {
        match room.enter_command(1, &Unsynced::default()) {
            Some(_) => break,
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(commands(&group).len(), 2, "it was done although nobody waited");
}

/// A calm group of three with small rooms, what each has not synced, and who leads.
async fn with_small_rooms() -> (World, BTreeMap<u64, Arc<Unsynced>>, Arc<Group>) {
    let mut world = World::calm(3);
    let mut unsynced = BTreeMap::new();
    for id in 1..=3 {
        let mut parts = world.parts(id).unwrap();
        let room = Room::of(COMMANDS_MAX, LOG_ROOM, QUERIES_MAX, &Metrics::new());
        parts.room = Arc::new(room.with_log(LOG_ROOM, LOG_ROOM));
        unsynced.insert(id, Arc::clone(parts.log.unsynced()));
        world.run(Group::start(parts).await.unwrap());
    }
    world.replica(1).bootstrap(voters(3)).await.unwrap();
    world.put("first").await;
    let leader = linearized(&world).await;
    (world, unsynced, leader)
}

fn large() -> Bytes {
    Bytes::from(vec![7; COMMAND])
}

/// Waits until `is_so` holds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_a_full_disk_holds_no_more_than_its_room_and_catches_up_with_space() {
    let (world, unsynced, leader) = with_small_rooms().await;
    let follower = (1..=3).find(|id| *id != leader.replica.0).unwrap();
    let unsynced = &unsynced[&follower];
    until("the first entries are synced", || unsynced.bytes() == 0).await;
    world.machines[&follower].disk.set_capacity_bytes(0);
    for _ in 0..20 {
        let put = tokio::time::timeout(PATIENCE, leader.propose(large()));
        put.await.unwrap().unwrap();
        assert!(unsynced.bytes() <= LOG_ROOM + SLACK, "{} bytes", unsynced.bytes());
    }
    until("the room is full", || unsynced.bytes() > LOG_ROOM - 2 * COMMAND).await;
    assert!(unsynced.bytes() <= LOG_ROOM + SLACK, "{} bytes", unsynced.bytes());
    let behind = world.replica(follower);
    assert!(behind.applied_index() < leader.applied_index());
    world.machines[&follower].disk.set_capacity_bytes(DISK);
    until("it catches up", || behind.applied_index() >= leader.applied_index()).await;
    until("everything is synced", || unsynced.bytes() == 0).await;
    assert_eq!(behind.status().fault, None);
    assert_eq!(commands(&behind), commands(&leader));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_own_disk_is_full_takes_no_more_than_its_room_and_goes_on_with_space() {
    let (world, unsynced, leader) = with_small_rooms().await;
    let unsynced = &unsynced[&leader.replica.0];
    world.machines[&leader.replica.0].disk.set_capacity_bytes(0);
    let mut refused = 0;
    while refused < 50 {
        // Without its leader's disk a majority may sync it or not: what is not answered soon keeps its place.
        let put = tokio::time::timeout(Duration::from_millis(20), leader.propose(large()));
        if let Ok(Err(GroupError::Overloaded { .. })) = put.await {
            refused += 1;
        }
        // What may be unsynced when a command enters, and the commands inside.
        assert!(unsynced.bytes() <= 2 * LOG_ROOM + SLACK, "{} bytes", unsynced.bytes());
    }
    world.machines[&leader.replica.0].disk.set_capacity_bytes(DISK);
    until("everything is synced", || unsynced.bytes() == 0).await;
    world.put("last").await;
    assert_eq!(leader.status().fault, None);
}
