//! How long the log of a group gets before its beginning goes.
//!
//! Production has one choice. The simulated world takes less of everything, so that its short lives reach the log's end.
//! Not here: who looks whether it is time (`worker::log_keeper`), what a mark is (`raft::state_machine`).

use std::time::Duration;

/// When a group marks its state, and how much of the log stays behind a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBounds {
    /// Applied entries since the last mark from which `Group::mark_if_due` makes a new one.
    pub entries_between_marks: u64,
    /// Entries kept behind a mark, so that a follower that was away shortly needs no snapshot.
    pub entries_kept: u64,
    /// How often somebody looks whether a mark is due and whether old segments can go.
    pub look_every: Duration,
}

impl LogBounds {
    /// Of every real cluster.
    pub const PRODUCTION: Self = Self {
        // A guess: seconds of writing, little to replay.
        entries_between_marks: 5_000,
        // A guess.
        entries_kept: 2_000,
        // A restart replays about this much. A guess that keeps the log within a few segments.
        look_every: Duration::from_secs(10),
    };
}
