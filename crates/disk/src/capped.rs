//! A disk that uses at most so much of its file system.
//!
//! Several disks of a small cluster share one file system; each is told its part, so that none eats another's reserve.
//! Invariants: `space` never tells more than what is left of the part or of the file system; names and bytes are the disk's below.
//! Not here: stopping a write midway: who appends asks for space first (the journal does, before each segment).

use crate::real::RealDisk;
use crate::seam::{Disk, DiskError, DiskFile, Space};
use std::fs;
use std::path::{Path, PathBuf};

/// A real disk with a part of its file system.
pub struct CappedDisk {
    inner: RealDisk,
    root: PathBuf,
    capacity_bytes: u64,
}

impl CappedDisk {
    /// Takes the directory `root` as `RealDisk::open` does and uses at most `capacity_bytes` for files below it.
    pub fn open(root: &Path, capacity_bytes: u64) -> Result<Self, DiskError> {
        Ok(Self {
            inner: RealDisk::open(root)?,
            root: root.to_owned(),
            capacity_bytes,
        })
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
        let left_bytes = self.capacity_bytes.saturating_sub(used_bytes(&self.root)?);
        Ok(Space {
            total_bytes: self.capacity_bytes.min(whole.total_bytes),
            free_bytes: left_bytes.min(whole.free_bytes),
        })
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
    }
}
