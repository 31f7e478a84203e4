//! References under many schedules: writers, readers, collectors, a gatherer and a marker of one replica, whoever overtakes whom.
//!
//! Level 3 of docs/testing.md. The source of `raft::state_machine` is compiled here a second time, over shuttle's locks. One thread
//! applies what the others propose, in batches as it comes; each of them asks, acts on disks and proposes in steps of its own, and every
//! call of the store, of a view of it and of a disk lets others run. A seed is `PER_SEED` schedules drawn freely and as many by
//! priorities: `HOLDFAST_SCHEDULE_SEED=n cargo test --release -p metadata-raft schedules` replays one, `HOLDFAST_SCHEDULES=n` tries so
//! many.
//! Checked: a file whose commit was answered lies on every disk until its purge is asked for; in each view that a reader gets, counts
//! equal a recount; what a mark lets the log forget is durable and whole; in the end disks hold nothing that nobody has.
//! Not here: every order of whole steps (`collection_model::orders`), installing a snapshot, relaxed atomics.

#[allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the same source again, over other threads; nobody installs a snapshot here"
)]
#[path = "../../raft/state_machine.rs"]
mod state_machine;

mod replica;
mod stage;
mod switching;
mod threads;

use self::stage::{Ledger, Shared, Stage, lock};
use self::switching::Plant;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Some seconds on one core.
const SEEDS: u64 = 20;
/// Seeds in which a planted bug must be seen.
const SEEDS_TO_CATCH: u64 = 3_000;
const PER_SEED: usize = 2;
const PRIORITY_CHANGES: usize = 3;
const STACK_BYTES: usize = 1 << 20;
const WRITERS: u64 = 2;
const READERS: usize = 2;
const COLLECTORS: u64 = 2;

/// One schedule, and what must hold when all is over.
fn scene(plant: Plant, ledger: &Shared) {
    let (stage, applier) = Stage::set(plant, ledger);
    let mut threads = Vec::new();
    for writer in 0..WRITERS {
        let stage = stage.clone();
        threads.push(shuttle::thread::spawn(move || stage.write(writer)));
    }
    for _ in 0..READERS {
        let stage = stage.clone();
        threads.push(shuttle::thread::spawn(move || stage.read()));
    }
    for holder in 0..COLLECTORS {
        let stage = stage.clone();
        threads.push(shuttle::thread::spawn(move || stage.collect(holder)));
    }
    let gathering = stage.clone();
    threads.push(shuttle::thread::spawn(move || gathering.repack()));
    let marking = stage.clone();
    threads.push(shuttle::thread::spawn(move || marking.mark()));
    for thread in threads {
        thread.join().unwrap();
    }
    stage.rest();
    drop(stage);
    applier.join().unwrap();
}

/// Runs a scheduler to its end; the first violation.
fn explore(scheduler: impl Scheduler + 'static, plant: Plant, seen: &Shared) -> Option<String> {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    // Our seeds replay a schedule.
    config.failure_persistence = FailurePersistence::None;
    let all = Arc::clone(seen);
    let scene_of = move || {
        let ledger = Shared::default();
        scene(plant, &ledger);
        let ledger = std::mem::take(&mut *lock(&ledger));
        let mut all = lock(&all);
        all.violations.extend(ledger.violations);
        all.reads += ledger.reads;
        all.overtaken += ledger.overtaken;
        all.removed += ledger.removed;
        all.orphans += ledger.orphans;
        all.moved += ledger.moved;
        all.looks_again += ledger.looks_again;
    };
    // A deadlock is a panic of shuttle's.
    let ran = catch_unwind(AssertUnwindSafe(|| Runner::new(scheduler, config).run(scene_of)));
    let violation = lock(seen).violations.first().cloned();
    violation.or_else(|| ran.err().map(|_| "a thread panics or waits for ever".to_owned()))
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn check(seeds: u64, plant: Plant) -> Result<Ledger, String> {
    let seeds = match number_of("HOLDFAST_SCHEDULE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seeds,
    };
    let seen = Shared::default();
    for seed in seeds {
        let free = explore(RandomScheduler::new_from_seed(seed, PER_SEED), plant, &seen);
        let by_priorities = || {
            let scheduler = PctScheduler::new_from_seed(seed, PRIORITY_CHANGES, PER_SEED);
            explore(scheduler, plant, &seen)
        };
        if let Some(violation) = free.or_else(by_priorities) {
            return Err(format!("HOLDFAST_SCHEDULE_SEED={seed}: {violation}"));
        }
    }
    let seen = std::mem::take(&mut *lock(&seen));
    Ok(seen)
}

fn caught(plant: Plant) -> String {
    let caught = check(SEEDS_TO_CATCH, plant).expect_err("the planted bug was not seen");
    println!("{caught}");
    caught
}

/// shows: F34
#[test]
fn in_every_schedule_what_a_file_names_is_there_and_every_view_agrees_with_itself() {
    let seeds = number_of("HOLDFAST_SCHEDULES").unwrap_or(SEEDS);
    let seen = check(seeds, Plant::None).unwrap_or_else(|violation| panic!("{violation}"));
    println!("{seeds} seeds: {seen:?}");
    let is_replay = number_of("HOLDFAST_SCHEDULE_SEED").is_some();
    let met = [seen.reads, seen.overtaken, seen.removed, seen.orphans, seen.moved];
    assert!(is_replay || met.iter().all(|times| *times > 0), "{seen:?}");
}

#[test]
fn the_schedules_catch_a_reader_without_a_view_of_its_own() {
    caught(Plant::LiveView);
}

#[test]
fn the_schedules_catch_a_batch_that_becomes_visible_in_two_parts() {
    caught(Plant::TornBatch);
}

#[test]
fn the_schedules_catch_a_mark_before_its_sync() {
    let caught = caught(Plant::AnswerBeforeSync);
    assert!(caught.contains("after a power cut"), "{caught}");
}

/// What was written a moment ago may be named by a commit that is on its way.
#[test]
fn the_schedules_catch_an_orphan_that_is_removed_before_its_birth_epoch_is_closed() {
    let caught = caught(Plant::YoungOrphans);
    assert!(caught.contains("which was removed"), "{caught}");
}
