//! What a metadata process says about itself: `Method::MetadataStatus`, which takes no message.

use model::id::{GroupId, RaftId};
use serde::{Deserialize, Serialize};

/// One replica of one group, as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// Who leads it; `None` while nobody is known to.
    pub leader: Option<RaftId>,
    /// The present term.
    pub term: u64,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Index of the last entry of this replica's log.
    pub last_index: u64,
    /// Whether this replica leads and a majority of the voters confirmed it just now.
    pub has_quorum: bool,
    /// Its voters.
    pub voters: Vec<RaftId>,
    /// Why this replica stopped, when it did.
    pub stopped: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataStatus {
    /// Which replica answers.
    pub replica: RaftId,
    /// Its groups.
    pub groups: Vec<GroupStatus>,
    /// Whether its directory lies on an encrypted block device; `None` when that cannot be told.
    pub is_volume_encrypted: Option<bool>,
}
