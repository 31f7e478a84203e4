//! Disks that fail, fill up, rot and come back; callers that go away.

use super::faulty::{FaultyDisk, FaultyKv};
use super::harness::{Bench, CAPACITY_BYTES, Op, fragment, identity, name, options, payload};
use crate::store::identity::{Identity, IdentityError, check_or_write};
use crate::store::tally::Tally;
use crate::store::{CompactionStep, FragmentStore, StoreError, core::Core};
use disk::sim::Faults;
use disk::{Disk, SimDisk};
use kv::memory::MemoryKv;
use model::id::{ClusterId, DiskId};
use protocol::node::{ByteRange, Damage, DamagedFragment, DiskState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// shows: F23
#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_what_was_before_is_there() {
    let mut bench = Bench::new();
    assert!((0..5).all(|id| bench.run(Op::Store(id))));
    let next = bench.disk.inner.sync_count();
    bench.disk.inner.set_faults(Faults {
        failing_sync: Some(next),
        ..Faults::default()
    });
    assert!(!bench.run(Op::Store(5)));
    bench.disk.inner.set_faults(Faults::default());
    assert!(!bench.run(Op::Store(6)), "the disk is read-only");
    assert!(!bench.run(Op::Remove(0)));
    assert!(bench.core.tally.read_only_cause().is_some());
    bench.truth.forget(6);
    assert_eq!(bench.violation(), None, "it still gives");
    let bench = bench.power_cut(3).unwrap();
    assert_eq!(bench.violation(), None);
}

/// shows: F12
#[test]
fn an_index_that_does_not_take_a_batch_makes_the_disk_read_only() {
    let index = Arc::new(FaultyKv::new(MemoryKv::new()));
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(CAPACITY_BYTES));
    let (mut core, _) = Core::open(disk, index.clone(), &options(), Arc::new(Tally::default())).unwrap();
    let store = |core: &mut Core, id| {
        let (header, payload) = fragment(id);
        core.commit(vec![crate::store::core::Write::Store { header, payload }])
            .pop()
            .unwrap()
    };
    index
        .failing_change
        .store(index.changes.load(Ordering::Relaxed), Ordering::Relaxed);
    assert!(store(&mut core, 1).is_err());
    assert!(matches!(store(&mut core, 2), Err(StoreError::ReadOnly(_))));
}

#[test]
fn a_full_disk_refuses_typed_and_recovers_by_removal_and_compaction() {
    let mut bench = Bench::new();
    bench.disk.inner.set_capacity_bytes(12 * options().segment_bytes);
    let stored = (0..=255).take_while(|id| bench.run(Op::Store(*id))).count() as u8;
    assert!(stored > 3, "{stored}");
    bench.truth.forget(stored);
    assert!(bench.core.tally.is_full.load(Ordering::Relaxed));
    assert!(bench.run(Op::Remove(0)), "removal may use the reserve");
    let (mut refused, mut steps) = (0, 0);
    for id in 1..stored {
        while !bench.run(Op::Remove(id)) {
            refused += 1;
            steps += 1;
            assert!(steps < 1000, "compaction makes room");
            bench.core.compact_step(Duration::ZERO, Duration::MAX, true).unwrap();
        }
    }
    assert!(refused > 0, "removals leave a segment for the copies");
    while bench.core.compact_step(Duration::ZERO, Duration::MAX, true).unwrap() != CompactionStep::Idle {}
    assert!(bench.run(Op::Store(0)), "there is room again");
    assert_eq!(bench.violation(), None);
}

/// shows: F22 scale=1/2
#[test]
fn a_read_error_in_compaction_loses_nothing_and_moves_nothing() {
    let mut bench = Bench::new();
    assert!((0..40).all(|id| bench.run(Op::Store(id))));
    assert!((0..40).filter(|id| id % 3 > 0).all(|id| bench.run(Op::Remove(id))));
    bench.disk.fail_reads.store(true, Ordering::Relaxed);
    for _ in 0..4 {
        assert!(!matches!(
            bench.core.compact_step(Duration::ZERO, Duration::MAX, true),
            Ok(CompactionStep::Emptied(_) | CompactionStep::Unlinked(_))
        ));
    }
    bench.disk.fail_reads.store(false, Ordering::Relaxed);
    assert_eq!(bench.violation(), None);
    let mut emptied = 0;
    for step in 0.. {
        assert!(step < 1000, "compaction comes to an end");
        match bench.core.compact_step(Duration::ZERO, Duration::MAX, true).unwrap() {
            CompactionStep::Idle => break,
            CompactionStep::Emptied(_) => emptied += 1,
            _ => {}
        }
        assert_eq!(bench.violation(), None);
    }
    assert!(emptied > 0, "the error was transient, so compaction goes on");
    let bench = bench.reopen_without_index();
    assert_eq!(bench.violation(), None);
}

/// shows: F26
/// shows: F22 scale=1/2
#[test]
fn errors_at_start_delete_nothing_and_a_returned_disk_has_everything() {
    let mut bench = Bench::new();
    assert!((0..30).all(|id| bench.run(Op::Store(id))));
    let faulty: [fn(&FaultyDisk, bool); 2] = [
        |disk, fails| disk.fail_opens.store(fails, Ordering::Relaxed),
        |disk, fails| disk.fail_reads.store(fails, Ordering::Relaxed),
    ];
    for set in faulty {
        let removals = |bench: &Bench| {
            bench
                .disk
                .inner
                .trace()
                .iter()
                .filter(|line| line.starts_with("remove") || line.starts_with("rename"))
                .count()
        };
        let before = removals(&bench);
        set(&bench.disk, true);
        let opened = Core::open(
            bench.disk.seam(),
            bench.index.clone(),
            &options(),
            Arc::new(Tally::default()),
        );
        assert!(opened.is_err());
        set(&bench.disk, false);
        assert_eq!(removals(&bench), before, "zero deletes");
        bench = bench.reopen_without_index();
        assert_eq!(bench.violation(), None);
    }
}

