//! The receipt of a write: what it survives, in a form that can be proved later.
//!
//! Invariants: `survives` is the minimum over the stripes of all blocks of the version; the MAC covers every other field in
//! `signed_text`, so a receipt cannot be improved after the fact.
//! Not here: the key of the MAC (`gateway::drive::receipt`).

use crate::timestamp::Timestamp;
use model::profile::Domain;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The largest domain whose loss leaves the content readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Survives {
    /// One local disk of a storage node.
    Disk,
    /// One storage process.
    Node,
    /// A rack.
    Zone,
    /// A site.
    Region,
}

impl From<Domain> for Survives {
    fn from(domain: Domain) -> Self {
        match domain {
            Domain::Disk => Self::Disk,
            Domain::Node => Self::Node,
            Domain::Zone => Self::Zone,
            Domain::Region => Self::Region,
        }
    }
}

impl Survives {
    /// The word in the JSON form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Region => "region",
        }
    }
}

/// What the cluster promised when it acknowledged a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The drive's durability scheme.
    pub profile: String,
    /// The largest domain whose loss leaves the content readable.
    pub survives: Survives,
    /// Whether a fragment is missing or shares a node against the profile.
    pub degraded: bool,
    /// The file.
    pub entry: String,
    /// Its version.
    pub version: u64,
    /// Digest of the content in lower-case hex.
    pub digest: String,
    /// A position in the drive's feed right behind this change.
    pub cursor: String,
    /// When it was acknowledged.
    pub time: Timestamp,
    /// BLAKE3 over `signed_text`, keyed by the cluster, in lower-case hex.
    pub mac: String,
}

impl Receipt {
    /// The text that the MAC covers: every other field, one a line, in the order of declaration.
    #[must_use]
    pub fn signed_text(&self) -> String {
        format!(
            "holdfast receipt 1\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n",
            self.profile,
            self.survives.as_str(),
            self.degraded,
            self.entry,
            self.version,
            self.digest,
            self.cursor,
            self.time
        )
    }
}
