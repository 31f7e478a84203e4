//! Age commands: one a step while something happens, few while nothing does, and never more time than has passed.

use super::{Bench, GROUP};
use crate::group::Group;
use crate::worker::age::{AgeWorker, IDLE_STEPS};
use daemon::worker::{Next, Worker};
use protocol::metadata::{Query, QueryAnswer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

async fn counter_ms(group: &Arc<Group>) -> u64 {
    match crate::worker::query(group, &Query::Group).await.unwrap() {
        QueryAnswer::Group(state) => state.counter_ms,
        other => panic!("{other:?}"),
    }
}

/// Lets a step's time pass and steps; answers the commands.
async fn step(bench: &Bench, worker: &mut AgeWorker) -> u64 {
    let before = bench.group.applied_index();
    bench.clock.advance(EVERY);
    assert_eq!(worker.step().await.unwrap(), Next::After(EVERY));
    bench.group.applied_index().unwrap() - before.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_group_is_told_its_age_seldom_and_a_busy_one_each_step() {
    let mut bench = Bench::new().await;
    bench.found().await;
    let mut worker = AgeWorker::new(
        BTreeMap::from([(GROUP, bench.group.clone())]),
        bench.clock.clone(),
        EVERY,
    );
    // The first step only begins to count.
    assert_eq!(worker.step().await.unwrap(), Next::After(EVERY));
    let mut steps = 0;
    for _ in 0..5 {
        bench.folder(bench.drive.root()).await;
        assert_eq!(step(&bench, &mut worker).await, 1, "a command since the last step");
        steps += 1;
        assert_eq!(counter_ms(&bench.group).await, 1_000 * steps);
    }
    let mut commands = 0;
    for _ in 0..10 * IDLE_STEPS {
        commands += step(&bench, &mut worker).await;
        steps += 1;
        let behind_ms = 1_000 * steps - counter_ms(&bench.group).await;
        assert!(behind_ms < 1_000 * u64::from(IDLE_STEPS), "{behind_ms} ms behind");
    }
    assert_eq!(commands, 10);
    // Whoever comes back finds the time right a step later, and no time is lost.
    step(&bench, &mut worker).await;
    bench.folder(bench.drive.root()).await;
    step(&bench, &mut worker).await;
    assert_eq!(counter_ms(&bench.group).await, 1_000 * (steps + 2));
}