fn open_store(disk: &SimDisk, index: &Arc<MemoryKv>) -> FragmentStore {
    FragmentStore::open(DiskId(1), Arc::new(disk.clone()), index.clone(), &options())
        .unwrap()
        .0
}

fn flip(disk: &SimDisk, wanted: &[u8]) {
    for file in disk.list("journal").unwrap() {
        let path = format!("journal/{file}");
        let opened = disk.open(&path).unwrap();
        let bytes = opened.read_at(0, opened.len_bytes().unwrap() as usize).unwrap();
        if let Some(offset) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            disk.flip_bit(&path, offset as u64 + 100, 3).unwrap();
            return;
        }
    }
    panic!("no segment holds the payload");
}

/// shows: QAS-001 scale=1/4
#[tokio::test]
async fn a_flipped_bit_is_answered_as_corrupt_listed_for_good_found_by_scrub_and_repaired_by_storing_anew() {
    let (disk, index) = (SimDisk::new(CAPACITY_BYTES), Arc::new(MemoryKv::new()));
    let store = open_store(&disk, &index);
    for id in [1, 2, 3] {
        let (header, payload) = fragment(id);
        assert!(!store.store(header, payload).await.unwrap());
    }
    flip(&disk, &payload(2)[..600]);
    let whole = |id: u8| {
        vec![ByteRange {
            offset: 0,
            len: payload(id).len() as u32,
        }]
    };
    assert_eq!(store.read(name(2), whole(2)).await, Err(StoreError::Damaged));
    assert_eq!(store.confirm(&name(2)), Ok(None), "what is damaged is not counted");
    let listed = DamagedFragment {
        name: name(2),
        damage: Damage::Payload,
    };
    assert_eq!(
        (store.status().damaged_total, store.status().damaged),
        (1, vec![listed])
    );
    flip(&disk, &payload(3)[..600]);
    assert_eq!(store.scrub(name(3)).await, Err(StoreError::Damaged));
    assert_eq!(store.scrub(name(1)).await, Ok(()));
    store.stop().await;
    index.power_cut(0);

    let store = open_store(&disk, &index);
    assert_eq!(store.status().damaged_total, 2, "the list survives");
    for id in [2, 3] {
        let (header, bytes) = fragment(id);
        assert!(!store.store(header, bytes).await.unwrap(), "a new record, not a repeat");
        assert_eq!(store.read(name(id), whole(id)).await.unwrap().payload, payload(id));
    }
    assert_eq!(store.status().damaged_total, 0);
    assert_eq!(store.status().state, DiskState::Ready);
    store.stop().await;
    assert_eq!(store.remove(name(1)).await, Err(StoreError::Stopped));
}

/// shows: F21 scale=1/2
#[tokio::test]
async fn callers_that_go_away_leave_whole_fragments_or_none() {
    let (disk, index) = (SimDisk::new(64 << 20), Arc::new(MemoryKv::new()));
    let store = open_store(&disk, &index);
    let mut waiting = Vec::new();
    for id in 0..=200_u8 {
        let (header, bytes) = fragment(id);
        let task = tokio::spawn({
            let store = store.clone();
            async move { store.store(header, bytes).await }
        });
        if id % 3 == 0 {
            if id % 2 == 0 {
                tokio::task::yield_now().await;
            }
            task.abort();
        } else {
            waiting.push((id, task));
        }
    }
    let mut acknowledged = Vec::new();
    for (id, task) in waiting {
        task.await.unwrap().unwrap();
        acknowledged.push(id);
    }
    for id in 0..=200_u8 {
        let whole = vec![ByteRange {
            offset: 0,
            len: payload(id).len() as u32,
        }];
        match store.read(name(id), whole).await {
            Ok(read) => assert_eq!(read.payload, payload(id)),
            Err(error) => assert!(
                error == StoreError::NotFound && !acknowledged.contains(&id),
                "{id}: {error}"
            ),
        }
    }
    store.stop().await;
}

#[test]
fn disks_of_other_clusters_swapped_disks_and_nameless_data_are_refused() {
    let disk = SimDisk::new(CAPACITY_BYTES);
    check_or_write(&disk, identity(), false).unwrap();
    check_or_write(&disk, identity(), true).unwrap();
    let other = Identity {
        cluster: ClusterId(6),
        ..identity()
    };
    assert_eq!(
        check_or_write(&disk, other, true),
        Err(IdentityError::OtherCluster { expected: DiskId(1) })
    );
    let swapped = Identity {
        disk: DiskId(2),
        ..identity()
    };
    let found = IdentityError::OtherDisk {
        expected: DiskId(2),
        found: DiskId(1),
    };
    assert_eq!(check_or_write(&disk, swapped, true), Err(found));
    disk.flip_bit("identity", 9, 0).unwrap();
    assert_eq!(
        check_or_write(&disk, identity(), true),
        Err(IdentityError::Unreadable { expected: DiskId(1) })
    );
    let fresh = SimDisk::new(CAPACITY_BYTES);
    assert_eq!(
        check_or_write(&fresh, identity(), true),
        Err(IdentityError::Nameless { expected: DiskId(1) })
    );
}
