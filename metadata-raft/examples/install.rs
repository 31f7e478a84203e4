//! A replica that was away while very much was written: it is sent a snapshot under load, killed midway, and goes on.
//!
//! `make install-snapshot`, with fewer than 1,000,000 entries by `ARGS=entries`. Three replicas of four drive groups in processes of their
//! own, over QUIC, with real disks and RocksDB. One of four entries is a file with a page of blocks in a stripe, the others are folders.
//! When the receiver goes on, a sender is killed as well, in the middle of a group's parts, and started again. What the transfer costs
//! in memory is the peak of a process while it sends or receives, less the peak of the same process under the same load with nothing
//! to send or receive: the sender's before it, the receiver's after it, started anew on what it has then. Fails where that is above
//! 64 MB, where a group's snapshot was not sent, none was sent in parts, broken midway and gone on with, and where the states differ in
//! the end. Its files go with it.
//! Not here: what is in the parts (tests `installs`).
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement on the real machine; what cannot be set up ends it"
)]

mod shared;

use disk::{Disk, RealDisk};
use model::id::{CONTROL_GROUP, GroupId, SLOTS, Slot};
use protocol::metadata::QueryAnswer;
use shared::drive::Drive;
use shared::files::{self, Epoch};
use shared::measure::{Load, argument};
use shared::replica_process::{self, Client, GROUPS, PartTaken, Processes, REPLICA};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const AWAY: u64 = 3;
const ALL: [u64; 3] = [1, 2, 3];
const SURVIVORS: [u64; 2] = [1, 2];
const MAKERS: usize = 64;
const CLIENTS: usize = 4;
const EXTRA_MAX_MB: u64 = 64;
/// Of the load with nothing to send or receive.
const CONTROL: Duration = Duration::from_secs(20);
/// Longest wait for half of the state; far more than it takes.
const KILL_WITHIN: Duration = Duration::from_secs(120);
/// Parts of a group with rows, taken in the receiver's next life, after which whoever sends them is killed.
const PARTS_BEFORE_KILL: usize = 2;
/// How often the epoch of new stripes is asked for; they may be born some of them ago.
const EPOCH_EVERY: Duration = Duration::from_millis(500);
/// Entries for a megabyte of the receiver's store before it is killed: about half of what they take there, measured.
const ENTRIES_A_MB: u64 = 16_000;

fn store_mb(directory: &Path) -> u64 {
    let disk = RealDisk::open(directory).unwrap();
    let files = disk.list("kv").unwrap();
    // A file may go while they are counted.
    let length = |file: &String| disk.open(&format!("kv/{file}")).ok()?.len_bytes().ok();
    files.iter().filter_map(length).sum::<u64>() >> 20
}

/// A name whose slot the group serves: slots are dealt out in equal runs.
fn name_in(group: GroupId) -> String {
    let run = SLOTS / u16::try_from(GROUPS).unwrap();
    let first = run * u16::try_from(group.0 - 1).unwrap();
    (0..)
        .map(|number| format!("user{number}"))
        .find(|name| (first..first + run).contains(&Slot::of_username(name).number()))
        .unwrap()
}

/// A drive of one of the groups, and where its group was led last.
#[derive(Clone)]
struct Written {
    drive: Drive,
    epoch: Epoch,
    led_at: Arc<AtomicU64>,
}

/// The cluster, its client and what is written: the entries in turn into a drive of each group.
struct Bench {
    processes: Processes,
    client: Client,
    drives: Vec<Written>,
    next: Arc<AtomicU64>,
}

impl Bench {
    /// Entries that were begun; all of them are made once no load runs.
    fn made(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - u64::from(GROUPS)
    }

    fn load(&self, clients: usize) -> Load {
        let (client, drives, next) = (self.client.clone(), self.drives.clone(), self.next.clone());
        Load::start(clients, Duration::ZERO, move || {
            let (client, drives, next) = (client.clone(), drives.clone(), next.clone());
            async move {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let groups = drives.len() as u64;
                // Each drive has its numbers without a gap.
                let (written, number) = (&drives[(number % groups) as usize], number / groups);
                let drive = &written.drive;
                let command = files::entry_in(drive, drive.drive.root(), number, &written.epoch);
                let at = written.led_at.load(Ordering::Relaxed);
                let at = client.propose(at, drive.group, &command).await;
                written.led_at.store(at, Ordering::Relaxed);
            }
        })
    }

    /// Keeps the epochs of the drives up to date until it is dropped.
    fn follow_epochs(&self) -> AbortOnDrop {
        let (client, drives) = (self.client.clone(), self.drives.clone());
        AbortOnDrop(tokio::spawn(async move {
            loop {
                for written in &drives {
                    refresh(&client, written).await;
                }
                tokio::time::sleep(EPOCH_EVERY).await;
            }
        }))
    }

