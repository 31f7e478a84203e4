//! Queues of work on stripes: what is degraded and waits for repair, what is dead and waits for removal, and which disks must still be
//! told of a removal.
//!
//! The naive twin is a set for each queue. Invariants: after every command each queue lists exactly what its set does, so nothing is
//! dropped; what was deleted leaves all of them by itself, so nothing is tried for ever.
//! Not here: who works on the queues (the gateway's collector; repair, later), blocks that stripes share (`collection_model`).

use super::collection::{CLOSED_MS, GRACE_MS, collection, forget, forget_untold, sweep_blocks, take_lease};
use super::{Bench, PROFILE, code, row};
use model::id::{DiskId, EntryId, RowVersion};
use model::stripe::{Astray, StripeId};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeSet;

const LEASE: u64 = 9;
/// Away now and then when stripes are removed.
const DISK: DiskId = DiskId(3);
const LISTED: u16 = 200;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A file in a stripe of its own.
    Put {
        is_degraded: bool,
    },
    Purge {
        at: usize,
    },
    Age {
        ms: u64,
    },
    /// Pages and blocks that nobody names go.
    Die,
    Collect {
        is_away: bool,
    },
    /// Tells the disk of one removal.
    TellOne,
    Repair,
    /// A repair that was begun before its stripe was removed.
    RepairGone,
}

