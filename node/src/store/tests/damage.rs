//! Bits that flip, reads that come back short, disks that are full, I/Os that fail once: told, and nothing is lost or brought back.

use super::crash::{on_all_cores, scripts};
use super::faulty::{FaultyDisk, FaultyKv};
use super::harness::{Bench, CAPACITY_BYTES, Op, Rng, name, options, payload, script};
use super::truth::Index;
use crate::store::core::Core;
use crate::store::read::ReadFault;
use crate::store::tally::Tally;
use crate::store::{OpenReport, StoreError};
use disk::sim::{Faults, Survivors};
use disk::{Disk, SimDisk};
use kv::memory::MemoryKv;
use protocol::node::ByteRange;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const OPERATIONS: usize = 30;

/// A script run to its end without a fault.
fn finished(seed: u64) -> Result<Bench, String> {
    let mut bench = Bench::new();
    for op in script(seed, OPERATIONS) {
        if !bench.run(op) {
            return Err(format!("script {seed}: {op:?} failed without a fault"));
        }
    }
    Ok(bench)
}

/// What was unlinked or moved. Every start begins a segment, and unlinks those of earlier starts in which nothing was stored.
fn removals(disk: &SimDisk) -> BTreeSet<String> {
    let trace = disk.trace().into_iter();
    trace
        .filter(|line| line.starts_with("remove") || line.starts_with("rename"))
        .collect()
}

fn open(disk: &SimDisk, index: MemoryKv) -> Result<(Core, OpenReport), StoreError> {
    let seam = FaultyDisk::new(disk.clone()).seam();
    Core::open(
        seam,
        Arc::new(FaultyKv::new(index)),
        &options(),
        Arc::new(Tally::default()),
    )
}

/// What is wrong when the power goes, this much of the disk's cache is left, and the index has so many of its unsynced batches.
fn after_cut(bench: &Bench, survivors: Survivors, batches: usize) -> Result<(), String> {
    let (disk, index) = (bench.disk.inner.crash(survivors), bench.index.inner.crash(batches));
    let left = Bench::open(disk, index, bench.truth.clone());
    let left = left.map_err(|error| format!("does not open: {error}"))?;
    left.violation().map_or(Ok(()), Err)
}

/// Each sync of each script fails once: nothing is acknowledged after it, and what was before is there after a cut.
///
/// shows: F23
#[test]
fn after_any_failed_sync_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    let check = |seed: u64| {
        let (before, after) = (
            Bench::new().disk.inner.sync_count(),
            finished(seed)?.disk.inner.sync_count(),
        );
        let mut checked = 0;
        for failing in before..after {
            let told = |what: String| format!("script {seed} sync {failing}: {what}");
            let mut bench = Bench::new();
            bench.disk.inner.set_faults(Faults {
                failing_sync: Some(failing),
                ..Faults::default()
            });
            let ops = script(seed, OPERATIONS);
            let failed = ops.iter().position(|op| !bench.run(*op));
            let failed = failed.ok_or_else(|| told("the failure was not told".to_owned()))?;
            // A start opens the disk anew; until then it takes nothing, although its syncs would succeed now.
            if ops[failed] != Op::Restart {
                let repeat = bench.core.tally.read_only_cause();
                if repeat.is_none() || bench.run(Op::Store(200)) || bench.run(Op::Remove(201)) {
                    return Err(told("a write was acknowledged after it".to_owned()));
                }
            }
            for survivors in [Survivors::None, Survivors::All, Survivors::Seed(seed)] {
                let kept = bench.index.inner.unsynced_batches() / 2;
                let left = after_cut(&bench, survivors, kept);
                left.map_err(|what| told(format!("{survivors:?}: {what}")))?;
                checked += 1;
            }
        }
        Ok((after - before, checked))
    };
    let (syncs, checked) = on_all_cores(scripts(), check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{syncs} syncs failed, {checked} leavings");
    assert!(syncs > 2000);
}

