//! Disks that fill up, fail a sync, lose a part of a file or do not open: typed, told, and nothing is deleted.

use crate::world::{World, contents, open_disk, segments};
use disk::judged::{Io, Judge, Verdict};
use disk::{DiskError, JudgedDisk};
use protocol::node::{DiskState, code};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LEN: usize = 400_000;

#[tokio::test]
async fn a_full_disk_refuses_typed_gives_what_it_has_and_takes_again_after_removals() {
    let mut world = World::new(1);
    world.config.disks[0].capacity_bytes = Some(48 << 20);
    let running = world.start().await;
    let mut stored = 0_u8;
    let refusal = loop {
        match running.put(1, stored, LEN).await {
            Ok(()) => stored += 1,
            Err(code) => break code,
        }
    };
    assert_eq!(refusal, code::DISK_FULL);
    assert!(stored > 20, "{stored}");
    assert_eq!(running.status(1).state, DiskState::Full);
    assert_eq!(running.metric("node_disk_is_writable{disk=\"1\"}"), Some(0));
    assert_eq!(running.metric("node_refusals_total{code=\"disk_full\"}"), Some(1));
    for number in 0..stored {
        assert_eq!(running.get(1, number, LEN).await, Ok(()));
    }
    let used: u64 = contents(&world.path(1).join("store"))
        .values()
        .flatten()
        .map(|bytes| bytes.len() as u64)
        .sum();
    assert!(used <= 48 << 20, "{used} bytes are used");
    for number in 0..stored - 4 {
        assert_eq!(running.remove(number).await, 1, "removals go on");
    }
    // Compaction gives up limbo early, since space is short.
    let path = world.path(1);
    let before = segments(&path).len();
    running.advance_until(|_| segments(&path).len() + 2 < before).await;
    running.put(1, stored, LEN).await.unwrap();
    assert_eq!(running.status(1).state, DiskState::Ready);
    for number in stored - 4..=stored {
        assert_eq!(running.get(1, number, LEN).await, Ok(()));
    }
    running.stop().await;
}

/// A world whose disks fail by these switches: syncs, opens of segments.
fn failing_world() -> (World, Arc<AtomicBool>, Arc<AtomicBool>) {
    let mut world = World::new(1);
    let (syncs, opens) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (fail_syncs, fail_opens) = (Arc::clone(&syncs), Arc::clone(&opens));
    let judge: Judge = Arc::new(move |io| match io {
        Io::Open(name) if name.ends_with(".seg") && fail_opens.load(Ordering::Relaxed) => {
            Verdict::Refuse(DiskError::Io(format!("{name}: too many open files")))
        }
        Io::Sync(_) if fail_syncs.load(Ordering::Relaxed) => {
            Verdict::Refuse(DiskError::Io("input/output error".to_owned()))
        }
        _ => Verdict::Pass,
    });
    world.open_disk = Arc::new(move |config, opening| {
        let real = open_disk(config, opening)?;
        Ok(Arc::new(JudgedDisk::new(real, Arc::clone(&judge))))
    });
    (world, syncs, opens)
}

/// shows: F12
/// shows: F23
#[tokio::test]
async fn after_a_failed_sync_the_disk_is_read_only_and_gives_until_it_is_opened_again() {
    let (world, syncs, _) = failing_world();
    let running = world.start().await;
    for number in 0..5 {
        running.put(1, number, LEN).await.unwrap();
    }
    syncs.store(true, Ordering::Relaxed);
    assert_eq!(running.put(1, 5, LEN).await, Err(code::DISK_READ_ONLY.to_owned()));
    syncs.store(false, Ordering::Relaxed);
    assert_eq!(
        running.put(1, 6, LEN).await,
        Err(code::DISK_READ_ONLY.to_owned()),
        "a later sync that succeeds proves nothing"
    );
    assert_eq!(running.remove(0).await, 0);
    assert!(matches!(running.status(1).state, DiskState::ReadOnly(cause) if cause.contains("input/output error")));
    assert_eq!(running.metric("node_disk_is_writable{disk=\"1\"}"), Some(0));
    for number in 0..5 {
        assert_eq!(running.get(1, number, LEN).await, Ok(()), "reads go on");
    }
    running.clock.advance(Duration::from_secs(60));
    running.stop().await;

    let running = world.start().await;
    assert_eq!(running.status(1).state, DiskState::Ready);
    for number in 0..5 {
        assert_eq!(running.get(1, number, LEN).await, Ok(()));
    }
    assert_eq!(running.get(1, 6, LEN).await, Err(code::NO_FRAGMENT.to_owned()));
    running.put(1, 6, LEN).await.unwrap();
    running.stop().await;
}

/// shows: F26
#[tokio::test]
async fn a_start_that_cannot_open_segments_or_finds_them_cut_deletes_nothing() {
    let (world, _, opens) = failing_world();
    let running = world.start().await;
    for number in 0..60 {
        running.put(1, number, LEN).await.unwrap();
    }
    running.stop().await;
    // Every start begins a segment; one in which nothing was stored goes at the next start, and does not count here.
    let names = || -> Vec<_> {
        let all = segments(&world.path(1)).into_iter();
        all.filter(|path| fs::metadata(path).unwrap().len() > LEN as u64)
            .collect()
    };
    let before = names();
    assert!(before.len() >= 3);

    opens.store(true, Ordering::Relaxed);
    let running = world.start().await;
    assert!(running.missing(1).contains("too many open files"));
    running.stop().await;
    assert_eq!(names(), before, "zero deletes");
    opens.store(false, Ordering::Relaxed);
    let running = world.start().await;
    for number in 0..60 {
        assert_eq!(running.get(1, number, LEN).await, Ok(()));
    }
    running.stop().await;

    // Half of a segment is gone: what lay there is answered as damaged, never as absent, and nothing else is lost.
    let cut = segments(&world.path(1))[1].clone();
    let half = fs::metadata(&cut).unwrap().len() / 2;
    fs::OpenOptions::new()
        .write(true)
        .open(&cut)
        .unwrap()
        .set_len(half)
        .unwrap();
    for is_index_lost in [false, true] {
        let before = names();
        if is_index_lost {
            fs::remove_dir_all(world.path(1).join("index")).unwrap();
        }
        let running = world.start().await;
        let mut lost = 0;
        for number in 0..60 {
            match running.get(1, number, LEN).await {
                Ok(()) => {}
                Err(code) if code == code::DAMAGED || code == code::DISK_FAULT => lost += 1,
                // Only the index knew its name; the start has told of the damage.
                Err(code) if is_index_lost && code == code::NO_FRAGMENT => lost += 1,
                Err(code) => panic!("fragment {number}: {code}"),
            }
        }
        assert!((1..25).contains(&lost), "{lost} lost");
        running.stop().await;
        assert_eq!(names(), before, "zero deletes");
    }
}