struct World {
    bench: Bench,
    files: Vec<EntryId>,
    put: usize,
    known: BTreeSet<StripeId>,
    degraded: BTreeSet<StripeId>,
    untold: BTreeSet<StripeId>,
    forgotten: Vec<StripeId>,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new(1 << 30);
        take_lease(&mut bench, 1, LEASE).unwrap();
        Self {
            bench,
            files: Vec::new(),
            put: 0,
            known: BTreeSet::new(),
            degraded: BTreeSet::new(),
            untold: BTreeSet::new(),
            forgotten: Vec::new(),
        }
    }

    fn put(&mut self, is_degraded: bool) {
        self.put += 1;
        let rows = [row(&format!("queued {}", self.put), 10)];
        let mut content = self.bench.content(&rows, &rows);
        let stripe = content.stripes[0].id;
        if is_degraded {
            // Missing, or outside of the row.
            let disk = self.put.is_multiple_of(2).then_some(DiskId(9));
            content.stripes[0].astray = vec![Astray { index: 2, disk }];
            self.degraded.insert(stripe);
        }
        let path = format!("/queued-{}", self.put);
        let committed = self.bench.commit(&path, None, content).unwrap();
        self.files.push(committed.view.entry.id);
        self.known.insert(stripe);
    }

    fn purge(&mut self, at: usize) {
        if !self.files.is_empty() {
            let entry = self.files.remove(at % self.files.len());
            self.bench.purge(entry).unwrap();
        }
    }

    fn die(&mut self) {
        self.bench.reap();
        while !sweep_blocks(&mut self.bench).is_done {}
    }

    fn collect(&mut self, is_away: bool) {
        let removable = collection(&self.bench).removable;
        let untold = if is_away { vec![DISK] } else { Vec::new() };
        let names: Vec<(StripeId, Vec<DiskId>)> = removable.iter().map(|facts| (facts.id, untold.clone())).collect();
        if names.is_empty() {
            return;
        }
        forget(&mut self.bench, LEASE, &names).unwrap();
        for (stripe, _) in names {
            assert!(self.known.remove(&stripe), "{stripe} was named twice");
            self.degraded.remove(&stripe);
            self.forgotten.push(stripe);
            if is_away {
                self.untold.insert(stripe);
            }
        }
    }

    fn tell_one(&mut self) {
        let told = collection(&self.bench).untold;
        if let Some((disk, stripes)) = told.first() {
            let first = stripes[0];
            forget_untold(&mut self.bench, LEASE, *disk, vec![first]);
            assert!(self.untold.remove(&first.1), "{} was told before", first.1);
        }
    }

    fn set_whole(&mut self, stripe: StripeId) -> Result<(), Failure> {
        let set = UploadCommand::SetStripe {
            drive: self.bench.drive,
            profile: PROFILE,
            stripe,
            row_version: RowVersion(1),
            astray: Vec::new(),
            is_damaged: false,
        };
        self.bench.run(Command::Upload(set)).map(drop)
    }

    /// The queue of degraded stripes, in its order.
    fn queued(&self) -> Vec<StripeId> {
        match self.bench.ask_as(None, DriveAsk::DegradedStripes { limit: LISTED }) {
            Ok(QueryAnswer::Stripes(stripes)) => stripes.iter().map(|facts| facts.id).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put { is_degraded } => self.put(is_degraded),
            Step::Purge { at } => self.purge(at),
            Step::Age { ms } => self.bench.advance(ms),
            Step::Die => self.die(),
            Step::Collect { is_away } => self.collect(is_away),
            Step::TellOne => self.tell_one(),
            Step::Repair => {
                if let Some(stripe) = self.queued().first().copied() {
                    self.set_whole(stripe).unwrap();
                    self.degraded.remove(&stripe);
                }
            }
            Step::RepairGone => {
                if let Some(stripe) = self.forgotten.last().copied() {
                    assert_eq!(code(self.set_whole(stripe)), "stripe_not_found");
                }
            }
        }
    }

    /// Asserts that each queue lists what its set does, each once.
    fn agrees(&self) {
        let queued = self.queued();
        assert_eq!(queued.len(), self.degraded.len());
        assert_eq!(queued.into_iter().collect::<BTreeSet<_>>(), self.degraded);
        let collection = collection(&self.bench);
        let untold = collection.untold.iter().flat_map(|(_, stripes)| stripes);
        let untold: Vec<StripeId> = untold.map(|(_, stripe)| *stripe).collect();
        assert_eq!(untold.len(), self.untold.len());
        assert_eq!(untold.into_iter().collect::<BTreeSet<_>>(), self.untold);
        assert!(collection.removable.iter().all(|facts| self.known.contains(&facts.id)));
        self.bench.sound();
    }

    /// All is deleted, and the disk comes back: nothing is left to do after two graces.
    fn ends(&mut self) {
        while !self.files.is_empty() {
            self.purge(0);
        }
        for _ in 0..2 {
            self.bench.advance(GRACE_MS.max(CLOSED_MS));
            self.die();
        }
        self.bench.advance(CLOSED_MS);
        // Each turn takes something away, or this does not end.
        while !collection(&self.bench).removable.is_empty() {
            self.collect(false);
        }
        while !self.untold.is_empty() {
            self.tell_one();
        }
        self.agrees();
        assert_eq!((self.degraded.len(), self.known.len()), (0, 0));
        match self.bench.query(&Query::StripeCounts).unwrap() {
            QueryAnswer::StripeCounts(counts) => assert_eq!(counts.total, 0),
            other => panic!("{other:?}"),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => any::<bool>().prop_map(|is_degraded| Step::Put { is_degraded }),
        4 => (0_usize..8).prop_map(|at| Step::Purge { at }),
        4 => (0_u64..70).prop_map(|seconds| Step::Age { ms: seconds * 1_000 }),
        4 => Just(Step::Die),
        4 => any::<bool>().prop_map(|is_away| Step::Collect { is_away }),
        1 => Just(Step::TellOne),
        1 => Just(Step::Repair),
        1 => Just(Step::RepairGone),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 80, failure_persistence: None, ..Config::default() })]

    /// shows: F37 side=queues
    #[test]
    fn queues_drop_nothing_and_end_for_what_was_deleted(steps in proptest::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.agrees();
        }
        world.ends();
    }
}

/// An intent to repair outlives its file by no more than its stripe does.
#[test]
fn a_degraded_stripe_whose_file_was_deleted_is_removed_with_its_place_in_the_queue() {
    let mut world = World::new();
    world.put(true);
    world.put(true);
    world.purge(0);
    world.die();
    world.bench.advance(GRACE_MS.max(CLOSED_MS));
    world.die();
    world.bench.advance(CLOSED_MS);
    world.agrees();
    assert_eq!(world.queued().len(), 2, "it is there, so it is listed");
    world.collect(true);
    world.agrees();
    assert_eq!((world.queued().len(), world.untold.len()), (1, 1));
    // Nothing of it comes back, however often its disk is not reached.
    for _ in 0..3 {
        world.bench.advance(CLOSED_MS);
        world.die();
        world.collect(true);
        world.agrees();
    }
    assert_eq!((world.queued().len(), world.untold.len()), (1, 1));
    world.ends();
}
