//! What others notice while a folder with very many entries is removed for good: a job, worked off in bounded commands.
//!
//! `make purge`, with fewer than 1,000,000 entries by `ARGS=entries`. Three replicas with real disks and RocksDB, wired in memory;
//! two users of one group. One of four entries is a file with a page of blocks in a stripe, the others are folders. The purge lasts
//! until no page holds a reference to a block any more. Prints the other user's commits alone, during the purge and behind it; fails
//! when its p99 during the purge is above twice what it was, when no job was seen at work, and when anything is there or charged
//! afterwards. Its files go with it.
//! Not here: the death of the blocks, a grace later, and of their stripes (`make wide-folder`, `make collection`).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement on the real machine; what cannot be set up ends it"
)]

mod shared;

use model::id::EntryId;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{DriveAsk, DriveQuery, Usage};
use protocol::metadata::{Command, Query, QueryAnswer};
use shared::drive::{Drive, GROUP};
use shared::files::{Epoch, FILE_BYTES, FILE_EVERY};
use shared::folders::Folders;
use shared::measure::{Load, Times, argument};
use shared::world::{Wires, World};
use std::time::{Duration, Instant};

const FACTOR_MAX: f64 = 2.0;
/// Makers of the folder's entries.
const MAKERS: usize = 64;
/// The other user's clients.
const OTHERS: usize = 4;
/// Of which a p99 can be said.
const COMMITS_MIN: usize = 500;
/// As people do: not as fast as it goes.
const PAUSE: Duration = Duration::from_millis(5);
const ALONE: Duration = Duration::from_secs(15);
/// How often the epoch of new stripes is asked for; they may be born some of them ago.
const EPOCH_EVERY: Duration = Duration::from_millis(500);
const JOB: u64 = 77;
const FOLDER: u64 = 1;

async fn refresh(world: &World, drive: Drive, epoch: &Epoch) {
    match world.query(GROUP, &Epoch::query(&drive)).await.unwrap() {
        QueryAnswer::Time(time) => epoch.set(time.birth_epoch),
        other => panic!("{other:?}"),
    }
}

async fn make(world: &World, drive: Drive, folder: EntryId, entries: u64) {
    let epoch = Epoch::default();
    refresh(world, drive, &epoch).await;
    let folders = Folders::new(world, drive, folder, FOLDER + 1).with_files(epoch.clone());
    let load = Load::start(MAKERS, Duration::ZERO, folders.write());
    while folders.made() < FOLDER + entries {
        tokio::time::sleep(EPOCH_EVERY).await;
        refresh(world, drive, &epoch).await;
    }
    let made = load.end().await;
    let held = usage(world, drive).await;
    println!(
        "{} entries made, {:.0} a second, {} of them files with {} bytes",
        made.count(),
        made.rate(),
        held.files,
        held.charged_bytes
    );
    match world.query(GROUP, &drive.page(folder, None)).await.unwrap() {
        QueryAnswer::Listing(listing) => assert!(!listing.entries.is_empty(), "nothing is there to be purged"),
        other => panic!("{other:?}"),
    }
    assert!(held.files >= entries / FILE_EVERY, "too few files: {held:?}");
    assert_eq!(
        held.charged_bytes,
        held.files * FILE_BYTES,
        "the state knows their blocks"
    );
}

fn asked(drive: Drive, ask: DriveAsk) -> Query {
    Query::Drive(DriveQuery {
        drive: drive.drive,
        principal: Some(drive.principal),
        ask,
    })
}

async fn usage(world: &World, drive: Drive) -> Usage {
    match world.query(GROUP, &asked(drive, DriveAsk::Usage)).await.unwrap() {
        QueryAnswer::Usage(usage) => usage,
        other => panic!("{other:?}"),
    }
}

/// Whether something is left to be worked off.
async fn has_work(world: &World, drive: Drive) -> bool {
    let query = Query::Drive(DriveQuery {
        drive: drive.drive,
        principal: None,
        ask: DriveAsk::Waiting,
    });
    match world.query(GROUP, &query).await.unwrap() {
        QueryAnswer::Waiting(waiting) => !waiting.jobs.is_empty() || waiting.has_released_pages,
        other => panic!("{other:?}"),
    }
}

async fn purge(world: &World, drive: Drive, folder: EntryId, entries: u64) {
    let purge = Command::Drive(DriveCommand::PurgeEntry {
        principal: drive.principal,
        entry: folder,
        base_revision: None,
        job: JOB,
    });
    let begun = Instant::now();
    world.command(GROUP, None, &purge).await.unwrap();
    let answered = begun.elapsed();
    let mut looks = 0;
    while has_work(world, drive).await {
        looks += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    assert!(looks > 0, "no job was seen at work; try more entries");
    let gone = world.query(GROUP, &drive.page(folder, None)).await.unwrap_err();
    assert_eq!(gone.code, "not_found", "the folder that was purged");
    let left = usage(world, drive).await;
    assert_eq!(
        (left.files, left.folders, left.charged_bytes),
        (0, 0, 0),
        "what the purge left"
    );
    println!(
        "the purge answered after {:.1} ms and was done after {took:.1} s, {:.0} entries a second",
        answered.as_secs_f64() * 1e3,
        entries as f64 / took
    );
}

#[tokio::main]
async fn main() {
    let entries: u64 = argument(1, 1_000_000);
    let mut world = World::up(Wires::memory(), 3, 1).await;
    let all = world.numbers();
    let (mine, theirs) = (
        Drive::create(&world).await,
        Drive::create_in(&world, GROUP, "eve").await,
    );
    // Leaders spread over the processes first.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.command(GROUP, None, &mine.folder(FOLDER)).await.unwrap();
    let folder = EntryId {
        drive: mine.drive,
        number: FOLDER + 1_000,
    };
    make(&world, mine, folder, entries).await;

    let others = Folders::new(&world, theirs, theirs.drive.root(), 1);
    let start = || Load::start(OTHERS, PAUSE, others.write());
    let load = start();
    tokio::time::sleep(ALONE).await;
    let alone = load.end().await;
    let load = start();
    purge(&world, mine, folder, entries).await;
    let during = load.end().await;
    let load = start();
    tokio::time::sleep(ALONE).await;
    let behind = load.end().await;

    let print = |what: &str, times: &Times| {
        println!(
            "{what:>17}: {:>6} commits  p50 {:>6.2} ms  p99 {:>6.2} ms",
            times.count(),
            times.at(50),
            times.at(99)
        );
    };
    print("alone", &alone);
    print("during the purge", &during);
    print("behind it", &behind);
    for times in [&alone, &during] {
        assert!(
            times.count() >= COMMITS_MIN,
            "{} commits are too few to judge",
            times.count()
        );
    }
    let factor = during.at(99) / alone.at(99);
    println!("p99 is {factor:.2} times what it was alone");
    for number in all {
        world.stop(number).await;
    }
    assert!(factor <= FACTOR_MAX, "the purge stalls others");
}
