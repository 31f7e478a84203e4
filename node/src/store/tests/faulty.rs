//! A simulated disk and an index whose calls can fail for a while, and a disk whose syncs can lie.

use bytes::Bytes;
use disk::judged::{Io, Verdict};
use disk::{Disk, DiskError, JudgedDisk, SimDisk};
use kv::memory::MemoryKv;
use kv::seam::{Batch, Kv, KvError, KvRead, Scan};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A simulated disk whose reads and opens can fail for a while, and whose syncs can lie.
pub(super) struct FaultyDisk {
    pub(super) inner: SimDisk,
    pub(super) fail_reads: Arc<AtomicBool>,
    pub(super) fail_opens: Arc<AtomicBool>,
    pub(super) lie_about_syncs: Arc<AtomicBool>,
}

impl FaultyDisk {
    pub(super) fn new(inner: SimDisk) -> Self {
        Self {
            inner,
            fail_reads: Arc::default(),
            fail_opens: Arc::default(),
            lie_about_syncs: Arc::default(),
        }
    }

    /// What a store is opened on; the switches work on all that were made.
    pub(super) fn seam(&self) -> Arc<dyn Disk> {
        let reads = Arc::clone(&self.fail_reads);
        let opens = Arc::clone(&self.fail_opens);
        let lies = Arc::clone(&self.lie_about_syncs);
        let judge = move |io: Io<'_>| match io {
            Io::Open(name) if opens.load(Ordering::Relaxed) => {
                Verdict::Refuse(DiskError::Io(format!("open {name}: too many open files")))
            }
            Io::Read(_) if reads.load(Ordering::Relaxed) => {
                Verdict::Refuse(DiskError::Io("read: input/output error".to_owned()))
            }
            Io::Sync(_) if lies.load(Ordering::Relaxed) => Verdict::Pretend,
            _ => Verdict::Pass,
        };
        Arc::new(JudgedDisk::new(Arc::new(self.inner.clone()), Arc::new(judge)))
    }
}

/// An index of which one call that changes something fails, counted over writes and syncs together.
pub(super) struct FaultyKv {
    pub(super) inner: MemoryKv,
    pub(super) changes: AtomicU64,
    /// `u64::MAX`: none.
    pub(super) failing_change: AtomicU64,
}

impl FaultyKv {
    pub(super) fn new(inner: MemoryKv) -> Self {
        Self {
            inner,
            changes: AtomicU64::new(0),
            failing_change: AtomicU64::new(u64::MAX),
        }
    }

    fn count(&self) -> Result<(), KvError> {
        if self.changes.fetch_add(1, Ordering::Relaxed) == self.failing_change.load(Ordering::Relaxed) {
            return Err(KvError::Io("injected I/O error".to_owned()));
        }
        Ok(())
    }
}

impl KvRead for FaultyKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.inner.get(key)
    }
    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.inner.scan(scan)
    }
}

impl Kv for FaultyKv {
    fn write(&self, batch: Batch) -> Result<(), KvError> {
        self.count()?;
        self.inner.write(batch)
    }
    fn sync(&self) -> Result<(), KvError> {
        self.count()?;
        self.inner.sync()
    }
    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        self.inner.snapshot()
    }
}
