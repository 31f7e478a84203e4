//! Whether a directory lies on an encrypted block device.
//!
//! Names and the tree are protected by the encrypted metadata volume and by nothing else, so an operator must see when it is
//! missing. Source: the kernel's list of mounts, and the device-mapper's uuid, which begins with `CRYPT-` for LUKS and plain
//! dm-crypt (cryptsetup FAQ).
//! Invariant: what cannot be told is `None`, never a guess.

use daemon::resources;
use std::path::Path;

/// True or false when the kernel tells; `None` when it does not (no such device, no right to look).
#[must_use]
pub fn is_encrypted(directory: &Path) -> Option<bool> {
    resources::device_mapper_uuid(directory).map(|uuid| uuid.is_some_and(|uuid| uuid.starts_with("CRYPT-")))
}
