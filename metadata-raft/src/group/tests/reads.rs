//! Reads of followers: as new as the last answer anybody got, shared rounds, and nothing from a leader that is none any more.

use super::{GROUP, Group, GroupError, PATIENCE, ReadBy, World, bootstrap, bootstrapped, commands, info, linearized};
use crate::raft::address_book::AddressBook;
use crate::raft::heartbeats::Heartbeats;
use crate::raft::network::GroupNetwork;
use crate::raft::outgoing::Outgoing;
use crate::raft::read_rounds::{NoRound, ReadRounds};
use bytes::Bytes;
use futures_util::future::join_all;
use model::id::RaftId;
use protocol::frame::Method;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Whether `group`'s state shows the command.
fn shows(group: &Group, command: &str) -> bool {
    commands(group).contains(&Bytes::from(command.to_owned()))
}

/// Puts and reads at every replica; some of them hear nothing for a while. Counts answers that lack what was acknowledged before.
async fn stale_answers<F, R>(world: &World, read: R) -> (usize, usize)
where
    R: Fn(Arc<Group>, String) -> F,
    F: Future<Output = Option<bool>>,
{
    let (mut answers, mut stale) = (0, 0);
    for number in 0..30 {
        let leader = linearized(world).await.replica.0;
        let deaf = (1..=3).find(|id| *id != leader).unwrap();
        if number % 10 == 9 {
            world.network.cut.lock().unwrap().insert(deaf);
        }
        let command = format!("put {number}");
        world.put_at(leader, &command).await;
        for id in 1..=3 {
            if let Some(is_there) = read(world.replica(id), command.clone()).await {
                answers += 1;
                stale += usize::from(!is_there);
            }
        }
        world.network.cut.lock().unwrap().clear();
    }
    (answers, stale)
}

/// shows: D-3.3 side=linearizable
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_answers_with_everything_that_was_acknowledged() {
    let world = bootstrapped().await;
    world.put("first").await;
    let (answers, stale) = stale_answers(&world, |group, command| async move {
        let read = tokio::time::timeout(Duration::from_millis(500), group.linearize()).await;
        read.ok()?.ok()?;
        Some(shows(&group, &command))
    })
    .await;
    assert_eq!(stale, 0, "of {answers} answers");
    assert!(answers > 45, "{answers} of 90 reads were answered");
}

/// The planted bug: a follower that answers from its state as it is. The check above must see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_reads_without_a_read_index_is_caught() {
    let world = bootstrapped().await;
    world.put("first").await;
    let planted = |group: Arc<Group>, command: String| async move { Some(shows(&group, &command)) };
    let (answers, stale) = stale_answers(&world, planted).await;
    assert!(stale > 0, "{answers} answers, none of them stale");
}

/// The leader's word is held back until all have come: the first of them asks, and all others ask together.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_wait_together_share_rounds() {
    let world = bootstrapped().await;
    world.put("first").await;
    let shared = async {
        loop {
            let leader = linearized(&world).await.replica.0;
            let follower = world.replica((1..=3).find(|id| *id != leader).unwrap());
            follower.caught_up(PATIENCE).await.unwrap();
            let before = world.network.calls(leader, Method::RaftReadIndex);
            let (come, held) = (
                AtomicUsize::new(0),
                world.network.hold_answers_of(leader, Method::RaftReadIndex),
            );
            let reads = join_all((0..500).map(|_| async {
                // Nothing lies between this and the reader's place among those that wait.
                come.fetch_add(1, Ordering::Relaxed);
                follower.linearize().await
            }));
            let release = async {
                while come.load(Ordering::Relaxed) < 500 {
                    tokio::task::yield_now().await;
                }
                held.release();
            };
            let (reads, ()) = tokio::join!(reads, release);
            // On a machine that is busy with other things another may come to lead meanwhile.
            if reads.iter().all(|read| matches!(read, Ok(ReadBy::Follower))) {
                return world.network.calls(leader, Method::RaftReadIndex) - before;
            }
        }
    };
    let rounds = tokio::time::timeout(PATIENCE, shared).await.unwrap();
    assert!((1..=2).contains(&rounds), "{rounds} rounds for 500 readers");
}

/// What `replica` asks others by, as it makes it for itself.
fn network_of(world: &World, replica: &Group) -> GroupNetwork {
    let (own, clock) = (replica.replica, world.clock.clone());
    // Its owner is the world: both keep it no longer than that.
    let wire = world.machines[&own.0].wire.as_ref().unwrap();
    GroupNetwork::new(
        wire,
        Arc::new(AddressBook::new(info().address, [])),
        GROUP,
        Arc::new(Outgoing::new(1)),
        Heartbeats::start(wire, info().address, own, clock, world.timing.heartbeat),
        world.timing.election_min,
    )
}

