//! Every order of a few steps of writers, collection and repacking: stateright searches all states that they lead to.
//!
//! A state is a world over the real state machine, known by a hash of all that matters for what comes; the search goes breadth first on
//! one thread, so that each is reached by as few steps as can be.
//! Invariants: in every state each block of each file lies in a stripe that every disk holds, the state's counts equal a recount, and
//! two graces in which nobody writes leave nothing on the disks that nobody has.
//! The last one is looked at in every state, by bringing a copy of it to rest: stateright's `eventually` passes over each path that
//! comes upon a state which another path came upon before, and nearly all do here.
//! Each search names the cases that it must have met; one that meets nothing shows nothing.
//! Not here: the steps themselves, and random ones (`collection_model`).

use super::{BLOCKS, DISKS, GRACE_MS, Pending, Step, World, blocks, check, found, repackable};
use bytes::Bytes;
use model::digest::Digest;
use model::entry::BlockRow;
use model::stripe::StripeId;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

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

/// A world, and by how many steps it was reached first: two of one name are the same state, whatever led there.
struct Reached {
    world: World,
    steps: usize,
    /// What the disks held when all began.
    old: BTreeSet<StripeId>,
}

impl Reached {
    fn is_old(&self, stripe: &StripeId) -> bool {
        self.old.contains(stripe)
    }

    /// What two graces without writers leave.
    fn leaked(&self) -> Option<String> {
        self.world.fork().leaked()
    }

    /// What is wrong here, in words.
    fn fault(&self) -> Option<String> {
        self.world.lost_or_unsound().or_else(|| self.leaked())
    }
}

impl Clone for Reached {
    fn clone(&self) -> Self {
        Self {
            world: self.world.fork(),
            steps: self.steps,
            old: self.old.clone(),
        }
    }
}

impl Hash for Reached {
    fn hash<H: Hasher>(&self, state: &mut H) {
        name(&self.world).hash(state);
    }
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        name(&self.world) == name(&other.world)
    }
}

type Judge = fn(&Orders, &Reached) -> bool;

/// Every order of at most `depth` of `steps`.
struct Orders {
    begun: fn() -> World,
    steps: Vec<Step>,
    depth: usize,
    ages_max: usize,
    properties: fn() -> Vec<Property<Orders>>,
}

impl Orders {
    /// One file, one open question and a few of the rest are enough of each.
    fn is_enough(&self, world: &World, step: Step) -> bool {
        match step {
            Step::Ask { .. } => !world.pending.is_empty() || world.files.contains_key(&1),
            Step::Age { .. } => world.ages >= self.ages_max,
            Step::Gather => world.gathered.len() >= GATHERED_MAX,
            _ => false,
        }
    }
}

impl Model for Orders {
    type State = Reached;
    type Action = Step;

    fn init_states(&self) -> Vec<Reached> {
        let world = (self.begun)();
        let old = world.stored.keys().copied().collect();
        vec![Reached { world, steps: 0, old }]
    }

    fn actions(&self, reached: &Reached, actions: &mut Vec<Step>) {
        // Here rather than by `target_max_depth`, which would take every step of the last states only to throw away what comes. Where
        // something is lost nothing goes on: steps may expect what is gone.
        if reached.steps < self.depth && reached.world.lost().is_none() {
            let steps = self.steps.iter().copied();
            actions.extend(steps.filter(|step| !self.is_enough(&reached.world, *step)));
        }
    }

    fn next_state(&self, reached: &Reached, step: Step) -> Option<Reached> {
        let mut next = reached.clone();
        next.world.step(step);
        next.world.ages += usize::from(matches!(step, Step::Age { .. }));
        next.steps += 1;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        (self.properties)()
    }
}

fn every_file_is_whole() -> Property<Orders> {
    let holds: Judge = |_, reached| reached.world.lost().is_none();
    Property::always("every file is whole", holds)
}

fn every_count_is_right() -> Property<Orders> {
    let holds: Judge = |_, reached| check(&reached.world.bench.kv).unwrap().is_empty();
    Property::always("every count equals a recount", holds)
}

fn every_file_is_whole_and_counted() -> Property<Orders> {
    let holds: Judge = |_, reached| reached.world.lost_or_unsound().is_none();
    Property::always("every file is whole and counted", holds)
}

fn space_comes_back() -> Property<Orders> {
    let holds: Judge = |_, reached| reached.leaked().is_none();
    Property::always("space comes back", holds)
}

fn case(name: &'static str, is_met: Judge) -> Property<Orders> {
    Property::sometimes(name, is_met)
}

fn of_writers() -> Vec<Property<Orders>> {
    vec![
        every_file_is_whole(),
        every_count_is_right(),
        space_comes_back(),
        case("an answer is out of date", |_, reached| {
            reached.world.pending.iter().any(|(pending, _)| {
                let known = (0..BLOCKS).filter(|at| pending.mask >> at & 1 == 1 && !pending.new.contains(at));
                found(&reached.world.bench, &blocks(pending.mask)).len() < known.count()
            })
        }),
        case("one disk holds what another has removed", |_, reached| {
            let mut stored = reached.world.stored.values();
            stored.any(|disks| disks.len() < DISKS.len())
        }),
        // That the removal came first is seen before the commit alone: behind it all looks as if the writer had been first.
        case("a writer is about to take up what was removed", |orders, reached| {
            let world = &reached.world;
            let is_removed = world.files.is_empty() && !world.released().is_empty();
            let is_known = world.pending.iter().any(|(pending, _)| pending.new.is_empty());
            reached.steps < orders.depth && is_removed && is_known
        }),
        case("a writer has what another one wrote", |_, reached| {
            let world = &reached.world;
            world.files.keys().eq([&1_u8]) && world.stored.keys().all(|stripe| reached.is_old(stripe))
        }),
        case("a writer wrote anew what was removed", |_, reached| {
            let world = &reached.world;
            world.files.contains_key(&1) && world.stored.keys().any(|stripe| !reached.is_old(stripe))
        }),
        case("nothing is left", |_, reached| {
            reached.world.files.is_empty() && reached.world.stored.is_empty()
        }),
    ]
}

