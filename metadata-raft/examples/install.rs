//! A replica that was away while very much was written: it is sent a snapshot under load, killed midway, and goes on.
//!
//! `make install-snapshot`, with fewer than 1,000,000 entries by `ARGS=entries`. Three replicas in processes of their
//! own, over QUIC, with real disks and RocksDB. What the transfer costs in memory is the peak of a process while it sends or
//! receives, less the peak of the same process under the same load with nothing to send or receive: the sender's before it, the
//! receiver's after it, started anew on what it has then. Fails where that is above 64 MB, where the snapshot was not sent in parts,
//! not broken midway or not gone on with, and where the states differ in the end. Its files go with it.
//! Not here: what is in the parts (tests `installs`).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement on the real machine; what cannot be set up ends it"
)]

mod shared;

use disk::{Disk, RealDisk};
use protocol::metadata::QueryAnswer;
use shared::drive::{Drive, GROUP};
use shared::measure::{Load, argument};
use shared::replica_process::{self, Client, PartTaken, Processes, REPLICA};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const AWAY: u64 = 3;
const ALL: [u64; 3] = [1, 2, 3];
const MAKERS: usize = 64;
const CLIENTS: usize = 4;
const EXTRA_MAX_MB: u64 = 64;
/// Of the load with nothing to send or receive.
const CONTROL: Duration = Duration::from_secs(20);
/// Longest wait for half of the state; far more than it takes.
const KILL_WITHIN: Duration = Duration::from_secs(120);
/// Entries for a megabyte of the receiver's store before it is killed: about half of what they take there, measured.
const ENTRIES_A_MB: u64 = 16_000;

fn store_mb(directory: &Path) -> u64 {
    let disk = RealDisk::open(directory).unwrap();
    let files = disk.list("kv").unwrap();
    // A file may go while they are counted.
    let length = |file: &String| disk.open(&format!("kv/{file}")).ok()?.len_bytes().ok();
    files.iter().filter_map(length).sum::<u64>() >> 20
}

/// The cluster, its client and what is written.
struct Bench {
    processes: Processes,
    client: Client,
    drive: Drive,
    next: Arc<AtomicU64>,
}

impl Bench {
    fn load(&self, clients: usize) -> Load {
        let (client, drive, next) = (self.client.clone(), self.drive, self.next.clone());
        let led_at = Arc::new(AtomicU64::new(1));
        Load::start(clients, Duration::ZERO, move || {
            let (client, next, led_at) = (client.clone(), next.clone(), led_at.clone());
            async move {
                let command = drive.folder(next.fetch_add(1, Ordering::Relaxed));
                let at = client.propose(led_at.load(Ordering::Relaxed), GROUP, &command).await;
                led_at.store(at, Ordering::Relaxed);
            }
        })
    }

    async fn applied(&self, number: u64) -> Option<u64> {
        let status = self.client.status(number).await?;
        let group = status.groups.into_iter().find(|group| group.group == GROUP)?;
        Some(group.applied_index)
    }

