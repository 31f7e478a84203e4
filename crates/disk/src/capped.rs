//! A disk that uses at most so much of its file system.
//!
//! Several disks of a small cluster share one file system; each is told its part, so that none eats another's reserve.
//! Invariants: `space` never tells more than what is left of the part or of the file system; names and bytes are the disk's below;
//! what is used is counted once, when the disk is opened, and then kept up to date, since the journal asks before each batch.
//! Not here: stopping a write midway: who appends asks for space first (the journal does, before each segment).

use crate::real::RealDisk;
use crate::seam::{Disk, DiskError, DiskFile, Space};
use bytes::Bytes;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A real disk with a part of its file system.
pub struct CappedDisk {
    inner: RealDisk,
    capacity_bytes: u64,
    used_bytes: Arc<AtomicU64>,
}

struct CappedFile {
    inner: Box<dyn DiskFile>,
    used_bytes: Arc<AtomicU64>,
}

impl CappedDisk {
    /// Takes the directory `root` as `RealDisk::open` does and uses at most `capacity_bytes` for files below it.
    pub fn open(root: &Path, capacity_bytes: u64) -> Result<Self, DiskError> {
        Self::of(RealDisk::open(root)?, root, capacity_bytes)
    }

    /// The same with a directory that must hold the file `proof` already, as `RealDisk::open_holding`.
    pub fn open_holding(root: &Path, proof: &str, capacity_bytes: u64) -> Result<Self, DiskError> {
        Self::of(RealDisk::open_holding(root, proof)?, root, capacity_bytes)
    }

    fn of(inner: RealDisk, root: &Path, capacity_bytes: u64) -> Result<Self, DiskError> {
        Ok(Self {
            inner,
            capacity_bytes,
            used_bytes: Arc::new(AtomicU64::new(used_bytes(root)?)),
        })
    }

    fn counted(&self, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let used_bytes = Arc::clone(&self.used_bytes);
        Box::new(CappedFile { inner, used_bytes })
    }
}

fn used_bytes(directory: &Path) -> Result<u64, DiskError> {
    let failed = |error: std::io::Error| DiskError::Io(format!("{}: {error}", directory.display()));
    let mut used = 0;
    for row in fs::read_dir(directory).map_err(failed)? {
        let row = row.map_err(failed)?;
        match row.metadata() {
            Ok(facts) if facts.is_dir() => used += used_bytes(&row.path())?,
            Ok(facts) => used += facts.len(),
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(used)
}

impl Disk for CappedDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(self.counted(self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Ok(self.counted(self.inner.open(name)?))
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.inner.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let len_bytes = self.inner.open(name)?.len_bytes()?;
        self.inner.remove(name)?;
        self.used_bytes.fetch_sub(len_bytes, Ordering::Relaxed);
        Ok(())
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.sync_dir(dir)
    }
    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.make_dir(dir)
    }
    fn space(&self) -> Result<Space, DiskError> {
        let whole = self.inner.space()?;
        let left_bytes = self
            .capacity_bytes
            .saturating_sub(self.used_bytes.load(Ordering::Relaxed));
        Ok(Space {
            total_bytes: self.capacity_bytes.min(whole.total_bytes),
            free_bytes: left_bytes.min(whole.free_bytes),
        })
    }
}

impl DiskFile for CappedFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        let before = self.inner.len_bytes()?;
        let answer = self.inner.write_at(offset, parts);
        // Of a write that failed a part may be there.
        let after = self.inner.len_bytes()?;
        self.used_bytes
            .fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        answer
    }
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        self.inner.read_at(offset, len_bytes)
    }
    fn sync(&self) -> Result<(), DiskError> {
        self.inner.sync()
    }
    fn len_bytes(&self) -> Result<u64, DiskError> {
        self.inner.len_bytes()
    }
    fn allocate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.inner.allocate(len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::CappedDisk;
    use crate::seam::Disk;

    #[test]
    fn a_capped_disk_passes_the_suite_and_counts_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        crate::conformance::check(&CappedDisk::open(&dir.path().join("suite"), 1 << 30).unwrap());
        let disk = CappedDisk::open(&dir.path().join("disk"), 1000).unwrap();
        let before = disk.space().unwrap();
        disk.create("a").unwrap().write_at(0, &[&[7; 400]]).unwrap();
        let after = disk.space().unwrap();
        assert_eq!(before.free_bytes - after.free_bytes, 400);
        assert_eq!(after.total_bytes, 1000);
        disk.open("a").unwrap().write_at(300, &[&[7; 200]]).unwrap();
        assert_eq!(disk.space().unwrap().free_bytes, 500);
        drop(disk);
        let disk = CappedDisk::open_holding(&dir.path().join("disk"), "a", 1000).unwrap();
        assert_eq!(disk.space().unwrap().free_bytes, 500);
        disk.remove("a").unwrap();
        assert_eq!(disk.space().unwrap(), before);
    }
}
