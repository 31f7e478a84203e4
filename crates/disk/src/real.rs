//! A disk that is a directory of the host's file system.
//!
//! Place in the picture: what a node's data directory and a metadata process's log directory are made of.
//! Invariants: one process, one opener (a locked file); names never leave the directory; a partial write is continued.
//! Not here: choosing directories or file systems (configuration).

use crate::seam::{Disk, DiskError, DiskFile, Space, check_name};
use bytes::Bytes;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind as IoKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const LOCK_NAME: &str = ".lock";
/// Slices in one system call; Linux takes 1,024 (IOV_MAX).
const SLICES_MAX: usize = 512;

/// A directory of the host's file system, held exclusively while this value lives.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    _lock: File,
}

impl RealDisk {
    /// Takes the directory `root`, which is made when it is missing (its parent must exist).
    ///
    /// `InUse` when anybody holds it already; the operating system lets go when the holder's process ends.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let shown = root.display().to_string();
        match fs::create_dir(root) {
            Ok(()) => {
                if let Some(above) = root.parent().filter(|above| !above.as_os_str().is_empty()) {
                    File::open(above)
                        .and_then(|dir| dir.sync_all())
                        .map_err(|error| refine(&shown, &error))?;
                }
            }
            Err(error) if error.kind() == IoKind::AlreadyExists => {}
            Err(error) => return Err(refine(&shown, &error)),
        }
        Self::take(root, shown)
    }

    /// Takes the directory `root` only where the file `proof` lies in it, and makes and changes nothing where it does not.
    ///
    /// For directories that may be the mount points of disks that are away. `NotFound` without the file; else as `open`.
    pub fn open_holding(root: &Path, proof: &str) -> Result<Self, DiskError> {
        check_name(proof)?;
        let path = root.join(proof);
        let shown = path.display().to_string();
        match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_file() => Self::take(root, root.display().to_string()),
            Ok(_) => Err(DiskError::NotFound(shown)),
            Err(error) => Err(refine(&shown, &error)),
        }
    }

    fn take(root: &Path, shown: String) -> Result<Self, DiskError> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join(LOCK_NAME))
            .map_err(|error| refine(&shown, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                root: root.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DiskError::InUse(shown)),
            Err(TryLockError::Error(error)) => Err(refine(&shown, &error)),
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, DiskError> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    fn dir_path(&self, dir: &str) -> Result<PathBuf, DiskError> {
        if dir.is_empty() {
            Ok(self.root.clone())
        } else {
            self.path(dir)
        }
    }

    fn file(name: &str, opened: io::Result<File>) -> Result<Box<dyn DiskFile>, DiskError> {
        match opened {
            Ok(file) => Ok(Box::new(RealFile {
                name: name.to_owned(),
                file,
            })),
            Err(error) => Err(refine(name, &error)),
        }
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let path = self.path(name)?;
        Self::file(
            name,
            OpenOptions::new().read(true).write(true).create_new(true).open(path),
        )
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let path = self.path(name)?;
        Self::file(name, OpenOptions::new().read(true).write(true).open(path))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let path = self.dir_path(dir)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| refine(dir, &error))? {
            let entry = entry.map_err(|error| refine(dir, &error))?;
            let is_file = entry.file_type().map_err(|error| refine(dir, &error))?.is_file();
            match entry.file_name().into_string() {
                Ok(name) if is_file && name != LOCK_NAME => names.push(name),
                Ok(_) => {}
                // Nobody but us writes here and our names are ASCII: such a file is foreign, and foreign files are left alone.
                Err(_) => {}
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let (old, new) = (self.path(from)?, self.path(to)?);
        // The holder of the directory is the only one who makes names in it, so nothing can come between check and rename.
        if new.symlink_metadata().is_ok() {
            return Err(DiskError::Exists(to.to_owned()));
        }
        fs::rename(old, new).map_err(|error| refine(from, &error))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        fs::remove_file(self.path(name)?).map_err(|error| refine(name, &error))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        File::open(self.dir_path(dir)?)
            .and_then(|opened| opened.sync_all())
            .map_err(|error| refine(dir, &error))
    }

    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        check_name(dir)?;
        let mut path = self.root.clone();
        for part in dir.split('/') {
            let above = path.clone();
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == IoKind::AlreadyExists && path.is_dir() => {}
                Err(error) => return Err(refine(dir, &error)),
            }
            // Synced in any case: whoever made it earlier may have been cut off before this.
            File::open(&above)
                .and_then(|opened| opened.sync_all())
                .map_err(|error| refine(dir, &error))?;
        }
        Ok(())
    }

    fn space(&self) -> Result<Space, DiskError> {
        let answer = rustix::fs::statvfs(&self.root)
            .map_err(|error| refine(&self.root.display().to_string(), &io::Error::from(error)))?;
        Ok(Space {
            total_bytes: answer.f_blocks.saturating_mul(answer.f_frsize),
            free_bytes: answer.f_bavail.saturating_mul(answer.f_frsize),
        })
    }
}

