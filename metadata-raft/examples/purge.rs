//! What others notice while a folder with very many entries is removed for good: a job, worked off in bounded commands.
//!
//! `cargo run --release -p metadata-raft --example purge -- [entries]`, by default 100,000. Three replicas with real disks and RocksDB,
//! wired in memory; two users of one group. Prints the other user's commits alone and during the purge; fails when its p99 is above
//! twice what it was. Not here: blocks and stripes (folders have none).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement on the real machine; what cannot be set up ends it"
)]

#[path = "../tests/replicas/drive.rs"]
#[allow(dead_code)]
mod drive;
#[path = "../tests/replicas/world.rs"]
#[allow(dead_code)]
mod world;

use drive::{Drive, GROUP};
use metadata_raft::service::MetadataService;
use model::id::EntryId;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{DriveAsk, DriveQuery};
use protocol::metadata::{Command, Query, QueryAnswer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{Wires, World};

const FACTOR_MAX: f64 = 2.0;
/// Makers of the folder's entries.
const MAKERS: usize = 64;
/// The other user's clients.
const OTHERS: usize = 4;
const JOB: u64 = 77;
const FOLDER: u64 = 1;

fn at(times: &mut [Duration], share: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3
}

/// The other user's commits until `is_over`.
fn others(
    services: &[Arc<MetadataService>],
    drive: Drive,
    next: &Arc<AtomicU64>,
    is_over: &Arc<AtomicBool>,
) -> Vec<tokio::task::JoinHandle<Vec<Duration>>> {
    let write = |_| {
        let (services, next, is_over) = (services.to_vec(), next.clone(), is_over.clone());
        tokio::spawn(async move {
            let (mut times, mut at) = (Vec::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                let command = drive.folder(next.fetch_add(1, Ordering::Relaxed));
                let begun = Instant::now();
                world::propose_anywhere(&services, &mut at, GROUP, &command).await;
                times.push(begun.elapsed());
                // As people do: not as fast as it goes.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            times
        })
    };
    (0..OTHERS).map(write).collect()
}

async fn ended(writers: Vec<tokio::task::JoinHandle<Vec<Duration>>>, is_over: &AtomicBool) -> Vec<Duration> {
    is_over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for writer in writers {
        times.extend(writer.await.unwrap());
    }
    times
}

async fn make(services: &[Arc<MetadataService>], drive: Drive, folder: EntryId, entries: u64) {
    let next = Arc::new(AtomicU64::new(FOLDER + 1));
    let makers: Vec<_> = (0..MAKERS)
        .map(|_| {
            let (services, next) = (services.to_vec(), next.clone());
            tokio::spawn(async move {
                let mut at = 0;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number > FOLDER + entries {
                        return;
                    }
                    let command = drive.folder_in(folder, number);
                    world::propose_anywhere(&services, &mut at, GROUP, &command).await;
                }
            })
        })
        .collect();
    for maker in makers {
        maker.await.unwrap();
    }
}

async fn has_jobs(world: &World, drive: Drive) -> bool {
    let query = Query::Drive(DriveQuery {
        drive: drive.drive,
        principal: None,
        ask: DriveAsk::Waiting,
    });
    match world.query(GROUP, &query).await.unwrap() {
        QueryAnswer::Waiting(waiting) => !waiting.jobs.is_empty(),
        other => panic!("{other:?}"),
    }
}

#[tokio::main]
async fn main() {
    let entries: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(100_000);
    let mut world = World::new(Wires::memory(), 3, 1);
    let all = world.numbers();
    world.start(&all).await;
    world.caught_up(&all).await;
    let (mine, theirs) = (
        Drive::create(&world).await,
        Drive::create_in(&world, GROUP, "eve").await,
    );
    // Leaders spread over the processes first.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let services: Vec<_> = world.services().into_iter().map(|(_, service)| service).collect();
    world::propose_anywhere(&services, &mut 0, GROUP, &mine.folder(FOLDER)).await;
    let folder = EntryId {
        drive: mine.drive,
        number: FOLDER + 1_000,
    };
    make(&services, mine, folder, entries).await;
    let next = Arc::new(AtomicU64::new(1));

    let is_over = Arc::new(AtomicBool::new(false));
    let writers = others(&services, theirs, &next, &is_over);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut alone = ended(writers, &is_over).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let writers = others(&services, theirs, &next, &is_over);
    let purge = Command::Drive(DriveCommand::PurgeEntry {
        principal: mine.principal,
        entry: folder,
        base_revision: None,
        job: JOB,
    });
    let begun = Instant::now();
    world.command(GROUP, None, &purge).await.unwrap();
    let answered = begun.elapsed();
    while has_jobs(&world, mine).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = begun.elapsed();
    let mut during = ended(writers, &is_over).await;

    println!(
        "{entries} entries: the purge answered after {:.1} ms and was done after {:.1} s",
        answered.as_secs_f64() * 1e3,
        took.as_secs_f64()
    );
    for (what, times) in [("alone", &mut alone), ("during the purge", &mut during)] {
        println!(
            "{what:>17}: {:>6} commits  p50 {:>6.2} ms  p99 {:>6.2} ms",
            times.len(),
            at(times, 50),
            at(times, 99)
        );
    }
    let factor = at(&mut during, 99) / at(&mut alone, 99);
    println!("p99 is {factor:.2} times what it was alone");
    for number in all {
        world.stop(number).await;
    }
    assert!(factor <= FACTOR_MAX, "the purge stalls others");
}
