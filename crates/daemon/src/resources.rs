//! What the machine still has to give: space under a path and file descriptors.
//!
//! Not here: who is refused when it runs out (each service), and how much a disk of ours may use (node).

use rustix::fs::statvfs;
use rustix::process::{Resource, getrlimit};
use std::io;
use std::path::Path;

/// Space of the file system that holds a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What this process may still use; the part reserved for root is left out.
    pub available: u64,
}

/// The space of the file system that holds `path`, which must exist.
///
/// Errors: those of the operating system.
pub fn space_of(path: &Path) -> io::Result<Space> {
    let found = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space {
        total: bytes(found.f_blocks),
        available: bytes(found.f_bavail),
    })
}

/// How many file descriptors this process has and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Open at the moment, the one that counts them included.
    pub open: u64,
    /// The soft limit; `u64::MAX` when there is none.
    pub max: u64,
}

impl Descriptors {
    /// How many more can be opened.
    #[must_use]
    pub fn free(self) -> u64 {
        self.max.saturating_sub(self.open)
    }
}

/// Counts this process's file descriptors. Costs a listing of `/proc/self/fd`.
///
/// Errors: `/proc` is not mounted.
pub fn descriptors() -> io::Result<Descriptors> {
    let open = u64::try_from(std::fs::read_dir("/proc/self/fd")?.count()).unwrap_or(u64::MAX);
    let max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(Descriptors { open, max })
}

/// The device-mapper's name for what lies under `path`: `Some(Some(uuid))` on a mapped device, `Some(None)` on a plain block
/// device, `None` when the kernel does not tell (no block device of its own, no right to look).
#[must_use]
pub fn device_mapper_uuid(path: &Path) -> Option<Option<String>> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let block = Path::new("/sys/dev/block").join(number);
    if !block.exists() {
        return None;
    }
    Some(
        std::fs::read_to_string(block.join("dm/uuid"))
            .ok()
            .map(|uuid| uuid.trim().to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::{descriptors, space_of};

    #[test]
    fn the_space_of_a_folder_is_within_its_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let space = space_of(folder.path()).unwrap();
        assert!(space.total > 0 && space.available <= space.total);
        assert!(space_of(&folder.path().join("absent")).is_err());
    }

    #[test]
    fn descriptors_are_counted() {
        let count = descriptors().unwrap();
        assert!(count.open >= 3 && count.free() < count.max);
    }
}
