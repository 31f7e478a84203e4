//! A replica after its start, before it knows that its state is complete: it takes part and answers nobody.

use super::{Group, GroupError, PATIENCE, bootstrapped, commands, linearized};
use bytes::Bytes;
use std::sync::Arc;

async fn check_silent(group: &Arc<Group>) {
    let proposed = group.propose(Bytes::from_static(b"too early")).await;
    let read = group.linearize().await;
    for error in [proposed.map(drop).unwrap_err(), read.unwrap_err()] {
        let is_typed = matches!(error, GroupError::Recovering { .. } | GroupError::NotLeader { .. });
        assert!(is_typed && error.kind().is_retryable(), "{error}");
    }
    assert!(!group.is_leader(), "its workers rest, too");
}

/// The state of every replica lost its unsynced tail. Whoever comes back alone would show it if it served.
///
/// shows: D-2.8 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_serves_nothing_before_its_state_holds_what_was_committed() {
    let mut world = bootstrapped().await;
    for number in 0..20 {
        world.put(&format!("put {number}")).await;
    }
    assert!(world.power_cut().await > 0, "the stores must have lost batches");
    let alone = world.start(1).await.unwrap();
    let stale = commands(&alone).len();
    assert!(stale < 20, "without the gate a reader would now see {stale} of 20");
    check_silent(&alone).await;
    assert!(alone.caught_up(std::time::Duration::from_millis(50)).await.is_err());
    for id in [2, 3] {
        world.start(id).await.unwrap();
    }
    let leader = linearized(&world).await;
    assert_eq!(commands(&leader).len(), 20);
    for id in 1..=3 {
        world.replica(id).caught_up(PATIENCE).await.unwrap();
    }
    // Whichever leads, what it answers is complete.
    world.put("put 20").await;
    let leader = linearized(&world).await;
    assert_eq!(commands(&leader).len(), 21);
}

/// The planted bug of a leader that serves before recovery: reading without the gate and without a read-index is what it would do,
/// and the check above must see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_past_the_gate_would_be_stale() {
    let mut world = bootstrapped().await;
    for number in 0..20 {
        world.put(&format!("put {number}")).await;
    }
    world.power_cut().await;
    let mut seen = Vec::new();
    for id in 1..=3 {
        let group = world.start(id).await.unwrap();
        seen.push(commands(&group).len());
        check_silent(&group).await;
        world.stop(id).await;
    }
    assert!(
        seen.iter().any(|seen| *seen < 20),
        "{seen:?}: nothing would have been stale"
    );
}

/// A tail that no majority has is cut off by the next leader; the replica that had it serves all the same afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_tail_was_never_committed_catches_up_without_it() {
    let mut world = bootstrapped().await;
    world.put("first").await;
    let leader = world.leader().await;
    let id = leader.replica.0;
    world.network.cut.lock().unwrap().insert(id);
    let lost = leader.propose(Bytes::from_static(b"lost"));
    let lost = tokio::time::timeout(std::time::Duration::from_millis(300), lost).await;
    assert!(!matches!(lost, Ok(Ok(_))), "no majority has it");
    drop(leader);
    world.stop(id).await;
    let second = world.put("second").await;
    world.network.cut.lock().unwrap().clear();
    let back = world.start(id).await.unwrap();
    back.caught_up(PATIENCE).await.unwrap();
    let wait = back.raft.wait(Some(PATIENCE));
    wait.applied_index_at_least(Some(second), "second").await.unwrap();
    assert_eq!(
        commands(&back),
        [Bytes::from_static(b"first"), Bytes::from_static(b"second")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_store_fails_ends_and_the_others_go_on() {
    let world = bootstrapped().await;
    world.put("before").await;
    let leader = linearized(&world).await;
    let term = leader.status().term;
    leader.end_on(&kv::seam::KvError::Corrupt("planted".to_owned()));
    assert!(leader.status().fault.unwrap().contains("planted"));
    assert!(matches!(
        leader.propose(Bytes::new()).await,
        Err(GroupError::Unavailable { .. })
    ));
    assert!(matches!(leader.linearize().await, Err(GroupError::Unavailable { .. })));
    world.network.replicas.lock().unwrap().remove(&leader.replica.0);
    world.put("after").await;
    let next = linearized(&world).await;
    assert!(next.replica != leader.replica && next.status().term > term);
    assert_eq!(commands(&next).len(), 2);
}
