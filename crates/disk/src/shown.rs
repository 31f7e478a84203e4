//! A disk over another one that shows less free space than there is, as somebody says while it is in use.
//!
//! Place in the picture: the double for tests of whatever refuses or waits when a disk fills up.
//! Invariants: `space` never tells more than what the disk below does; everything else is done by that one, so what is written in spite
//! of what is shown is really written.
//! Not here: writes that fail for want of space (`sim`), a part of a file system (`capped`); production never makes one.

use crate::seam::{Disk, DiskError, DiskFile, Space};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most that disks show as free; clones are the same.
#[derive(Clone)]
pub struct ShownSpace(Arc<AtomicU64>);

struct ShownDisk {
    inner: Arc<dyn Disk>,
    shown: ShownSpace,
}

impl ShownSpace {
    /// Hides nothing, until told otherwise.
    #[must_use]
    pub fn all() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// From now on `free_bytes` are the most that is shown as free, in bytes; `u64::MAX` hides nothing.
    pub fn set(&self, free_bytes: u64) {
        self.0.store(free_bytes, Ordering::SeqCst);
    }

    /// `inner` that shows at most this; any number of disks may.
    #[must_use]
    pub fn over(&self, inner: Arc<dyn Disk>) -> Arc<dyn Disk> {
        let shown = self.clone();
        Arc::new(ShownDisk { inner, shown })
    }
}

impl Disk for ShownDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.inner.create(name)
    }
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        self.inner.open(name)
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
        let whole = self.inner.space()?;
        Ok(Space {
            free_bytes: whole.free_bytes.min(self.shown.0.load(Ordering::SeqCst)),
            ..whole
        })
    }
    fn latency(&self) -> Duration {
        self.inner.latency()
    }
}

#[cfg(test)]
mod tests {
    use super::ShownSpace;
    use crate::seam::Disk;
    use crate::sim::SimDisk;
    use std::sync::Arc;

    #[test]
    fn a_disk_that_shows_little_passes_the_suite_and_writes_on_all_the_same() {
        let inner = Arc::new(SimDisk::new(1 << 30));
        let shown = ShownSpace::all();
        let disk = shown.over(inner.clone());
        assert_eq!(disk.space(), inner.space());
        shown.set(10);
        crate::conformance::check(disk.as_ref());
        assert_eq!(disk.space().unwrap().free_bytes, 10);
        disk.create("written").unwrap().write_at(0, &[&[7; 400]]).unwrap();
        assert_eq!(inner.open("written").unwrap().len_bytes(), Ok(400));
        shown.set(u64::MAX);
        assert_eq!(disk.space(), inner.space());
    }
}
