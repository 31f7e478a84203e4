//! What the machine has to give: memory, space under a path and file descriptors.
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

/// Where control groups tell a limit of memory, of version 2 and of version 1, as seen from inside of a container.
const MEMORY_LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// The memory that this process may use, in bytes: the machine's, or less where a control group allows less. `None` when the
/// kernel does not tell.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let machine = memory_total(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let limits = MEMORY_LIMITS
        .iter()
        .filter_map(|path| memory_limit(&std::fs::read_to_string(path).ok()?));
    Some(limits.fold(machine, u64::min))
}

/// The memory that this process occupies now, in bytes; `None` when the kernel does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// `max` means that there is no limit; version 1 says so by a number near 2^63, which `min` with the machine's takes care of.
fn memory_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes > 0)
}

/// A block device as the kernel describes it, with the devices that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// The device-mapper's name for it, such as `CRYPT-LUKS2-...` or `LVM-...`; absent for a device that is not mapped.
    pub mapper_uuid: Option<String>,
    /// What it lies on: a volume on its disks, an array on its members; empty for a disk or a partition.
    pub below: Vec<BlockDevice>,
}

/// Volumes on arrays on volumes: nobody stacks more, and a damaged description must not lead in circles.
const STACK_MAX: usize = 16;

/// The block device that holds `path`; `None` when the kernel does not tell (a file system without a device of its own, no right
/// to look).
#[must_use]
pub fn block_device(path: &Path) -> Option<BlockDevice> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    describe(&Path::new("/sys/dev/block").join(number), STACK_MAX)
}

/// Reads the description in `directory`; `None` when it, or one below it, cannot be read whole.
fn describe(directory: &Path, stack_max: usize) -> Option<BlockDevice> {
    if stack_max == 0 || !directory.is_dir() {
        return None;
    }
    let mapper_uuid = match std::fs::read_to_string(directory.join("dm/uuid")) {
        Ok(uuid) => Some(uuid.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => return None,
    };
    let mut below = Vec::new();
    match std::fs::read_dir(directory.join("slaves")) {
        Ok(rows) => {
            for row in rows {
                below.push(describe(&row.ok()?.path(), stack_max - 1)?);
            }
        }
        // A partition has no such folder.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => return None,
    }
    Some(BlockDevice { mapper_uuid, below })
}

#[cfg(test)]
mod tests {
    use super::{BlockDevice, STACK_MAX, describe, descriptors, memory_bytes, memory_limit, memory_total, space_of};
    use std::fs;

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

    #[test]
    fn memory_is_the_machines_or_what_the_control_group_leaves() {
        assert_eq!(
            memory_total("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            Some(16 << 20)
        );
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert_eq!(memory_limit("1048576\n"), Some(1 << 20));
        assert_eq!(memory_limit("max\n"), None);
        assert!(memory_bytes().unwrap() > 1 << 20);
    }

    /// As the kernel shows a volume on an encrypted array of two partitions: `slaves` holds links to the devices below.
    #[test]
    fn a_stack_of_devices_is_read_to_its_bottom_or_not_at_all() {
        let kernel = tempfile::tempdir().unwrap();
        let device = |name: &str, uuid: Option<&str>, below: &[&str]| {
            let directory = kernel.path().join(name);
            fs::create_dir_all(directory.join("slaves")).unwrap();
            if let Some(uuid) = uuid {
                fs::create_dir(directory.join("dm")).unwrap();
                fs::write(directory.join("dm/uuid"), format!("{uuid}\n")).unwrap();
            }
            for other in below {
                let link = directory.join("slaves").join(other);
                std::os::unix::fs::symlink(kernel.path().join(other), link).unwrap();
            }
        };
        fs::create_dir(kernel.path().join("sda1")).unwrap();
        device("sdb1", None, &[]);
        device("md0", None, &["sda1", "sdb1"]);
        device("dm-0", Some("CRYPT-LUKS2-array"), &["md0"]);
        device("dm-1", Some("LVM-volume"), &["dm-0"]);
        let plain = || BlockDevice {
            mapper_uuid: None,
            below: Vec::new(),
        };
        let array = BlockDevice {
            mapper_uuid: None,
            below: vec![plain(), plain()],
        };
        let sealed = BlockDevice {
            mapper_uuid: Some("CRYPT-LUKS2-array".to_owned()),
            below: vec![array],
        };
        let volume = BlockDevice {
            mapper_uuid: Some("LVM-volume".to_owned()),
            below: vec![sealed],
        };
        assert_eq!(describe(&kernel.path().join("dm-1"), STACK_MAX), Some(volume));
        assert_eq!(describe(&kernel.path().join("dm-2"), STACK_MAX), None);
        device("dm-3", Some("LVM-torn"), &["gone"]);
        assert_eq!(describe(&kernel.path().join("dm-3"), STACK_MAX), None);
        device("dm-4", Some("LVM-circle"), &["dm-4"]);
        assert_eq!(describe(&kernel.path().join("dm-4"), STACK_MAX), None);
    }
}
