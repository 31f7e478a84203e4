//! What wears out while the nemesis works: disks whose bits rot, that refuse reads or are full, and the gateway's process.
//!
//! It has a generator and times of its own, so that what the nemesis draws is not shifted by it.
//! Invariants: bits rot and reads fail on one disk of the world alone, so of one stripe at most one fragment is bad: whatever was
//! acknowledged survives the loss of any disk (decision 0005), so it must read back; of the replicas one at a time has a full disk, so
//! that a majority can write. What is full or unreadable is well again after a while, and everything but the rot in the end.
//! In a world of collection no bit rots and no read fails: nobody there finds damage and repairs it, so what a compaction cannot read
//! would stay for ever.
//! Not here: who may suffer (`oracle`), cuts, deaths of other processes and clocks (`nemesis`).

use crate::world::kind::Kind as Sort;
use crate::world::processes::Ground;
use crate::world::shape::{self, DISK_BYTES, GATEWAY, SEGMENT_BYTES, host};
use crate::world::trace::Kind;
use daemon::random::Random;
use model::id::DiskId;
use model::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use turmoil::Sim;

const PAUSE_MIN: Duration = Duration::from_millis(1_500);
const PAUSE_MAX: Duration = Duration::from_millis(6_000);
const GATEWAY_DEAD_MAX: Duration = Duration::from_millis(1_200);
const UNREADABLE_MAX: Duration = Duration::from_millis(3_500);
const NODE_FULL_MAX: Duration = Duration::from_millis(4_000);
const REPLICA_FULL_MAX: Duration = Duration::from_millis(2_500);
/// Bits that rot at a time, at most.
const FLIPS_MAX: u64 = 4;
/// What a full disk has left at least, in bytes: enough for a start, which writes little.
const LEFT_MIN: u64 = 4 << 20;
/// The directory of a process's own has this number among its disks.
const OWN: DiskId = DiskId(0);

/// What was worn out in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worn {
    /// Deaths of the gateway's process.
    pub gateway_deaths: u64,
    /// Bits that rotted.
    pub flipped_bits: u64,
    /// Times that a disk refused reads.
    pub unreadable: u64,
    /// Times that a disk of a node was full.
    pub full_disks: u64,
    /// Times that a disk of a replica was full.
    pub full_replicas: u64,
    /// Reads of fragments that were answered as damaged.
    pub corrupt_reads: u64,
}

/// What has to be taken back.
#[derive(Clone, Copy, Debug)]
enum Mend {
    Gateway,
    Reads,
    Full(ProcessId, DiskId),
}

/// What wears out in one world.
pub struct Wear {
    ground: Ground,
    random: Random,
    /// The disk that rots and refuses reads.
    rotten: (ProcessId, DiskId),
    next_at: Duration,
    owed: Vec<(Duration, Mend)>,
}

impl Wear {
    /// Begins at once with what `random` says.
    #[must_use]
    pub fn new(ground: Ground, random: Random) -> Self {
        let rotten = pick(&random, disks());
        Self {
            ground,
            random,
            rotten,
            next_at: Duration::ZERO,
            owed: Vec::new(),
        }
    }

