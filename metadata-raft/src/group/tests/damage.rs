//! Bytes of a stored log that changed while nobody looked.

use super::{GroupError, Machine, PATIENCE, World, bootstrapped, commands, linearized};
use crate::raft::journal_stream::JournalStream;
use crate::raft::log_store::LogError;
use crate::raft::stream::StreamError;
use crate::raft::tests::{entry, log_id, options, vote};
use disk::sim::Survivors;
use disk::{Disk, SimDisk};
use openraft::RaftLogReader;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use std::sync::Arc;

const BLOCK: u64 = 4096;

fn files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.list("raft").unwrap();
    let read = |name: String| {
        let name = format!("raft/{name}");
        let file = disk.open(&name).unwrap();
        let length = usize::try_from(file.len_bytes().unwrap()).unwrap();
        (name, file.read_at(0, length).unwrap().to_vec())
    };
    names.into_iter().map(read).collect()
}

/// The offset of `needle` in a file of `disk`.
fn find(disk: &SimDisk, needle: &[u8]) -> (String, u64) {
    let found = files(disk).into_iter().find_map(|(name, bytes)| {
        let at = bytes.windows(needle.len()).position(|window| window == needle)?;
        Some((name, at as u64))
    });
    found.unwrap()
}

/// A log as text: vote, purge point and entries.
async fn shown(disk: SimDisk) -> Result<String, LogError> {
    let (log, stream) = JournalStream::open(Arc::new(disk), "raft", options())?;
    let mut store = log.store_of(super::GROUP);
    let vote = store.read_vote().await.unwrap();
    let state = store.get_log_state().await.unwrap();
    let entries = store.try_get_log_entries(..).await.unwrap();
    drop(stream.stop());
    Ok(format!("{vote:?} {:?} {entries:?}", state.last_purged_log_id))
}

/// A log with every kind of record, marked by a clean stop.
async fn written() -> SimDisk {
    let disk = SimDisk::new(64 << 20);
    let (log, stream) = JournalStream::open(Arc::new(disk.clone()), "raft", options()).unwrap();
    let mut store = log.store_of(super::GROUP);
    store.save_vote(&vote(1, 1)).await.unwrap();
    store
        .blocking_append((0..4).map(|index| entry(1, index)))
        .await
        .unwrap();
    store.save_committed(Some(log_id(1, 2))).await.unwrap();
    store.save_vote(&vote(2, 3)).await.unwrap();
    store.truncate_after(Some(log_id(1, 2))).await.unwrap();
    store.blocking_append([entry(2, 3), entry(2, 4)]).await.unwrap();
    store.purge(log_id(1, 0)).await.unwrap();
    log.flush().await.unwrap();
    stream.stop().unwrap();
    disk
}

/// Every byte of the file headers, of the record headers and of the payloads is flipped in turn, padding here and there.
#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_of_a_marked_log_is_refused_or_changes_nothing() {
    let disk = written().await;
    let whole = shown(disk.crash(Survivors::All)).await.unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for (name, bytes) in files(&disk) {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 8;
        for at in (0..bytes.len().min(end)).filter(|at| at % BLOCK as usize <= 300 || at % 97 == 0) {
            let flipped = disk.crash(Survivors::All);
            flipped.flip_bit(&name, at as u64, (at % 8) as u8).unwrap();
            match shown(flipped).await {
                Err(LogError::Stream(StreamError::Damaged(_))) => refused += 1,
                Err(error) => panic!("byte {at} of {name}: {error}"),
                Ok(found) => {
                    assert_eq!(found, whole, "byte {at} of {name}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 300, "{refused} refused, {harmless} harmless");
}

async fn grown() -> World {
    let mut world = bootstrapped().await;
    for number in 0..20 {
        world.put(&format!("put {number}")).await;
    }
    for id in 1..=3 {
        world.stop(id).await;
    }
    world
}

/// One replica of three is damaged at `place` of its log; it must not run, and the others must go on with everything.
async fn check_one_damaged(what: &str, place: impl Fn(&Machine) -> (String, u64)) {
    let mut world = grown().await;
    let machine = &world.machines[&2];
    let (name, offset) = place(machine);
    machine.disk.flip_bit(&name, offset, 3).unwrap();
    let stopped = world.start(2).await.map(drop).unwrap_err();
    let is_told = matches!(&stopped, GroupError::Log(LogError::Stream(StreamError::Damaged(_))));
    assert!(is_told, "{what}: {stopped}");
    let text = stopped.to_string();
    assert!(
        text.contains(".seg at byte ") && text.contains("must not vote"),
        "{what}: {text}"
    );
    for id in [1, 3] {
        world.start(id).await.unwrap();
    }
    world.put("put 20").await;
    let leader = linearized(&world).await;
    assert_eq!(commands(&leader).len(), 21, "{what}");
}

/// shows: F8
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_log_is_damaged_stops_and_the_others_keep_all_data() {
    let entry_of = |machine: &Machine| find(&machine.disk, b"put 7");
    // A record's header: magic, salt, sequence, kind, length, checksums; the payload of an entry begins some bytes behind it.
    check_one_damaged("payload of an entry", entry_of).await;
    for (what, back) in [("header of its record", 20), ("checksum of its payload", 14)] {
        check_one_damaged(what, |machine| {
            let (name, at) = entry_of(machine);
            (name, at - back)
        })
        .await;
    }
    check_one_damaged("magic of a record", |machine| {
        let (name, at) = entry_of(machine);
        (name, at / BLOCK * BLOCK)
    })
    .await;
    // The first record of all is a vote or the members: what a replica must least forget.
    check_one_damaged("first record", |machine| {
        let (name, _) = files(&machine.disk).swap_remove(0);
        (name, BLOCK + 40 + 16 + 41)
    })
    .await;
    check_one_damaged("salt of the segment", |machine| {
        let (name, _) = files(&machine.disk).swap_remove(0);
        (name, 17)
    })
    .await;
}

/// shows: F8 scale=1/2
#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_above_the_mark_is_cut_off_and_fetched_again() {
    let mut world = bootstrapped().await;
    for number in 0..20 {
        world.put(&format!("put {number}")).await;
    }
    world.power_cut().await;
    // What was being written when the power went: a piece of a batch that was never acknowledged.
    let disk = &world.machines[&2].disk;
    let (name, bytes) = files(disk).pop().unwrap();
    let file = disk.open(&name).unwrap();
    let end = (bytes.len() as u64).next_multiple_of(BLOCK);
    file.write_at(end, &[&bytes[BLOCK as usize..BLOCK as usize + 60]])
        .unwrap();
    file.sync().unwrap();
    for id in 1..=3 {
        world.start(id).await.unwrap();
    }
    let last = world.put("put 20").await;
    let torn = world.replica(2);
    torn.caught_up(PATIENCE).await.unwrap();
    let wait = torn.raft.wait(Some(PATIENCE));
    wait.applied_index_at_least(Some(last), "caught up").await.unwrap();
    assert_eq!(commands(&torn).len(), 21);
}
