//! Power cuts after every single I/O of many scripts, compaction included; and planted bugs that this must see.
//!
//! Level 2 of docs/testing.md. At each cut: every subset of what was not synced (blocks and names) when that is at most 8, else
//! 256 of them; with each, prefixes of the index's unsynced batches. `HOLDFAST_CRASH_SCALE=n` runs n times as many scripts.

use super::harness::{Bench, CAPACITY_BYTES, Op, Rng, script};
use super::truth::Index;
use crate::store::core::Flaw;
use disk::SimDisk;
use disk::sim::{Faults, Survivors};
use kv::memory::MemoryKv;
use std::sync::atomic::{AtomicU64, Ordering};

/// As testing.md level 2 says: 200 scripts of 30 operations.
const SCRIPTS: u64 = 200;
const OPERATIONS: usize = 30;
/// Subsets at a cut with more than 8 unsynced changes.
const RANDOM_SUBSETS: u64 = 256;
/// Pairs of a subset and a prefix that are looked at one by one; where there are more, each subset has a drawn prefix.
const PAIRS_MAX: usize = 24;

pub(super) fn scripts() -> u64 {
    let scale = std::env::var("HOLDFAST_CRASH_SCALE")
        .ok()
        .and_then(|text| text.parse().ok());
    SCRIPTS * scale.unwrap_or(1).max(1)
}

/// Runs `script` on a fresh store until it ends or the power is cut after `cut` changing I/Os.
///
/// `Err` when something is wrong before the cut already.
fn run_to_cut(ops: &[Op], cut: Option<u64>, flaw: Flaw, lies: bool) -> Result<Bench, String> {
    let mut bench = Bench::new();
    bench.set_flaw(flaw);
    bench.disk.lie_about_syncs.store(lies, Ordering::Relaxed);
    bench.disk.inner.set_faults(Faults {
        cut_after_io: cut.map(|cut| bench.disk.inner.io_count() + cut),
        ..Faults::default()
    });
    for op in ops {
        if !bench.run(*op) {
            break;
        }
        if cut.is_none()
            && let Some(violation) = bench.violation()
        {
            return Err(format!("after {op:?}: {violation}"));
        }
    }
    Ok(bench)
}

/// How many changing I/Os a script does from the opened store on.
fn ios_of(ops: &[Op]) -> Result<u64, String> {
    let opened = Bench::new().disk.inner.io_count();
    let bench = run_to_cut(ops, None, Flaw::None, false)?;
    if bench.disk.inner.overwritten_bytes() > 0 {
        return Err("bytes were written over".to_owned());
    }
    Ok(bench.disk.inner.io_count() - opened)
}

/// What a cut may leave: of the disk, and of the index.
fn leavings(bench: &Bench, rng: &mut Rng) -> Vec<(Survivors, usize)> {
    let count = bench.disk.inner.unsynced().count();
    let subsets: Vec<Survivors> = if count <= 8 {
        (0..1_u64 << count).map(Survivors::Mask).collect()
    } else {
        let random = (2..RANDOM_SUBSETS).map(|_| Survivors::Seed(rng.next()));
        [Survivors::None, Survivors::All].into_iter().chain(random).collect()
    };
    let batches = bench.index.inner.unsynced_batches();
    if subsets.len() * (batches + 1) <= PAIRS_MAX {
        let pairs = subsets
            .iter()
            .flat_map(|subset| (0..=batches).map(move |kept| (*subset, kept)));
        return pairs.collect();
    }
    let drawn = |subset| (subset, rng.below(batches as u64 + 1) as usize);
    subsets.into_iter().map(drawn).collect()
}