    /// Waits until a replica has applied what any other has by now.
    async fn settle(&self, number: u64) {
        let mut wanted = None;
        for other in ALL {
            wanted = self.applied(other).await.max(wanted);
        }
        while self.applied(number).await < wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `until` under load; prints commits and answers the peaks of `numbers` in megabytes.
    async fn phase(&mut self, what: &str, numbers: &[u64], until: impl AsyncFnOnce(&Self)) -> Vec<u64> {
        for number in numbers {
            self.processes.peak_kb(*number);
        }
        let load = self.load(CLIENTS);
        until(self).await;
        let times = load.end().await;
        let peaks: Vec<u64> = numbers
            .iter()
            .map(|number| self.processes.peak_kb(*number) >> 10)
            .collect();
        let shown: Vec<String> = numbers
            .iter()
            .zip(&peaks)
            .map(|(number, peak)| format!("{number}: {peak} MB"))
            .collect();
        println!(
            "{what:<34} {:>6.1} s  {:>6.0} commits/s  p50 {:>6.2} ms  p99 {:>7.2} ms  {}",
            times.span.as_secs_f64(),
            times.rate(),
            times.at(50),
            times.at(99),
            shown.join("  ")
        );
        peaks
    }
}

/// Replicas with this many entries, of which the one that is away has none.
async fn grown(entries: u64) -> Bench {
    let mut processes = Processes::new(3);
    ALL.iter().rev().for_each(|number| processes.start(*number));
    let client = processes.client();
    let (drive, create) = Drive::named(GROUP, "ada");
    client.propose(1, GROUP, &create).await;
    // Leaders spread over the processes first.
    tokio::time::sleep(Duration::from_secs(4)).await;
    processes.end(AWAY, false);
    let bench = Bench {
        processes,
        client,
        drive,
        next: Arc::new(AtomicU64::new(1)),
    };
    let load = bench.load(MAKERS);
    while bench.next.load(Ordering::Relaxed) < entries {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let made = load.end().await;
    println!(
        "{} entries made, {:.0} a second, one replica away",
        made.count(),
        made.rate()
    );
    assert!(bench.processes.parts_taken(AWAY).is_empty(), "nothing was sent yet");
    bench
}

/// Where the receiver was when it was killed, and what it took in its next life.
struct Transfer {
    before: Vec<PartTaken>,
    after: Vec<PartTaken>,
}

impl Transfer {
    /// It was sent in parts, broken midway, and went on where it was.
    fn check(&self) {
        let Self { before, after } = self;
        let is_rows = |part: &&PartTaken| matches!(part, PartTaken::UpTo(_));
        let (first, second) = (before.iter().filter(is_rows), after.iter().skip(1).filter(is_rows));
        let whole: BTreeSet<&PartTaken> = first.clone().chain(second.clone()).collect();
        let (first, second) = (first.count(), second.count());
        println!(
            "{first} parts with rows before the kill, {second} after it, of {} in all",
            whole.len()
        );
        assert!(first > 1, "no snapshot was sent before the kill: {before:?}");
        assert!(
            !before.contains(&PartTaken::Installed),
            "it was killed after the end; try more entries"
        );
        // The first answer of a life says where the sender goes on.
        let goes_on = after.first().filter(is_rows);
        assert!(
            goes_on.is_some_and(|at| before.contains(at)),
            "it did not go on where it was: {goes_on:?}"
        );
        assert!(second < whole.len(), "all was sent again");
        assert!(
            after.contains(&PartTaken::Installed),
            "it came by the log, not by a snapshot"
        );
    }
}

/// Starts the replica that is away, kills it midway and starts it again, under load. Answers the peaks of all.
async fn install(bench: &mut Bench, entries: u64) -> Vec<u64> {
    let directory = bench.processes.directory(AWAY);
    let had = store_mb(&directory);
    bench.processes.start(AWAY);
    let begun = Instant::now();
    let wanted = had + entries / ENTRIES_A_MB;
    let first = bench
        .phase("installing, up to the kill", &ALL, async |_| {
            while store_mb(&directory) < wanted {
                assert!(begun.elapsed() < KILL_WITHIN, "nothing is installed");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    bench.processes.end(AWAY, true);
    println!("killed with {} MB in its store, {had} before", store_mb(&directory));
    let before = bench.processes.parts_taken(AWAY);

    bench.processes.start(AWAY);
    let second = bench
        .phase("going on to the end", &ALL, async |bench| bench.settle(AWAY).await)
        .await;
    println!("{} MB in its store", store_mb(&directory));
    let after = bench.processes.parts_taken(AWAY).split_off(before.len());
    Transfer { before, after }.check();
    first
        .iter()
        .zip(&second)
        .map(|(first, second)| *first.max(second))
        .collect()
}

/// Every replica lists the same entries, and as many as were made.
async fn check_states(bench: &Bench) {
    let made = bench.next.load(Ordering::Relaxed) - 1;
    let (mut listed, mut token) = (0, None);
    loop {
        let query = bench.drive.page(bench.drive.drive.root(), token);
        let mut pages = Vec::new();
        for number in ALL {
            match bench.client.query(number, GROUP, &query).await {
                QueryAnswer::Listing(listing) => pages.push(listing),
                other => panic!("{other:?}"),
            }
        }
        let own = pages.pop().unwrap();
        assert!(
            pages.iter().all(|page| page.entries == own.entries),
            "the states differ behind {listed} entries"
        );
        listed += own.entries.len() as u64;
        token = own.next_page_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(listed, made, "entries in each state");
    println!("{listed} entries, the same in every replica");
}

async fn measure(entries: u64) {
    let mut bench = grown(entries).await;
    let pause = async |_: &Bench| tokio::time::sleep(CONTROL).await;
    let alone = bench.phase("load alone", &[1, 2], pause).await;
    let peaks = install(&mut bench, entries).await;

    // What the receiver takes that has nothing to receive.
    bench.processes.end(AWAY, false);
    bench.processes.start(AWAY);
    bench.settle(AWAY).await;
    let idle = bench.phase("load alone, all replicas", &ALL, pause).await;
    check_states(&bench).await;

    let mut is_met = true;
    for ((number, peak), control) in ALL.into_iter().zip(peaks).zip([alone[0], alone[1], idle[2]]) {
        let extra = peak.saturating_sub(control);
        let what = if number == AWAY { "receiver" } else { "survivor" };
        println!("{what} {number}: peak {peak} MB, {control} MB without a transfer, extra {extra} MB");
        is_met &= extra <= EXTRA_MAX_MB;
    }
    assert!(is_met, "a transfer takes more memory than it may");
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == REPLICA => replica_process::run(rest).await,
        _ => measure(argument(1, 1_000_000)).await,
    }
}
