//! What outlives the processes of the world: their disks and stores, and what a death or a power cut leaves of them.
//!
//! Invariants: a disk keeps what was synced and, after a power cut, what the seed lets survive of the rest (`disk::sim`); a store
//! keeps a prefix of its batches after any end of its process; every sync goes into the trace.
//! Not here: when power is cut (`nemesis`), when a disk rots, refuses reads or is full (`wear`).

use crate::oracle::raft::RaftOracle;
use crate::world::faults::Faults;
use crate::world::logged;
use crate::world::observed::ObservedKv;
use crate::world::plant::collection::CountedOnce;
use crate::world::plant::{Plant, VoteLiar};
use crate::world::shape::{self, DISK_BYTES};
use crate::world::trace::{Kind, Trace};
use daemon::random::Random;
use disk::journal::SEGMENT_HEADER_BYTES;
use disk::judged::{Io, Verdict};
use disk::sim::Survivors;
use disk::{Disk, DiskError, JudgedDisk, SimDisk};
use kv::memory::MemoryKv;
use kv::seam::Kv;
use model::id::{DiskId, RaftId};
use model::process::{ProcessId, Role};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a node's disk keeps its fragments.
const JOURNAL_DIR: &str = "journal";

/// Disk number 0 of a process is the directory of its own; the others are a node's disks.
type Key = (ProcessId, u32);

/// All disks and stores; clones are the same.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Mutex<Inner>>,
    trace: Trace,
    faults: Faults,
    plant: Option<Plant>,
    raft: RaftOracle,
}

struct Inner {
    disks: BTreeMap<Key, SimDisk>,
    stores: BTreeMap<Key, Arc<MemoryKv>>,
    is_founded: bool,
    random: Random,
}