struct RealFile {
    name: String,
    file: File,
}

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        let mut offset = offset;
        for group in parts.chunks(SLICES_MAX) {
            let mut slices: Vec<IoSlice<'_>> = group.iter().map(|part| IoSlice::new(part)).collect();
            let mut rest: &mut [IoSlice<'_>] = &mut slices;
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match rustix::io::pwritev(&self.file, rest, offset) {
                    Ok(0) => return Err(DiskError::Io(format!("write {}: nothing was written", self.name))),
                    Ok(written) => {
                        offset += written as u64;
                        IoSlice::advance_slices(&mut rest, written);
                    }
                    Err(error) if error == rustix::io::Errno::INTR => {}
                    Err(error) => return Err(refine(&self.name, &io::Error::from(error))),
                }
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        let mut buffer = vec![0_u8; len_bytes];
        let mut read_bytes = 0;
        while read_bytes < len_bytes {
            match self.file.read_at(&mut buffer[read_bytes..], offset + read_bytes as u64) {
                Ok(0) => {
                    return Err(DiskError::ShortRead {
                        name: self.name.clone(),
                        offset,
                        wanted_bytes: len_bytes as u64,
                        read_bytes: read_bytes as u64,
                    });
                }
                Ok(count) => read_bytes += count,
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) => return Err(refine(&self.name, &error)),
            }
        }
        Ok(Bytes::from(buffer))
    }

    fn sync(&self) -> Result<(), DiskError> {
        // Never repeated, not even after an interruption: the first failure may already have dropped the pages (ATC'20).
        self.file.sync_data().map_err(|error| refine(&self.name, &error))
    }

    fn len_bytes(&self) -> Result<u64, DiskError> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| refine(&self.name, &error))
    }

    fn allocate(&self, len_bytes: u64) -> Result<(), DiskError> {
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, len_bytes) {
            Ok(()) => Ok(()),
            Err(error) if error == rustix::io::Errno::OPNOTSUPP || error == rustix::io::Errno::NOSYS => Ok(()),
            Err(error) => Err(refine(&self.name, &io::Error::from(error))),
        }
    }
}

fn refine(name: &str, error: &io::Error) -> DiskError {
    match error.kind() {
        IoKind::NotFound => DiskError::NotFound(name.to_owned()),
        IoKind::AlreadyExists => DiskError::Exists(name.to_owned()),
        IoKind::StorageFull | IoKind::QuotaExceeded => DiskError::Full(name.to_owned()),
        IoKind::ReadOnlyFilesystem => DiskError::ReadOnly(name.to_owned()),
        _ => DiskError::Io(format!("{name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::RealDisk;
    use crate::seam::{Disk, DiskError};

    #[test]
    fn two_openers_never_share_a_directory() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("disk");
        let first = RealDisk::open(&root).unwrap();
        assert!(matches!(RealDisk::open(&root), Err(DiskError::InUse(_))));
        drop(first);
        RealDisk::open(&root).unwrap();
    }

    #[test]
    fn a_directory_without_the_proof_is_not_touched() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("disk");
        let absent = |answer: Result<RealDisk, DiskError>| matches!(answer, Err(DiskError::NotFound(_)));
        assert!(absent(RealDisk::open_holding(&root, "proof")));
        assert!(!root.exists());
        std::fs::create_dir(&root).unwrap();
        assert!(absent(RealDisk::open_holding(&root, "proof")));
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0);
        std::fs::create_dir(root.join("proof")).unwrap();
        assert!(absent(RealDisk::open_holding(&root, "proof")), "a folder is no proof");
        std::fs::remove_dir(root.join("proof")).unwrap();
        drop(RealDisk::open(&root).unwrap().create("proof").unwrap());
        let held = RealDisk::open_holding(&root, "proof").unwrap();
        assert!(matches!(
            RealDisk::open_holding(&root, "proof"),
            Err(DiskError::InUse(_))
        ));
        drop(held);
    }

    #[test]
    fn the_real_disk_keeps_what_every_disk_promises() {
        let parent = tempfile::tempdir().unwrap();
        crate::conformance::check(&RealDisk::open(&parent.path().join("disk")).unwrap());
    }
}
