//! Who lives in the simulated world, where each listens, and what each is told at its start.
//!
//! Three regions; in each one metadata replica and two storage nodes of two disks; one gateway. The profile is `dev` (4+2), so the
//! loss of a whole region is survived.
//! Not here: what a process stands on (`processes`).

use crate::world::kind::Kind;
use metadata_raft::config::{Config as MetadataConfig, ReplicaSite, Timing};
use model::id::{ClusterId, DiskId, GroupId, NodeId, RaftId};
use model::limits::QUOTA_BYTES_DEV;
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use node::config::{Config as NodeConfig, DiskConfig};
use protocol::metadata::control::ClusterSettings;
use rpc::transport::Peer;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The cluster of every simulated world.
pub const CLUSTER: ClusterId = ClusterId(1);
/// Bytes that a simulated disk holds.
pub const DISK_BYTES: u64 = 1 << 30;

const REPLICAS: u64 = 3;
const NODES: u64 = 6;
const DISKS_PER_NODE: u32 = 2;
const GROUPS: u32 = 2;
const PORT: u16 = 7000;
/// The first of the drive groups.
pub const FIRST_GROUP: GroupId = GroupId(1);
/// Bytes of a segment, of nodes and replicas.
pub const SEGMENT_BYTES: u64 = 8 << 20;
const NEVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// The one gateway.
pub const GATEWAY: ProcessId = ProcessId {
    role: Role::Gateway,
    number: 1,
};

/// Where the users are: on no process's host, so that none of them ends with it.
pub const USERS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 4, 1));

fn numbered(role: Role, count: u64) -> impl Iterator<Item = ProcessId> {
    (1..=count).map(move |number| ProcessId { role, number })
}

/// The metadata replicas, in order.
pub fn replicas() -> impl Iterator<Item = ProcessId> {
    numbered(Role::Metadata, REPLICAS)
}

/// The storage nodes, in order.
pub fn nodes() -> impl Iterator<Item = ProcessId> {
    numbered(Role::Node, NODES)
}

/// Every process, in a fixed order.
pub fn all() -> impl Iterator<Item = ProcessId> {
    replicas().chain(nodes()).chain(std::iter::once(GATEWAY))
}

/// Where a process lives; the same in all of its lives.
#[must_use]
pub fn host(process: ProcessId) -> IpAddr {
    let network = match process.role {
        Role::Metadata => 1,
        Role::Node => 2,
        Role::Gateway | Role::Admin => 3,
    };
    let number = u8::try_from(process.number).expect("a world has fewer than 256 processes of a role");
    IpAddr::V4(Ipv4Addr::new(192, 168, network, number))
}

/// Where it listens.
#[must_use]
pub fn address(process: ProcessId) -> SocketAddr {
    SocketAddr::new(host(process), PORT)
}

/// How others call it.
#[must_use]
pub fn peer(process: ProcessId) -> Peer {
    Peer {
        process,
        address: address(process),
    }
}

/// The region that a process stands in, from `r1`.
#[must_use]
pub fn region(process: ProcessId) -> String {
    let at = match process.role {
        Role::Node => (process.number - 1) / 2,
        _ => process.number - 1,
    };
    format!("r{}", at + 1)
}

/// The drive groups.
pub fn groups() -> impl Iterator<Item = GroupId> {
    (FIRST_GROUP.0..FIRST_GROUP.0 + GROUPS).map(GroupId)
}

/// A span as settings have it.
fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).expect("what a world waits for fits")
}

/// What a metadata replica is told; the same about leases for all of a world.
#[must_use]
pub fn metadata_config(process: ProcessId, lease_reads: bool, kind: Kind) -> MetadataConfig {
    let site = |replica| ReplicaSite {
        region: region(replica),
        zone: "z1".to_owned(),
    };
    MetadataConfig {
        replica: RaftId(process.number),
        data_dir: PathBuf::from("/simulated"),
        replicas: replicas()
            .map(|replica| (RaftId(replica.number), address(replica)))
            .collect(),
        sites: replicas().map(site).collect(),
        settings: ClusterSettings {
            default_profile: ProfileId::Dev,
            default_quota_bytes: QUOTA_BYTES_DEV,
            birth_epoch_ms: ms(kind.birth_epoch()),
            block_grace_ms: ms(kind.block_grace()),
        },
        groups: groups().collect(),
        timing: Timing::Lan,
        lease_reads,
        nodes_expected: usize::try_from(NODES).expect("six fit"),
        require_encrypted_volume: false,
        segment_bytes: SEGMENT_BYTES,
        age_every: kind.birth_epoch() / 2,
        log_bounds: kind.log_bounds(),
    }
}

/// The disks of a storage node.
pub fn disks(process: ProcessId) -> impl Iterator<Item = DiskId> {
    let number = u32::try_from(process.number).expect("a world has few nodes");
    let first = (number - 1) * DISKS_PER_NODE + 1;
    (first..first + DISKS_PER_NODE).map(DiskId)
}

/// What a storage node is told.
#[must_use]
pub fn node_config(process: ProcessId, kind: Kind) -> NodeConfig {
    let disk = |disk| DiskConfig {
        disk,
        path: PathBuf::from(format!("/simulated/disk-{disk}")),
        capacity_bytes: Some(DISK_BYTES),
    };
    NodeConfig {
        node: NodeId(u32::try_from(process.number).expect("a world has few nodes")),
        data_dir: PathBuf::from("/simulated/register"),
        disks: disks(process).map(disk).collect(),
        segment_bytes: SEGMENT_BYTES,
        scrub_period: NEVER,
        limbo: kind.limbo(),
    }
}
