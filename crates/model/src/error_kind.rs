//! The closed list of error kinds: what an error means for the caller, wherever it arose.
//!
//! Kinds travel on the wire and every front maps them to its own status in one table.
//! Invariant: only `Busy` and `Unavailable` may be retried blindly; `Ambiguous` means that it perhaps happened.
//! Not here: codes and texts of single situations (each package's own error enum).

use serde::{Deserialize, Serialize};

/// What an error means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// It does not exist, or the caller may not know that it does.
    NotFound,
    /// Something of that name is there already.
    Exists,
    /// Somebody else was first; read again and decide.
    Conflict,
    /// The caller is known and may not, or is not known.
    Denied,
    /// The request can never succeed as it stands.
    Invalid,
    /// The request passes a fixed limit.
    TooLarge,
    /// Space, quota or rate is used up.
    Exhausted,
    /// Too much at once; retry after a pause.
    Busy,
    /// Not reachable or not enough replicas; retry.
    Unavailable,
    /// Perhaps it happened; read before trying again.
    Ambiguous,
    /// The position is no longer valid; start over.
    Reset,
    /// Stored or received bytes fail their check.
    Corrupt,
    /// Our own fault.
    Bug,
}

impl ErrorKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::Exists,
        Self::Conflict,
        Self::Denied,
        Self::Invalid,
        Self::TooLarge,
        Self::Exhausted,
        Self::Busy,
        Self::Unavailable,
        Self::Ambiguous,
        Self::Reset,
        Self::Corrupt,
        Self::Bug,
    ];

    /// Whether the same request may be sent again without reading first.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy | Self::Unavailable)
    }
}
