//! What a disk is to us: a few directories of files that are written once, in order, and synced.
//!
//! Place in the picture: the journal and whatever else keeps bytes durable stands on this seam; `real` is a directory of the
//! host's file system, `sim` a disk in memory that loses whatever was not synced.
//! Invariants: nothing is durable before `sync` (bytes of a file) or `sync_dir` (its name) returned; names are relative, with `/`
//! between parts, and never leave the disk. All calls block: async code calls them from its own threads.
//! Not here: caching, checksums, retries. A failed `sync` is final for the bytes that it should have covered.

use bytes::Bytes;
use model::error_kind::ErrorKind;
use std::time::Duration;
use thiserror::Error;

/// Why a disk did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiskError {
    /// No file or directory of this name.
    #[error("{0}: not found")]
    NotFound(String),
    /// A file or directory of this name is there already.
    #[error("{0}: exists")]
    Exists(String),
    /// No space left; perhaps a part of the bytes was written.
    #[error("{0}: disk full")]
    Full(String),
    /// The disk takes no more writes.
    #[error("{0}: disk is read-only")]
    ReadOnly(String),
    /// The name is empty, absolute, or leaves the disk.
    #[error("{0:?}: not a name on a disk")]
    BadName(String),
    /// Another process, or another part of this one, has the disk open.
    #[error("{0}: disk is in use")]
    InUse(String),
    /// A read went past the end of the file.
    #[error("read {name} at {offset}: {read_bytes} of {wanted_bytes} bytes")]
    ShortRead {
        /// The file.
        name: String,
        /// First byte that was asked for.
        offset: u64,
        /// Bytes asked for.
        wanted_bytes: u64,
        /// Bytes that are there.
        read_bytes: u64,
    },
    /// The operating system or the device refused.
    #[error("{0}")]
    Io(String),
}

impl DiskError {
    /// What it means for the caller, whoever that is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Exists(_) => ErrorKind::Exists,
            Self::Full(_) => ErrorKind::Exhausted,
            Self::ReadOnly(_) | Self::InUse(_) | Self::Io(_) => ErrorKind::Unavailable,
            Self::BadName(_) => ErrorKind::Bug,
            Self::ShortRead { .. } => ErrorKind::Corrupt,
        }
    }
}

/// How much a disk holds and how much of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What we may still write, in bytes.
    pub free_bytes: u64,
}

/// A disk: directories of files. The root directory is named "".
pub trait Disk: Send + Sync {
    /// Makes an empty file and opens it for reading and writing. `Exists` when the name is taken.
    ///
    /// The name is durable only after `sync_dir` of its directory.
    fn create(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Opens a file for reading and writing. `NotFound` when there is none.
    fn open(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Names of the files (not directories) in `dir`, without the directory, sorted. `NotFound` when there is no such directory.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;

    /// Gives a file another name, perhaps in another directory; durable after `sync_dir` of both. A file of the new name: `Exists`.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Takes a file's name away; durable after `sync_dir`. Open files of that name remain readable.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Makes the names in `dir` durable as they are now.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;

    /// Makes a directory and those above it, durable on return; no error when it is there already.
    fn make_dir(&self, dir: &str) -> Result<(), DiskError>;

    /// Capacity and what is left of it.
    fn space(&self) -> Result<Space, DiskError>;

    /// How long the next batch waits before it is written, where time is simulated and a call takes none. Drawn anew by each call.
    fn latency(&self) -> Duration {
        Duration::ZERO
    }
}

/// An open file of a disk. Reads and writes may run at the same time from several threads.
pub trait DiskFile: Send + Sync {
    /// Writes all of `parts`, one after the other, from byte `offset` on. On an error any part of it may have been written.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), DiskError>;

    /// Reads exactly `len_bytes` bytes; fewer are a `ShortRead`. The caller limits `len_bytes`: so much is allocated.
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError>;

    /// Makes every byte written before, and the length, durable. An error is final: what it should have covered may be lost even
    /// if a later call succeeds.
    fn sync(&self) -> Result<(), DiskError>;

    /// Length of the file in bytes.
    fn len_bytes(&self) -> Result<u64, DiskError>;

    /// Sets space aside for the first `len_bytes` bytes without changing the length, so that writing there meets no full disk; a
    /// disk that cannot does nothing. `Full` when there is not so much.
    fn allocate(&self, len_bytes: u64) -> Result<(), DiskError>;
}

/// Refuses whatever is not a relative path of plain parts; "" is allowed where it names the root directory.
pub(crate) fn check_name(name: &str) -> Result<(), DiskError> {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    if name.split('/').all(is_plain) {
        Ok(())
    } else {
        Err(DiskError::BadName(name.to_owned()))
    }
}

/// The directory that `name` lies in; "" for the root.
pub(crate) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}
