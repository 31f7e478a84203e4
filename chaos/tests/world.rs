//! The simulated world in CI: twenty seeds hold, a seed twice is the same world, and each planted bug is caught.
//!
//! Each seed runs in a process of its own, as `make sim` does it; a failing one is printed with the command that runs it again.

#![allow(clippy::unwrap_used)] // Test code: a panic is the report.

use chaos::world::campaign::{Campaign, replay, run_one};
use chaos::world::plant::Plant;
use chaos::world::report::Report;
use std::path::Path;

const SEEDS: u64 = 20;
/// Seeds in which a planted bug must be seen at least once; docs/testing.md has how many of them see each.
const SEEDS_TO_CATCH: u64 = 200;
/// Overlapping operations below which a history proves too little.
const CONCURRENCY_MIN: usize = 4;
/// Seeds of a plant that run before it is asked whether one was enough.
const SEEDS_AT_ONCE: u64 = 4;

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim"))
}

fn one(seed: u64) -> Report {
    run_one(binary(), seed, None, None).unwrap()
}

#[test]
fn the_same_seed_twice_is_the_same_world_and_another_seed_is_another() {
    // Of three worlds in a row one reads by lease, and that is the second of these.
    let hashes = [3, 5].map(|seed| {
        let (first, again) = (one(seed), one(seed));
        assert_eq!(
            first, again,
            "make sim SEED={seed} ARGS='--trace FILE' shows where two runs part"
        );
        first.trace_hash
    });
    assert_ne!(hashes[0], hashes[1]);
}

/// Commits behind a base version, reads, moves and deletions under partitions, deaths and power cuts.
///
/// shows: F9
/// shows: C-3 scale=4000/40000
#[test]
fn twenty_seeds_hold_every_promise() {
    let campaign = Campaign {
        binary: binary().to_owned(),
        seeds: (1..=SEEDS).collect(),
        plant: None,
        operations: None,
    };
    println!("{}", Report::TITLES);
    let mut reports = Vec::new();
    for (seed, report) in campaign.run(|_, _| ()) {
        let report = report.unwrap_or_else(|error| panic!("{error:#}\nagain: {}", replay(seed, None, None)));
        println!("{}", report.line());
        assert!(
            report.violations.is_empty(),
            "{}\nagain: {}",
            report.violations.join("\n"),
            replay(seed, None, None)
        );
        assert!(report.concurrency >= CONCURRENCY_MIN, "{}", replay(seed, None, None));
        assert!(report.counts.faults > 0 && report.acknowledged > 0 && report.states_compared > 0);
        reports.push(report);
    }
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let (operations, unknown) = (sum(|report| report.operations), sum(|report| report.unknown));
    assert!(operations >= 4_000, "{operations} operations");
    assert!(
        unknown * 20 <= operations,
        "{unknown} of {operations} answers are unknown"
    );
    // Three groups are led from the start: more terms are elections that faults made.
    assert!(sum(|report| report.terms) > 3 * reports.len());
}

/// Runs seeds until one is caught by a violation that says `mark`.
fn caught(plant: Plant, mark: &str) {
    for first in (1..=SEEDS_TO_CATCH).step_by(SEEDS_AT_ONCE as usize) {
        let campaign = Campaign {
            binary: binary().to_owned(),
            seeds: (first..first + SEEDS_AT_ONCE).collect(),
            plant: Some(plant),
            operations: None,
        };
        for (seed, report) in campaign.run(|_, _| ()) {
            let violations = report.unwrap().violations;
            if let Some(violation) = violations.iter().find(|violation| violation.contains(mark)) {
                println!("{}: {violation}", replay(seed, Some(plant), None));
                return;
            }
        }
    }
    panic!("{} was not caught by {SEEDS_TO_CATCH} seeds", plant.as_str());
}

#[test]
fn a_vote_that_was_not_synced_gives_a_term_two_leaders() {
    caught(Plant::VoteUnsynced, "both lead term");
}

#[test]
fn a_writer_that_failed_and_is_counted_loses_an_acknowledged_version() {
    caught(Plant::CountsFailedWriter, "is lost");
}

#[test]
fn a_follower_that_reads_alone_answers_from_the_past() {
    caught(Plant::FollowerReadsAlone, "no order explains");
}

#[test]
fn a_leader_that_serves_before_recovery_answers_from_the_past() {
    caught(Plant::ServesBeforeRecovery, "no order explains");
}
