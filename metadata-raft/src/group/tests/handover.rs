//! A planned stop of a leader: it names who leads next, so that nobody waits for an election.

use super::{PATIENCE, World, bootstrap, commands, linearized};
use crate::group::Timing;
use bytes::Bytes;
use model::id::RaftId;
use std::time::Duration;

/// No election begins by itself before a test has long failed: whoever leads later was handed it.
const NO_ELECTIONS: Timing = Timing {
    heartbeat: Duration::from_millis(150),
    election_min: Duration::from_secs(600),
    election_max: Duration::from_secs(900),
};

/// Three replicas without elections, led by the first.
async fn led_by_the_first() -> World {
    let mut world = World::new(3);
    world.timing = NO_ELECTIONS;
    let world = bootstrap(world).await;
    world.replica(1).raft.trigger().elect(false).await.unwrap();
    world.put("before").await;
    world
}

/// It answers the others until it has stopped, as its process does.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_and_nobody_waits_for_an_election() {
    let world = led_by_the_first().await;
    let old = world.replica(1);
    assert!(old.is_leader());
    let heard = async {
        while old.successors().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    let term = old.status().term;
    tokio::time::timeout(PATIENCE, old.stop()).await.unwrap();
    world.network.replicas.lock().unwrap().remove(&1);
    let next = linearized(&world).await;
    // Of replicas 2 and 3, by the group's number.
    assert_eq!(next.status().leader, Some(RaftId(3)));
    assert_eq!(next.status().term, term + 1, "by one vote");
    world.put_at(3, "after").await;
    assert_eq!(commands(&next), ["before", "after"].map(Bytes::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stops_leaves_the_leader_alone() {
    let world = led_by_the_first().await;
    let (leader, follower) = (world.replica(1), world.replica(2));
    let term = leader.status().term;
    tokio::time::timeout(PATIENCE, follower.stop()).await.unwrap();
    world.network.replicas.lock().unwrap().remove(&2);
    world.put_at(1, "after").await;
    assert!(leader.is_leader());
    assert_eq!(leader.status().term, term);
}
