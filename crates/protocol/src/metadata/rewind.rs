//! Rewinding: a folder's files as they were at an instant, by a job that first notes what it would change.
//!
//! Invariants: what a job changes was noted before, with the revision at which it was seen; what has another revision by then is left
//! alone and told. Instants are wall time, as versions and the trash show it; nothing is destroyed by them.
//! Not here: the commands themselves (`drive::DriveCommand`).

use model::id::EntryId;
use model::time::WallTime;
use serde::{Deserialize, Serialize};

/// What somebody wants rewound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindOrder {
    /// A folder with all below it, or a file.
    pub entry: EntryId,
    /// The instant.
    pub to: WallTime,
    /// Whether what was made since stays; else it goes into the trash.
    pub keeps_created: bool,
    /// Whether the job ends with the list of what it would change.
    pub is_dry_run: bool,
}

/// How far a rewind is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewindStage {
    /// It looks for what to change.
    Looking,
    /// A dry run that has listed everything.
    Planned,
    /// It changes what it has listed.
    Working,
    /// Everything listed was changed or left.
    Done,
    /// It ended before: the word of the code.
    Stopped(String),
}

/// What a rewind has seen and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindCounts {
    /// Files and folders looked at.
    pub looked_at: u64,
    /// What was listed.
    pub listed: u64,
    /// Of these, changed.
    pub done: u64,
    /// Of these, left alone.
    pub left: u64,
}

/// A rewind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindFacts {
    /// The number of its job.
    pub job: u64,
    /// What was asked for.
    pub order: RewindOrder,
    /// When.
    pub begun: WallTime,
    /// How far it is.
    pub stage: RewindStage,
    /// What it has seen and done.
    pub counts: RewindCounts,
}

/// What a rewind does to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewindAction {
    /// Makes the content of this version the current one again.
    Content {
        /// The version that was current at the instant.
        version: u64,
    },
    /// Moves into the trash what was made since.
    Trash,
    /// Takes out of the trash what went there since.
    Untrash,
    /// Nothing: the content of that instant is not kept any more.
    Gone,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RewindOutcome {
    /// Listed.
    Planned,
    /// Changed.
    Done,
    /// Left alone, with the word of the code that says why; `revision_conflict` when it was changed after it was listed.
    Left(String),
}

/// One entry that a rewind lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindItem {
    /// Counts from 0, in the order of work.
    pub index: u64,
    /// Which.
    pub entry: EntryId,
    /// Its path at the time of the answer; `None` when it is gone.
    pub path: Option<String>,
    /// What is to be done.
    pub action: RewindAction,
    /// What became of it.
    pub outcome: RewindOutcome,
}

/// A rewind with a part of its list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindPage {
    /// The rewind.
    pub facts: RewindFacts,
    /// Ascending by index.
    pub items: Vec<RewindItem>,
    /// Whether more are listed behind these.
    pub has_more: bool,
}
