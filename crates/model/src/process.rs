//! Who a process is: its role and its id, as its certificate says and as every call is checked against.
//!
//! Invariant: an identity comes out of a verified certificate, never out of a message.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a process is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Holds fragments.
    Node,
    /// Holds replicas of metadata groups.
    Metadata,
    /// Serves clients.
    Gateway,
    /// An operator's one-off command.
    Admin,
}

impl Role {
    /// The word in certificates, configuration and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Metadata => "metadata",
            Self::Gateway => "gateway",
            Self::Admin => "admin",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Node, Self::Metadata, Self::Gateway, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// A process of the cluster: its role and its number within that role (a node's `NodeId`, a replica's `RaftId`, a gateway's number).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// What it is.
    pub role: Role,
    /// Its number, never used again.
    pub number: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role.as_str(), self.number)
    }
}
