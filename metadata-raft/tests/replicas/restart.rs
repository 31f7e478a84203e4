//! All replicas end at once and come back on their disks.

use crate::drive::{Drive, GROUP, names};
use crate::world::{Wires, World, call};
use protocol::frame::{Method, encode};
use protocol::metadata::QueryRequest;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

/// Cuts the newest part of RocksDB's unsynced log off, as a power cut may: what is left is an older state of the store.
fn lose_unsynced_tail(kv: &Path, kept: f64) -> u64 {
    let mut logs: Vec<PathBuf> = fs::read_dir(kv)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    let newest = OpenOptions::new().write(true).open(logs.last().unwrap()).unwrap();
    let length = newest.metadata().unwrap().len();
    let left = (length as f64 * kept) as u64;
    newest.set_len(left).unwrap();
    length - left
}

async fn check(wires: Wires, loses_tails: bool) {
    let mut world = World::up(wires, 3, 1).await;
    let all = world.numbers();
    let drive = Drive::create(&world).await;
    let mut made = 0;
    for round in 1..=2 {
        drive.make(&world, made..made + 30).await;
        made += 30;
        let acknowledged = drive.names(&world).await;
        assert_eq!(acknowledged, names(0..made));
        for number in &all {
            world.kill(*number).await;
        }
        if loses_tails {
            for number in &all {
                // Each replica another state, none of them complete.
                let lost = lose_unsynced_tail(&world.directory(*number).join("kv"), 0.2 * *number as f64);
                assert!(lost > 1_000, "something must be lost, {lost} bytes were");
            }
        }
        world.start(&all).await;
        // The first read of all: nobody waited for anything but an answer.
        assert_eq!(drive.names(&world).await, acknowledged, "round {round}");
        world.caught_up(&all).await;
    }
    for number in all {
        world.stop(number).await;
    }
}

/// shows: F5
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_all_the_first_read_is_as_new_as_the_last_answer() {
    check(Wires::memory(), true).await;
}

/// shows: F5
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_all_the_first_read_is_as_new_as_the_last_answer_over_quic() {
    check(Wires::quic(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_alone_answers_that_it_has_not_caught_up() {
    let mut world = World::up(Wires::memory(), 3, 1).await;
    let all = world.numbers();
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..5).await;
    for number in &all {
        world.kill(*number).await;
    }
    world.start(&[2]).await;
    let service = world.replica(2).service.clone();
    let query = encode(&QueryRequest {
        group: GROUP,
        query: encode(&drive.listing()).unwrap(),
    });
    let refused = call(&service, Method::Query, query.unwrap()).await.unwrap_err();
    // It may still believe in the leader of before, and then names it.
    assert!(
        ["recovering", "not_leader"].contains(&refused.code.as_str()),
        "{refused}"
    );
    assert!(refused.kind.is_retryable());
    world.start(&[1, 3]).await;
    assert_eq!(drive.names(&world).await, names(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_stopped_in_order_come_back_with_everything() {
    let mut world = World::up(Wires::memory(), 3, 1).await;
    let all = world.numbers();
    let drive = Drive::create(&world).await;
    drive.make(&world, 0..20).await;
    for number in &all {
        world.stop(*number).await;
    }
    world.start(&all).await;
    assert_eq!(drive.names(&world).await, names(0..20));
    drive.make(&world, 20..25).await;
    assert_eq!(drive.names(&world).await, names(0..25));
}
