//! A disk over another one: a judge sees every I/O first, and lets it pass, refuses it, breaks it off midway, or has it answered without
//! being done.
//!
//! Place in the picture: the one double for tests of whatever stands on the seam: disks that fail for a while, that answer before
//! they synced, or that let other threads run between two I/Os.
//! Invariants: what passes is done by the disk below and by nothing else; the judge is called without a lock held.
//! Not here: power cuts and capacity (`sim`, `capped`); production never makes one.

use crate::seam::{Disk, DiskError, DiskFile, Space};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// An I/O that is about to be done.
#[derive(Clone, Copy, Debug)]
pub enum Io<'a> {
    /// A file of this name is made.
    Create(&'a str),
    /// The file of this name is opened.
    Open(&'a str),
    /// The first name becomes the second.
    Rename(&'a str, &'a str),
    /// This name is taken away.
    Remove(&'a str),
    /// The names in this directory are synced.
    SyncDir(&'a str),
    /// These parts are written to the file of this name, from this byte on.
    Write(&'a str, u64, &'a [&'a [u8]]),
    /// Bytes of the file of this name are read.
    Read(&'a str),
    /// The file of this name is synced.
    Sync(&'a str),
}

/// What is to become of an I/O.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Pass,
    /// It is answered with this error and not done.
    Refuse(DiskError),
    /// Of a write the first so many bytes are done, and it is answered with this error; whatever is no write is not done.
    Cut(usize, DiskError),
    /// It is answered as done and is not: a lie. Only syncs, removals and renames can be lied about; others pass.
    Pretend,
}

/// Decides about each I/O; may block or give way to other threads.
pub type Judge = Arc<dyn Fn(Io<'_>) -> Verdict + Send + Sync>;

/// Draws how long a batch waits; see `Disk::latency`.
pub type Latency = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The disk under judgement.
pub struct JudgedDisk {
    inner: Arc<dyn Disk>,
    judge: Judge,
    latency: Option<Latency>,
}

struct JudgedFile {
    name: String,
    inner: Box<dyn DiskFile>,
    judge: Judge,
}

impl JudgedDisk {
    /// `inner` with `judge` in front of it.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>, judge: Judge) -> Self {
        Self {
            inner,
            judge,
            latency: None,
        }
    }

    /// The same, as slow as `latency` says where time is simulated.
    #[must_use]
    pub fn taking(mut self, latency: Latency) -> Self {
        self.latency = Some(latency);
        self
    }

    fn file(&self, name: &str, inner: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(JudgedFile {
            name: name.to_owned(),
            inner,
            judge: Arc::clone(&self.judge),
        })
    }
}

/// Whether the I/O is to be done.
fn ask(judge: &Judge, io: Io<'_>) -> Result<bool, DiskError> {
    match judge(io) {
        Verdict::Pass => Ok(true),
        Verdict::Refuse(error) | Verdict::Cut(_, error) => Err(error),
        Verdict::Pretend => Ok(false),
    }
}

impl Disk for JudgedDisk {
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        ask(&self.judge, Io::Create(name))?;
        Ok(self.file(name, self.inner.create(name)?))
    }

    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        ask(&self.judge, Io::Open(name))?;
        Ok(self.file(name, self.inner.open(name)?))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        match ask(&self.judge, Io::Rename(from, to))? {
            true => self.inner.rename(from, to),
            false => Ok(()),
        }
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        match ask(&self.judge, Io::Remove(name))? {
            true => self.inner.remove(name),
            false => Ok(()),
        }
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        match ask(&self.judge, Io::SyncDir(dir))? {
            true => self.inner.sync_dir(dir),
            false => Ok(()),
        }
    }

    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.inner.make_dir(dir)
    }

    fn space(&self) -> Result<Space, DiskError> {
        self.inner.space()
    }

    fn latency(&self) -> Duration {
        self.latency
            .as_ref()
            .map_or_else(|| self.inner.latency(), |draw| draw())
    }
}

impl DiskFile for JudgedFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError> {
        match (self.judge)(Io::Write(&self.name, offset, parts)) {
            Verdict::Pass | Verdict::Pretend => self.inner.write_at(offset, parts),
            Verdict::Refuse(error) => Err(error),
            Verdict::Cut(len_bytes, error) => {
                let bytes = parts.concat();
                self.inner.write_at(offset, &[&bytes[..len_bytes.min(bytes.len())]])?;
                Err(error)
            }
        }
    }

    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        ask(&self.judge, Io::Read(&self.name))?;
        self.inner.read_at(offset, len_bytes)
    }

    fn sync(&self) -> Result<(), DiskError> {
        match ask(&self.judge, Io::Sync(&self.name))? {
            true => self.inner.sync(),
            false => Ok(()),
        }
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
    use super::{Io, JudgedDisk, Verdict};
    use crate::seam::{Disk, DiskError};
    use crate::sim::{SimDisk, Survivors};
    use std::sync::Arc;

    #[test]
    fn a_judge_that_lets_all_pass_changes_nothing() {
        let inner = Arc::new(SimDisk::new(1 << 30));
        crate::conformance::check(&JudgedDisk::new(inner, Arc::new(|_| Verdict::Pass)));
    }

    #[test]
    fn what_is_refused_is_not_done_and_a_lie_about_a_sync_loses_the_bytes() {
        let inner = SimDisk::new(1 << 20);
        let refusal = DiskError::Io("open: too many open files".to_owned());
        let answer = refusal.clone();
        let judge = Arc::new(move |io: Io<'_>| match io {
            Io::Open(_) => Verdict::Refuse(answer.clone()),
            Io::Sync("lied") => Verdict::Pretend,
            _ => Verdict::Pass,
        });
        let disk = JudgedDisk::new(Arc::new(inner.clone()), judge);
        for name in ["lied", "synced"] {
            let file = disk.create(name).unwrap();
            file.write_at(0, &[b"bytes"]).unwrap();
            file.sync().unwrap();
        }
        disk.sync_dir("").unwrap();
        assert_eq!(disk.open("synced").err(), Some(refusal));
        let left = |name| inner.crash(Survivors::None).open(name).unwrap().len_bytes().unwrap();
        assert_eq!((left("lied"), left("synced")), (0, 5));
    }

    #[test]
    fn a_write_that_is_cut_leaves_its_first_bytes_and_answers_the_error() {
        let inner = Arc::new(SimDisk::new(1 << 30));
        let error = DiskError::Io("no more".to_owned());
        let told = error.clone();
        let disk = JudgedDisk::new(
            inner,
            Arc::new(move |io| match io {
                Io::Write(_, 10, _) => Verdict::Cut(5, told.clone()),
                Io::Write(_, 20, _) => Verdict::Cut(100, told.clone()),
                _ => Verdict::Pass,
            }),
        );
        let file = disk.create("f").unwrap();
        file.write_at(0, &[b"0123456789"]).unwrap();
        assert_eq!(file.write_at(10, &[b"abc", b"defg"]), Err(error.clone()));
        assert_eq!(file.read_at(0, 15).unwrap(), "0123456789abcde");
        assert_eq!(file.len_bytes(), Ok(15));
        assert_eq!(file.write_at(20, &[b"whole"]), Err(error));
        assert_eq!(file.read_at(20, 5).unwrap(), "whole");
    }
}
