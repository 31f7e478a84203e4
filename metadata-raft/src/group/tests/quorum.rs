//! What is acknowledged lies on a majority's disks, however the replicas are cut off and however late answers come.

use super::{Machine, PATIENCE, World, linearized, voters};
use crate::raft::journal_stream::JournalStream;
use crate::raft::tests::options;
use crate::raft::types::CommandBytes;
use bytes::Bytes;
use disk::sim::Survivors;
use openraft::EntryPayload;
use openraft::RaftLogReader;
use protocol::frame::Method;
use std::sync::Arc;
use std::time::Duration;

/// Whether the disk of a machine would still hold the command after a power cut now.
async fn holds(machine: &Machine, index: u64, command: &str) -> bool {
    let disk = machine.disk.crash(Survivors::None);
    let (log, stream) = JournalStream::open(Arc::new(disk), "raft", options()).unwrap();
    let mut store = log.store_of(super::GROUP);
    let entries = store.try_get_log_entries(index..=index).await.unwrap();
    let wanted = CommandBytes(Bytes::from(command.to_owned()));
    let found = entries
        .iter()
        .any(|entry| matches!(&entry.payload, EntryPayload::Normal(command) if *command == wanted));
    drop(tokio::task::spawn_blocking(move || stream.stop()).await);
    found
}

/// A small generator of our own: the seed decides which replicas hear nothing.
fn next(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Run by `make quorum` with sixty seeds.
///
/// shows: F1
async fn check(replicas: u64, seed: u64) {
    let mut random = seed;
    let mut world = World::new(replicas);
    for id in 1..=replicas {
        world.start(id).await.unwrap();
    }
    world.replica(1).bootstrap(voters(replicas)).await.unwrap();
    world.put("first").await;
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for number in 0..8 {
        // Any number of them, also a majority; each round leaves the replicas' logs of different lengths.
        let away = next(&mut random) % (replicas / 2 + 2);
        let cut: Vec<u64> = (0..away).map(|_| next(&mut random) % replicas + 1).collect();
        world.network.cut.lock().unwrap().extend(cut);
        let command = format!("put {number}");
        for id in 1..=replicas {
            let replica = world.replica(id);
            let proposed = replica.propose(Bytes::from(command.clone()));
            match tokio::time::timeout(Duration::from_millis(150), proposed).await {
                Ok(Ok(answer)) => {
                    let index = u64::from_be_bytes(answer.as_ref().try_into().unwrap());
                    check_held(&world, seed, index, &command).await;
                    acknowledged.push((index, command.clone()));
                    break;
                }
                _ => refused += 1,
            }
        }
        world.network.cut.lock().unwrap().clear();
        let command = format!("healed {number}");
        let index = world.put(&command).await;
        check_held(&world, seed, index, &command).await;
        acknowledged.push((index, command));
    }
    world.put("last").await;
    let leader = linearized(&world).await;
    let found = super::commands(&leader);
    for (index, command) in &acknowledged {
        assert!(
            found.contains(&Bytes::from(command.clone())),
            "seed {seed}: entry {index} is gone"
        );
    }
    assert!(acknowledged.len() >= 8 && refused > 0, "seed {seed}: {refused} refused");
}

/// An acknowledged entry lies on the disks of a majority.
async fn check_held(world: &World, seed: u64, index: u64, command: &str) {
    let mut holders = 0;
    for machine in world.machines.values() {
        holders += usize::from(holds(machine, index, command).await);
    }
    let replicas = world.machines.len();
    assert!(
        holders > replicas / 2,
        "seed {seed}: {holders} of {replicas} hold entry {index}"
    );
}

/// So many seeds from `first` on: few at every build, sixty over both tests with a new release of openraft (`make quorum`).
fn seeds(first: u64, few: u64) -> std::ops::Range<u64> {
    let count = std::env::var("HOLDFAST_QUORUM_SEEDS").map_or(few, |text| text.parse().unwrap());
    first..first + count
}

/// shows: F1 scale=6/60
#[tokio::test(flavor = "multi_thread")]
async fn what_five_voters_acknowledge_lies_on_the_disks_of_three() {
    for seed in seeds(1, 4) {
        check(5, seed).await;
    }
}

/// shows: F1 scale=6/60
#[tokio::test(flavor = "multi_thread")]
async fn what_seven_voters_acknowledge_lies_on_the_disks_of_four() {
    for seed in seeds(5, 2) {
        check(7, seed).await;
    }
}

/// The acknowledgement is under way while its sender loses power and comes back; it counts when it arrives, so it must be true.
///
/// shows: F3
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_arrives_after_its_follower_lost_power_was_true() {
    // On a machine that is busy with other things another may come to lead meanwhile, and nothing is acknowledged.
    for _ in 0..20 {
        if late_acknowledgement().await {
            return;
        }
    }
    panic!("nothing was ever acknowledged");
}

/// Answers whether the command was acknowledged; then it lies on two disks and is there to the end.
async fn late_acknowledgement() -> bool {
    let mut world = super::bootstrapped().await;
    world.put("first").await;
    let leader = linearized(&world).await;
    let id = leader.replica.0;
    let others: Vec<u64> = (1..=3).filter(|other| *other != id).collect();
    let (follower, away) = (others[0], others[1]);
    world.network.cut.lock().unwrap().insert(away);
    let held = world.network.hold_answers_of(follower, Method::RaftAppend);
    let before = world.network.calls(follower, Method::RaftAppend);
    let put = tokio::spawn({
        let leader = leader.clone();
        async move { leader.propose(Bytes::from_static(b"late")).await }
    });
    let reached = async {
        while world.network.calls(follower, Method::RaftAppend) == before || held.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
    assert!(!put.is_finished(), "no majority is known to have it");
    super::installs::end(&mut world, follower, true).await;
    let back = world.start(follower).await.unwrap();
    held.release();
    // The leader counts the late answer, or asks again and is answered anew; either way the entry is on two disks.
    let Ok(answer) = tokio::time::timeout(PATIENCE, put).await.unwrap().unwrap() else {
        return false;
    };
    let index = u64::from_be_bytes(answer.as_ref().try_into().unwrap());
    assert!(holds(&world.machines[&follower], index, "late").await);
    world.network.cut.lock().unwrap().remove(&away);
    drop((leader, back));
    super::installs::end(&mut world, id, true).await;
    world.put("after").await;
    let leader = linearized(&world).await;
    let found = super::commands(&leader);
    let is_there = found.contains(&Bytes::from_static(b"late"));
    assert!(is_there, "an acknowledged entry is gone");
    true
}
