//! What a node still has after a restart: with its index, without it, with a damaged one, and after compaction.

use crate::world::{Running, World, contents, segments};
use bytes::Bytes;
use kv::rocks::{RocksBudget, RocksKv};
use kv::seam::{Change, Kv};
use protocol::node::code;
use std::fs;
use std::time::Duration;

const LEN: usize = 300_000;
const REMOVED: u8 = 5;

/// Stores fragments 0 to 19 and removes one.
async fn fill(running: &Running) {
    for number in 0..20 {
        running.put(1, number, LEN).await.unwrap();
    }
    assert_eq!(running.remove(REMOVED).await, 1);
}

async fn check(running: &Running) {
    for number in 0..20 {
        let expected = if number == REMOVED {
            Err(code::NO_FRAGMENT.to_owned())
        } else {
            Ok(())
        };
        assert_eq!(running.get(1, number, LEN).await, expected, "fragment {number}");
    }
    assert_eq!(running.status(1).fragments, 19);
}

/// shows: N10
/// shows: F14
#[tokio::test]
async fn a_restart_a_lost_index_and_a_damaged_one_lose_nothing_and_bring_nothing_back() {
    let world = World::new(1);
    let running = world.start().await;
    fill(&running).await;
    check(&running).await;
    running.stop().await;
    let running = world.start().await;
    check(&running).await;
    running.stop().await;

    let index = world.path(1).join("index");
    fs::remove_dir_all(&index).unwrap();
    let running = world.start().await;
    check(&running).await;
    running.stop().await;

    for file in contents(&index).into_keys() {
        if file.file_name().unwrap().to_string_lossy().starts_with("MANIFEST") {
            fs::write(&file, b"this is no manifest").unwrap();
        }
    }
    let running = world.start().await;
    check(&running).await;
    assert!(
        index.with_extension("damaged").is_dir(),
        "kept for whoever wants to look"
    );
    running.stop().await;
}

/// A row of a layout that does not read costs one question to the control group, and the node starts.
#[tokio::test]
async fn kept_rows_that_do_not_read_are_asked_for_again() {
    let world = World::new(1);
    let running = world.start().await;
    running.put(1, 1, LEN).await.unwrap();
    assert!(!running.node.service().status().tables.is_empty());
    running.stop().await;
    {
        let budget = RocksBudget::new(8 << 20, 8 << 20).unwrap();
        let index = RocksKv::open(&world.path(1).join("index"), &budget).unwrap();
        let profile = model::profile::ProfileId::Copies.number();
        let key = Bytes::from(vec![b'R', profile, 0, 0, 0, 3]);
        index
            .write(vec![Change::Put(key, Bytes::from_static(b"\xff\xff"))])
            .unwrap();
        index.sync().unwrap();
    }
    let running = world.start().await;
    assert!(
        running.node.service().status().tables.is_empty(),
        "a table with a hole is not known"
    );
    running.get(1, 1, LEN).await.unwrap();
    running.put(1, 2, LEN).await.unwrap();
    assert!(!running.node.service().status().tables.is_empty());
    running.stop().await;
    let running = world.start().await;
    assert!(
        !running.node.service().status().tables.is_empty(),
        "written over and kept again"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_node_compacts_while_it_runs_and_lets_segments_go_after_limbo() {
    let world = World::new(1);
    let running = world.start().await;
    for number in 0..120 {
        running.put(1, number, LEN).await.unwrap();
    }
    let kept = |number: u8| number.is_multiple_of(7);
    for number in (0..120).filter(|number| !kept(*number)) {
        assert_eq!(running.remove(number).await, 1);
    }
    let before = segments(&world.path(1)).len();
    assert!(before >= 5, "{before} segments");
    running
        .advance_until(|running| running.metric("node_compactions_total{disk=\"1\"}") >= Some(3))
        .await;
    let in_limbo = contents(&world.path(1).join("store").join("journal").join("limbo")).len();
    assert!(in_limbo >= 3, "{in_limbo} segments are kept for a day");
    running.clock.advance(Duration::from_secs(25 * 3600));
    let path = world.path(1);
    running.advance_until(|_| segments(&path).len() < before).await;
    let check = async |running: &Running| {
        for number in 0..120 {
            let expected = if kept(number) {
                Ok(())
            } else {
                Err(code::NO_FRAGMENT.to_owned())
            };
            assert_eq!(running.get(1, number, LEN).await, expected, "fragment {number}");
        }
    };
    check(&running).await;
    running.stop().await;
    fs::remove_dir_all(path.join("index")).unwrap();
    let running = world.start().await;
    check(&running).await;
    running.stop().await;
}
