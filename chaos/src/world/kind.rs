//! Sorts of worlds: what their users do, and how fast what nobody wants any more may go.
//!
//! Not here: what users do (`workload`, `turnover`), what must hold of it (`oracle`).

use metadata_raft::group::LogBounds;
use model::limits::{BIRTH_EPOCH_DEV, BLOCK_GRACE_DEV};
use std::str::FromStr;
use std::time::Duration;

/// Far longer than any world lasts.
const NEVER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Of a world of collection: blocks die under attack too, and most uploads that meet no fault end within one grace.
const GRACE: Duration = Duration::from_secs(30);
/// As in production (7 days and an hour) a grace has so many epochs that a whole turn of the search for orphans, at most 72 of them,
/// fits between the death of a block and the end of a second grace.
const EPOCH: Duration = Duration::from_millis(250);
const _: () = assert!(
    GRACE.as_millis() > 72 * EPOCH.as_millis() + 10_000,
    "a turn and some looks fit into a grace"
);
/// Some entries a second go through a group, so the log of one is marked and purged many times, and whoever is away for as long as the
/// nemesis keeps it away (`nemesis`) needs a snapshot.
const LOG_BOUNDS: LogBounds = LogBounds {
    entries_between_marks: 16,
    entries_kept: 8,
    look_every: Duration::from_secs(1),
};
/// The same where groups are told the time eight times a second.
const LOG_BOUNDS_COLLECTION: LogBounds = LogBounds {
    entries_between_marks: 64,
    entries_kept: 32,
    ..LOG_BOUNDS
};
/// A segment leaves limbo while the world lasts, so that a long one does not keep every byte that was ever written.
const LIMBO: Duration = Duration::from_secs(5);

/// Which sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A few names that everybody works on, so that operations meet.
    #[default]
    Names,
    /// Contents that come, are shared and go for good, with collection at work.
    Collection,
    /// The few names, while disks are emptied and taken back, so that rows change under everybody.
    Layout,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Names, Self::Collection, Self::Layout];

    /// As the command line writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Collection => "collection",
            Self::Layout => "layout",
        }
    }

    /// Length of a birth epoch.
    #[must_use]
    pub fn birth_epoch(self) -> Duration {
        match self {
            Self::Names | Self::Layout => BIRTH_EPOCH_DEV,
            Self::Collection => EPOCH,
        }
    }

    /// How long a block without a reference waits.
    #[must_use]
    pub fn block_grace(self) -> Duration {
        match self {
            Self::Names | Self::Layout => BLOCK_GRACE_DEV,
            Self::Collection => GRACE,
        }
    }

    /// How long the logs of groups get.
    #[must_use]
    pub fn log_bounds(self) -> LogBounds {
        match self {
            Self::Names | Self::Layout => LOG_BOUNDS,
            Self::Collection => LOG_BOUNDS_COLLECTION,
        }
    }

    /// How long a node's dead segments wait.
    #[must_use]
    pub fn limbo(self) -> Duration {
        match self {
            Self::Names | Self::Layout => NEVER,
            Self::Collection => LIMBO,
        }
    }

    /// What passes between the last fault and the look at what is left, beside what every world takes.
    #[must_use]
    pub fn quiet(self) -> Duration {
        match self {
            Self::Names | Self::Layout => Duration::ZERO,
            Self::Collection => 2 * GRACE,
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| format!("take one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}
