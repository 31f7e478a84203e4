//! Reads under a lease: answered without a word to the others while it holds, and never behind its end or a suspended machine.

use super::{GROUP, Group, GroupError, PATIENCE, ReadBy, Wire, World, answer, bootstrap, info, linearized};
use crate::group::Timing;
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::lease::longest;
use crate::raft::network::GroupNetwork;
use crate::raft::outgoing::Outgoing;
use crate::raft::types::Vote;
use daemon::clock::ManualClock;
use model::error_kind::ErrorKind;
use model::id::{RaftId, Slot};
use model::time::WallTime;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::VoteRequest;
use protocol::frame::encode;
use protocol::metadata::Query;
use rpc::transport::Transport;
use std::sync::Arc;
use std::time::Duration;

/// As long as a lease, and a moment more.
fn a_lease() -> Duration {
    longest(Timing::LAN.election_min) + Duration::from_millis(1)
}

/// Three replicas that use leases, and the clock of them all.
async fn leased() -> (World, ManualClock) {
    let clock = ManualClock::new(WallTime(1_000));
    let mut world = World::new(3);
    world.clock = Arc::new(clock.clone());
    world.lease_reads = true;
    (bootstrap(world).await, clock)
}

/// Asks what the group does not know; what counts is by what right it says so.
async fn asked(group: &Arc<Group>) -> Result<ReadBy, GroupError> {
    let query = encode(&Query::Slot(Slot::new(7).unwrap())).unwrap();
    let (answers, by) = answer(group, vec![query]).await?;
    assert_eq!(answers.len(), 1);
    Ok(by)
}

/// A leader that has just heard from a majority, in a time that stands still unless all wait for it.
async fn fresh_leader(world: &World, clock: &ManualClock) -> Arc<Group> {
    let leader = linearized(world).await;
    tokio::time::pause();
    clock.advance(a_lease());
    tokio::time::timeout(PATIENCE, leader.linearize_as_leader())
        .await
        .unwrap()
        .unwrap();
    leader
}

fn cut(world: &World, leader: &Group) {
    world.network.cut.lock().unwrap().insert(leader.replica.0);
}

/// Nobody can be asked, so every answer comes without a round trip.
#[tokio::test]
async fn a_leader_answers_under_its_lease_without_a_word_to_the_others_until_it_ends() {
    let (world, clock) = leased().await;
    world.put("first").await;
    let leader = fresh_leader(&world, &clock).await;
    cut(&world, &leader);
    for _ in 0..100 {
        assert_eq!(asked(&leader).await.unwrap(), ReadBy::Lease);
    }
    tokio::time::advance(a_lease()).await;
    clock.advance(a_lease());
    let late = asked(&leader).await;
    assert!(
        matches!(&late, Err(error) if error.kind() == ErrorKind::Unavailable),
        "{late:?}"
    );
}

/// Monotonic time stood still meanwhile: by it alone the lease would hold.
#[tokio::test]
async fn a_lease_that_a_suspended_machine_may_have_slept_through_counts_for_nothing() {
    let (world, clock) = leased().await;
    world.put("first").await;
    let leader = fresh_leader(&world, &clock).await;
    assert_eq!(asked(&leader).await.unwrap(), ReadBy::Lease);
    clock.suspend(Duration::from_secs(60));
    // A majority is asked instead, and what it said before the leader woke up stays void.
    assert_eq!(asked(&leader).await.unwrap(), ReadBy::Majority);
    cut(&world, &leader);
    assert!(asked(&leader).await.is_err());
}

#[tokio::test]
async fn leases_are_off_unless_they_are_asked_for() {
    let world = bootstrap(World::new(3)).await;
    world.put("first").await;
    let leader = linearized(&world).await;
    assert_eq!(asked(&leader).await.unwrap(), ReadBy::Majority);
}

/// openraft forgets at a restart whom it promised not to vote; a leader's lease counts on it.
#[tokio::test]
async fn a_voter_that_starts_again_votes_for_nobody_until_its_old_promise_is_over() {
    let (mut world, clock) = leased().await;
    world.put("first").await;
    let leader = linearized(&world).await;
    let (id, last_log_id) = (leader.replica.0, leader.raft.metrics().borrow_watched().last_applied);
    drop(leader);
    let mut others = (1..=3).filter(|other| *other != id);
    let (voter, deaf) = (others.next().unwrap(), others.next().unwrap());
    world.stop(voter).await;
    world.stop(id).await;
    // Nobody but the candidate below can be elected.
    world.network.cut.lock().unwrap().insert(deaf);
    world.start(voter).await.unwrap();
    let wire: Arc<dyn Transport> = Arc::new(Wire {
        network: world.network.clone(),
        own: id,
    });
    let mut candidate = GroupNetwork::new(
        &wire,
        Arc::new(AddressBook::new(info().address, [])),
        GROUP,
        Arc::new(Outgoing::new(1)),
        Heartbeats::start(
            &wire,
            info().address,
            RaftId(id),
            world.clock.clone(),
            Timing::LAN.heartbeat,
        ),
        Timing::LAN.election_min,
    );
    let mut candidate = candidate.new_client(voter, &info()).await;
    let mut ask = async || {
        let request = VoteRequest::new(Vote::new(1_000, id), last_log_id);
        let answer = candidate.pre_vote(request, RPCOption::new(PATIENCE)).await;
        answer.map(|answer| answer.vote_granted)
    };
    assert!(ask().await.is_err(), "it has followed the leader that is gone");
    clock.advance(Timing::LAN.election_min);
    assert!(ask().await.unwrap());
}
