//! The file `identity` of a data disk: which cluster and which disk it is.
//!
//! Form: magic `HFDI`, format version (u32), cluster (u128), disk (u32), crc-free since a copy of the whole is compared: the 28
//! bytes are written twice. Integers little-endian. The node's register keeps files of the same form (`register.rs`).
//! Invariants: written once, synced, then named; a disk that holds segments and no identity is refused, never adopted.
//! Not here: what lies on the disk besides (the journal and the index), and whether an empty disk may become one (`register.rs`).

use disk::{Disk, DiskError};
use model::id::{ClusterId, DiskId};
use thiserror::Error;

/// The name of the file; a directory that holds it is one of our disks.
pub const IDENTITY_FILE: &str = "identity";
const MAGIC: [u8; 4] = *b"HFDI";
const VERSION: u32 = 1;
const COPY_BYTES: usize = 4 + 4 + 16 + 4;

/// Who a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its id, never used again.
    pub disk: DiskId,
}

/// Why a disk is not the one that the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Another cluster's data lies there.
    #[error(
        "disk {expected}: its directory belongs to another cluster; give this disk an empty directory or the right path"
    )]
    OtherCluster {
        /// The disk of the configuration.
        expected: DiskId,
    },
    /// Another disk of the same cluster lies there.
    #[error("disk {expected}: disk {found} lies in its directory; correct the paths of the disks")]
    OtherDisk {
        /// The disk of the configuration.
        expected: DiskId,
        /// The disk that lies there.
        found: DiskId,
    },
    /// There is data without a name.
    #[error(
        "disk {expected}: its directory holds data but no identity; restore the file `identity` or give an empty directory"
    )]
    Nameless {
        /// The disk of the configuration.
        expected: DiskId,
    },
    /// The file does not read.
    #[error("disk {expected}: its identity is damaged or of a newer release; restore the file `identity`")]
    Unreadable {
        /// The disk of the configuration.
        expected: DiskId,
    },
    /// The disk itself failed.
    #[error("disk {expected}: {cause}")]
    Disk {
        /// The disk of the configuration.
        expected: DiskId,
        /// What failed.
        cause: DiskError,
    },
}

/// Checks that `disk` says that it is the expected one; `false` when it says nothing at all.
pub fn check(disk: &dyn Disk, expected: Identity) -> Result<bool, IdentityError> {
    let failed = |cause| IdentityError::Disk {
        expected: expected.disk,
        cause,
    };
    match read_plate(disk, IDENTITY_FILE, MAGIC).map_err(failed)? {
        Plate::Absent => Ok(false),
        Plate::Unreadable => Err(IdentityError::Unreadable {
            expected: expected.disk,
        }),
        Plate::Says(cluster, _) if cluster != expected.cluster => Err(IdentityError::OtherCluster {
            expected: expected.disk,
        }),
        Plate::Says(_, number) if number != expected.disk.0 => Err(IdentityError::OtherDisk {
            expected: expected.disk,
            found: DiskId(number),
        }),
        Plate::Says(..) => Ok(true),
    }
}

/// Checks that `disk` is the expected one; an empty disk becomes it, durably on return.
///
/// `holds_data` tells whether anything of ours lies on it besides the identity.
pub fn check_or_write(disk: &dyn Disk, expected: Identity, holds_data: bool) -> Result<(), IdentityError> {
    if check(disk, expected)? {
        return Ok(());
    }
    if holds_data {
        return Err(IdentityError::Nameless {
            expected: expected.disk,
        });
    }
    write_plate(disk, "", IDENTITY_FILE, MAGIC, expected.cluster, expected.disk.0).map_err(|cause| {
        IdentityError::Disk {
            expected: expected.disk,
            cause,
        }
    })
}

/// What a file of this form says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plate {
    /// There is no such file.
    Absent,
    /// It is not of this form, or its copies differ.
    Unreadable,
    /// Cluster and number.
    Says(ClusterId, u32),
}

pub(crate) fn read_plate(disk: &dyn Disk, name: &str, magic: [u8; 4]) -> Result<Plate, DiskError> {
    let file = match disk.open(name) {
        Ok(file) => file,
        Err(DiskError::NotFound(_)) => return Ok(Plate::Absent),
        Err(error) => return Err(error),
    };
    if file.len_bytes()? != 2 * COPY_BYTES as u64 {
        return Ok(Plate::Unreadable);
    }
    let bytes = file.read_at(0, 2 * COPY_BYTES)?;
    Ok(decode(&bytes, magic).map_or(Plate::Unreadable, |(cluster, number)| Plate::Says(cluster, number)))
}

/// 1. write and sync under another name, 2. rename, 3. sync the directory. A crash before 3 leaves no identity and no data.
pub(crate) fn write_plate(
    disk: &dyn Disk,
    dir: &str,
    name: &str,
    magic: [u8; 4],
    cluster: ClusterId,
    number: u32,
) -> Result<(), DiskError> {
    let unfinished = format!("{name}.new");
    match disk.remove(&unfinished) {
        Ok(()) | Err(DiskError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let file = disk.create(&unfinished)?;
    let copy = encode(cluster, number, magic);
    file.write_at(0, &[&copy, &copy])?;
    file.sync()?;
    disk.rename(&unfinished, name)?;
    disk.sync_dir(dir)
}

fn encode(cluster: ClusterId, number: u32, magic: [u8; 4]) -> [u8; COPY_BYTES] {
    let mut bytes = [0_u8; COPY_BYTES];
    bytes[..4].copy_from_slice(&magic);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..24].copy_from_slice(&cluster.0.to_le_bytes());
    bytes[24..].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8], magic: [u8; 4]) -> Option<(ClusterId, u32)> {
    let (first, second) = bytes.split_at_checked(COPY_BYTES)?;
    if first != second || first[..4] != magic || first[4..8] != VERSION.to_le_bytes() {
        return None;
    }
    let cluster = ClusterId(u128::from_le_bytes(first[8..24].try_into().ok()?));
    Some((cluster, u32::from_le_bytes(first[24..].try_into().ok()?)))
}