fn of_repacking() -> Vec<Property<Orders>> {
    vec![
        every_file_is_whole(),
        every_count_is_right(),
        space_comes_back(),
        case("two gathered the same blocks", |_, reached| {
            let gathered = &reached.world.gathered;
            gathered.len() == 2 && gathered[0].from == gathered[1].from
        }),
        case("a file left its stripe", |_, reached| {
            let world = &reached.world;
            world.files.contains_key(&0) && !world.stored.keys().any(|stripe| reached.is_old(stripe))
        }),
        case("what was gathered is nobody's", |_, reached| {
            reached.world.gathered.iter().any(|gathered| {
                let rows: Vec<BlockRow> = gathered.stripe.blocks.iter().map(|block| block.row).collect();
                found(&reached.world.bench, &rows).is_empty()
            })
        }),
        case("what was gathered went as an orphan", |_, reached| {
            let mut gathered = reached.world.gathered.iter();
            gathered.any(|gathered| !reached.world.stored.contains_key(&gathered.stripe.id))
        }),
    ]
}

/// Of writers and collection.
fn of_collection(steps: &[Step], properties: fn() -> Vec<Property<Orders>>) -> Orders {
    Orders {
        begun: one_file,
        steps: steps.to_vec(),
        depth: DEPTH,
        ages_max: usize::MAX,
        properties,
    }
}

/// Of a writer, collection and repacking.
fn of_gatherers(steps: &[Step], properties: fn() -> Vec<Property<Orders>>) -> Orders {
    Orders {
        begun: one_thin_stripe,
        steps: steps.to_vec(),
        depth: DEPTH_OF_REPACKING,
        ages_max: 1,
        properties,
    }
}

/// What a search came upon.
struct Searched {
    states: usize,
    /// What must never be and is, each with the steps to it.
    faults: Vec<String>,
    /// Cases that should have been met.
    unmet: Vec<&'static str>,
}

fn search(orders: Orders) -> Searched {
    // Without a fault it ends with the last state: what is `always` so far is never decided before.
    let search = orders.checker().finish_when(HasDiscoveries::AnyFailures);
    let checked = search.spawn_bfs().join();
    let (mut faults, mut unmet) = (Vec::new(), Vec::new());
    for property in checked.model().properties() {
        match (property.expectation, checked.discovery(property.name)) {
            (Expectation::Sometimes, None) => unmet.push(property.name),
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                let fault = path.last_state().fault();
                let steps = path.into_actions();
                faults.push(format!("not {}: {fault:?} after {steps:?}", property.name));
            }
            _ => {}
        }
    }
    Searched {
        states: checked.unique_state_count(),
        faults,
        unmet,
    }
}

fn holds(orders: Orders) {
    let searched = search(orders);
    println!("{} states", searched.states);
    assert_eq!(searched.faults, Vec::<String>::new());
    assert_eq!(searched.unmet, Vec::<&str>::new(), "the search did not meet them");
    let states = searched.states;
    assert!(states > 500, "{states} states are too few to show anything");
}

/// The fault that a planted bug was seen by: a search with one property ends with the first state that breaks it.
fn caught(orders: Orders) -> String {
    let faults = search(orders).faults;
    let fault = faults.into_iter().next().expect("the planted bug is not caught");
    println!("{fault}");
    fault
}

/// shows: F34
#[test]
fn no_order_of_writers_and_collection_loses_a_block() {
    holds(of_collection(&EVERY_ORDER, of_writers));
}

#[test]
fn a_reaper_that_does_not_look_at_the_count_again_is_caught() {
    let mut steps = EVERY_ORDER.to_vec();
    steps.retain(|step| *step != Step::Reap);
    steps.extend([Step::CarelessLook, Step::CarelessTake]);
    let lost = caught(of_collection(&steps, || vec![every_file_is_whole()]));
    assert!(lost.contains("does not read") || lost.contains("removed"), "{lost}");
}

#[test]
fn a_reaper_that_forgets_the_blocks_of_a_page_is_caught() {
    let mut steps = EVERY_ORDER.to_vec();
    steps.push(Step::ForgetfulReap);
    let leaked = caught(of_collection(&steps, || vec![space_comes_back()]));
    assert!(leaked.contains("ForgetfulReap"), "{leaked}");
}

#[test]
fn no_order_of_a_writer_collection_and_repacking_loses_a_block_or_a_count() {
    holds(of_gatherers(&EVERY_ORDER_OF_REPACKING, of_repacking));
}

#[test]
fn a_switch_that_does_not_look_where_a_block_lies_is_caught() {
    let mut steps = EVERY_ORDER_OF_REPACKING.to_vec();
    steps.push(Step::CarelessSwitch);
    let lost = caught(of_gatherers(&steps, || vec![every_file_is_whole_and_counted()]));
    assert!(lost.contains("living bytes"), "{lost}");
}
