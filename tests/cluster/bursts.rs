//! Ten times as many events at once: followers are told all of them, later; nobody loses one, and no queue grows with the burst.
//!
//! What buffers is the log itself: a gateway that notifies is told how far each feed has come, not what changed, and reads pages of it
//! as fast as its followers take them.
//! Not here: followers while processes die (`followers`), many notifiers (`notifiers`).

use crate::child_processes::url;
use crate::crowd::resident_bytes;
use crate::notifiers::all_wait;
use crate::world::World;
use api::file_batch::{BatchFile, FileResult};
use bytes::Bytes;
use chaos::{meter, process_attack};
use client_sdk::client::Client;
use futures_util::future::join_all;
use std::time::Duration;

const FOLLOWERS: usize = 10;
/// Events that come one after the other.
const STEADY: usize = 200;
/// Ten times as many, by batches that are sent at once.
const BATCHES: usize = 4;
const BATCH: usize = 500;
const _: () = assert!(BATCHES * BATCH == 10 * STEADY);
/// What the process that notifies may hold more after the burst than before: pages of a hundred changes for each follower, and what
/// the allocator keeps of them. A guess; all events of the burst for every follower would be ten times that.
const GROWTH_BYTES_MAX: u64 = 32 << 20;
const WAIT: Duration = Duration::from_secs(60);

/// A follower and what it knows.
struct Follower {
    notifier: Client,
    cursor: String,
    told: Vec<String>,
    polls: usize,
}

impl Follower {
    /// Follows until so many changes are told in all, each once and in order.
    async fn follow(&mut self, changes: usize) {
        while self.told.len() < changes {
            let answer = self.notifier.poll(&self.cursor, WAIT).await.unwrap();
            self.polls += 1;
            for event in &answer.events {
                let name = event.entry.as_ref().unwrap().name.clone();
                self.told.push(name);
                assert_eq!(event.sequence, self.told.len() as u64, "a change is missing or doubled");
            }
            self.cursor = answer.cursor;
        }
    }
}

/// Files of one batch, and their names.
async fn write_batch(client: &Client, batch: usize) {
    let files: Vec<(BatchFile, Bytes)> = (0..BATCH)
        .map(|number| {
            let file = BatchFile {
                path: Some(format!("/burst-{batch}-{number:03}")),
                ..BatchFile::default()
            };
            (file, Bytes::from_static(b"event"))
        })
        .collect();
    let results = client.create_batch(&files, false).await.unwrap();
    let is_stored = |result: &FileResult| matches!(result, FileResult::Stored(_));
    assert!(results.iter().all(is_stored), "{results:?}");
}

/// How many waited for a change and were told, as the histogram of their lag says.
async fn lags(notifier: &Client) -> f64 {
    let page = notifier.text("/metrics").await.unwrap();
    meter::sum(&page, "gateway_poll_lag_seconds_count").unwrap_or(0.0)
}

/// shows: CMP-queue
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_events_at_once_reach_every_follower_and_memory_stays_as_it_was() {
    let functions = ["--functions", "api,block", "--functions", "notify"];
    let options = [&["--processes", "--groups", "1", "--gateways", "2"][..], &functions].concat();
    let world = World::start_with(&options).await;
    let (ada, _) = world.user("ada", 1 << 30).await;
    let notifier = Client::new(&url(&world, 2)).unwrap().with_token(ada.token().unwrap());
    let pid = process_attack::process(&world.cluster, "gateway-2")
        .unwrap()
        .pid
        .unwrap();
    let start = ada.changes(None, 1, false).await.unwrap().cursor;
    let mut followers: Vec<Follower> = (0..FOLLOWERS)
        .map(|_| Follower {
            notifier: notifier.clone(),
            cursor: start.clone(),
            told: Vec::new(),
            polls: 0,
        })
        .collect();

    let steady = async {
        all_wait(&[&notifier], FOLLOWERS as f64).await;
        for number in 0..STEADY {
            ada.make_folder(&format!("/steady-{number:03}")).await.unwrap();
        }
    };
    tokio::join!(
        join_all(followers.iter_mut().map(|follower| follower.follow(STEADY))),
        steady
    );
    let (before, lags_before) = (resident_bytes(pid), lags(&notifier).await);
    assert!(lags_before > 0.0, "nobody waited for any of them");

    let burst = async {
        all_wait(&[&notifier], FOLLOWERS as f64).await;
        join_all((0..BATCHES).map(|batch| write_batch(&ada, batch))).await
    };
    let all = STEADY + BATCHES * BATCH;
    tokio::join!(
        join_all(followers.iter_mut().map(|follower| follower.follow(all))),
        burst
    );
    let growth = resident_bytes(pid).saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes more");
    assert!(lags(&notifier).await > lags_before, "nobody waited for the burst");

    let mut expected: Vec<String> = (0..STEADY).map(|number| format!("steady-{number:03}")).collect();
    let names = |batch: usize| (0..BATCH).map(move |number| format!("burst-{batch}-{number:03}"));
    expected.extend((0..BATCHES).flat_map(names));
    expected.sort();
    for mut follower in followers {
        assert_eq!(follower.told[0], "steady-000");
        assert!(
            follower.polls >= all / 100,
            "{} polls: a page has a hundred",
            follower.polls
        );
        follower.told.sort();
        assert!(follower.told == expected, "not what was committed");
    }
}
