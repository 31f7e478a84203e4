//! Every order of a few steps of writers, collection and repacking, by a search of all states that they lead to.
//!
//! Not here: the steps themselves, and random ones (`collection_model`).

use super::{DISKS, GRACE_MS, Pending, Step, World, repackable};
use bytes::Bytes;
use model::digest::Digest;
use model::stripe::StripeId;
use std::collections::BTreeSet;

/// Two writers, who write what the other removes, against every worker of collection.
const EVERY_ORDER: [Step; 9] = [
    Step::Ask { file: 1, mask: 0b011 },
    Step::Finish,
    Step::Purge { file: 0 },
    Step::Purge { file: 1 },
    Step::Age { ms: GRACE_MS },
    Step::Reap,
    Step::Die,
    Step::Collect {
        is_away: true,
        is_cut: true,
    },
    Step::Collect {
        is_away: false,
        is_cut: false,
    },
];
const DEPTH: usize = 11;

/// The worker of repacking against a writer, removal and itself.
const EVERY_ORDER_OF_REPACKING: [Step; 11] = [
    Step::Ask { file: 1, mask: 0b011 },
    Step::Finish,
    Step::Purge { file: 0 },
    Step::Age { ms: GRACE_MS },
    Step::Reap,
    Step::Die,
    Step::Collect {
        is_away: false,
        is_cut: false,
    },
    Step::Orphans,
    Step::Gather,
    Step::Switch { is_newest: false },
    Step::Switch { is_newest: true },
];
const DEPTH_OF_REPACKING: usize = 7;
/// Two of them read the same.
const GATHERED_MAX: usize = 2;

/// A world by everything that matters for what comes: rows, whole stripes, open questions, pages seen by a careless reaper, new stripes
/// of repacking.
type Name = (
    Vec<(Bytes, Bytes)>,
    Vec<StripeId>,
    Vec<Pending>,
    Vec<Digest>,
    Vec<StripeId>,
);

fn name(world: &World) -> Name {
    let stored = world.stored.iter().filter(|(_, disks)| disks.len() == DISKS.len());
    (
        world.bench.everything(),
        stored.map(|(stripe, _)| *stripe).collect(),
        world.pending.iter().map(|(pending, _)| pending.clone()).collect(),
        world.looked.clone(),
        world.gathered.iter().map(|gathered| gathered.stripe.id).collect(),
    )
}

/// A file of two blocks.
fn one_file() -> World {
    let mut world = World::new();
    world.step(Step::Ask { file: 0, mask: 0b011 });
    world.step(Step::Finish);
    world
}

/// A file of the one living block of a stripe that had three.
fn one_thin_stripe() -> World {
    let mut world = World::new();
    for step in [
        Step::Ask { file: 2, mask: 0b111 },
        Step::Finish,
        Step::Ask { file: 0, mask: 0b001 },
        Step::Finish,
        Step::Purge { file: 2 },
        Step::Reap,
        Step::Age { ms: GRACE_MS },
        Step::Die,
    ] {
        world.step(step);
    }
    assert_eq!(repackable(&world.bench, None).stripes.len(), 1);
    world
}

/// Every order of at most `depth` of `steps`.
struct Search<'a> {
    steps: &'a [Step],
    depth: usize,
    ages_max: usize,
    judge: fn(&World) -> Option<String>,
}

impl Search<'_> {
    /// One file, one open question and a few of the rest are enough of each.
    fn is_enough(&self, world: &World, step: Step) -> bool {
        match step {
            Step::Ask { .. } => !world.pending.is_empty() || world.files.contains_key(&1),
            Step::Age { .. } => world.ages >= self.ages_max,
            Step::Gather => world.gathered.len() >= GATHERED_MAX,
            _ => false,
        }
    }

    /// The first loss, and how many states there are.
    fn explore(&self, begun: World) -> (Option<String>, usize) {
        let mut seen = BTreeSet::from([name(&begun)]);
        let mut front = vec![begun];
        for _ in 0..self.depth {
            let mut next = Vec::new();
            for world in front {
                for step in self.steps {
                    if self.is_enough(&world, *step) {
                        continue;
                    }
                    let mut world = world.fork();
                    world.step(*step);
                    world.ages += usize::from(matches!(step, Step::Age { .. }));
                    if !seen.insert(name(&world)) {
                        continue;
                    }
                    if let Some(lost) = (self.judge)(&world) {
                        return (Some(lost), seen.len());
                    }
                    next.push(world);
                }
            }
            front = next;
        }
        (None, seen.len())
    }
}

/// Of writers and collection.
fn explore(steps: &[Step]) -> (Option<String>, usize) {
    let search = Search {
        steps,
        depth: DEPTH,
        ages_max: usize::MAX,
        judge: World::lost,
    };
    search.explore(one_file())
}

/// Of a writer, collection and repacking.
fn explore_repacking(steps: &[Step]) -> (Option<String>, usize) {
    let search = Search {
        steps,
        depth: DEPTH_OF_REPACKING,
        ages_max: 1,
        judge: World::lost_or_unsound,
    };
    search.explore(one_thin_stripe())
}

/// shows: F34
#[test]
fn no_order_of_writers_and_collection_loses_a_block() {
    let (lost, states) = explore(&EVERY_ORDER);
    assert_eq!(lost, None);
    assert!(states > 500, "{states} states are too few to show anything");
}

#[test]
fn a_reaper_that_does_not_look_at_the_count_again_is_caught() {
    let mut steps = EVERY_ORDER.to_vec();
    steps.retain(|step| *step != Step::Reap);
    steps.extend([Step::CarelessLook, Step::CarelessTake]);
    let (lost, _) = explore(&steps);
    let lost = lost.expect("the planted bug is not caught");
    assert!(lost.contains("does not read") || lost.contains("removed"), "{lost}");
}

#[test]
fn no_order_of_a_writer_collection_and_repacking_loses_a_block_or_a_count() {
    let (lost, states) = explore_repacking(&EVERY_ORDER_OF_REPACKING);
    assert_eq!(lost, None);
    assert!(states > 500, "{states} states are too few to show anything");
}

#[test]
fn a_switch_that_does_not_look_where_a_block_lies_is_caught() {
    let mut steps = EVERY_ORDER_OF_REPACKING.to_vec();
    steps.push(Step::CarelessSwitch);
    let (lost, _) = explore_repacking(&steps);
    let lost = lost.expect("the planted bug is not caught");
    assert!(lost.contains("living bytes"), "{lost}");
}
