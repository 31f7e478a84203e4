//! A store on a simulated disk with a naive twin, driven operation by operation.

use crate::store::core::{Core, Flaw, Write};
use crate::store::identity::Identity;
use crate::store::read::ReadFault;
use crate::store::tally::Tally;
use crate::store::{StoreError, StoreOptions};
use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use disk::{Disk, DiskError, DiskFile, SimDisk, Space};
use kv::memory::MemoryKv;
use model::id::{ClusterId, DiskId};
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use protocol::node::ByteRange;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

pub(super) const CAPACITY_BYTES: u64 = 4 << 20;

pub(super) fn options() -> StoreOptions {
    let salt = AtomicU64::new(1);
    let next_salt = move || salt.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    StoreOptions {
        segment_bytes: 24 << 10,
        batch_bytes_max: 48 << 10,
        next_salt: Arc::new(next_salt),
    }
}

pub(super) fn name(id: u8) -> FragmentName {
    FragmentName {
        profile: ProfileId::Copies,
        stripe: StripeId(u128::from(id) << 120 | 7),
        index: 0,
    }
}

/// The content of an id: always the same, as a stripe id never covers two contents.
pub(super) fn payload(id: u8) -> Bytes {
    let len = 700 + usize::from(id % 50) * 811;
    let byte =
        |place: usize| (place as u8).wrapping_mul(id.wrapping_mul(2).wrapping_add(31)) ^ (place / 256) as u8 ^ id;
    Bytes::from((0..len).map(byte).collect::<Vec<u8>>())
}

pub(super) fn fragment(id: u8) -> (FragmentHeader, Bytes) {
    let (form, fragments) = erasure::encode(&payload(id), 1, 2).unwrap();
    (
        FragmentHeader::describe(name(id), form, &fragments[0]).unwrap(),
        fragments[0].clone(),
    )
}

pub(super) fn identity() -> Identity {
    Identity {
        cluster: ClusterId(5),
        disk: DiskId(1),
    }
}

/// One operation of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Store(u8),
    Remove(u8),
    /// One step of compaction in which nothing is short and limbo is endless.
    Compact,
    /// One step in which space is short, so that limbo is given up too.
    CompactShort,
}

/// A script drawn from a seed: stores and removals over few ids, so that segments get sparse.
pub(super) fn script(seed: u64, len: usize) -> Vec<Op> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1;
    let mut draw = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    (0..len)
        .map(|_| match draw(10) {
            0..5 => Op::Store(draw(16) as u8),
            5..7 => Op::Remove(draw(16) as u8),
            7 => Op::Compact,
            _ => Op::CompactShort,
        })
        .collect()
}

