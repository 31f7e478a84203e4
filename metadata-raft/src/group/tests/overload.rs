//! More than may wait.

use super::{Group, GroupError, PATIENCE, World, commands, linearized, voters};
use crate::room::Room;
use bytes::Bytes;
use daemon::metrics::Metrics;
use futures_util::future::join_all;
use model::error_kind::ErrorKind;
use std::sync::Arc;

const ROOM: usize = 8;

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
        match room.enter_command(1) {
            Some(_) => break,
            None => tokio::task::yield_now().await,
        }
    }
    assert_eq!(commands(&group).len(), 2, "it was done although nobody waited");
}
