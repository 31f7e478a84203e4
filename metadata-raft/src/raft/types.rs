//! What openraft is told about us: ids, commands and answers as opaque bytes, one leader per term.
//!
//! Invariant: nothing here depends on what a command means.
//! Not here: how any of it is persisted (`record`), since what we store is our own encoding.

use bytes::Bytes;
use model::id::RaftId;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// A command as its proposer encoded it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandBytes(pub Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandBytes({} bytes)", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying a command answered; empty for entries that are no command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerBytes(pub Bytes);

/// What the others know of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// Where its transport listens.
    pub address: SocketAddr,
}

impl Default for ReplicaInfo {
    /// The unspecified address, which nobody can call: openraft's own test suite needs a value, we never use one.
    fn default() -> Self {
        Self {
            address: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}

openraft::declare_raft_types!(
    /// Our choice of openraft's types.
    pub TypeConfig:
        D = CommandBytes,
        R = AnswerBytes,
        NodeId = u64,
        Node = ReplicaInfo,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
);

/// A position in the log with the term of its leader.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// An entry of the log.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, ReplicaInfo>;
/// Voters and learners with the position of the entry that made them so.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// The number that openraft knows a replica by.
#[must_use]
pub fn node_number(replica: RaftId) -> u64 {
    replica.0
}
