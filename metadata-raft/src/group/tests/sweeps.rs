//! Waiting work and its leaders: it outlives the one that began it, and a snapshot carries it.

use super::installs::{applied, end, purge_all};
use super::{GROUP, Group, Machine, World, info, linearized, voters};
use crate::founding::{founding, user};
use crate::serve::StateApply;
use crate::state::check::check;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::waiting;
use crate::worker::command;
use crate::worker::sweep::SweepWorker;
use crate::worker::tests::{folder, jobs, purge};
use daemon::clock::SystemClock;
use daemon::metrics::Metrics;
use daemon::random::Random;
use daemon::worker::{Next, Worker};
use model::id::EntryId;
use protocol::metadata::Command;
use std::sync::Arc;

const FOLDER: u64 = 100;
const ENTRIES: u64 = 170;

async fn start(world: &mut World, id: u64) -> Arc<Group> {
    let mut parts = world.parts(id).unwrap();
    parts.apply = Arc::new(StateApply::new(GROUP, Arc::default()));
    let group = Group::start(parts).await.unwrap();
    world.run(group)
}

async fn run(group: &Group, what: Command) {
    command(group, &SystemClock::new(), what).await.unwrap();
}

fn sweeper(group: &Arc<Group>) -> SweepWorker {
    let clock = Arc::new(SystemClock::new());
    SweepWorker::new(GROUP, Arc::clone(group), clock, Random::system(), Metrics::new())
}

/// Three replicas, and a job that its leader has begun.
async fn begun() -> (World, Arc<Group>) {
    let mut world = World::new(3);
    for id in 1..=3 {
        start(&mut world, id).await;
    }
    world.replica(1).bootstrap(voters(3)).await.unwrap();
    let leader = linearized(&world).await;
    let (owner, drive) = user("ada");
    for command in founding("ada") {
        run(&leader, command).await;
    }
    let above = EntryId { drive, number: FOLDER };
    run(&leader, folder(owner, drive.root(), FOLDER)).await;
    for number in FOLDER + 1..=FOLDER + ENTRIES {
        run(&leader, folder(owner, above, number)).await;
    }
    run(&leader, purge(owner, above)).await;
    assert_eq!(sweeper(&leader).step().await.unwrap(), Next::Now);
    assert_eq!(jobs(&leader, drive).await, [SWEEP_OPERATIONS_MAX as u64]);
    (world, leader)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_left_by_a_killed_leader_goes_on_at_the_next_one() {
    let (mut world, leader) = begun().await;
    end(&mut world, leader.replica.0, true).await;
    let next = linearized(&world).await;
    let (_, drive) = user("ada");
    assert_eq!(
        jobs(&next, drive).await,
        [SWEEP_OPERATIONS_MAX as u64],
        "nothing is done twice"
    );
    let mut worker = sweeper(&next);
    while worker.step().await.unwrap() == Next::Now {}
    assert!(jobs(&next, drive).await.is_empty());
    assert_eq!(next.read(check).unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_carries_what_waits() {
    let (mut world, leader) = begun().await;
    let last = purge_all(&leader).await;
    world.machines.insert(4, Machine::empty());
    let fed = start(&mut world, 4).await;
    leader.raft.add_learner(4, info(), false).await.unwrap();
    applied(&fed, last).await;
    let queue = |group: &Group| group.read(|kv| waiting::queue(kv, None, 10)).unwrap();
    assert_eq!(queue(&fed).due.len(), 1);
    assert_eq!(queue(&fed), queue(&leader));
    assert_eq!(fed.read(check).unwrap(), Vec::<String>::new());
}
