//! A replica that was away while very much was written: it is sent a snapshot under load, killed midway, and goes on.
//!
//! `cargo run --release -p metadata-raft --example install -- [entries]`, by default 1,000,000. Three replicas with real disks and
//! RocksDB, wired in memory. Prints how long each step takes, commits beside it, and the memory of the whole process, which holds
//! all three: what it grows by is the returning replica with its caches and log, and the installation. Not here: what is in the
//! parts (tests `installs`).
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

use disk::{Disk, RealDisk};
use drive::{Drive, GROUP};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{Wires, World};

const AWAY: u64 = 3;
/// Entries for a megabyte of the receiver's store before it is killed: about half of what they take there, measured.
const ENTRIES_A_MB: u64 = 16_000;

/// Memory of this process now.
fn resident_mb() -> u64 {
    daemon::resources::resident_bytes().unwrap() >> 20
}

fn store_mb(directory: &Path) -> u64 {
    let disk = RealDisk::open(directory).unwrap();
    let files = disk.list("kv").unwrap();
    // A file may go while they are counted.
    let length = |file: &String| disk.open(&format!("kv/{file}")).ok()?.len_bytes().ok();
    files.iter().filter_map(length).sum::<u64>() >> 20
}

/// Writers, and the greatest memory while they ran.
struct Load {
    is_over: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<Vec<Duration>>>,
    memory: tokio::task::JoinHandle<u64>,
}

impl Load {
    fn start(world: &World, drive: Drive, next: &Arc<AtomicU64>, writers: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let services: Vec<_> = world.services().into_iter().map(|(_, service)| service).collect();
        let write = |_| {
            let (next, services, is_over) = (next.clone(), services.clone(), is_over.clone());
            tokio::spawn(async move {
                let (mut times, mut at) = (Vec::new(), 0);
                while !is_over.load(Ordering::Relaxed) {
                    let command = drive.folder(next.fetch_add(1, Ordering::Relaxed));
                    let begun = Instant::now();
                    world::propose_anywhere(&services, &mut at, GROUP, &command).await;
                    times.push(begun.elapsed());
                }
                times
            })
        };
        let over = is_over.clone();
        Self {
            writers: (0..writers).map(write).collect(),
            memory: tokio::spawn(async move {
                let mut peak = 0;
                while !over.load(Ordering::Relaxed) {
                    peak = resident_mb().max(peak);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                peak
            }),
            is_over,
        }
    }

    /// Ends the load; prints commits and returns the greatest memory.
    async fn end(self, what: &str, begun: Instant) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut times = Vec::new();
        for writer in self.writers {
            times.extend(writer.await.unwrap());
        }
        times.sort_unstable();
        let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
        let peak = self.memory.await.unwrap();
        let span = begun.elapsed().as_secs_f64();
        println!(
            "{what:<34} {span:>6.1} s  {:>6.0} commits/s  p50 {:>6.2} ms  p99 {:>7.2} ms  memory {peak} MB",
            times.len() as f64 / span,
            at(50),
            at(99),
        );
        peak
    }
}

#[tokio::main]
async fn main() {
    let entries: u64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000);
    let mut world = World::new(Wires::memory(), 3, 1);
    let all = world.numbers();
    world.start(&all).await;
    world.caught_up(&all).await;
    let drive = Drive::create(&world).await;
    // Leaders spread over the processes first.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.stop(AWAY).await;
    world.settle(1).await;
    let next = Arc::new(AtomicU64::new(1));
    let begun = Instant::now();
    let load = Load::start(&world, drive, &next, 64);
    while next.load(Ordering::Relaxed) < entries {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    load.end("entries made, one replica away", begun).await;

    let begun = Instant::now();
    let load = Load::start(&world, drive, &next, 4);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = load.end("load alone", begun).await;

    let begun = Instant::now();
    let load = Load::start(&world, drive, &next, 4);
    world.start(&[AWAY]).await;
    let (directory, had) = (world.directory(AWAY), store_mb(&world.directory(AWAY)));
    while store_mb(&directory) < had + entries / ENTRIES_A_MB && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let first = load.end("installing, up to the kill", begun).await;
    world.kill(AWAY).await;
    println!("killed with {} MB in its store, {had} before", store_mb(&directory));

    let begun = Instant::now();
    let load = Load::start(&world, drive, &next, 4);
    world.start(&[AWAY]).await;
    world.settle(AWAY).await;
    let second = load.end("going on to the end", begun).await;
    println!("{} MB in its store", store_mb(&directory));
    let names = drive.names(&world).await.len();
    let growth = first.max(second).saturating_sub(before);
    println!(
        "{} entries; a page of {names}; memory grew by {growth} MB, a third replica included",
        next.load(Ordering::Relaxed)
    );
    for number in all {
        world.stop(number).await;
    }
}
