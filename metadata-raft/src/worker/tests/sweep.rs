//! The sweeper: what it proposes, when it proposes nothing, and what wakes it.

use super::{Bench, PATIENCE};
use crate::state::check::check;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::worker::sweep::{LEAD_LOOK_EVERY, ROUND, SLEEP_MAX, SLEEP_MIN};
use daemon::shutdown::Shutdown;
use daemon::worker::{Next, Worker, Workers};
use protocol::metadata::Command;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::group::GroupCommand;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_sweeper_with_nothing_to_do_proposes_nothing_and_sleeps_until_something_is_due() {
    let mut bench = Bench::new().await;
    let mut sweeper = bench.sweeper();
    assert_eq!(
        sweeper.step().await.unwrap(),
        Next::Together(LEAD_LOOK_EVERY),
        "it follows"
    );
    bench.found().await;
    let before = bench.group.applied_index();
    for _ in 0..3 {
        assert_eq!(sweeper.step().await.unwrap(), Next::After(SLEEP_MAX));
    }
    assert_eq!(bench.group.applied_index(), before);
    // In the trash for thirty days, which is longer than anything sleeps; then a second that the age still lacks.
    let folder = bench.folder(bench.drive.root()).await;
    let trash = DriveCommand::TrashEntry {
        principal: bench.owner,
        entry: folder,
        base_revision: None,
    };
    bench.run(Command::Drive(trash)).await;
    let before = bench.group.applied_index();
    assert_eq!(sweeper.step().await.unwrap(), Next::After(SLEEP_MAX));
    assert_eq!(bench.group.applied_index(), before);
    let mut led_ms = 0;
    let thirty_days_ms = 30 * 24 * 3_600_000;
    while led_ms < thirty_days_ms - 30_000 {
        led_ms = (led_ms + 60_000).min(thirty_days_ms - 30_000);
        bench
            .run(Command::Group(GroupCommand::Advance { term: 1, led_ms }))
            .await;
    }
    assert_eq!(sweeper.step().await.unwrap(), Next::After(Duration::from_secs(30)));
    led_ms = thirty_days_ms - 1;
    bench
        .run(Command::Group(GroupCommand::Advance { term: 1, led_ms }))
        .await;
    assert_eq!(sweeper.step().await.unwrap(), Next::After(SLEEP_MIN));
    led_ms += 1;
    bench
        .run(Command::Group(GroupCommand::Advance { term: 1, led_ms }))
        .await;
    assert_eq!(sweeper.step().await.unwrap(), Next::Now);
    assert_eq!(sweeper.step().await.unwrap(), Next::After(SLEEP_MAX));
    assert_eq!(bench.group.read(check).unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_wakes_a_sleeping_sweeper() {
    let mut bench = Bench::new().await;
    bench.found().await;
    // Its clock stands still: nothing but the bell ends its sleep.
    let workers = Workers::new(bench.clock.clone(), Shutdown::new());
    bench.bell.hang(vec![workers.spawn(bench.sweeper())]);
    let is_asleep = || async { bench.clock.sleepers() > 0 };
    let asleep = async {
        while !is_asleep().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asleep).await.unwrap();
    bench.purge(150).await;
    let done = async {
        while !bench.jobs().await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, done).await.unwrap();
    assert_eq!(bench.group.read(check).unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_jobs_each_gets_its_turn() {
    let mut bench = Bench::new().await;
    bench.found().await;
    bench.purge(170).await;
    bench.purge(170).await;
    let mut sweeper = bench.sweeper();
    for _ in 0..4 {
        assert_eq!(sweeper.step().await.unwrap(), Next::Now);
    }
    let twice = 2 * SWEEP_OPERATIONS_MAX as u64;
    assert_eq!(bench.jobs().await, [twice, twice]);
    while sweeper.step().await.unwrap() == Next::Now {}
    assert!(bench.jobs().await.is_empty());
    assert_eq!(bench.group.read(check).unwrap(), Vec::<String>::new());
}

/// Else whoever goes on making work would keep from its next command what was there before.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_later_waits_until_what_goes_on_had_its_next_turn() {
    let mut bench = Bench::new().await;
    bench.found().await;
    let advance = |led_ms| Command::Group(GroupCommand::Advance { term: 1, led_ms });
    bench.run(advance(1_000)).await;
    bench.purge(170).await;
    for _ in 1..ROUND {
        bench.purge(1).await;
    }
    let mut sweeper = bench.sweeper();
    assert_eq!(sweeper.step().await.unwrap(), Next::Now);
    bench.run(advance(2_000)).await;
    for _ in 0..ROUND {
        bench.purge(1).await;
    }
    // The rest of the turn, its end, and the first of the next one.
    for _ in 1..ROUND + 2 {
        assert_eq!(sweeper.step().await.unwrap(), Next::Now);
    }
    let mut wanted = [0; ROUND + 1];
    wanted[0] = 2 * SWEEP_OPERATIONS_MAX as u64;
    assert_eq!(bench.jobs().await, wanted);
    while sweeper.step().await.unwrap() == Next::Now {}
    assert!(bench.jobs().await.is_empty());
    assert_eq!(bench.group.read(check).unwrap(), Vec::<String>::new());
}
