//! Commands and answers of the control group: who takes part in the cluster, where fragments go, which group serves which slot.
//!
//! Invariants: a process has the number of its certificate, which the cluster's authority never issues for another; a disk's number
//! belongs for ever to the node that registered it first, so that another node's disk never takes it over.
//! Not here: planning rows (`placement`).

use model::cluster::{ClusterMap, Membership, NodeInfo};
use model::id::{ClusterId, DiskId, GroupId, MapVersion, NodeId, RaftId, Slot};
use model::layout::LayoutTable;
use model::process::ProcessId;
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
    /// Takes in a metadata replica or gateway under the number of its identity, or its newer address.
    RegisterProcess {
        /// Its role and number; nodes use `RegisterNode`.
        id: ProcessId,
        /// Where its transport listens.
        address: SocketAddr,
        /// Its site.
        region: String,
        /// Its rack.
        zone: String,
    },
    /// Takes in a storage node under the number of its identity, or its newer address, with those of its disks that it can see.
    /// All of them or none: the first layout must not be planned over half a node.
    RegisterNode {
        /// Its number.
        node: NodeId,
        /// Where it stands and listens.
        info: NodeInfo,
        /// Disks that are there, each number once; others of the node stay as they are.
        disks: Vec<NodeDisk>,
    },
    /// Names the KEK that wraps the cluster's drive keys; the same again is no error, another is `kek_differs`.
    AdoptKek {
        /// The KEK's public name, from which nothing of the key follows.
        kek: String,
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
    /// Gives slots that no group has to a group, which adopts them by a command of its own; one of another group is `slot_owned`,
    /// and none is given then.
    AssignSlots {
        /// First and last slot and their group; the group must be known.
        ranges: Vec<SlotRange>,
    },
    /// Says who is made the first administrator; the same name again is no error, another is `setup_done`. A cluster has one
    /// setup token, and by this it is spent.
    ClaimSetup {
        /// The folded username.
        name: String,
    },
}

/// A disk as its node registers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDisk {
    /// Its number.
    pub disk: DiskId,
    /// Bytes that it can take.
    pub weight_bytes: u64,
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
