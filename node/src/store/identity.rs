//! The file `identity` of a data disk: which cluster and which disk it is.
//!
//! Form: magic `HFDI`, format version (u32), cluster (u128), disk (u32), crc-free since a copy of the whole is compared: the 28
//! bytes are written twice. Integers little-endian.
//! Invariants: written once, synced, then named; a disk that holds segments and no identity is refused, never adopted.
//! Not here: what lies on the disk besides (the journal and the index).

use disk::{Disk, DiskError};
use model::id::{ClusterId, DiskId};
use thiserror::Error;

const MAGIC: [u8; 4] = *b"HFDI";
const VERSION: u32 = 1;
const COPY_BYTES: usize = 4 + 4 + 16 + 4;
const NAME: &str = "identity";
const NAME_UNFINISHED: &str = "identity.new";

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
    #[error("disk {expected}: its identity is damaged or of a newer release")]
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

/// Checks that `disk` is the expected one; an empty disk becomes it, durably on return.
///
/// `holds_data` tells whether anything of ours lies on it besides the identity.
pub fn check_or_write(disk: &dyn Disk, expected: Identity, holds_data: bool) -> Result<(), IdentityError> {
    let failed = |cause| IdentityError::Disk {
        expected: expected.disk,
        cause,
    };
    match disk.open(NAME) {
        Ok(file) => {
            let unreadable = || IdentityError::Unreadable {
                expected: expected.disk,
            };
            if file.len_bytes().map_err(failed)? != 2 * COPY_BYTES as u64 {
                return Err(unreadable());
            }
            let bytes = file.read_at(0, 2 * COPY_BYTES).map_err(failed)?;
            let found = decode(&bytes).ok_or_else(unreadable)?;
            if found.cluster != expected.cluster {
                return Err(IdentityError::OtherCluster {
                    expected: expected.disk,
                });
            }
            if found.disk != expected.disk {
                return Err(IdentityError::OtherDisk {
                    expected: expected.disk,
                    found: found.disk,
                });
            }
            Ok(())
        }
        Err(DiskError::NotFound(_)) if holds_data => Err(IdentityError::Nameless {
            expected: expected.disk,
        }),
        Err(DiskError::NotFound(_)) => write(disk, expected).map_err(failed),
        Err(cause) => Err(failed(cause)),
    }
}

/// 1. write and sync under another name, 2. rename, 3. sync the directory. A crash before 3 leaves no identity and no data.
fn write(disk: &dyn Disk, identity: Identity) -> Result<(), DiskError> {
    match disk.remove(NAME_UNFINISHED) {
        Ok(()) | Err(DiskError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let file = disk.create(NAME_UNFINISHED)?;
    let copy = encode(identity);
    file.write_at(0, &[&copy, &copy])?;
    file.sync()?;
    disk.rename(NAME_UNFINISHED, NAME)?;
    disk.sync_dir("")
}

fn encode(identity: Identity) -> [u8; COPY_BYTES] {
    let mut bytes = [0_u8; COPY_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
    bytes[8..24].copy_from_slice(&identity.cluster.0.to_le_bytes());
    bytes[24..].copy_from_slice(&identity.disk.0.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Identity> {
    let (first, second) = bytes.split_at_checked(COPY_BYTES)?;
    if first != second || first[..4] != MAGIC || first[4..8] != VERSION.to_le_bytes() {
        return None;
    }
    Some(Identity {
        cluster: ClusterId(u128::from_le_bytes(first[8..24].try_into().ok()?)),
        disk: DiskId(u32::from_le_bytes(first[24..].try_into().ok()?)),
    })
}
