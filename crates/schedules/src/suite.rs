//! A suite of schedules: so many seeds, each of them so many schedules of one scene.
//!
//! Schedules are drawn freely, or by priorities (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of Finding
//! Bugs", ASPLOS 2010), which let one thread run far while another stands still. Both are shuttle's.
//! Invariants: a seed gives the same schedules each time; the first seed that breaks a promise ends the run and is told.

use crate::ledger::{Ledger, Shared, lock};
use crate::wanted::{SEED, Wanted, from_environment};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How often another thread comes first within a schedule by priorities. A guess.
const PRIORITY_CHANGES: usize = 3;

/// What is explored, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// The package with the suite, `env!("CARGO_PKG_NAME")`: named by the command that replays a seed.
    pub package: &'static str,
    /// Seeds to explore unless the environment says otherwise, at least one.
    pub seeds: u64,
    /// Seeds within which a planted bug must be seen, at least one.
    pub seeds_to_catch: u64,
    /// Schedules of a seed that are drawn freely.
    pub free_per_seed: usize,
    /// Schedules of a seed that are drawn by priorities; may be 0.
    pub prioritized_per_seed: usize,
    /// Stack of each thread: shuttle's own has 32 KiB, and what runs over it ends the process.
    pub stack_bytes: usize,
}

/// Which schedule a scene runs in, for scenes that differ from schedule to schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Its seed.
    pub seed: u64,
    /// How many of this seed and kind, free or by priorities, were before.
    pub number: u64,
}

/// What was met by schedules in all of which every promise was kept.
#[derive(Debug)]
pub struct Explored<S> {
    /// What all of them met.
    pub seen: S,
    /// Only one seed was replayed, so they need not have met everything.
    pub is_replay: bool,
}

type Scene<L> = dyn Fn(Schedule, &Shared<L>) + Send + Sync;

/// What a run found so far.
#[derive(Default)]
struct Found<S> {
    seen: S,
    violation: Option<String>,
}

/// A broken promise.
struct Broken {
    seed: u64,
    what: String,
}

impl Suite {
    /// Runs `scene` in as many schedules as the environment or the suite asks for, and tells on standard output what they met.
    /// A scene starts threads of shuttle's, waits for them, and writes into its ledger.
    ///
    /// # Panics
    /// When a scene writes down a violation, panics or waits for ever: with the command that replays its seed. When the environment
    /// cannot be read.
    pub fn explore<L: Ledger>(
        &self,
        scene: impl Fn(Schedule, &Shared<L>) + Send + Sync + 'static,
    ) -> Explored<L::Seen> {
        self.explore_wanted(from_environment(), scene)
            .unwrap_or_else(|broken| panic!("{broken}"))
    }

    fn explore_wanted<L: Ledger>(
        &self,
        wanted: Wanted,
        scene: impl Fn(Schedule, &Shared<L>) + Send + Sync + 'static,
    ) -> Result<Explored<L::Seen>, String> {
        let seeds = match wanted {
            Wanted::Usual => first(self.seeds),
            Wanted::Many(seeds) => first(seeds),
            Wanted::Replay(seed) => seed..=seed,
        };
        let is_replay = matches!(wanted, Wanted::Replay(_));
        let told = format!("seeds {seeds:?}");
        let scene: Arc<Scene<L>> = Arc::new(scene);
        match self.run(seeds, &scene) {
            Ok(seen) => {
                println!("{told}: {seen:?}");
                Ok(Explored { seen, is_replay })
            }
            Err(Broken { seed, what }) => Err(format!(
                "{what}\nthe same again: {SEED}={seed} cargo test --release -p {} schedules",
                self.package
            )),
        }
    }

    /// Runs `scene`, in which a bug was planted, until a promise is broken; says which. The environment changes nothing here, so
    /// that a seed is replayed beside planted bugs that are still caught.
    ///
    /// # Panics
    /// When none of the suite's `seeds_to_catch` shows the bug.
    pub fn catch<L: Ledger>(&self, scene: impl Fn(Schedule, &Shared<L>) + Send + Sync + 'static) -> String {
        let scene: Arc<Scene<L>> = Arc::new(scene);
        match self.run(first(self.seeds_to_catch), &scene) {
            Ok(seen) => panic!("the planted bug was not seen: {seen:?}"),
            Err(Broken { seed, what }) => {
                println!("seed {seed}: {what}");
                what
            }
        }
    }

    fn run<L: Ledger>(&self, seeds: RangeInclusive<u64>, scene: &Arc<Scene<L>>) -> Result<L::Seen, Broken> {
        let found: Arc<Mutex<Found<L::Seen>>> = Arc::default();
        for seed in seeds {
            let free = RandomScheduler::new_from_seed(seed, self.free_per_seed);
            let mut broken = self.run_scheduler(free, seed, scene, &found);
            if broken.is_none() && self.prioritized_per_seed > 0 {
                let prioritized = PctScheduler::new_from_seed(seed, PRIORITY_CHANGES, self.prioritized_per_seed);
                broken = self.run_scheduler(prioritized, seed, scene, &found);
            }
            if let Some(what) = broken {
                return Err(Broken { seed, what });
            }
        }
        let found = std::mem::take(&mut *lock(&found));
        Ok(found.seen)
    }

    /// Runs a scheduler to its end; the first violation, of what a schedule wrote down before it panicked as well.
    fn run_scheduler<L: Ledger>(
        &self,
        scheduler: impl Scheduler + 'static,
        seed: u64,
        scene: &Arc<Scene<L>>,
        found: &Arc<Mutex<Found<L::Seen>>>,
    ) -> Option<String> {
        let mut config = Config::new();
        config.stack_size = self.stack_bytes;
        // Our seeds replay a schedule.
        config.failure_persistence = FailurePersistence::None;
        let (scene, all, schedules) = (Arc::clone(scene), Arc::clone(found), AtomicU64::new(0));
        let present: Arc<Mutex<Shared<L>>> = Arc::default();
        let latest = Arc::clone(&present);
        let schedule = move || {
            let number = schedules.fetch_add(1, Ordering::Relaxed);
            let ledger = Shared::<L>::default();
            *lock(&present) = Arc::clone(&ledger);
            scene(Schedule { seed, number }, &ledger);
            let ledger = std::mem::take(&mut *lock(&ledger));
            let mut all = lock(&all);
            if all.violation.is_none() {
                all.violation = ledger.violations().first().cloned();
            }
            ledger.count(&mut all.seen);
        };
        // A deadlock is a panic of shuttle's.
        let ran = catch_unwind(AssertUnwindSafe(|| Runner::new(scheduler, config).run(schedule)));
        let violation = lock(found).violation.clone();
        if violation.is_some() || ran.is_ok() {
            return violation;
        }
        let ledger = Arc::clone(&lock(&latest));
        let violation = lock(&ledger).violations().first().cloned();
        violation.or_else(|| Some("a thread panics or waits for ever".to_owned()))
    }
}

/// The first so many seeds.
fn first(seeds: u64) -> RangeInclusive<u64> {
    let last = seeds.checked_sub(1).expect("a suite has at least one seed");
    0..=last
}

#[cfg(test)]
mod tests;
