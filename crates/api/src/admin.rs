//! The cluster as its operator sees it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// By id.
    pub nodes: Vec<NodeRow>,
    /// By id.
    pub groups: Vec<GroupRow>,
    /// Stripes that are not as their profile wants them.
    pub stripes: StripeCounts,
    /// Whether every metadata directory lies on an encrypted block device; absent when a replica did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata_volume_encrypted: Option<bool>,
}

/// A storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRow {
    /// Its number.
    pub id: u32,
    /// The site.
    pub region: String,
    /// The rack.
    pub zone: String,
    /// `up` or `away`, then `active`, `draining` or `out`, as `up active`.
    pub state: String,
    /// By id.
    pub disks: Vec<DiskRow>,
}

/// A disk of a storage node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskRow {
    /// Its number.
    pub id: u32,
    /// `healthy`, `read_only`, `missing`, `away`, or a word of the node's.
    pub state: String,
    /// Bytes of fragments it may hold.
    pub capacity_bytes: u64,
    /// Bytes in use; absent while the node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
}

/// A Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupRow {
    /// Its number; 0 is the control group.
    pub id: u32,
    /// The replica that leads it; absent while none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    /// Its voters.
    pub voters: Vec<u64>,
    /// The last log index that the answering replica applied.
    pub applied: u64,
}

/// Counts of stripes by what is wrong with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StripeCounts {
    /// With a fragment missing or outside its row.
    pub degraded: u64,
}