/// A store with what it must hold.
pub(super) struct Bench {
    pub(super) disk: Arc<FaultyDisk>,
    pub(super) index: Arc<MemoryKv>,
    pub(super) core: Core,
    /// Per id: whether it may be there, may be absent.
    pub(super) truth: BTreeMap<u8, (bool, bool)>,
    sequences: BTreeMap<u8, u64>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let disk = Arc::new(FaultyDisk::new(SimDisk::new(CAPACITY_BYTES)));
        Self::open(disk, Arc::new(MemoryKv::new()), BTreeMap::new(), BTreeMap::new()).unwrap()
    }

    fn open(
        disk: Arc<FaultyDisk>,
        index: Arc<MemoryKv>,
        truth: BTreeMap<u8, (bool, bool)>,
        sequences: BTreeMap<u8, u64>,
    ) -> Result<Self, StoreError> {
        let seam: Arc<dyn Disk> = disk.clone();
        let (core, _) = Core::open(seam, index.clone(), &options(), Arc::new(Tally::default()))?;
        Ok(Self {
            disk,
            index,
            core,
            truth,
            sequences,
        })
    }

    /// Does an operation; `false` when the disk failed it.
    pub(super) fn run(&mut self, op: Op) -> bool {
        match op {
            Op::Store(id) => {
                let (header, payload) = fragment(id);
                let answer = self.core.commit(vec![Write::Store { header, payload }]).pop().unwrap();
                self.note(id, true, answer.is_ok());
                answer.is_ok()
            }
            Op::Remove(id) => {
                let answer = self.core.commit(vec![Write::Remove { name: name(id) }]).pop().unwrap();
                self.note(id, false, answer.is_ok());
                answer.is_ok()
            }
            Op::Compact => self.core.compact_step(Duration::ZERO, Duration::MAX, false).is_ok(),
            Op::CompactShort => self.core.compact_step(Duration::ZERO, Duration::MAX, true).is_ok(),
        }
    }

    fn note(&mut self, id: u8, is_there: bool, is_acknowledged: bool) {
        let (may_be, may_lack) = self.truth.entry(id).or_insert((false, true));
        if is_acknowledged {
            (*may_be, *may_lack) = (is_there, !is_there);
            match self.core.row(&name(id)) {
                Ok(Some(row)) if is_there => drop(self.sequences.insert(id, row.sequence)),
                _ => drop(self.sequences.remove(&id)),
            }
        } else {
            *may_be |= is_there;
            *may_lack |= !is_there;
            self.sequences.remove(&id);
        }
    }

    /// The first thing that is not as it must be.
    pub(super) fn violation(&self) -> Option<String> {
        let reader = self.core.reader();
        for (id, (may_be, may_lack)) in &self.truth {
            let whole = ByteRange {
                offset: 0,
                len: payload(*id).len() as u32,
            };
            match reader.read(&name(*id), &[whole]) {
                Ok(read) if read.payload != payload(*id) => return Some(format!("{id} has other bytes")),
                Ok(_) if !may_be => return Some(format!("{id} is back")),
                Ok(_) => {}
                Err(ReadFault::Store(StoreError::NotFound)) if *may_lack => {}
                Err(error) => return Some(format!("{id} does not read: {error:?}")),
            }
        }
        for (id, sequence) in &self.sequences {
            let row = self.core.row(&name(*id)).ok().flatten();
            if row.is_none_or(|row| row.sequence != *sequence) {
                return Some(format!("{id} has another sequence"));
            }
        }
        None
    }

    /// Stops in order and opens again.
    pub(super) fn reopen(mut self) -> Self {
        self.core.close();
        Self::open(self.disk, self.index, self.truth, self.sequences).unwrap()
    }

    /// Opens again with an empty index.
    pub(super) fn reopen_without_index(mut self) -> Self {
        self.core.close();
        Self::open(self.disk, Arc::new(MemoryKv::new()), self.truth, self.sequences).unwrap()
    }

    /// Cuts the power of disk and index and opens again.
    pub(super) fn power_cut(self, seed: u64) -> Result<Self, StoreError> {
        self.index.power_cut(seed);
        let disk = Arc::new(FaultyDisk::new(self.disk.inner.crash(disk::sim::Survivors::Seed(seed))));
        Self::open(disk, self.index, self.truth, self.sequences)
    }

    pub(super) fn set_flaw(&mut self, flaw: Flaw) {
        self.core.flaw = flaw;
    }
}

/// A simulated disk whose reads and opens can fail for a while, and whose syncs can lie.
pub(super) struct FaultyDisk {
    pub(super) inner: SimDisk,
    pub(super) fail_reads: Arc<AtomicBool>,
    pub(super) fail_opens: AtomicBool,
    pub(super) lie_about_syncs: Arc<AtomicBool>,
}

struct FaultyFile {
    inner: Box<dyn DiskFile>,
    fail_reads: Arc<AtomicBool>,
    lie_about_syncs: Arc<AtomicBool>,
}

impl FaultyDisk {
    pub(super) fn new(inner: SimDisk) -> Self {
        Self {
            inner,
            fail_reads: Arc::default(),
            fail_opens: AtomicBool::new(false),
            lie_about_syncs: Arc::default(),
        }
    }

    fn wrap(&self, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let (fail_reads, lie_about_syncs) = (Arc::clone(&self.fail_reads), Arc::clone(&self.lie_about_syncs));
        Box::new(FaultyFile {
            inner,
            fail_reads,
            lie_about_syncs,
        })
    }
}

impl Disk for FaultyDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(self.wrap(self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        if self.fail_opens.load(Ordering::Relaxed) {
            return Err(DiskError::Io(format!("open {name}: too many open files")));
        }
        Ok(self.wrap(self.inner.open(name)?))
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.inner.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.inner.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.sync_dir(dir)
    }
    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.make_dir(dir)
    }
    fn space(&self) -> Result<Space, DiskError> {
        self.inner.space()
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        self.inner.write_at(offset, parts)
    }
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        if self.fail_reads.load(Ordering::Relaxed) {
            return Err(DiskError::Io("read: input/output error".to_owned()));
        }
        self.inner.read_at(offset, len_bytes)
    }
    fn sync(&self) -> Result<(), DiskError> {
        if self.lie_about_syncs.load(Ordering::Relaxed) {
            Ok(())
        } else {
            self.inner.sync()
        }
    }
    fn len_bytes(&self) -> Result<u64, DiskError> {
        self.inner.len_bytes()
    }
    fn allocate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.inner.allocate(len_bytes)
    }
}
