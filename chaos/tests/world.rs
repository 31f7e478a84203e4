//! The simulated world in CI: twenty seeds hold, a seed twice is the same world, and each planted bug is caught; of worlds of
//! collection and of changing layouts fewer seeds.
//!
//! Each seed runs in a process of its own, as `make sim` does it; a failing one is printed with the command that runs it again.

#![allow(clippy::unwrap_used)] // Test code: a panic is the report.

use chaos::oracle::raft::LogEnds;
use chaos::world::Orders;
use chaos::world::campaign::{Campaign, replay, run_one};
use chaos::world::kind::Kind;
use chaos::world::plant::Plant;
use chaos::world::report::Report;
use chaos::world::wear::Worn;
use std::path::Path;

const SEEDS: u64 = 20;
/// How long each of them lasts, in operations.
const OPERATIONS: usize = 2_000;
/// Operations after which a world that runs twice ends: more than the some 140 that the usual time allows.
const OPERATIONS_TWICE: usize = 250;
/// Seeds in which a planted bug must be seen at least once; docs/testing.md has how many of them see each.
const SEEDS_TO_CATCH: u64 = 200;
/// Seeds of a plant that run before it is asked whether one was enough.
const SEEDS_AT_ONCE: u64 = 4;
/// Worlds in which the layout changes, and how many operations on names each of them lasts: longer than the usual time, in which one
/// death of the gateway may leave too many answers unknown.
const LAYOUT_SEEDS: u64 = 6;
const LAYOUT_OPERATIONS: usize = 600;
/// Worlds of collection, and how many operations each of them lasts.
const COLLECTION_SEEDS: u64 = 4;
const COLLECTION_OPERATIONS: usize = 750;
/// The same of one that runs twice, or has a bug.
const COLLECTION_OPERATIONS_FEW: usize = 300;

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sim"))
}

fn names(seed: u64) -> Orders {
    Orders {
        seed,
        ..Orders::default()
    }
}

fn layout(seed: u64) -> Orders {
    Orders {
        kind: Kind::Layout,
        ..names(seed)
    }
}

fn collection(seed: u64, operations: usize) -> Orders {
    Orders {
        kind: Kind::Collection,
        operations: Some(operations),
        ..names(seed)
    }
}

fn lasting(orders: Orders) -> Orders {
    Orders {
        operations: Some(OPERATIONS_TWICE),
        ..orders
    }
}

/// The trace of two runs that must be the same.
fn twice(orders: &Orders) -> String {
    let [first, again] = [(), ()].map(|()| run_one(binary(), orders).unwrap());
    assert_eq!(
        first,
        again,
        "{} ARGS='--trace FILE' shows where two runs part",
        replay(orders)
    );
    first.trace_hash
}

#[test]
fn the_same_seed_twice_is_the_same_world_and_another_seed_is_another() {
    // Of three worlds in a row one reads by lease, and that is the second of these.
    assert_ne!(twice(&names(3)), twice(&names(5)));
}

/// As `make chaos` runs them: a count of answers ends them and not the world's clock.
#[test]
fn the_same_seed_twice_is_the_same_world_when_a_number_of_operations_ends_it() {
    twice(&lasting(names(3)));
}

#[test]
fn the_same_seed_twice_is_the_same_world_of_changing_layouts_when_a_number_of_operations_ends_it() {
    twice(&lasting(layout(3)));
}

#[test]
fn the_same_seed_twice_is_the_same_world_of_collection() {
    twice(&collection(3, COLLECTION_OPERATIONS_FEW));
}

#[test]
fn the_same_seed_twice_is_the_same_world_of_changing_layouts() {
    twice(&layout(3));
}

/// A report of a world that kept every promise.
fn held(orders: &Orders, report: anyhow::Result<Report>) -> Report {
    let report = report.unwrap_or_else(|error| panic!("{error:#}\nagain: {}", replay(orders)));
    println!("{}", report.line());
    let violations = report.violations.join("\n");
    assert!(violations.is_empty(), "{violations}\nagain: {}", replay(orders));
    // That it has shown enough it says itself.
    report
}

/// Commits behind a base version, reads, moves and deletions under partitions, deaths of every process, power cuts, rot and full disks.
///
/// shows: F9
/// shows: C-3 side=ci
#[test]
fn twenty_seeds_hold_every_promise() {
    let campaign = Campaign {
        binary: binary().to_owned(),
        seeds: (1..=SEEDS).collect(),
        orders: Orders {
            operations: Some(OPERATIONS),
            ..Orders::default()
        },
    };
    println!("{}", Report::TITLES);
    let ended = campaign.run(|_, _| ());
    let orders = |seed| campaign.orders.of(seed);
    let reports: Vec<Report> = ended
        .into_iter()
        .map(|(seed, report)| held(&orders(seed), report))
        .collect();
    for report in &reports {
        let (seed, answered) = (report.seed, report.operations - report.unknown);
        assert!(
            answered >= OPERATIONS,
            "seed {seed}: {answered} operations were answered"
        );
    }
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let (operations, unknown) = (sum(|report| report.operations), sum(|report| report.unknown));
    assert!(operations >= 40_000, "{operations} operations");
    assert!(
        unknown * 20 <= operations,
        "{unknown} of {operations} answers are unknown"
    );
    // Three groups are led from the start: more terms are elections that faults made.
    assert!(sum(|report| report.terms) > 3 * reports.len());
    let worn = |of: fn(&Worn) -> u64| reports.iter().map(|report| of(&report.worn)).sum::<u64>();
    for (what, count) in [
        ("the gateway died", worn(|worn| worn.gateway_deaths)),
        ("bits rotted", worn(|worn| worn.flipped_bits)),
        ("a disk refused reads", worn(|worn| worn.unreadable)),
        ("damage was met by a read", worn(|worn| worn.corrupt_reads)),
        ("a node's disk was full", worn(|worn| worn.full_disks)),
        ("a replica's disk was full", worn(|worn| worn.full_replicas)),
    ] {
        println!("{what}: {count}");
        assert!(count > 0, "{what}");
    }
    let ends: LogEnds = reports.iter().map(|report| report.log_ends).sum();
    for (what, count) in ends.named() {
        println!("{what}: {count}");
        assert!(count > 0, "{what}");
    }
}

