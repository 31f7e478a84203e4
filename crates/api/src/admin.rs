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
    /// How the stripes of all drive groups stand.
    pub stripes: StripeCounts,
    /// Whether every metadata directory lies on an encrypted block device; absent when a replica did not answer or cannot tell,
    /// and none is known to be open.
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
    /// `healthy`, `full`, `read_only`, `missing`, or `away` while its node does not answer.
    pub state: String,
    /// Why it is read-only or missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes of fragments it may hold.
    pub capacity_bytes: u64,
    /// Bytes in use; absent while the node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    /// Fragments on its list of damaged ones; absent while the node does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_fragments: Option<u64>,
}

/// A Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupRow {
    /// Its number; 0 is the control group.
    pub id: u32,
    /// The replica that leads it, confirmed by a majority just now; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<u64>,
    /// The leader's term, else the greatest that a replica told; absent when none answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Its voters.
    pub voters: Vec<u64>,
    /// The greatest log index that a replica has applied.
    pub applied: u64,
    /// One for each voter, by id.
    pub replicas: Vec<ReplicaRow>,
}

/// A replica of a Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaRow {
    /// Its Raft id.
    pub id: u64,
    /// `up`, `stopped` when it gave itself up, or `away` while its process does not answer.
    pub state: String,
    /// Why it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last log index that it applied; absent while it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<u64>,
    /// Entries of the leader's log that it has not applied yet; absent without a leader or an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
}

/// How many stripes there are and how they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StripeCounts {
    /// Stripes that are known.
    pub total: u64,
    /// Of these, with a fragment that is missing or lies outside its row.
    pub degraded: u64,
    /// Fragments that are missing or lie outside their row.
    pub astray: u64,
    /// Of these, fragments that are missing.
    pub missing: u64,
    /// Stripes with fewer fragments than a read needs.
    pub damaged: u64,
    /// Stripes without living content, which wait to be collected.
    pub dying: u64,
    /// Whether every drive group told its counts; when not, the sums are those of the others.
    pub is_complete: bool,
}