    /// What a replica has applied, of each drive group.
    async fn applied(&self, number: u64) -> Option<Vec<u64>> {
        let status = self.client.status(number).await?;
        let groups = status.groups.into_iter().filter(|group| group.group != CONTROL_GROUP);
        Some(groups.map(|group| group.applied_index).collect())
    }

    /// Waits until a replica has applied in each group what any other has by now.
    async fn settle(&self, number: u64) {
        let mut wanted = vec![0; self.drives.len()];
        for other in ALL {
            let applied = self.applied(other).await.unwrap_or_default();
            for (wanted, applied) in wanted.iter_mut().zip(applied) {
                *wanted = applied.max(*wanted);
            }
        }
        loop {
            let applied = self.applied(number).await.unwrap_or_default();
            if applied.len() == wanted.len() && applied.iter().zip(&wanted).all(|(applied, wanted)| applied >= wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Who leads a group, as a survivor says; that is who sends its snapshot.
    async fn sender(&self, group: GroupId) -> Option<u64> {
        for number in SURVIVORS {
            let Some(status) = self.client.status(number).await else {
                continue;
            };
            let found = status.groups.into_iter().find(|status| status.group == group);
            if let Some(leader) = found.and_then(|status| status.leader) {
                return Some(leader.0).filter(|leader| SURVIVORS.contains(leader));
            }
        }
        None
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

/// Asks for the epoch in which new stripes of a drive are born.
async fn refresh(client: &Client, written: &Written) {
    let drive = &written.drive;
    let at = written.led_at.load(Ordering::Relaxed);
    match client.query(at, drive.group, &Epoch::query(drive)).await {
        QueryAnswer::Time(time) => written.epoch.set(time.birth_epoch),
        other => panic!("{other:?}"),
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Replicas with this many entries, of which the one that is away has none.
async fn grown(entries: u64) -> Bench {
    let mut processes = Processes::new(3);
    ALL.iter().rev().for_each(|number| processes.start(*number));
    let client = processes.client();
    let mut drives = Vec::new();
    for group in (1..=GROUPS).map(GroupId) {
        let (drive, create) = Drive::named(group, &name_in(group));
        client.propose(1, group, &create).await;
        drives.push(Written {
            drive,
            epoch: Epoch::default(),
            led_at: Arc::new(AtomicU64::new(1)),
        });
    }
    // Leaders spread over the processes first.
    tokio::time::sleep(Duration::from_secs(4)).await;
    processes.end(AWAY, false);
    let bench = Bench {
        processes,
        client,
        drives,
        // The first of each drive has the number one.
        next: Arc::new(AtomicU64::new(u64::from(GROUPS))),
    };
    for written in &bench.drives {
        refresh(&bench.client, written).await;
    }
    let epochs = bench.follow_epochs();
    let load = bench.load(MAKERS);
    while bench.made() < entries {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let made = load.end().await;
    drop(epochs);
    println!(
        "{} entries made in {GROUPS} groups, {:.0} a second, one replica away",
        made.count(),
        made.rate()
    );
    assert!(bench.processes.parts_taken(AWAY).is_empty(), "nothing was sent yet");
    bench
}

/// Where the receiver was when it was killed, and what it took in its next life; of one group.
struct Transfer {
    group: GroupId,
    before: Vec<PartTaken>,
    after: Vec<PartTaken>,
}

impl Transfer {
    /// That of each group, where `first` of the parts were taken before the kill.
    fn all(parts: &[(GroupId, PartTaken)], first: usize) -> Vec<Self> {
        let of_group = |parts: &[(GroupId, PartTaken)], group: GroupId| {
            let own = parts.iter().filter(|(of, _)| *of == group);
            own.map(|(_, part)| part.clone()).collect::<Vec<PartTaken>>()
        };
        let transfer = |group| Self {
            group,
            before: of_group(&parts[..first], group),
            after: of_group(&parts[first..], group),
        };
        (1..=GROUPS).map(GroupId).map(transfer).collect()
    }

    /// It came as a snapshot. Answers whether the kill fell in the middle of it; then it went on where it was, and not all was sent
    /// again.
    fn check(&self) -> bool {
        let Self { group, before, after } = self;
        let is_rows = |part: &&PartTaken| matches!(part, PartTaken::UpTo(_));
        let (first, second) = (before.iter().filter(is_rows), after.iter().skip(1).filter(is_rows));
        let whole: BTreeSet<&PartTaken> = first.clone().chain(second.clone()).collect();
        let (first, second) = (first.count(), second.count());
        println!(
            "group {group}: {first} parts with rows before the kill, {second} after it, of {} in all",
            whole.len()
        );
        let was_installed = before.contains(&PartTaken::Installed);
        assert!(
            was_installed || after.contains(&PartTaken::Installed),
            "group {group} came by the log, not by a snapshot"
        );
        if was_installed || first < 2 {
            return false;
        }
        // The first answer of a life says where the sender goes on.
        let goes_on = after.first().filter(is_rows);
        assert!(
            goes_on.is_some_and(|at| before.contains(at)),
            "group {group} did not go on where it was: {goes_on:?}"
        );
        true
    }

    /// Whether everything that was there before the kill came once more.
    fn is_sent_again(&self) -> bool {
        let mut before = self.before.iter().filter(|part| matches!(part, PartTaken::UpTo(_)));
        before.all(|part| self.after.iter().skip(1).any(|again| again == part))
    }
}

/// Waits until the receiver, in its next life, is in the middle of a group's parts; who sends them, and the group.
async fn sender_midway(bench: &Bench, taken: usize) -> (u64, GroupId) {
    let begun = Instant::now();
    loop {
        let parts = bench.processes.parts_taken(AWAY).split_off(taken);
        for group in (1..=GROUPS).map(GroupId) {
            let own = || parts.iter().filter(move |(of, _)| *of == group).map(|(_, part)| part);
            let rows = own().filter(|part| matches!(part, PartTaken::UpTo(_))).count();
            let is_midway = rows >= PARTS_BEFORE_KILL && !own().any(|part| *part == PartTaken::Installed);
            if is_midway && let Some(sender) = bench.sender(group).await {
                return (sender, group);
            }
        }
        assert!(
            begun.elapsed() < KILL_WITHIN,
            "no group was in the middle of its parts; try more entries"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Starts the replica that is away, kills it midway and starts it again, kills whoever sends to it midway and starts that again, all
/// under load. Answers the peaks of all.
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
    let taken = bench.processes.parts_taken(AWAY).len();

    bench.processes.start(AWAY);
    let mut midway = None;
    let second = bench
        .phase("going on, up to the sender's kill", &ALL, async |bench| {
            midway = Some(sender_midway(bench, taken).await);
        })
        .await;
    let (sender, group) = midway.unwrap();
    let before_sender = bench.processes.parts_taken(AWAY).len();
    bench.processes.end(sender, true);
    bench.processes.start(sender);
    println!("killed {sender}, which sent group {group}, and started it again");
    let third = bench
        .phase("going on to the end", &ALL, async |bench| bench.settle(AWAY).await)
        .await;
    println!("{} MB in its store", store_mb(&directory));

    let parts = bench.processes.parts_taken(AWAY);
    let midway = Transfer::all(&parts, taken);
    // What the sender's death had sent anew is no fault of going on after the receiver's.
    let up_to_sender = Transfer::all(&parts[..before_sender], taken);
    let mut broken = 0;
    for (transfer, up_to_sender) in midway.iter().zip(&up_to_sender) {
        if transfer.check() {
            assert!(
                !up_to_sender.is_sent_again(),
                "all of group {} was sent again",
                transfer.group
            );
            broken += 1;
        }
    }
    assert!(broken > 0, "no snapshot was broken midway; try more entries");
    let own = parts[before_sender..].iter().filter(|(of, _)| *of == group);
    assert!(
        own.clone().any(|(_, part)| *part == PartTaken::Installed),
        "group {group} was not installed after its sender's death"
    );
    println!("group {group}: {} parts after its sender's death", own.count());
    (0..ALL.len())
        .map(|at| first[at].max(second[at]).max(third[at]))
        .collect()
}

/// Every replica lists the same entries of each drive, and as many as were made.
async fn check_states(bench: &Bench) {
    let mut listed = 0;
    for Written { drive, .. } in &bench.drives {
        let mut token = None;
        loop {
            let query = drive.page(drive.drive.root(), token);
            let mut pages = Vec::new();
            for number in ALL {
                match bench.client.query(number, drive.group, &query).await {
                    QueryAnswer::Listing(listing) => pages.push(listing),
                    other => panic!("{other:?}"),
                }
            }
            let own = pages.pop().unwrap();
            assert!(
                pages.iter().all(|page| page.entries == own.entries),
                "the states of group {} differ behind {listed} entries",
                drive.group
            );
            listed += own.entries.len() as u64;
            token = own.next_page_token;
            if token.is_none() {
                break;
            }
        }
    }
    assert_eq!(listed, bench.made(), "entries in each state");
    println!("{listed} entries, the same in every replica");
}

async fn measure(entries: u64) {
    let mut bench = grown(entries).await;
    let _epochs = bench.follow_epochs();
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