/// Looks at everything that the cut may leave; the first broken property, and how much was looked at.
fn check_cut(bench: &Bench, rng: &mut Rng) -> Result<u64, String> {
    let pairs = leavings(bench, rng);
    let (count, chosen) = (pairs.len() as u64, rng.below(pairs.len() as u64) as usize);
    for (number, (survivors, kept)) in pairs.into_iter().enumerate() {
        let told = |what: String| format!("{survivors:?} with {kept} batches: {what}");
        let disk = bench.disk.inner.crash(survivors);
        let mut after = Bench::open(
            disk.crash(Survivors::All),
            bench.index.inner.crash(kept),
            bench.truth.clone(),
        )
        .map_err(|error| told(format!("does not open: {error}")))?;
        if let Some(violation) = after.violation() {
            return Err(told(violation));
        }
        if number != chosen {
            continue;
        }
        // Compaction begins at once after the start, and the index is lost on top of it all.
        after
            .compact_all()
            .map_err(|error| told(format!("does not compact: {error}")))?;
        if let Some(violation) = after.violation() {
            return Err(told(format!("compacted: {violation}")));
        }
        let cut = after.disk.inner.crash(Survivors::None);
        for (what, disk) in [("without its index", disk), ("compacted and without its index", cut)] {
            let rebuilt = Bench::open(disk, MemoryKv::new(), bench.truth.clone())
                .map_err(|error| told(format!("{what} does not open: {error}")))?;
            if let Some(violation) = rebuilt.truth.violation(&rebuilt.core, Index::Lost) {
                return Err(told(format!("{what}: {violation}")));
            }
        }
    }
    Ok(count)
}

/// Every cut of `scripts` scripts; the first violation, or how many cuts and leavings were looked at.
fn check_scripts(scripts: impl Iterator<Item = u64>, flaw: Flaw, lies: bool) -> Result<(u64, u64), String> {
    let (mut cuts, mut checked) = (0, 0);
    for seed in scripts {
        let ops = script(seed, OPERATIONS);
        // A planted bug may change what is done, but hardly how many I/Os that takes.
        let ios = ios_of(&ops).map_err(|violation| format!("script {seed}: {violation}"))?;
        let mut rng = Rng::new(seed);
        for cut in (0..=ios).map(Some).chain([None]) {
            let told = |what: String| format!("script {seed} cut {cut:?}: {what}");
            let bench = run_to_cut(&ops, cut, flaw, lies).map_err(told)?;
            checked += check_cut(&bench, &mut rng).map_err(told)?;
            cuts += 1;
        }
    }
    Ok((cuts, checked))
}

/// Runs `work` for each of the seeds on all cores and adds up what it answers.
pub(super) fn on_all_cores(
    seeds: u64,
    work: impl Fn(u64) -> Result<(u64, u64), String> + Sync,
) -> Result<(u64, u64), String> {
    let next = AtomicU64::new(1);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let one = || -> Result<(u64, u64), String> {
        let (mut first, mut second) = (0, 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                return Ok((first, second));
            }
            let (more, other) = work(seed)?;
            (first, second) = (first + more, second + other);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one)).collect();
        threads.into_iter().try_fold((0, 0), |(first, second), thread| {
            let (more, other) = thread.join().expect("a suite's thread panicked")?;
            Ok((first + more, second + other))
        })
    })
}

/// shows: F12
/// shows: F13
/// shows: F14
/// shows: F17
/// shows: F20
/// shows: N10
#[test]
fn what_was_acknowledged_is_there_and_what_was_removed_stays_away_after_a_cut_at_any_io() {
    let checked = on_all_cores(scripts(), |seed| check_scripts([seed].into_iter(), Flaw::None, false));
    let (cuts, leavings) = checked.unwrap_or_else(|violation| panic!("{violation}"));
    println!("{} scripts, {cuts} cuts, {leavings} leavings", scripts());
    assert!(cuts > scripts() * 60 && leavings > 3 * cuts);
}

#[test]
fn a_clean_stop_makes_everything_durable() {
    for seed in 1..=SCRIPTS {
        let mut bench = run_to_cut(&script(seed, OPERATIONS), None, Flaw::None, false).unwrap();
        bench.core.close();
        assert_eq!(bench.disk.inner.unsynced().count(), 0, "script {seed}");
        assert_eq!(bench.index.inner.unsynced_batches(), 0, "script {seed}");
        let after = Bench::open(
            bench.disk.inner.crash(Survivors::None),
            bench.index.inner.crash(0),
            bench.truth.clone(),
        );
        assert_eq!(after.unwrap().violation(), None, "script {seed}");
    }
}

