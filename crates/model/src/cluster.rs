//! The cluster map: which nodes and disks exist, where they stand, their weight and state.
//!
//! Kept by the control group, copied everywhere. Invariants: ordered containers only; every disk's node is in the map;
//! versions only grow.
//! Not here: who holds which fragment (`layout`).

use crate::id::{DiskId, MapVersion, NodeId};
use crate::profile::Domain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a node or disk is used for at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// Takes and gives fragments.
    Active,
    /// Gives fragments and takes none; being emptied.
    Draining,
    /// Declared lost; its fragments are rebuilt elsewhere. Never comes back under this id.
    Out,
}

/// A storage process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The site.
    pub region: String,
    /// The rack; unique within its region.
    pub zone: String,
    /// Where its transport listens.
    pub address: SocketAddr,
    /// Its use.
    pub membership: Membership,
}

/// A local disk of a storage process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Its node.
    pub node: NodeId,
    /// Its share of fragments, in bytes of capacity.
    pub weight_bytes: u64,
    /// Its use.
    pub membership: Membership,
}

/// Nodes and disks of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Counts changes of the map.
    pub version: MapVersion,
    /// By id.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    /// By id.
    pub disks: BTreeMap<DiskId, DiskInfo>,
}

/// A failure domain of a given disk, as a value that is equal for disks that fail together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DomainKey<'a> {
    /// A disk alone.
    Disk(DiskId),
    /// All disks of a node.
    Node(NodeId),
    /// All disks of a zone of a region.
    Zone(&'a str, &'a str),
    /// All disks of a region.
    Region(&'a str),
}

impl ClusterMap {
    /// The node of `disk`; `None` when the disk is not in the map.
    #[must_use]
    pub fn node_of(&self, disk: DiskId) -> Option<NodeId> {
        self.disks.get(&disk).map(|info| info.node)
    }

    /// The domain of kind `domain` that `disk` lies in; `None` when the disk or its node is not in the map.
    #[must_use]
    pub fn domain_of(&self, disk: DiskId, domain: Domain) -> Option<DomainKey<'_>> {
        let info = self.disks.get(&disk)?;
        let node = self.nodes.get(&info.node)?;
        Some(match domain {
            Domain::Disk => DomainKey::Disk(disk),
            Domain::Node => DomainKey::Node(info.node),
            Domain::Zone => DomainKey::Zone(&node.region, &node.zone),
            Domain::Region => DomainKey::Region(&node.region),
        })
    }

    /// Whether `disk` and its node take new fragments.
    #[must_use]
    pub fn is_active(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|info| {
            info.membership == Membership::Active
                && self
                    .nodes
                    .get(&info.node)
                    .is_some_and(|node| node.membership == Membership::Active)
        })
    }

    /// Whether `disk` still holds what it was given: it and its node are in the map and not declared out.
    #[must_use]
    pub fn holds(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|info| {
            info.membership != Membership::Out
                && self
                    .nodes
                    .get(&info.node)
                    .is_some_and(|node| node.membership != Membership::Out)
        })
    }

    /// Disks of `node`, in the order of their ids.
    pub fn disks_of(&self, node: NodeId) -> impl Iterator<Item = DiskId> + '_ {
        self.disks
            .iter()
            .filter(move |(_, info)| info.node == node)
            .map(|(id, _)| *id)
    }
}