/// Each changing I/O fails once and the next one works: whatever was begun is begun again, compaction too.
///
/// shows: F13
#[test]
fn what_fails_once_and_is_run_again_loses_nothing() {
    let check = |seed: u64| {
        let (before, after) = (
            Bench::new().disk.inner.io_count(),
            finished(seed)?.disk.inner.io_count(),
        );
        let mut failures = 0;
        for failing in before..after {
            let told = |what: String| format!("script {seed} I/O {failing}: {what}");
            let mut bench = Bench::new();
            bench.disk.inner.set_faults(Faults {
                failing_io: Some(failing),
                ..Faults::default()
            });
            for op in script(seed, OPERATIONS) {
                if !bench.run(op) {
                    failures += 1;
                    if bench.core.tally.read_only_cause().is_some() && !bench.run(Op::Restart) {
                        return Err(told("does not start again".to_owned()));
                    }
                    bench.run(op);
                }
                if let Some(violation) = bench.violation() {
                    return Err(told(format!("after {op:?}: {violation}")));
                }
            }
            let lost = bench.reopen_without_index();
            if let Some(violation) = lost.truth.violation(&lost.core, Index::Lost) {
                return Err(told(format!("without its index: {violation}")));
            }
        }
        Ok((failures, 0))
    };
    let (failures, _) = on_all_cores(scripts(), check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{failures} operations failed once");
    assert!(failures > 2000);
}

#[test]
fn a_disk_that_fills_up_anywhere_refuses_and_loses_nothing() {
    let check = |seed: u64| {
        let mut refused = 0;
        for capacity in (80_000..240_000).step_by(16_000) {
            let told = |what: String| format!("script {seed} capacity {capacity}: {what}");
            let mut bench = Bench::new();
            bench.disk.inner.set_capacity_bytes(capacity);
            for op in script(seed, OPERATIONS) {
                refused += u64::from(!bench.run(op));
            }
            if bench.disk.inner.overwritten_bytes() > 0 {
                return Err(told("bytes were written over".to_owned()));
            }
            bench.disk.inner.set_capacity_bytes(CAPACITY_BYTES);
            for survivors in [Survivors::None, Survivors::All, Survivors::Seed(seed)] {
                let left = after_cut(&bench, survivors, 0);
                left.map_err(|what| told(format!("{survivors:?}: {what}")))?;
            }
        }
        Ok((refused, 0))
    };
    let (refused, _) = on_all_cores(scripts(), check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{refused} operations were refused");
    assert!(refused > 1000);
}

/// Each read of a start with its index and of one that makes it anew comes back short: an error or no harm, and zero deletes.
///
/// shows: F14
/// shows: F26
#[test]
fn a_short_read_anywhere_in_a_start_is_an_error_and_never_an_end() {
    let check = |seed: u64| {
        let bench = finished(seed)?;
        let mut errors = 0;
        for index in [Index::Kept, Index::Lost] {
            let kept = bench.index.inner.unsynced_batches() / 2;
            let leave = || match index {
                Index::Kept => bench.index.inner.crash(kept),
                Index::Lost => MemoryKv::new(),
            };
            let disk = bench.disk.inner.crash(Survivors::Seed(seed));
            let probe = disk.crash(Survivors::All);
            drop(open(&probe, leave()).map_err(|error| format!("script {seed}: {error}"))?);
            for read in 0..probe.read_count() {
                let told = |what: String| format!("script {seed} {index:?} read {read}: {what}");
                let after = disk.crash(Survivors::All);
                after.set_faults(Faults {
                    short_read: Some(read),
                    ..Faults::default()
                });
                match open(&after, leave()) {
                    Err(_) if removals(&after).is_subset(&removals(&probe)) => errors += 1,
                    Err(error) => return Err(told(format!("{error}, and something was removed"))),
                    Ok((core, _)) => {
                        if let Some(violation) = bench.truth.violation(&core, index) {
                            return Err(told(violation));
                        }
                    }
                }
                after.set_faults(Faults::default());
                let (core, _) = open(&after, leave()).map_err(|error| told(format!("does not open then: {error}")))?;
                if let Some(violation) = bench.truth.violation(&core, index) {
                    return Err(told(format!("opened then: {violation}")));
                }
            }
        }
        Ok((errors, 0))
    };
    let (errors, _) = on_all_cores(scripts(), check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{errors} starts refused a short read");
    assert!(errors > 1000);
}

/// A bit flips anywhere in the segments: never other bytes; and what does not read is told, by its own answer or by the start.
///
/// shows: F8 scale=1/3
#[test]
fn a_flipped_bit_gives_no_other_bytes_and_is_told() {
    let check = |seed: u64| {
        let mut bench = finished(seed)?;
        bench.core.close();
        let mut rng = Rng::new(seed);
        let (mut refused, mut told_by_start) = (0, 0);
        for flip in 0..40 {
            let disk = bench.disk.inner.crash(Survivors::None);
            let dirs = ["journal", "journal/limbo"];
            let names = dirs.iter().flat_map(|dir| {
                let files = disk.list(dir).unwrap_or_default();
                files.into_iter().map(move |file| format!("{dir}/{file}"))
            });
            let names: Vec<String> = names.collect();
            let file = &names[rng.below(names.len() as u64) as usize];
            let len = disk
                .open(file)
                .and_then(|file| file.len_bytes())
                .map_err(|error| error.to_string())?;
            disk.flip_bit(file, rng.below(len), (rng.next() % 8) as u8)
                .map_err(|error| error.to_string())?;
            let is_lost = flip % 2 == 0;
            let index = if is_lost {
                MemoryKv::new()
            } else {
                bench.index.inner.crash(0)
            };
            let told = |what: String| format!("script {seed} {file} lost={is_lost}: {what}");
            let (core, report) = open(&disk, index).map_err(|error| told(format!("does not open: {error}")))?;
            let is_told = report.damaged_found + report.damage_without_name > 0;
            told_by_start += u64::from(is_told);
            for id in bench.truth.ids() {
                let fact = bench.truth.held(id);
                let whole = ByteRange {
                    offset: 0,
                    len: payload(id).len() as u32,
                };
                match core.reader().read(&name(id), &[whole]) {
                    Ok(read) if read.payload != payload(id) => return Err(told(format!("{id} has other bytes"))),
                    // A tombstone that rotted hides nothing any more once the index is lost too; the start has told of it.
                    Ok(_) if !(fact.may_be || is_lost && is_told) => return Err(told(format!("{id} is back"))),
                    Ok(_) => {}
                    Err(ReadFault::Damaged { .. }) => refused += 1,
                    Err(ReadFault::Store(StoreError::NotFound)) if fact.may_lack || is_told => {}
                    Err(error) => return Err(told(format!("{id} is gone without a word: {error:?}"))),
                }
            }
        }
        Ok((refused, told_by_start))
    };
    let (refused, told) = on_all_cores(scripts(), check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{refused} reads were refused, {told} starts told of damage");
    assert!(refused > 500 && told > 50);
}

/// A failing index write or sync makes the disk read-only or fails the operation, and nothing acknowledged is lost.
///
/// shows: F12
#[test]
fn an_index_that_fails_anywhere_acknowledges_nothing_falsely() {
    let check = |seed: u64| {
        let changes = finished(seed)?.index.changes.load(Ordering::Relaxed);
        let mut failures = 0;
        for failing in 0..changes {
            let told = |what: String| format!("script {seed} index change {failing}: {what}");
            let mut bench = Bench::new();
            bench.index.failing_change.store(failing, Ordering::Relaxed);
            for op in script(seed, OPERATIONS) {
                failures += u64::from(!bench.run(op));
            }
            for kept in [0, bench.index.inner.unsynced_batches()] {
                let left = after_cut(&bench, Survivors::None, kept);
                left.map_err(|what| told(format!("{kept} batches: {what}")))?;
            }
        }
        Ok((failures, 0))
    };
    let (failures, _) = on_all_cores(scripts(), check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{failures} operations failed");
    assert!(failures > 1000);
}

/// The index fails a removal whose record is synced, and the fragment is listed after that: the start takes the removal in, and
/// the entry goes with it, since there is no fragment left that it could speak of.
#[test]
fn an_entry_of_the_damaged_list_goes_with_a_removal_that_only_a_start_takes_in() {
    let mut bench = Bench::new();
    assert!(bench.run(Op::Store(4)) && bench.run(Op::Store(5)) && bench.run(Op::List(5)));
    let next = bench.index.changes.load(Ordering::Relaxed);
    bench.index.failing_change.store(next, Ordering::Relaxed);
    assert!(!bench.run(Op::Remove(4)), "the index fails it");
    assert!(bench.run(Op::List(4)));
    assert_eq!(bench.core.tally.damaged.load(Ordering::Relaxed), 2);
    assert!(bench.run(Op::Restart));
    assert_eq!(
        bench.core.tally.damaged.load(Ordering::Relaxed),
        1,
        "the other entry stays"
    );
    // The removal is settled now: nothing of it may be on the list.
    assert!(bench.run(Op::Remove(4)));
    assert_eq!(bench.violation(), None);
}