/// The start after a cut is cut at each of its own I/Os, started again, cut again, and so on.
///
/// shows: F13
#[test]
fn a_start_that_is_cut_off_again_and_again_keeps_the_same() {
    let check = |seed: u64| {
        let ops = script(seed, OPERATIONS);
        let (mut rng, mut starts) = (Rng::new(seed), 0);
        for cut in (0..=ios_of(&ops)?).filter(|cut| cut % 5 == seed % 5) {
            let bench = run_to_cut(&ops, Some(cut), Flaw::None, false)?;
            let mut disk = bench.disk.inner.crash(Survivors::Seed(rng.next()));
            let mut index = bench
                .index
                .inner
                .crash(rng.below(bench.index.inner.unsynced_batches() as u64 + 1) as usize);
            for inner in 0..14 {
                disk.set_faults(Faults {
                    cut_after_io: Some(disk.io_count() + inner),
                    ..Faults::default()
                });
                let told = |what: String| format!("script {seed} cut {cut} inner {inner}: {what}");
                let (left_disk, left_index, is_through) = start_and_cut(&disk, index, &mut rng);
                (disk, index) = (left_disk, left_index);
                let after = Bench::open(disk.crash(Survivors::All), index.crash(0), bench.truth.clone())
                    .map_err(|error| told(format!("does not open: {error}")))?;
                if let Some(violation) = after.violation() {
                    return Err(told(violation));
                }
                starts += 1;
                if is_through {
                    break;
                }
            }
        }
        Ok((starts, 0))
    };
    let (starts, _) = on_all_cores(SCRIPTS, check).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{starts} starts were cut");
    assert!(starts > 10_000);
}

/// Starts a store whose power is cut on the way, and what is left of disk and index; whether the start came through.
fn start_and_cut(disk: &SimDisk, index: MemoryKv, rng: &mut Rng) -> (SimDisk, MemoryKv, bool) {
    use super::faulty::FaultyKv;
    use super::harness::options;
    use crate::store::core::Core;
    use crate::store::tally::Tally;
    use std::sync::Arc;
    let index = Arc::new(FaultyKv::new(index));
    let opened = Core::open(
        Arc::new(disk.clone()),
        index.clone(),
        &options(),
        Arc::new(Tally::default()),
    );
    let is_through = opened.is_ok();
    let kept = rng.below(index.inner.unsynced_batches() as u64 + 1) as usize;
    (
        disk.crash(Survivors::Seed(rng.next())),
        index.inner.crash(kept),
        is_through,
    )
}

/// A suite that never compacts would prove nothing of compaction.
#[test]
fn the_scripts_do_compact() {
    let (mut compactions, mut unlinked) = (0, 0);
    for seed in 1..=SCRIPTS {
        let mut bench = Bench::new();
        for op in script(seed, OPERATIONS) {
            let before = bench.core.tally.compactions.load(Ordering::Relaxed);
            assert!(bench.run(op));
            compactions += bench
                .core
                .tally
                .compactions
                .load(Ordering::Relaxed)
                .saturating_sub(before);
        }
        unlinked += bench
            .disk
            .inner
            .trace()
            .iter()
            .filter(|line| line.starts_with("remove journal/limbo"))
            .count();
    }
    println!("{compactions} segments were emptied, {unlinked} were unlinked");
    assert!(compactions > SCRIPTS && unlinked > 100);
    // No script meets a full disk by chance.
    const { assert!(CAPACITY_BYTES > 1 << 20) };
}

fn first_violation(flaw: Flaw, lies: bool) -> String {
    let found = check_scripts(1..=SCRIPTS, flaw, lies).expect_err("the planted bug was not seen");
    println!("{flaw:?}: {found}");
    found
}

#[test]
fn an_answer_before_the_sync_is_caught() {
    let found = first_violation(Flaw::None, true);
    assert!(found.contains("does not read") || found.contains("is back"), "{found}");
}

#[test]
fn a_checkpoint_before_the_sync_is_caught() {
    let found = first_violation(Flaw::CheckpointBeforeSync, false);
    assert!(found.contains("does not read") || found.contains("is back"), "{found}");
}

#[test]
fn a_compaction_copy_with_a_new_sequence_is_caught() {
    assert!(first_violation(Flaw::CopyWithNewSequence, false).contains("sequence"));
}

/// shows: F14
#[test]
fn a_tombstone_dropped_early_is_caught() {
    assert!(first_violation(Flaw::TombstoneDroppedEarly, false).contains("is back"));
}
