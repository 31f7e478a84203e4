//! A disk in memory that forgets whatever was not synced.
//!
//! Place in the picture: the crash suites of the journal, the fragment store and the Raft log, and the simulated cluster.
//! What a power cut leaves: synced bytes; any subset of the 4 KiB blocks that were written and not synced; any subset of the
//! directory operations whose directories were not synced (in their order, those that still make sense). A failed sync drops what
//! it should have covered, as Linux does: the cache still shows it, later syncs succeed, and it is gone after the cut (Rebello et
//! al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
//! Invariants: deterministic; clones are handles of the same disk; `crash` answers a new one.
//! Not here: latency, and disks that lie (a test wraps this one for that).

mod state;

pub use state::{Faults, Survivors, Unsynced};

use crate::seam::{Disk, DiskError, DiskFile, Space, check_name};
use bytes::Bytes;
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated disk; clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk of `capacity_bytes`.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self::of(State::new(capacity_bytes))
    }

    fn of(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of a test thread leaves the state as it was between two I/Os, which is a state like any other.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the faults that are to come; counts go on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Changes how much the disk holds, in bytes.
    pub fn set_capacity_bytes(&self, capacity_bytes: u64) {
        self.state().capacity_bytes = capacity_bytes;
    }

    /// I/Os that change something (create, allocate, write, sync, rename, remove, sync_dir, make_dir) so far.
    #[must_use]
    pub fn io_count(&self) -> u64 {
        self.state().io_count
    }

    /// Reads so far.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.state().read_count
    }

    /// File syncs so far.
    #[must_use]
    pub fn sync_count(&self) -> u64 {
        self.state().sync_count
    }

    /// Bytes that were written a second time, ever: an append-only user has none.
    #[must_use]
    pub fn overwritten_bytes(&self) -> u64 {
        self.state().overwritten_bytes
    }

    /// Every changing I/O so far, one line each.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.state().trace.clone()
    }

    /// What a power cut could lose now.
    #[must_use]
    pub fn unsynced(&self) -> Unsynced {
        self.state().unsynced()
    }

    /// The disk as it is found after a power cut now; this one is not changed, and no fault or count is carried over.
    #[must_use]
    pub fn crash(&self, survivors: Survivors) -> Self {
        Self::of(self.state().crash(survivors))
    }

    /// Inverts one bit of the file `name`, in cache and on the platter: bit rot. `NotFound` and `ShortRead` as for a read.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> Result<(), DiskError> {
        self.state().flip_bit(name, offset, bit)
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        check_name(name)?;
        let file = self.state().create(name)?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            name: name.to_owned(),
            file,
        }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        check_name(name)?;
        let file = self.state().find(name)?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            name: name.to_owned(),
            file,
        }))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.state().list(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        check_name(from)?;
        check_name(to)?;
        self.state().rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        check_name(name)?;
        self.state().remove(name)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.state().sync_dir(dir)
    }

    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        check_name(dir)?;
        self.state().make_dir(dir)
    }

    fn space(&self) -> Result<Space, DiskError> {
        Ok(self.state().space())
    }
}

struct SimFile {
    disk: SimDisk,
    name: String,
    file: u64,
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        self.disk.state().write(self.file, &self.name, offset, parts)
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        self.disk.state().read(self.file, &self.name, offset, len_bytes)
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.disk.state().sync(self.file, &self.name)
    }

    fn len_bytes(&self) -> Result<u64, DiskError> {
        self.disk.state().len_bytes(self.file)
    }

    fn allocate(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.disk.state().allocate(self.file, &self.name, len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Faults, SimDisk, Survivors};
    use crate::seam::{Disk, DiskError};

    #[test]
    fn the_simulated_disk_keeps_what_every_disk_promises() {
        crate::conformance::check(&SimDisk::new(1 << 30));
    }

    #[test]
    fn a_cut_keeps_synced_bytes_and_the_chosen_blocks() {
        let disk = SimDisk::new(1 << 20);
        let file = disk.create("f").unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, &[&[1; 4096]]).unwrap();
        file.sync().unwrap();
        file.write_at(4096, &[&[2; 8192]]).unwrap();
        assert_eq!(disk.unsynced().blocks, 2);
        let check = |mask: u64, expected: &[u8]| {
            let after = disk.crash(Survivors::Mask(mask));
            let file = after.open("f").unwrap();
            let len = usize::try_from(file.len_bytes().unwrap()).unwrap();
            let firsts: Vec<u8> = file
                .read_at(0, len)
                .unwrap()
                .chunks(4096)
                .map(|block| block[0])
                .collect();
            assert_eq!(firsts, expected);
        };
        check(0b00, &[1]);
        check(0b01, &[1, 2]);
        check(0b10, &[1, 0, 2]);
        check(0b11, &[1, 2, 2]);
    }

    #[test]
    fn names_that_were_not_synced_may_be_lost() {
        let disk = SimDisk::new(1 << 20);
        disk.create("f").unwrap().sync().unwrap();
        assert!(matches!(
            disk.crash(Survivors::None).open("f"),
            Err(DiskError::NotFound(_))
        ));
        assert!(disk.crash(Survivors::All).open("f").is_ok());
        disk.sync_dir("").unwrap();
        assert!(disk.crash(Survivors::None).open("f").is_ok());
        disk.remove("f").unwrap();
        assert!(
            disk.crash(Survivors::None).open("f").is_ok(),
            "an unlink that was not synced may come undone"
        );
    }

    /// shows: F23
    #[test]
    fn a_failed_sync_drops_what_it_should_have_covered() {
        let disk = SimDisk::new(1 << 20);
        let file = disk.create("f").unwrap();
        disk.sync_dir("").unwrap();
        disk.set_faults(Faults {
            failing_sync: Some(0),
            ..Faults::default()
        });
        file.write_at(0, &[b"lost"]).unwrap();
        assert!(file.sync().is_err());
        assert_eq!(&file.read_at(0, 4).unwrap()[..], b"lost", "the cache still shows it");
        file.sync().unwrap();
        assert_eq!(disk.crash(Survivors::All).open("f").unwrap().len_bytes().unwrap(), 0);
    }

    #[test]
    fn a_full_disk_writes_a_part_and_says_so() {
        let disk = SimDisk::new(8192);
        let file = disk.create("f").unwrap();
        assert!(matches!(file.write_at(0, &[&[7; 12_288]]), Err(DiskError::Full(_))));
        assert_eq!(file.len_bytes(), Ok(8192));
        assert_eq!(disk.space().unwrap().free_bytes, 0);
    }
}
