//! Power cuts after every single I/O of many scripts, compaction included; and planted bugs that this must see.

use super::harness::{Bench, script};
use crate::store::core::Flaw;
use disk::sim::Faults;
use std::sync::atomic::Ordering;

/// As testing.md level 2 says: 200 scripts of 30 operations.
const SCRIPTS: u64 = 200;
const OPERATIONS: usize = 30;

/// Runs script `seed` with the power cut after `cut` changing I/Os, opens again and looks; `None` when all is as it must be.
fn violation_after_cut(seed: u64, cut: Option<u64>, flaw: Flaw, lies: bool) -> (Option<String>, u64) {
    let mut bench = Bench::new();
    bench.set_flaw(flaw);
    bench.disk.lie_about_syncs.store(lies, Ordering::Relaxed);
    let begun = bench.disk.inner.io_count();
    bench.disk.inner.set_faults(Faults {
        cut_after_io: cut.map(|cut| begun + cut),
        ..Faults::default()
    });
    for op in script(seed, OPERATIONS) {
        if !bench.run(op) {
            break;
        }
        if cut.is_none()
            && let Some(violation) = bench.violation()
        {
            return (Some(violation), 0);
        }
    }
    let done = bench.disk.inner.io_count() - begun;
    match bench.power_cut(seed ^ cut.unwrap_or(u64::MAX)) {
        Ok(bench) => (
            bench.violation().or_else(|| bench.reopen_without_index().violation()),
            done,
        ),
        Err(error) => (Some(format!("does not open: {error}")), done),
    }
}

fn first_violation(scripts: u64, flaw: Flaw, lies: bool) -> Option<String> {
    for seed in 1..=scripts {
        let (violation, ios) = violation_after_cut(seed, None, flaw, lies);
        if let Some(violation) = violation {
            return Some(format!("script {seed}, cut at the end: {violation}"));
        }
        for cut in 0..ios {
            if let (Some(violation), _) = violation_after_cut(seed, Some(cut), flaw, lies) {
                return Some(format!("script {seed}, cut after {cut}: {violation}"));
            }
        }
    }
    None
}

/// shows: F12
/// shows: F13
/// shows: F20 scale=1/2
/// shows: N10
#[test]
fn what_was_acknowledged_is_there_and_what_was_removed_stays_away_after_a_cut_at_any_io() {
    assert_eq!(first_violation(SCRIPTS, Flaw::None, false), None);
}

/// A suite that never compacts would prove nothing of compaction.
#[test]
fn the_scripts_do_compact() {
    let mut compactions = 0;
    for seed in 1..=SCRIPTS {
        let mut bench = Bench::new();
        for op in script(seed, OPERATIONS) {
            assert!(bench.run(op));
        }
        compactions += bench.core.tally.compactions.load(Ordering::Relaxed);
    }
    assert!(compactions > SCRIPTS / 2, "{compactions} compactions");
}

#[test]
fn an_answer_before_the_sync_is_caught() {
    assert!(first_violation(SCRIPTS, Flaw::None, true).is_some());
}

#[test]
fn a_checkpoint_before_the_sync_is_caught() {
    assert!(first_violation(SCRIPTS, Flaw::CheckpointBeforeSync, false).is_some());
}

#[test]
fn a_compaction_copy_with_a_new_sequence_is_caught() {
    let found = first_violation(SCRIPTS, Flaw::CopyWithNewSequence, false);
    assert!(found.is_some_and(|violation| violation.contains("sequence")));
}
