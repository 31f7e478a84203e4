//! Election clocks: they rest while a leader lives, and an election comes all the same when it is gone.

use super::{PATIENCE, World, bootstrap, linearized};
use crate::group::Group;
use std::sync::Arc;

/// Waits until the clock of a replica rests, or runs.
async fn until_clock(replica: &Arc<Group>, rests: bool) {
    let turned = async {
        while replica.election_clock.rests() != rests {
            tokio::task::yield_now().await;
        }
    };
    let turned = tokio::time::timeout(PATIENCE, turned).await;
    assert!(turned.is_ok(), "replica {}: wanted {rests}", replica.replica);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_rest_while_a_leader_lives_and_run_when_it_is_gone() {
    let world = bootstrap(World::new(3)).await;
    world.put("before").await;
    let first = linearized(&world).await;
    for id in 1..=3 {
        until_clock(&world.replica(id), true).await;
    }
    let id = first.replica.0;
    world.network.cut.lock().unwrap().insert(id);
    let other = world.replica(if id == 1 { 2 } else { 1 });
    let elected = other.raft.wait(Some(PATIENCE));
    let is_another = |metrics: &openraft::RaftMetrics<_>| metrics.current_leader.is_some_and(|leader| leader != id);
    elected.metrics(is_another, "another leader").await.unwrap();
    world.network.cut.lock().unwrap().clear();
    let follows = first.raft.wait(Some(PATIENCE));
    follows.metrics(is_another, "the first one follows").await.unwrap();
    for id in 1..=3 {
        until_clock(&world.replica(id), true).await;
    }
}

/// Whatever it was before: nobody leads after a start until somebody is heard or elected.
#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_a_leader_that_starts_again_runs() {
    let mut world = bootstrap(World::calm(3)).await;
    world.put("before").await;
    let id = linearized(&world).await.replica.0;
    until_clock(&world.replica(id), true).await;
    world.power_cut().await;
    world.network.cut.lock().unwrap().insert(id);
    let again = world.start(id).await.unwrap();
    again.election_clock.look();
    assert!(!again.election_clock.rests());
}

/// On a replica of a group that was never made: nobody calls it and it votes for nobody, so nothing else makes its clock rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_held_rests_only_while_a_vote_is_saved() {
    let mut world = World::calm(1);
    let alone = world.start(1).await.unwrap();
    let clock = &alone.election_clock;
    clock.look();
    assert!(!clock.rests(), "nobody leads");
    clock.hold(true);
    clock.look();
    assert!(clock.rests(), "a look does not make one run that is held");
    clock.hold(false);
    assert!(!clock.rests());
    alone.rest_clock(true);
    assert!(!clock.rests(), "no vote is being saved");
}