    /// Takes back what is due, and perhaps does something.
    pub fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let (due, owed): (Vec<_>, Vec<_>) = std::mem::take(&mut self.owed)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.owed = owed;
        for (_, mend) in due {
            self.mend(sim, mend);
        }
        if now >= self.next_at {
            self.next_at = now + PAUSE_MIN + self.random.up_to(PAUSE_MAX - PAUSE_MIN);
            self.act(sim, now);
        }
    }

    /// Takes everything back but what has rotted.
    pub fn end_all(&mut self, sim: &mut Sim<'_>) {
        for (_, mend) in std::mem::take(&mut self.owed) {
            self.mend(sim, mend);
        }
    }

    fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let damages = self.ground.kind != Sort::Collection;
        match self.random.below(100) {
            // Seldom, since all that is under way then is an unknown outcome: too many of them and a history proves nothing.
            0..=7 => self.end_gateway(sim, now),
            8..=32 if damages => self.rot(),
            33..=52 if damages => self.refuse_reads(now),
            8..=82 => {
                let (node, disk) = pick(&self.random, disks());
                let left = LEFT_MIN + self.random.below(2 * SEGMENT_BYTES);
                if self.fill(node, disk, left) {
                    self.worn(|worn| worn.full_disks += 1);
                    self.owe(now, NODE_FULL_MAX, Mend::Full(node, disk));
                }
            }
            _ => {
                let is_full = |(_, mend): &(Duration, Mend)| matches!(mend, Mend::Full(_, disk) if *disk == OWN);
                let others = self.owed.iter().any(is_full);
                let replica = pick(&self.random, shape::replicas());
                // From where it hands its leadership over down to where nothing is written any more.
                let left = LEFT_MIN + self.random.below(12 * SEGMENT_BYTES);
                if !others && self.fill(replica, OWN, left) {
                    self.worn(|worn| worn.full_replicas += 1);
                    self.owe(now, REPLICA_FULL_MAX, Mend::Full(replica, OWN));
                }
            }
        }
    }

    fn end_gateway(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if !sim.is_host_running(host(GATEWAY)) {
            return;
        }
        sim.crash(host(GATEWAY));
        self.worn(|worn| worn.gateway_deaths += 1);
        self.owe(now, GATEWAY_DEAD_MAX, Mend::Gateway);
        self.note(GATEWAY, "killed");
    }

    fn rot(&self) {
        let (node, disk) = self.rotten;
        for _ in 0..=self.random.below(FLIPS_MAX) {
            if let Some(place) = self.ground.storage.rot(node, disk, &self.random) {
                self.worn(|worn| worn.flipped_bits += 1);
                self.note(node, &format!("a bit of disk {disk} flipped: {place}"));
            }
        }
    }

    fn refuse_reads(&mut self, now: Duration) {
        let (node, disk) = self.rotten;
        self.ground.faults.refuse_reads(node, disk);
        self.worn(|worn| worn.unreadable += 1);
        self.owe(now, UNREADABLE_MAX, Mend::Reads);
        self.note(node, &format!("disk {disk} refuses reads"));
    }

    /// Leaves a disk little, unless it is full already; whether it was done.
    fn fill(&self, process: ProcessId, disk: DiskId, left_bytes: u64) -> bool {
        let is_owed =
            |(_, mend): &(Duration, Mend)| matches!(mend, Mend::Full(full, of) if (*full, *of) == (process, disk));
        if self.owed.iter().any(is_owed) {
            return false;
        }
        self.ground.storage.leave(process, disk, left_bytes);
        self.note(process, &format!("disk {disk} has {left_bytes} bytes left"));
        true
    }

    fn mend(&self, sim: &mut Sim<'_>, mend: Mend) {
        match mend {
            Mend::Gateway => {
                sim.bounce(host(GATEWAY));
                self.note(GATEWAY, "started");
            }
            Mend::Reads => self.ground.faults.read_again(self.rotten.0),
            Mend::Full(process, disk) => {
                self.ground.storage.set_capacity(process, disk, DISK_BYTES);
                self.note(process, &format!("disk {disk} has room again"));
            }
        }
    }

    fn owe(&mut self, now: Duration, span_max: Duration, mend: Mend) {
        let at = now + Duration::from_millis(50) + self.random.up_to(span_max);
        self.owed.push((at, mend));
    }

    fn worn(&self, note: impl FnOnce(&mut Worn)) {
        note(&mut self.ground.worn());
    }

    fn note(&self, process: ProcessId, what: &str) {
        self.ground.trace.note(Kind::Fault, process, format_args!("{what}"));
        tracing::info!(%process, what, "wear");
    }
}

/// The disks of all nodes, with whose they are.
fn disks() -> impl Iterator<Item = (ProcessId, DiskId)> {
    shape::nodes().flat_map(|node| shape::disks(node).map(move |disk| (node, disk)))
}

fn pick<T: Copy>(random: &Random, among: impl Iterator<Item = T>) -> T {
    let among: Vec<T> = among.collect();
    let at = random.below(among.len() as u64);
    among[usize::try_from(at).expect("an index of a short list")]
}
