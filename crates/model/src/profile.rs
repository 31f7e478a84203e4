//! Durability profiles: k, m, and which loss a write must survive.
//!
//! Invariants: ids are stored and sent, so a profile's id, k and m never change; domains are ordered by size.
//! Not here: whether a cluster can hold a profile (`placement`).

use serde::{Deserialize, Serialize};
use std::fmt;

/// A failure domain, ordered from the smallest to the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// One local disk of a storage node.
    Disk,
    /// One storage process.
    Node,
    /// A rack.
    Zone,
    /// A site.
    Region,
}

impl Domain {
    /// All domains, smallest first.
    pub const ALL: [Self; 4] = [Self::Disk, Self::Node, Self::Zone, Self::Region];

    /// The word in configuration, receipts and metrics.
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

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The stored number of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ProfileId {
    /// 4+2 for one small machine or six small nodes.
    Dev = 1,
    /// 5+4 over three regions.
    Standard = 2,
    /// 2+1 over three nodes of one region.
    Single = 3,
    /// 2+1 over three disks of one node.
    Solo = 4,
    /// Three whole copies, for stripes of at most 16 KiB.
    Copies = 5,
}

/// A named durability scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its stored number.
    pub id: ProfileId,
    /// Data fragments of a stripe.
    pub k: u8,
    /// Parity fragments of a stripe.
    pub m: u8,
    /// The loss that a write is meant to survive.
    pub target: Domain,
    /// The least loss that an acknowledged write survives.
    pub floor: Domain,
}

impl ProfileId {
    /// All profiles, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Dev, Self::Standard, Self::Single, Self::Solo, Self::Copies];

    /// The number that is stored.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// Reads a stored number; `None` for one this release does not know.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.number() == number)
    }

    /// The word in configuration, receipts and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Standard => "standard",
            Self::Single => "single",
            Self::Solo => "solo",
            Self::Copies => "copies",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.as_str() == text)
    }

    /// The scheme of this number.
    #[must_use]
    pub const fn profile(self) -> Profile {
        let (k, m, target, floor) = match self {
            Self::Dev => (4, 2, Domain::Region, Domain::Disk),
            Self::Standard => (5, 4, Domain::Region, Domain::Node),
            Self::Single => (2, 1, Domain::Node, Domain::Disk),
            Self::Solo => (2, 1, Domain::Disk, Domain::Disk),
            Self::Copies => (1, 2, Domain::Region, Domain::Node),
        };
        Profile {
            id: self,
            k,
            m,
            target,
            floor,
        }
    }
}

impl Profile {
    /// Fragments of a stripe: `k + m`.
    #[must_use]
    pub fn fragments(&self) -> usize {
        usize::from(self.k) + usize::from(self.m)
    }
}

impl fmt::Display for ProfileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::ProfileId;

    #[test]
    fn numbers_and_words_read_back_and_floors_lie_below_targets() {
        for id in ProfileId::ALL {
            assert_eq!(ProfileId::from_number(id.number()), Some(id));
            assert_eq!(ProfileId::parse(id.as_str()), Some(id));
            assert!(id.profile().floor <= id.profile().target);
        }
        assert_eq!(ProfileId::from_number(0), None);
    }
}