impl Storage {
    /// Empty disks and stores for all; what power cuts leave is drawn from `random`. Logs and states of replicas are shown to `raft`.
    #[must_use]
    pub fn new(random: Random, trace: Trace, faults: Faults, plant: Option<Plant>, raft: RaftOracle) -> Self {
        let own = shape::all().map(|process| (process, 0));
        let disks = shape::nodes().flat_map(|node| shape::disks(node).map(move |disk| (node, disk.0)));
        let keys: Vec<Key> = own.chain(disks).collect();
        let inner = Inner {
            disks: keys.iter().map(|key| (*key, SimDisk::new(DISK_BYTES))).collect(),
            stores: keys.iter().map(|key| (*key, Arc::new(MemoryKv::new()))).collect(),
            is_founded: false,
            random,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            trace,
            faults,
            plant,
            raft,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole entries are put and taken.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the groups of the cluster were made.
    #[must_use]
    pub fn is_founded(&self) -> bool {
        self.inner().is_founded
    }

    /// They were.
    pub fn founded(&self) {
        self.inner().is_founded = true;
    }

    /// A process's own directory.
    #[must_use]
    pub fn directory(&self, process: ProcessId) -> Arc<dyn Disk> {
        self.disk((process, 0))
    }

    /// A disk of a node.
    #[must_use]
    pub fn disk_of(&self, process: ProcessId, disk: DiskId) -> Arc<dyn Disk> {
        self.disk((process, disk.0))
    }

    fn disk(&self, key: Key) -> Arc<dyn Disk> {
        let (process, number) = key;
        let inner = Arc::new(self.inner().disks[&key].clone());
        let (trace, faults) = (self.trace.clone(), self.faults.clone());
        let random = Random::seeded(self.inner().random.u64());
        let liar = (self.plant == Some(Plant::VoteUnsynced) && process.role == Role::Metadata).then(VoteLiar::default);
        let logs = (process.role == Role::Metadata).then(|| self.raft.clone());
        let reading = self.faults.clone();
        let judge = move |io: Io<'_>| {
            if let Io::Read(name) = io
                && reading.refuses_reads(process, number)
            {
                return Verdict::Refuse(DiskError::Io(format!("read {name}: the disk refuses")));
            }
            if let (Io::Write(_, _, parts), Some(logs)) = (io, &logs) {
                logged::show(logs, RaftId(process.number), parts);
            }
            let verdict = liar.as_ref().map_or(Verdict::Pass, |liar| liar.judge(io));
            if let Io::Sync(name) = io {
                trace.note(Kind::Sync, process, format_args!("disk {number} {name} {verdict:?}"));
            }
            verdict
        };
        let latency = move || faults.latency(process, &random);
        Arc::new(JudgedDisk::new(inner, Arc::new(judge)).taking(Arc::new(latency)))
    }

    /// The state of a replica, under observation.
    #[must_use]
    pub fn state(&self, process: ProcessId) -> Arc<dyn Kv> {
        let store = Arc::clone(&self.inner().stores[&(process, 0)]);
        let observed = ObservedKv::new(process, store, self.raft.clone(), self.trace.clone());
        CountedOnce::around(Arc::new(observed), self.plant)
    }

    /// The place index of a node's disk, begun anew when `is_fresh`.
    #[must_use]
    pub fn index(&self, process: ProcessId, disk: DiskId, is_fresh: bool) -> Arc<dyn Kv> {
        let mut inner = self.inner();
        let store = inner
            .stores
            .get_mut(&(process, disk.0))
            .expect("every disk has a store");
        if is_fresh {
            *store = Arc::new(MemoryKv::new());
        }
        Arc::clone(store) as Arc<dyn Kv>
    }

    /// Flips a bit of what lies in the journal of a node's disk, behind a segment's header; which one, or none where nothing lies.
    pub fn rot(&self, process: ProcessId, disk: DiskId, random: &Random) -> Option<String> {
        let below = |bound: u64| random.below(bound.max(1));
        let disk = self.inner().disks[&(process, disk.0)].clone();
        let segments = disk.list(JOURNAL_DIR).ok()?;
        let at = usize::try_from(below(segments.len() as u64)).ok()?;
        let name = format!("{JOURNAL_DIR}/{}", segments.get(at)?);
        let len_bytes = disk.open(&name).ok()?.len_bytes().ok()?;
        let records_bytes = len_bytes.checked_sub(SEGMENT_HEADER_BYTES).filter(|bytes| *bytes > 0)?;
        let offset = SEGMENT_HEADER_BYTES + below(records_bytes);
        let bit = u8::try_from(below(8)).ok()?;
        disk.flip_bit(&name, offset, bit).ok()?;
        Some(format!("{name} at byte {offset}, bit {bit}"))
    }

    /// A disk holds so much from now on, in bytes.
    pub fn set_capacity(&self, process: ProcessId, disk: DiskId, capacity_bytes: u64) {
        self.inner().disks[&(process, disk.0)].set_capacity_bytes(capacity_bytes);
    }

    /// A disk has at most so much left from now on, in bytes, as if somebody else had filled it.
    pub fn leave(&self, process: ProcessId, disk: DiskId, left_bytes: u64) {
        let filled = self.inner().disks[&(process, disk.0)].clone();
        if let Ok(space) = filled.space() {
            let used_bytes = space.total_bytes - space.free_bytes;
            filled.set_capacity_bytes(space.total_bytes.min(used_bytes + left_bytes));
        }
    }

    /// What the end of `process` leaves: of its stores a prefix, of its disks everything unless the power was cut.
    pub fn ended(&self, process: ProcessId, is_power_cut: bool) {
        self.faults.ended(process);
        let mut guard = self.inner();
        let inner = &mut *guard;
        for (key, store) in &inner.stores {
            if key.0 == process {
                store.power_cut(inner.random.u64());
            }
        }
        for (key, disk) in &mut inner.disks {
            if key.0 == process && is_power_cut {
                let seed = inner.random.u64();
                // Mostly nothing survives that was not synced: that is the case that hurts most.
                let survivors = if seed.is_multiple_of(4) {
                    Survivors::Seed(seed)
                } else {
                    Survivors::None
                };
                *disk = disk.crash(survivors);
            }
        }
    }
}
