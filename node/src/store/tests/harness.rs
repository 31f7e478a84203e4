//! A store on a simulated disk with a naive twin, driven operation by operation.

use super::faulty::{FaultyDisk, FaultyKv};
use super::truth::{Index, Truth};
use crate::store::core::{Core, Flaw, Write};
use crate::store::identity::Identity;
use crate::store::place_row;
use crate::store::tally::Tally;
use crate::store::{StoreError, StoreOptions};
use bytes::Bytes;
use codec::erasure;
use codec::fragment::FragmentHeader;
use disk::SimDisk;
use disk::sim::Survivors;
use kv::memory::MemoryKv;
use kv::seam::Change;
use model::id::{ClusterId, DiskId, RowVersion};
use model::layout::Row;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use protocol::node::Damage;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
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

/// Every fragment, made once: the suites store each many thousand times.
static FRAGMENTS: LazyLock<Vec<(FragmentHeader, Bytes)>> = LazyLock::new(|| {
    let make = |id: u8| {
        let len = 700 + usize::from(id % 50) * 811;
        let byte =
            |place: usize| (place as u8).wrapping_mul(id.wrapping_mul(2).wrapping_add(31)) ^ (place / 256) as u8 ^ id;
        let bytes = Bytes::from((0..len).map(byte).collect::<Vec<u8>>());
        let (form, fragments) = erasure::encode(&bytes, 1, 2).unwrap();
        let header = FragmentHeader::describe(name(id), form, &fragments[0]).unwrap();
        (header, fragments[0].clone())
    };
    (0..=u8::MAX).map(make).collect()
});

/// The content of an id: always the same, as a stripe id never covers two contents.
pub(super) fn payload(id: u8) -> Bytes {
    FRAGMENTS[usize::from(id)].1.clone()
}

pub(super) fn fragment(id: u8) -> (FragmentHeader, Bytes) {
    FRAGMENTS[usize::from(id)].clone()
}

pub(super) fn identity() -> Identity {
    Identity {
        cluster: ClusterId(5),
        disk: DiskId(1),
    }
}

/// Where the one row of a layout lies that the scripts keep.
pub(super) fn kept_row_key() -> Bytes {
    place_row::layout_row_key(ProfileId::Dev, 0)
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
    /// A fragment is put on the damaged list.
    List(u8),
    /// The next version of a row of a layout is kept.
    KeepRow,
    /// The process is killed and starts again.
    Restart,
}

/// xorshift64 (Marsaglia 2003): enough for choosing operations.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A script drawn from a seed: stores and removals over few ids, so that segments get sparse.
pub(super) fn script(seed: u64, len: usize) -> Vec<Op> {
    let mut rng = Rng::new(seed);
    (0..len)
        .map(|_| match rng.below(40) {
            0..18 => Op::Store(rng.below(16) as u8),
            18..26 => Op::Remove(rng.below(16) as u8),
            26..29 => Op::Compact,
            29..36 => Op::CompactShort,
            36 => Op::List(rng.below(16) as u8),
            37 => Op::KeepRow,
            _ => Op::Restart,
        })
        .collect()
}

