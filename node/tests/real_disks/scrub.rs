//! The scrub worker: it comes round to everything, and what has rotted is counted and on a list that lasts.

use crate::world::{Running, World, segments, stripe};
use protocol::node::{Damage, DamagedFragment, code};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

const LEN: usize = 200_000;
const COUNT: u8 = 12;

/// Inverts a bit of the payload of `number`, wherever it lies.
fn rot(disk: &Path, number: u8) {
    let (_, _, payload) = stripe(number, LEN);
    let wanted = &payload[100_000..100_100];
    for path in segments(disk) {
        let bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
            return;
        }
    }
    panic!("fragment {number} is on no segment");
}

fn scrubbed(running: &Running) -> u64 {
    running.status(1).counters.scrubbed
}

/// shows: QAS-001 scale=1/4
#[tokio::test]
async fn a_scrub_finds_a_flipped_byte_counts_it_and_lists_it_for_good() {
    let world = World::new(1);
    let running = world.start().await;
    for number in 0..COUNT {
        running.put(1, number, LEN).await.unwrap();
    }
    rot(&world.path(1), 7);
    running
        .advance_until(|running| scrubbed(running) >= u64::from(COUNT))
        .await;
    let listed = DamagedFragment {
        name: stripe(7, LEN).0,
        damage: Damage::Payload,
    };
    let status = running.status(1);
    assert_eq!((status.damaged_total, &status.damaged), (1, &vec![listed]));
    assert_eq!(running.metric("node_corrupt_fragments_total{disk=\"1\"}"), Some(1));
    assert_eq!(running.metric("node_damaged_fragments{disk=\"1\"}"), Some(1));
    assert!(running.metric("node_fragments_scrubbed_total{disk=\"1\"}") >= Some(i64::from(COUNT)));
    assert_eq!(running.get(1, 7, LEN).await, Err(code::DAMAGED.to_owned()));
    assert_eq!(running.get(1, 8, LEN).await, Ok(()));
    running.stop().await;

    let running = world.start().await;
    assert_eq!(running.status(1).damaged, vec![listed], "the list outlives the process");
    running.put(1, 7, LEN).await.unwrap();
    assert_eq!(running.get(1, 7, LEN).await, Ok(()));
    assert_eq!(running.status(1).damaged_total, 0);
    running.stop().await;
}

/// Nothing but the scrub reads here: a fragment that rots after the first pass is found by the second, in the next period.
#[tokio::test]
async fn each_period_has_a_pass_of_its_own() {
    let world = World::new(1);
    let running = world.start().await;
    for number in 0..COUNT {
        running.put(1, number, LEN).await.unwrap();
    }
    running
        .advance_until(|running| scrubbed(running) >= u64::from(COUNT))
        .await;
    assert_eq!(running.status(1).damaged_total, 0);
    rot(&world.path(1), 2);
    running.clock.advance(Duration::from_secs(3600));
    running
        .advance_until(|running| running.status(1).damaged_total == 1)
        .await;
    running.stop().await;
}
