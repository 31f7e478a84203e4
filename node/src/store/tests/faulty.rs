//! A simulated disk and an index whose calls can fail for a while, and a disk whose syncs can lie.

use bytes::Bytes;
use disk::{Disk, DiskError, DiskFile, SimDisk, Space};
use kv::memory::MemoryKv;
use kv::seam::{Batch, Kv, KvError, KvRead, Scan};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
