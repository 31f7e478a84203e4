//! A disk and an index that let the other threads of a schedule run before each of their calls, each with bugs that can be planted.
//!
//! Not here: what must hold under them (`schedules`).

use crate::store::place_row::{self, PlaceRow};
use bytes::Bytes;
use disk::judged::{Io, Verdict};
use disk::{Disk, JudgedDisk, SimDisk};
use kv::memory::MemoryKv;
use kv::seam::{Batch, Change, Kv, KvError, KvRead, Scan};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// A bug made on purpose, so that the suite can show that it would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plant {
    None,
    /// The disk answers a sync without doing it.
    AnswerBeforeSync,
    /// The index takes compaction's new places later than it says.
    LateSwap,
    /// A reader does not look again where a segment is gone.
    OneLook,
}

/// Another thread may run here. Not a yield: to a scheduler of priorities that would mean that this thread wants to come last.
pub(super) fn switch() {
    AtomicBool::new(false).load(Ordering::SeqCst);
}

/// `disk` with a switch before every I/O.
pub(super) fn switching(disk: &SimDisk, plant: Plant) -> Arc<dyn Disk> {
    let judge = move |io: Io<'_>| {
        switch();
        match io {
            Io::Sync(_) if plant == Plant::AnswerBeforeSync => Verdict::Pretend,
            _ => Verdict::Pass,
        }
    };
    Arc::new(JudgedDisk::new(Arc::new(disk.clone()), Arc::new(judge)))
}

/// An index in memory with a switch before every call.
pub(super) struct SwitchingKv {
    inner: Arc<MemoryKv>,
    plant: Plant,
}

impl SwitchingKv {
    pub(super) fn new(inner: Arc<MemoryKv>, plant: Plant) -> Self {
        Self { inner, plant }
    }

    /// Whether a change gives a record another place and leaves it its sequence: so does only compaction.
    fn is_swap(&self, change: &Change) -> bool {
        let Change::Put(key, value) = change else { return false };
        let row = |bytes: &Bytes| place_row::decode::<PlaceRow>(bytes).ok();
        let old = self.inner.get(key).ok().flatten();
        place_row::name_of(key).is_some()
            && old
                .and_then(|old| Some((row(&old)?, row(value)?)))
                .is_some_and(|(old, new)| old.sequence == new.sequence && old.place != new.place)
    }
}

impl KvRead for SwitchingKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        switch();
        self.inner.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        switch();
        self.inner.scan(scan)
    }
}

impl Kv for SwitchingKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        switch();
        if self.plant == Plant::LateSwap && batch.iter().any(|change| self.is_swap(change)) {
            let inner = Arc::clone(&self.inner);
            shuttle::thread::spawn(move || drop(inner.write(batch)));
            return Ok(());
        }
        self.inner.write(batch)
    }

    fn sync(&self) -> Result<(), KvError> {
        switch();
        self.inner.sync()
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        self.inner.snapshot()
    }
}
