//! Whether a directory lies on an encrypted block device.
//!
//! Names and the tree are protected by the encrypted metadata volume and by nothing else, so an operator must see when it is
//! missing. Source: the kernel's description of the block device under the directory, and the device-mapper's uuid in it, which
//! begins with `CRYPT-` for LUKS and plain dm-crypt (cryptsetup FAQ).
//! Invariant: what cannot be told is `None`, never a guess.

use crate::metrics;
use daemon::metrics::Metrics;
use daemon::resources::{self, BlockDevice};
use std::path::Path;

/// What the gauge and the log say of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Every byte passes an encrypted device.
    Encrypted,
    /// Some byte lies on a device as it is written.
    Open,
    /// The kernel does not tell: no device of its own (overlay, btrfs, a network file system), or no right to look.
    Unknown,
}

impl Protection {
    /// As the status tells it.
    #[must_use]
    pub fn is_encrypted(self) -> Option<bool> {
        match self {
            Self::Encrypted => Some(true),
            Self::Open => Some(false),
            Self::Unknown => None,
        }
    }

    /// As the gauge shows it: 1, 0, and -1 for unknown.
    #[must_use]
    pub fn gauge(self) -> i64 {
        match self {
            Self::Encrypted => 1,
            Self::Open => 0,
            Self::Unknown => -1,
        }
    }
}

/// Says at a start what protects `directory`, loudly unless it is encrypted, in the log and in the gauge.
///
/// False when an encrypted volume `is_required` and `directory` is not known to lie on one: the replica is not to start.
#[must_use]
pub fn report(directory: &Path, is_required: bool, metrics: &Metrics) -> bool {
    let protection = protection(directory);
    let gauge = metrics.gauge(&metrics::VOLUME_ENCRYPTED);
    gauge.with_label_values::<&str>(&[]).set(protection.gauge());
    let dir = directory.display();
    match protection {
        Protection::Encrypted => tracing::info!(%dir, "metadata volume is encrypted"),
        _ if is_required => return false,
        Protection::Open => tracing::warn!(%dir, "metadata volume is not encrypted: names lie in the clear"),
        Protection::Unknown => tracing::warn!(
            %dir,
            "metadata volume: cannot tell whether it is encrypted, so names may lie in the clear"
        ),
    }
    true
}

/// What protects `directory`.
#[must_use]
pub fn protection(directory: &Path) -> Protection {
    match resources::block_device(directory) {
        Some(device) if is_encrypted(&device) => Protection::Encrypted,
        Some(_) => Protection::Open,
        None => Protection::Unknown,
    }
}

/// Whether the device or all that it lies on is encrypted: a volume of an encrypted array is, an array of which one member is
/// open is not.
fn is_encrypted(device: &BlockDevice) -> bool {
    let is_crypt = device
        .mapper_uuid
        .as_ref()
        .is_some_and(|uuid| uuid.starts_with("CRYPT-"));
    is_crypt || (!device.below.is_empty() && device.below.iter().all(is_encrypted))
}

#[cfg(test)]
mod tests {
    use super::{Protection, is_encrypted, protection, report};
    use daemon::metrics::Metrics;
    use daemon::resources::BlockDevice;
    use std::path::Path;

    fn device(uuid: Option<&str>, below: Vec<BlockDevice>) -> BlockDevice {
        BlockDevice {
            mapper_uuid: uuid.map(str::to_owned),
            below,
        }
    }

    fn crypt() -> BlockDevice {
        device(Some("CRYPT-LUKS2-8c1f"), vec![device(None, Vec::new())])
    }

    fn plain() -> BlockDevice {
        device(None, Vec::new())
    }

    #[test]
    fn a_directory_is_encrypted_only_when_every_way_down_passes_an_encrypted_device() {
        let cases = [
            ("a partition", plain(), false),
            ("a LUKS volume", crypt(), true),
            ("plain dm-crypt", device(Some("CRYPT-PLAIN-swap"), vec![plain()]), true),
            (
                "a logical volume on LUKS",
                device(Some("LVM-root"), vec![crypt()]),
                true,
            ),
            (
                "a logical volume on a disk",
                device(Some("LVM-root"), vec![plain()]),
                false,
            ),
            ("an array of LUKS volumes", device(None, vec![crypt(), crypt()]), true),
            (
                "an array with one open member",
                device(None, vec![crypt(), plain()]),
                false,
            ),
            (
                "a name that only mentions it",
                device(Some("LVM-CRYPT-"), vec![plain()]),
                false,
            ),
        ];
        for (what, device, expected) in cases {
            assert_eq!(is_encrypted(&device), expected, "{what}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_unknown() {
        let told = protection(Path::new("/proc"));
        assert_eq!(
            (told, told.is_encrypted(), told.gauge()),
            (Protection::Unknown, None, -1)
        );
        assert_eq!(protection(Path::new("/no such directory")), Protection::Unknown);
    }

    /// `/proc` lies on no device, so it is never known to be encrypted.
    #[test]
    fn a_replica_that_needs_an_encrypted_volume_does_not_start_without_one_and_the_gauge_says_why() {
        for is_required in [false, true] {
            let metrics = Metrics::new();
            assert_eq!(report(Path::new("/proc"), is_required, &metrics), !is_required);
            let page = metrics.encode();
            assert!(page.contains("metadata_volume_encrypted -1"), "{page}");
        }
    }
}