/// The same, beside a set to which others add, while disks are emptied and taken back, so that rows change under writers and readers,
/// with wrong clocks among the faults. A world in which nothing was added says so itself.
///
/// shows: F10 side=layout
#[test]
fn a_layout_that_changes_under_everybody_loses_nothing_and_turns_no_order() {
    let campaign = Campaign {
        binary: binary().to_owned(),
        seeds: (1..=LAYOUT_SEEDS).collect(),
        orders: Orders {
            operations: Some(LAYOUT_OPERATIONS),
            ..layout(0)
        },
    };
    println!("{}", Report::TITLES);
    let ended = campaign.run(|_, _| ()).into_iter();
    let reports: Vec<Report> = ended
        .map(|(seed, report)| held(&campaign.orders.of(seed), report))
        .collect();
    // Without a change of rows the world says so itself.
    let acknowledged: usize = reports.iter().map(|report| report.acknowledged).sum();
    assert!(acknowledged >= 60, "{acknowledged} versions were acknowledged");
}

/// Contents come, are shared and go, under the same faults: what somebody may still want is there, the rest is gone after two graces.
///
/// shows: N8 scale=3000/1000000
#[test]
fn nothing_alive_is_removed_and_nothing_leaks_in_a_world_of_collection() {
    let campaign = Campaign {
        binary: binary().to_owned(),
        seeds: (1..=COLLECTION_SEEDS).collect(),
        orders: collection(0, COLLECTION_OPERATIONS),
    };
    println!("{}", Report::TITLES);
    let ended = campaign.run(|_, _| ()).into_iter();
    let reports: Vec<Report> = ended
        .map(|(seed, report)| held(&campaign.orders.of(seed), report))
        .collect();
    let steps: u64 = reports.iter().map(Report::steps).sum();
    assert!(steps >= 3_000, "{steps} steps");
    let collected: Vec<_> = reports.iter().filter_map(|report| report.collected).collect();
    assert_eq!(collected.len(), reports.len());
    // Without removals nothing was shown.
    assert!(collected.iter().all(|collected| collected.stripes_removed > 0));
    assert!(collected.iter().any(|collected| collected.orphans_removed > 0));
    assert!(collected.iter().any(|collected| collected.stripes_repacked > 0));
}

/// Runs seeds until one is caught by a violation that says `mark`.
fn caught(orders: &Orders, mark: &str) {
    for first in (1..=SEEDS_TO_CATCH).step_by(SEEDS_AT_ONCE as usize) {
        let campaign = Campaign {
            binary: binary().to_owned(),
            seeds: (first..first + SEEDS_AT_ONCE).collect(),
            orders: orders.clone(),
        };
        for (seed, report) in campaign.run(|_, _| ()) {
            let violations = report.unwrap().violations;
            if let Some(violation) = violations.iter().find(|violation| violation.contains(mark)) {
                println!("{}: {violation}", replay(&orders.of(seed)));
                return;
            }
        }
    }
    panic!("{orders:?} was not caught by {SEEDS_TO_CATCH} seeds");
}

fn planted(plant: Plant) -> Orders {
    Orders {
        plant: Some(plant),
        ..Orders::default()
    }
}

fn planted_in_collection(plant: Plant) -> Orders {
    Orders {
        plant: Some(plant),
        ..collection(0, COLLECTION_OPERATIONS_FEW)
    }
}

#[test]
fn a_vote_that_was_not_synced_gives_a_term_two_leaders() {
    caught(&planted(Plant::VoteUnsynced), "both lead term");
}

#[test]
fn a_command_that_is_another_one_on_its_way_to_a_follower_makes_logs_that_do_not_match() {
    caught(&planted(Plant::AltersEntries), "hold two entries");
}

#[test]
fn a_writer_that_failed_and_is_counted_loses_an_acknowledged_version() {
    caught(&planted(Plant::CountsFailedWriter), "is lost");
}

#[test]
fn a_follower_that_reads_alone_answers_from_the_past() {
    caught(&planted(Plant::FollowerReadsAlone), "no order explains");
}

#[test]
fn a_leader_that_serves_before_recovery_answers_from_the_past() {
    caught(&planted(Plant::ServesBeforeRecovery), "no order explains");
}

#[test]
fn a_copy_that_raises_no_count_is_lost_with_its_source() {
    caught(&planted_in_collection(Plant::CountsSharedOnce), "is lost");
}

#[test]
fn a_purge_that_removes_at_once_loses_what_others_share() {
    caught(&planted_in_collection(Plant::PurgeRemovesAtOnce), "is lost");
}

#[test]
fn a_removal_that_does_not_happen_is_a_leak() {
    caught(&planted_in_collection(Plant::RemovesNothing), "leak: ");
}

/// One user after the other: no order is asked about.
#[test]
fn a_history_in_which_nothing_overlaps_is_refused() {
    caught(&planted(Plant::OneAtATime), "overlapped with");
}

#[test]
fn a_history_of_which_many_answers_are_unknown_is_refused() {
    caught(&planted(Plant::LosesAnswers), "answers are unknown");
}
