//! Commands and answers of the control group: who takes part in the cluster, where fragments go, which group serves which slot.
//!
//! Invariants: numbers are given out by the group and never again; a registration with the same install number is answered with
//! the first number, so that a process that crashed before it noted its number does not leave a hole of a ghost.
//! Not here: planning rows (`placement`).

use model::cluster::{ClusterMap, DiskInfo, Membership, NodeInfo};
use model::id::{ClusterId, DiskId, GroupId, MapVersion, NodeId, RaftId, Slot};
use model::layout::LayoutTable;
use model::process::{ProcessId, Role};
use model::profile::ProfileId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What the whole cluster agrees on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// The profile of drives made from now on.
    pub default_profile: ProfileId,
    /// The quota of drives made from now on, in bytes.
    pub default_quota_bytes: u64,
    /// Length of a birth epoch in milliseconds; fixed when the cluster is made.
    pub birth_epoch_ms: u64,
    /// How long a block without reference stays proposable, in aged milliseconds.
    pub block_grace_ms: u64,
}

/// A command to the control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlCommand {
    /// Makes the cluster; the same again is no error, another cluster is `cluster_exists`.
    InitCluster {
        /// Its id.
        cluster: ClusterId,
        /// Its settings.
        settings: ClusterSettings,
    },
    /// Replaces the settings; the birth epoch's length cannot change.
    SetSettings(ClusterSettings),
    /// Gives a metadata replica, gateway or admin its number, or takes its newer address.
    RegisterProcess {
        /// Random number that the process keeps in its data directory.
        install: u128,
        /// Its role; nodes use `RegisterNode`.
        role: Role,
        /// Where its transport listens.
        address: SocketAddr,
        /// Its site.
        region: String,
        /// Its rack.
        zone: String,
    },
    /// Gives a storage node its number, or takes its newer address.
    RegisterNode {
        /// Random number that the node keeps in its data directory.
        install: u128,
        /// Where it stands and listens.
        info: NodeInfo,
    },
    /// Gives a disk its number, or takes its newer weight.
    RegisterDisk {
        /// Random number that the disk carries.
        install: u128,
        /// The disk; its node must be registered.
        info: DiskInfo,
    },
    /// Sets a node's use; `Out` is final.
    SetNode {
        /// Which.
        node: NodeId,
        /// Its use from now on.
        membership: Membership,
    },
    /// Sets a disk's use; `Out` is final.
    SetDisk {
        /// Which.
        disk: DiskId,
        /// Its use from now on.
        membership: Membership,
    },
    /// Replaces the table of one profile by a planned one.
    SetTable {
        /// The map from which it was planned; another than the present one is `stale_map`.
        planned_from: MapVersion,
        /// The whole table; rows that differ from the present ones must have greater versions.
        table: LayoutTable,
    },
    /// Says which replicas a group has.
    SetGroup {
        /// Which group.
        group: GroupId,
        /// Its voters.
        voters: Vec<RaftId>,
    },
    /// Gives slots to a group; the group adopts them by a command of its own.
    AssignSlots {
        /// First and last slot and their group; the group must be known.
        ranges: Vec<SlotRange>,
    },
}

/// Slots that one group serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRange {
    /// First slot.
    pub first: Slot,
    /// Last slot, included.
    pub last: Slot,
    /// Their group.
    pub group: GroupId,
}

/// The number that a registration got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Registered {
    /// A metadata replica, gateway or admin.
    Process(ProcessId),
    /// A storage node.
    Node(NodeId),
    /// A disk.
    Disk(DiskId),
}

/// The versions after a change of map or layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapChanged {
    /// The map's version from now on.
    pub version: MapVersion,
}

/// A process other than a storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Role and number.
    pub id: ProcessId,
    /// Where its transport listens.
    pub address: SocketAddr,
    /// Its site.
    pub region: String,
    /// Its rack.
    pub zone: String,
}

/// A Raft group and its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Which.
    pub group: GroupId,
    /// Its voters.
    pub voters: Vec<RaftId>,
}

/// The cluster as the control group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Its id.
    pub cluster: ClusterId,
    /// Its settings.
    pub settings: ClusterSettings,
    /// Nodes and disks.
    pub map: ClusterMap,
}