/// A store with what it must hold.
pub(super) struct Bench {
    pub(super) disk: Arc<FaultyDisk>,
    pub(super) index: Arc<FaultyKv>,
    pub(super) core: Core,
    pub(super) truth: Truth,
    flaw: Flaw,
    /// A start failed, so that nothing runs.
    is_down: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::open(SimDisk::new(CAPACITY_BYTES), MemoryKv::new(), Truth::default()).unwrap()
    }

    pub(super) fn open(disk: SimDisk, index: MemoryKv, truth: Truth) -> Result<Self, StoreError> {
        Self::open_on(
            Arc::new(FaultyDisk::new(disk)),
            Arc::new(FaultyKv::new(index)),
            truth,
            Flaw::None,
        )
    }

    fn open_on(disk: Arc<FaultyDisk>, index: Arc<FaultyKv>, truth: Truth, flaw: Flaw) -> Result<Self, StoreError> {
        let (mut core, _) = Core::open(disk.seam(), index.clone(), &options(), Arc::new(Tally::default()))?;
        core.flaw = flaw;
        Ok(Self {
            disk,
            index,
            core,
            truth,
            flaw,
            is_down: false,
        })
    }

    /// Does an operation; `false` when the disk failed it.
    pub(super) fn run(&mut self, op: Op) -> bool {
        if self.is_down && op != Op::Restart {
            return false;
        }
        match op {
            Op::Store(id) => {
                let (header, payload) = fragment(id);
                self.write(id, true, Write::Store { header, payload })
            }
            Op::Remove(id) => self.write(id, false, Write::Remove { name: name(id) }),
            Op::Compact | Op::CompactShort => {
                let is_short = op == Op::CompactShort;
                self.truth.note_compaction();
                self.core.compact_step(Duration::ZERO, Duration::MAX, is_short).is_ok()
            }
            Op::List(id) => match self.core.row(&name(id)) {
                Ok(Some(row)) if row.held != place_row::Held::Tombstone => {
                    let answer = self.core.list_damage(&name(id), row.place, Damage::Payload);
                    self.truth.note_listed(id, answer.is_ok());
                    answer.is_ok()
                }
                Ok(_) => true,
                Err(_) => false,
            },
            Op::KeepRow => self.keep_row(),
            Op::Restart => {
                match Core::open(
                    self.disk.seam(),
                    self.index.clone(),
                    &options(),
                    Arc::new(Tally::default()),
                ) {
                    Ok((mut core, _)) => {
                        core.flaw = self.flaw;
                        self.core = core;
                        self.is_down = false;
                    }
                    Err(_) => self.is_down = true,
                }
                !self.is_down
            }
        }
    }

    fn write(&mut self, id: u8, is_there: bool, write: Write) -> bool {
        let answer = self.core.commit(vec![write]).pop().unwrap();
        self.truth.note_fragment(id, is_there, answer.is_ok(), &self.core);
        answer.is_ok()
    }

    fn keep_row(&mut self) -> bool {
        let version = self.truth.next_kept();
        let row = place_row::LayoutRow {
            pg_bits: 8,
            row: Row {
                version: RowVersion(version),
                disks: vec![DiskId(1)],
                filling_from: BTreeMap::new(),
            },
        };
        let change = Change::Put(kept_row_key(), place_row::encode(&row).unwrap());
        let answer = self.core.keep_rows(vec![change]);
        self.truth.note_kept(version, answer.is_ok());
        answer.is_ok()
    }

    /// The first thing that is not as it must be.
    pub(super) fn violation(&self) -> Option<String> {
        self.truth.violation(&self.core, Index::Kept)
    }

    /// Stops in order and opens again.
    pub(super) fn reopen(mut self) -> Self {
        self.core.close();
        Self::open_on(self.disk, self.index, self.truth, self.flaw).unwrap()
    }

    /// Opens again with an empty index; what only the index knew is not known any more.
    pub(super) fn reopen_without_index(mut self) -> Self {
        self.core.close();
        let index = Arc::new(FaultyKv::new(MemoryKv::new()));
        Self::open_on(self.disk, index, self.truth.without_index(), self.flaw).unwrap()
    }

    /// Cuts the power of disk and index and opens again.
    pub(super) fn power_cut(self, seed: u64) -> Result<Self, StoreError> {
        self.index.inner.power_cut(seed);
        let disk = Arc::new(FaultyDisk::new(self.disk.inner.crash(Survivors::Seed(seed))));
        Self::open_on(disk, self.index, self.truth, self.flaw)
    }

    /// Runs compaction until there is nothing to do.
    pub(super) fn compact_all(&mut self) -> Result<(), StoreError> {
        use crate::store::CompactionStep;
        self.truth.note_compaction();
        for _ in 0..1000 {
            if self.core.compact_step(Duration::ZERO, Duration::MAX, true)? == CompactionStep::Idle {
                return Ok(());
            }
        }
        Err(StoreError::Bug("compaction comes to no end".to_owned()))
    }

    pub(super) fn set_flaw(&mut self, flaw: Flaw) {
        self.flaw = flaw;
        self.core.flaw = flaw;
    }
}
