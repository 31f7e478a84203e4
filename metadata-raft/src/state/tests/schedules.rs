//! References under many schedules: writers, readers, collectors, a gatherer and a marker of one replica, whoever overtakes whom.
//!
//! Level 3 of docs/testing.md. The source of `raft::state_machine` is compiled here a second time, over shuttle's locks. One thread
//! applies what the others propose, in batches as it comes; each of them asks, acts on disks and proposes in steps of its own, and every
//! call of the store, of a view of it and of a disk lets others run. A seed is two schedules drawn freely and as many by
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

use self::stage::{Shared, Stage};
use self::switching::Plant;
use schedules::{Explored, Schedule, Suite};

const SUITE: Suite = Suite {
    package: env!("CARGO_PKG_NAME"),
    // Some seconds on one core.
    seeds: 20,
    seeds_to_catch: 3_000,
    free_per_seed: 2,
    prioritized_per_seed: 2,
    stack_bytes: 1 << 20,
};
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

fn scene_with(plant: Plant) -> impl Fn(Schedule, &Shared) + Send + Sync + 'static {
    move |_, ledger| scene(plant, ledger)
}

/// shows: F34
#[test]
fn in_every_schedule_what_a_file_names_is_there_and_every_view_agrees_with_itself() {
    let Explored { seen, is_replay } = SUITE.explore(scene_with(Plant::None));
    let met = [seen.reads, seen.overtaken, seen.removed, seen.orphans, seen.moved];
    assert!(is_replay || met.iter().all(|times| *times > 0), "{seen:?}");
}

#[test]
fn the_schedules_catch_a_reader_without_a_view_of_its_own() {
    SUITE.catch(scene_with(Plant::LiveView));
}

#[test]
fn the_schedules_catch_a_batch_that_becomes_visible_in_two_parts() {
    SUITE.catch(scene_with(Plant::TornBatch));
}

#[test]
fn the_schedules_catch_a_mark_before_its_sync() {
    let caught = SUITE.catch(scene_with(Plant::AnswerBeforeSync));
    assert!(caught.contains("after a power cut"), "{caught}");
}

/// What was written a moment ago may be named by a commit that is on its way.
#[test]
fn the_schedules_catch_an_orphan_that_is_removed_before_its_birth_epoch_is_closed() {
    let caught = SUITE.catch(scene_with(Plant::YoungOrphans));
    assert!(caught.contains("which was removed"), "{caught}");
}
