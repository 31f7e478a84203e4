//! Whether a dev cluster of a given shape can hold its profile, and how large its disks are.

use crate::cli::DevArguments;
use anyhow::{Context, bail, ensure};
use daemon::resources;
use model::cluster::{ClusterMap, DiskInfo, Membership, NodeInfo};
use model::id::{DiskId, MapVersion, NodeId};
use model::profile::ProfileId;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

/// Below this a disk cannot hold its reserve of segments and anything else.
const DISK_BYTES_MIN: u64 = 256 << 20;

/// The profile of the arguments; refuses one that the shape cannot hold and names those that fit.
pub(crate) fn profile(arguments: &DevArguments) -> anyhow::Result<ProfileId> {
    let Some(profile) = ProfileId::parse(&arguments.profile) else {
        bail!(
            "--profile {} is unknown; use {}",
            arguments.profile,
            ProfileId::ALL.map(ProfileId::as_str).join(" or ")
        );
    };
    let map = map_of(arguments);
    if !placement::margins::can_hold(profile.profile(), &map) {
        let fitting: Vec<&str> = placement::margins::fitting(&map)
            .into_iter()
            .map(ProfileId::as_str)
            .collect();
        bail!(
            "{} regions of {} nodes with {} disks cannot hold the profile {profile}; {}",
            arguments.regions,
            arguments.nodes_per_region,
            arguments.disks_per_node,
            if fitting.is_empty() {
                "add disks or nodes".to_owned()
            } else {
                format!("--profile {} fits", fitting.join(" or "))
            }
        );
    }
    ensure!(
        matches!(arguments.metadata, 1 | 3 | 5),
        "--metadata {} is neither 1 nor 3 nor 5",
        arguments.metadata
    );
    Ok(profile)
}

/// The cluster map that the arguments will give, for questions about it.
pub(crate) fn map_of(arguments: &DevArguments) -> ClusterMap {
    let mut map = ClusterMap {
        version: MapVersion(1),
        ..ClusterMap::default()
    };
    let (mut node, mut disk) = (0, 0);
    for region in 1..=arguments.regions {
        for _ in 0..arguments.nodes_per_region {
            node += 1;
            let address = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));
            let info = NodeInfo {
                region: format!("r{region}"),
                zone: "z1".to_owned(),
                address,
                membership: Membership::Active,
            };
            map.nodes.insert(NodeId(node), info);
            for _ in 0..arguments.disks_per_node {
                disk += 1;
                let info = DiskInfo {
                    node: NodeId(node),
                    weight_bytes: 1 << 30,
                    membership: Membership::Active,
                };
                map.disks.insert(DiskId(disk), info);
            }
        }
    }
    map
}

/// The capacity of each disk in bytes: as asked, or the free space under `directory` divided by the number of disks.
pub(crate) fn disk_bytes(arguments: &DevArguments, directory: &Path) -> anyhow::Result<u64> {
    let disks =
        u64::from(arguments.regions) * u64::from(arguments.nodes_per_region) * u64::from(arguments.disks_per_node);
    let bytes = match &arguments.disk_capacity {
        Some(text) => parse_size("--disk-capacity", text)?,
        None => {
            resources::space_of(directory)
                .with_context(|| format!("look at {}", directory.display()))?
                .available
                / disks.max(1)
        }
    };
    ensure!(
        bytes >= DISK_BYTES_MIN,
        "each disk would have {bytes} bytes, which is under 256 MiB; free some space or use fewer disks"
    );
    Ok(bytes)
}

/// The bytes of a size such as `20G`; `option` is named in errors.
pub(crate) fn parse_size(option: &str, text: &str) -> anyhow::Result<u64> {
    let (digits, factor) = match text
        .trim_end_matches(['B', 'b', 'i'])
        .split_at_checked(text.trim_end_matches(['B', 'b', 'i']).len().saturating_sub(1))
    {
        Some((digits, "K" | "k")) => (digits, 1 << 10),
        Some((digits, "M" | "m")) => (digits, 1 << 20),
        Some((digits, "G" | "g")) => (digits, 1 << 30),
        Some((digits, "T" | "t")) => (digits, 1 << 40),
        _ => (text, 1),
    };
    let count: u64 = digits
        .parse()
        .with_context(|| format!("{option} {text} is no size; write it as 20G"))?;
    count
        .checked_mul(factor)
        .with_context(|| format!("{option} {text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_read_with_and_without_units() {
        let cases = [
            ("1", Some(1)),
            ("2K", Some(2048)),
            ("20G", Some(20 << 30)),
            ("20GiB", Some(20 << 30)),
            ("x", None),
            ("", None),
            ("9999999999T", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size("--size", text).ok(), bytes, "{text}");
        }
    }
}
