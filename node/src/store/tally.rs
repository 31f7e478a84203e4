//! What a disk's store counts and shows, shared between its writer, its readers and the status.
//!
//! Invariant: once read-only, read-only until the process opens the disk again.
//! Not here: decisions; nothing but the cause of being read-only is ever decided by these numbers.

use super::cells::Cells;
use super::core::SegmentUse;
use disk::SegmentNumber;
use protocol::node::DiskCounters;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counters of one disk.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) stores: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) repeats: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) corrupt: AtomicU64,
    pub(crate) removes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) scrubbed: AtomicU64,
    pub(crate) repairs: AtomicU64,
    pub(crate) fragments: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) living_bytes: AtomicU64,
    pub(crate) is_full: AtomicBool,
    read_only: Mutex<Option<String>>,
    cells: Mutex<Cells>,
}

impl Tally {
    /// Why the disk takes nothing any more; `None` while it does.
    pub(crate) fn read_only_cause(&self) -> Option<String> {
        self.read_only.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the disk read-only; the first cause is kept and logged.
    pub(crate) fn set_read_only(&self, cause: &str) {
        let mut known = self.read_only.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            tracing::error!(cause, "disk is read-only");
            *known = Some(cause.to_owned());
        }
    }

    /// Sums of the fragments; held for moments.
    pub(crate) fn cells(&self) -> MutexGuard<'_, Cells> {
        // Each change under the lock is complete on its own.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_segments(&self, segments: &BTreeMap<SegmentNumber, SegmentUse>) {
        let living = segments.values().map(|usage| usage.living_bytes).sum();
        self.living_bytes.store(living, Ordering::Relaxed);
    }

    /// The counters as the status tells them.
    pub(crate) fn counters(&self) -> DiskCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            stores: get(&self.stores),
            repeats: get(&self.repeats),
            reads: get(&self.reads),
            corrupt: get(&self.corrupt),
            removes: get(&self.removes),
            compactions: get(&self.compactions),
            scrubbed: get(&self.scrubbed),
            repairs: get(&self.repairs),
        }
    }
}
