//! A suite finds what depends on the schedule, finds nothing where nothing is wrong, and says how to see it again.

use super::{Explored, Schedule, Suite};
use crate::ledger::{Ledger, Shared, lock};
use crate::wanted::Wanted;
use shuttle::sync::Mutex;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const SUITE: Suite = Suite {
    package: "schedules",
    seeds: 10,
    seeds_to_catch: 100,
    free_per_seed: 2,
    prioritized_per_seed: 3,
    stack_bytes: 256 << 10,
};

/// The schedules that ran, and what went wrong in them.
#[derive(Debug, Default)]
struct Runs {
    violations: Vec<String>,
    schedules: Vec<(u64, u64)>,
}

impl Ledger for Runs {
    type Seen = Vec<(u64, u64)>;

    fn violations(&self) -> &[String] {
        &self.violations
    }

    fn count(self, seen: &mut Self::Seen) {
        seen.extend(self.schedules);
    }
}

/// Two threads add one each; with the bug they do it in two steps.
fn adding(is_planted: bool) -> impl Fn(Schedule, &Shared<Runs>) + Send + Sync + 'static {
    move |schedule, ledger| {
        let sum = Arc::new(AtomicU64::new(0));
        let add = |sum: Arc<AtomicU64>| {
            shuttle::thread::spawn(move || {
                if is_planted {
                    let old = sum.load(Ordering::SeqCst);
                    sum.store(old + 1, Ordering::SeqCst);
                } else {
                    sum.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let threads = [add(Arc::clone(&sum)), add(Arc::clone(&sum))];
        for thread in threads {
            thread.join().unwrap();
        }
        let sum = sum.load(Ordering::SeqCst);
        let mut ledger = lock(ledger);
        ledger.schedules.push((schedule.seed, schedule.number));
        if sum != 2 {
            ledger.violations.push(format!("the sum is {sum}"));
        }
    }
}

/// Two threads take two locks; with the bug each has another one first.
fn locking(is_planted: bool) -> impl Fn(Schedule, &Shared<Runs>) + Send + Sync + 'static {
    move |_, _| {
        let (one, other) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let both = |first: &Arc<Mutex<u64>>, second: &Arc<Mutex<u64>>| {
            let (first, second) = (Arc::clone(first), Arc::clone(second));
            shuttle::thread::spawn(move || {
                let mut first = first.lock().unwrap();
                let mut second = second.lock().unwrap();
                (*first, *second) = (*first + 1, *second + 1);
            })
        };
        let threads = if is_planted {
            [both(&one, &other), both(&other, &one)]
        } else {
            [both(&one, &other), both(&one, &other)]
        };
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

fn schedules_of(explored: &Result<Explored<Vec<(u64, u64)>>, String>) -> Vec<(u64, u64)> {
    explored.as_ref().expect("nothing is wrong").seen.clone()
}

#[test]
fn every_schedule_of_every_seed_runs() {
    let of_a_seed = [0, 1, 0, 1, 2];
    let of = |seeds: std::ops::Range<u64>| -> Vec<(u64, u64)> {
        seeds.flat_map(|seed| of_a_seed.map(|number| (seed, number))).collect()
    };
    let usual = SUITE.explore_wanted(Wanted::Usual, adding(false));
    assert_eq!(schedules_of(&usual), of(0..10));
    assert!(usual.is_ok_and(|explored| !explored.is_replay));
    let many = SUITE.explore_wanted(Wanted::Many(3), adding(false));
    assert_eq!(schedules_of(&many), of(0..3));
    let replayed = SUITE.explore_wanted(Wanted::Replay(7), adding(false));
    assert_eq!(schedules_of(&replayed), of(7..8));
    assert!(replayed.is_ok_and(|explored| explored.is_replay));
    let suite = Suite {
        prioritized_per_seed: 0,
        ..SUITE
    };
    let free = suite.explore_wanted(Wanted::Replay(u64::MAX), adding(false));
    assert_eq!(schedules_of(&free), [(u64::MAX, 0), (u64::MAX, 1)]);
}

#[test]
fn a_lost_update_is_found_and_its_seed_finds_it_again() {
    assert_eq!(SUITE.catch(adding(true)), "the sum is 1");
    let told = SUITE.explore_wanted(Wanted::Many(100), adding(true)).unwrap_err();
    let (what, command) = told.split_once("\nthe same again: ").unwrap();
    assert_eq!(what, "the sum is 1");
    let (seed, rest) = command
        .strip_prefix("HOLDFAST_SCHEDULE_SEED=")
        .unwrap()
        .split_once(' ')
        .unwrap();
    assert_eq!(rest, "cargo test --release -p schedules schedules");
    let again = SUITE.explore_wanted(Wanted::Replay(seed.parse().unwrap()), adding(true));
    assert_eq!(again.unwrap_err(), told);
}

#[test]
fn a_deadlock_is_found_and_none_where_locks_have_an_order() {
    assert!(SUITE.catch(locking(true)).contains("waits for ever"));
    assert!(SUITE.explore_wanted(Wanted::Usual, locking(false)).is_ok());
}

#[test]
fn what_was_written_down_before_a_panic_is_told_instead_of_it() {
    let told = SUITE.catch(|_: Schedule, ledger: &Shared<Runs>| {
        let ledger = Arc::clone(ledger);
        let thread = shuttle::thread::spawn(move || {
            let mut ledger = lock(&ledger);
            ledger.violations.push("a write is lost".to_owned());
            assert!(ledger.violations.is_empty(), "the thread panics with the ledger's lock");
        });
        thread.join().unwrap();
    });
    assert_eq!(told, "a write is lost");
}

#[test]
#[should_panic(expected = "the planted bug was not seen")]
fn a_bug_that_is_not_seen_fails_the_suite() {
    SUITE.catch(adding(false));
}