/// One of three is cut off and what the other one answers to signs of life is held back, so that no round of them ends: its question is
/// enough. Had it voted in a later term, its question would not be.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_s_question_is_all_that_a_leader_of_three_has_to_hear() {
    let world = bootstrap(World::calm(3)).await;
    let first = world.put("first").await;
    let leader = linearized(&world).await.replica.0;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let follower = world.replica(others[0]);
    // Nothing but signs of life is under way then.
    let told = follower.raft.wait(Some(PATIENCE));
    told.applied_index_at_least(Some(first), "the commit").await.unwrap();
    world.network.cut.lock().unwrap().insert(others[1]);
    let held = world.network.hold_answers_of(others[0], Method::RaftHeartbeats);
    let at_leader = world.replica(leader);
    let own = tokio::spawn(async move { at_leader.linearize().await });
    let network = network_of(&world, &follower);
    let term = world.replica(leader).status().term;
    let before = world.network.calls(leader, Method::RaftReadIndex);
    let ask = async |term| network.read_index(RaftId(leader), info().address, term, PATIENCE).await;
    let asked = async {
        while held.waiting() == 0 || world.network.calls(leader, Method::RaftReadIndex) == before {
            tokio::task::yield_now().await;
        }
        let told = ask(term).await.unwrap();
        assert!(matches!(follower.linearize().await, Ok(ReadBy::Follower)));
        assert!(!own.is_finished(), "a leader that hears from nobody has read");
        held.release();
        assert!(matches!(own.await.unwrap(), Ok(ReadBy::Majority)));
        told
    };
    // Begun first, and ended behind the release alone.
    let later = async {
        let told = ask(term + 1).await.unwrap();
        assert!(*held.is_released.borrow(), "a vote in a later term was not asked about");
        told
    };
    let both = async { tokio::join!(later, asked) };
    let (later, told) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(told, later);
}

/// A leader that is killed answers nothing, and readers of the next round wait for this one: also at the replica that leads by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_round_that_asked_a_leader_ends_when_that_leads_no_more() {
    let world = bootstrap(World::calm(3)).await;
    world.put("first").await;
    let leader = linearized(&world).await.replica.0;
    let follower = world.replica((1..=3).find(|id| *id != leader).unwrap());
    follower.caught_up(PATIENCE).await.unwrap();
    let network = network_of(&world, &follower);
    // It must not be the deadline that ends the round.
    let rounds = ReadRounds::new(follower.raft.clone(), network, PATIENCE * 10);
    let held = world.network.hold_answers_of(leader, Method::RaftReadIndex);
    let round = tokio::spawn(async move { rounds.alone().await });
    let ended = async {
        while held.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!round.is_finished(), "the leader is waited for");
        follower.raft.trigger().elect(false).await.unwrap();
        round.await.unwrap()
    };
    let told = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert!(matches!(told, Err(NoRound::NotLed(_))), "{told:?}");
}

/// Two believe to lead. The older one neither reads nor writes, and what it was asked is not done later.
/// What becomes of the product's own deletes at such a leader has a test of its own (`tests/replicas/late_deletes.rs`).
///
/// shows: D-3.4 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_cut_off_serves_nothing_once_there_may_be_another() {
    let world = bootstrapped().await;
    world.put("first").await;
    let old = linearized(&world).await;
    let id = old.replica.0;
    world.network.cut.lock().unwrap().insert(id);
    let next = async {
        loop {
            for other in (1..=3).filter(|other| *other != id) {
                let other = world.replica(other);
                if other.leads() && other.linearize_as_leader().await.is_ok() {
                    return other;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let next = tokio::time::timeout(PATIENCE, next).await.unwrap();
    next.propose(Bytes::from_static(b"second")).await.unwrap();
    assert!(!shows(&old, "second"), "it has not heard of it");
    let late = Duration::from_millis(500);
    let read = tokio::time::timeout(late, old.linearize()).await;
    assert!(!matches!(read, Ok(Ok(_))), "a read of the past: {read:?}");
    let written = tokio::time::timeout(late, old.propose(Bytes::from_static(b"late delete"))).await;
    assert!(!matches!(written, Ok(Ok(_))), "{written:?}");
    world.network.cut.lock().unwrap().clear();
    let last = next.propose(Bytes::from_static(b"third")).await.unwrap();
    let last = u64::from_be_bytes(last.as_ref().try_into().unwrap());
    for id in 1..=3 {
        let replica = world.replica(id);
        let wait = replica.raft.wait(Some(PATIENCE));
        wait.applied_index_at_least(Some(last), "healed").await.unwrap();
        let wanted = ["first", "second", "third"].map(Bytes::from);
        assert_eq!(commands(&replica), wanted, "replica {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_a_leader_refuses_and_says_so() {
    let mut world = bootstrapped().await;
    world.put("first").await;
    let leader = linearized(&world).await;
    let id = leader.replica.0;
    drop(leader);
    let follower = world.replica((1..=3).find(|other| *other != id).unwrap());
    follower.caught_up(PATIENCE).await.unwrap();
    let own = follower.replica.0;
    for other in (1..=3).filter(|other| *other != own) {
        world.stop(other).await;
    }
    let error = follower.linearize().await.unwrap_err();
    let is_typed = matches!(error, GroupError::NotLeader { .. } | GroupError::Unavailable { .. });
    assert!(is_typed && error.kind().is_retryable(), "{error}");
}
